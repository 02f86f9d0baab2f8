//! Class files of Java: their beginning, and pieces of their constant pools, wherever they are cut.
//!
//! Source facts: The Java Virtual Machine Specification, 4.1 and 4.4.

/// Versions of JDK 1.1 to 40.
const MAJOR_VERSIONS: std::ops::RangeInclusive<u16> = 45..=84;
/// Constants in a row that are believed.
const MIN_CONSTANTS: usize = 6;
/// Constants that are looked at in all: a page of them has some hundreds.
const MAX_STEPS: usize = 16_384;
/// The longest text that is believed.
const MAX_TEXT: usize = 1024;

/// What was found of class files in a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// Whether one begins there.
    pub(super) has_header: bool,
    /// Bytes of constants that stand in a row.
    pub(super) pool_bytes: usize,
    /// A constant that says something: the first name of a class in the first row, or else its longest text.
    pub(super) name: Option<&'a [u8]>,
}

/// Looks through `bytes`.
pub(super) fn look(bytes: &[u8]) -> Found<'_> {
    let mut found = Found { has_header: has_header(bytes), ..Found::default() };
    let (mut at, mut n_steps) = (0, 0);
    while at < bytes.len() && n_steps < MAX_STEPS {
        // A row is begun by a text: of the other constants nothing but the number tells.
        if bytes[at] != 1 {
            at += 1;
            continue;
        }
        let row = Row::at(bytes, at);
        n_steps += row.n_constants;
        if row.n_constants < MIN_CONSTANTS || row.n_texts * 4 < row.n_constants {
            at += 1;
            continue;
        }
        found.pool_bytes += row.end - at;
        found.name = found.name.or(Some(row.class.unwrap_or(row.longest)));
        at = row.end;
    }
    found
}

fn has_header(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| {
        let major = u16::from_be_bytes([window[6], window[7]]);
        window.starts_with(&[0xca, 0xfe, 0xba, 0xbe]) && MAJOR_VERSIONS.contains(&major)
    })
}

/// Constants that stand one behind the other.
#[derive(Debug)]
struct Row<'a> {
    end: usize,
    n_constants: usize,
    n_texts: usize,
    longest: &'a [u8],
    class: Option<&'a [u8]>,
}

impl<'a> Row<'a> {
    fn at(bytes: &'a [u8], start: usize) -> Self {
        let mut row = Self { end: start, n_constants: 0, n_texts: 0, longest: &[], class: None };
        while let Some(&tag) = bytes.get(row.end) {
            let rest = &bytes[row.end..];
            let len = match tag {
                1 => match text(rest) {
                    Some(text) => {
                        row.n_texts += 1;
                        row.class = row.class.or_else(|| is_class(text).then_some(text));
                        if text.len() > row.longest.len() {
                            row.longest = text;
                        }
                        3 + text.len()
                    }
                    None => break,
                },
                3 | 4 | 9..=12 | 17 | 18 => 5,
                5 | 6 => 9,
                7 | 8 | 16 | 19 | 20 => 3,
                15 => 4,
                _ => break,
            };
            if rest.len() < len {
                break;
            }
            row.end += len;
            row.n_constants += 1;
        }
        row
    }
}

/// Whether it is like `java/lang/Object`.
fn is_class(text: &[u8]) -> bool {
    let is_of_name = |&byte: &u8| byte.is_ascii_alphanumeric() || b"/$_-".contains(&byte);
    text.contains(&b'/') && text.first() != Some(&b'/') && text.iter().all(is_of_name)
}

/// The text of a constant: its length, and bytes that are no controls.
fn text(bytes: &[u8]) -> Option<&[u8]> {
    let n = usize::from(u16::from_be_bytes([*bytes.get(1)?, *bytes.get(2)?]));
    let text = bytes.get(3..3 + n)?;
    ((1..=MAX_TEXT).contains(&n) && text.iter().all(|&byte| byte >= b' ' && byte != 0x7f))
        .then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(text: &str) -> Vec<u8> {
        [&[1, 0, text.len() as u8], text.as_bytes()].concat()
    }

    fn pool() -> Vec<u8> {
        let mut pool = Vec::new();
        for name in ["<init>", "()V", "Code", "java/lang/Object", "toString"] {
            pool.extend(utf8(name));
            pool.extend([7, 0, 9]);
            pool.extend([10, 0, 3, 0, 4]);
        }
        pool
    }

    /// A pool is found wherever it begins; chance is not enough.
    #[test]
    fn pools() {
        let pool = pool();
        let shifted = [&[0x2a, 0xb7, 0, 1, 0xb1][..], &pool].concat();
        // (bytes, header, bytes of the pool, name)
        type Want<'a> = (bool, usize, Option<&'a [u8]>);
        let object: Option<&[u8]> = Some(b"java/lang/Object");
        let cases: [(&str, Vec<u8>, Want<'_>); 6] = [
            ("a pool", pool.clone(), (false, pool.len(), object)),
            ("behind code", shifted, (false, pool.len(), object)),
            (
                "with its head",
                [&[0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 61, 0, 80][..], &pool].concat(),
                (true, pool.len(), object),
            ),
            ("another version", vec![0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 9], (false, 0, None)),
            ("one text", utf8("java/lang/Object"), (false, 0, None)),
            ("numbers", [3, 0, 0, 0, 1].repeat(100), (false, 0, None)),
        ];
        for (what, bytes, want) in cases {
            let found = look(&bytes);
            assert_eq!((found.has_header, found.pool_bytes, found.name), want, "{what}");
        }
    }

    /// A page that begins rows everywhere, each of them nearly one, is left after a bounded time.
    #[test]
    fn an_end() {
        assert_eq!(look(&[1; 4096]).pool_bytes, 0);
        assert!(look(&[1, 0, 1, b'a'].repeat(1024)).pool_bytes >= 4000);
        assert_eq!(look(&[]), Found::default());
    }
}
