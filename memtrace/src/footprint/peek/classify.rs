//! What a page holds, told by its bytes alone.
//!
//! Any bytes go in, one kind comes out, the first that fits: a page may hold several things. Where a chunk was freed, malloc
//! has written over its first bytes, so nothing is told by those. What is recognised by chance of random bytes is less than
//! one page in a million.

use std::fmt::Write;

use super::{PAGE_BYTES, class_file, zip};
use crate::footprint::snapshot::ContentKind;

/// A page with no more bytes than these that are not 0 is one of zeros: a free chunk's links are not its content.
const MAX_OF_ZEROS: usize = 64;
/// Parts of a page that must be a constant pool: the rest of a class file is numbers.
const MIN_CLASS_PART: usize = 8;
/// Bytes of text that a page must have, and how many of those that are not 0 must be.
const MIN_TEXT: usize = 256;
const TEXT_PERCENT: usize = 90;
/// Words of a page that must be addresses, and how many of those that are not 0.
const MIN_POINTERS: usize = 32;
const POINTER_PERCENT: usize = 40;
/// Bits of information in a byte, from which on a page can hardly be said any shorter: random bytes have 7.95 in 4 KiB.
const MIN_ENTROPY: f64 = 7.5;
/// Characters of a sample.
const SAMPLE_CHARACTERS: usize = 32;
/// Characters that make a sample of text.
const MIN_SAMPLE: usize = 6;
/// Bytes from the beginning of a line on that are better than more of them from anywhere.
const MIN_LINE: usize = 16;
/// Below this no process has memory, above it none on x86-64.
const ADDRESSES: std::ops::Range<u64> = 0x1_0000..1 << 47;

/// What a page holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) kind: ContentKind,
    /// Printable characters of it, where there are some that say what it is.
    pub(crate) sample: Option<String>,
}

/// Looks at the bytes of a page; `is_mapped` tells whether an address is one of the process's.
pub(crate) fn classify(bytes: &[u8], is_mapped: impl Fn(u64) -> bool) -> Page {
    let n_used = bytes.iter().filter(|&&byte| byte != 0).count();
    let plain = |kind| Page { kind, sample: None };
    if n_used <= MAX_OF_ZEROS {
        return plain(ContentKind::Zeros);
    }
    if let Some(name) = zip::member(bytes) {
        return Page { kind: ContentKind::Zip, sample: sample(name) };
    }
    let pool = class_file::look(bytes);
    if pool.has_header || pool.pool_bytes * MIN_CLASS_PART >= bytes.len() {
        return Page { kind: ContentKind::ClassFile, sample: pool.name.and_then(sample) };
    }
    let (n_text, longest) = text(bytes);
    if n_text >= MIN_TEXT && n_text * 100 >= n_used * TEXT_PERCENT {
        return Page { kind: ContentKind::Text, sample: sample(from_a_line(longest)) };
    }
    if is_of_pointers(bytes, is_mapped) {
        return plain(ContentKind::Pointers);
    }
    if bytes.len() as u64 >= PAGE_BYTES && entropy(bytes) >= MIN_ENTROPY {
        return plain(ContentKind::Packed);
    }
    plain(ContentKind::Other)
}

/// The first characters of `bytes`, as far as they can be printed on a line.
fn sample(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut sample = String::new();
    for c in text.chars().take(SAMPLE_CHARACTERS) {
        match c {
            '\n' | '\r' | '\t' => sample.push(' '),
            c if c.is_control() => write!(sample, "{}", c.escape_default()).ok()?,
            c => sample.push(c),
        }
    }
    Some(sample.trim().to_owned()).filter(|sample| sample.len() >= MIN_SAMPLE)
}

/// Bytes of printable text, and the longest piece of it.
fn text(bytes: &[u8]) -> (usize, &[u8]) {
    let (mut n, mut longest): (usize, &[u8]) = (0, &[]);
    for chunk in bytes.utf8_chunks() {
        for piece in chunk.valid().split(|c: char| c.is_control() && !"\n\r\t".contains(c)) {
            n += piece.len();
            if piece.len() > longest.len() {
                longest = piece.as_bytes();
            }
        }
    }
    (n, longest)
}

/// `text` from where a line begins, if enough is left of it.
fn from_a_line(text: &[u8]) -> &[u8] {
    let line = text.iter().position(|&byte| byte == b'\n').map(|end| &text[end + 1..]);
    line.filter(|line| line.len() >= MIN_LINE).unwrap_or(text)
}

fn is_of_pointers(bytes: &[u8], is_mapped: impl Fn(u64) -> bool) -> bool {
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
    let (mut n_used, mut n_pointers) = (0, 0);
    for word in words.filter(|&word| word != 0) {
        n_used += 1;
        n_pointers += usize::from(ADDRESSES.contains(&word) && is_mapped(word));
    }
    n_pointers >= MIN_POINTERS && n_pointers * 100 >= n_used * POINTER_PERCENT
}

/// Bits of information in a byte, by how often each value occurs.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    bytes.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let all = bytes.len() as f64;
    let counts = counts.into_iter().filter(|&n| n > 0);
    counts.map(|n| f64::from(n) / all).map(|part| -part * part.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(content: impl Fn(usize) -> u8) -> Vec<u8> {
        (0..PAGE_BYTES as usize).map(content).collect()
    }

    fn random(n: usize) -> u8 {
        let n = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()[1]
    }

    fn kind(bytes: &[u8]) -> ContentKind {
        classify(bytes, |address| address >> 32 == 0x7f00).kind
    }

    /// Plain kinds, each also with the links of a free chunk in it.
    #[test]
    fn kinds() {
        let line = b"one line of a log, with a number 17\n";
        let pointer = |n: usize| [(n & 0xf8) as u8, 2, 0, 9, 0x00, 0x7f, 0, 0][n % 8];
        let cases: [(&str, Vec<u8>, ContentKind); 9] = [
            ("zeros", page(|_| 0), ContentKind::Zeros),
            ("few bytes", page(|n| u8::from(n % 80 == 0)), ContentKind::Zeros),
            ("text", page(|n| line[n % line.len()]), ContentKind::Text),
            (
                "half a page of text",
                page(|n| if n < 2000 { line[n % 36] } else { 0 }),
                ContentKind::Text,
            ),
            (
                "UTF-8",
                "Größe und Maß, naïve — ".repeat(200).into_bytes()[..4096].to_vec(),
                ContentKind::Text,
            ),
            ("pointers", page(pointer), ContentKind::Pointers),
            (
                "every second word a pointer",
                page(|n| if n % 16 < 8 { pointer(n) } else { 3 }),
                ContentKind::Pointers,
            ),
            ("random", page(random), ContentKind::Packed),
            (
                "numbers",
                page(|n| if n % 4 == 0 { (n / 4) as u8 } else { 0x80 }),
                ContentKind::Other,
            ),
        ];
        for (what, mut bytes, want) in cases {
            assert_eq!(kind(&bytes), want, "{what}");
            bytes[16..24].copy_from_slice(&0x7f00_1234_5678_u64.to_le_bytes());
            bytes[24..32].copy_from_slice(&0x7f00_1234_5678_u64.to_le_bytes());
            assert_eq!(kind(&bytes), want, "{what}, with links");
        }
    }

    /// A sample is one line of few characters, and nothing in it acts on a terminal.
    #[test]
    fn samples() {
        // (bytes, sample)
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"short", None),
            (b"line\none\ttwo", Some("line one two")),
            (b"0123456789012345678901234567890123456789", Some("01234567890123456789012345678901")),
            (b"\x1b[2Jgone", Some("\\u{1b}[2Jgone")),
            ("überlang".as_bytes(), Some("überlang")),
            (b"\xff\xfe broken", Some("\u{fffd}\u{fffd} broken")),
        ];
        for (bytes, want) in cases {
            assert_eq!(sample(bytes).as_deref(), want, "{bytes:?}");
        }
        let text = page(|n| b"secret=abc\x1b[31m"[n % 15]);
        let seen = classify(&text, |_| false);
        assert_eq!(seen.kind, ContentKind::Text);
        assert!(seen.sample.unwrap().chars().all(|c| !c.is_control()));
    }
}
