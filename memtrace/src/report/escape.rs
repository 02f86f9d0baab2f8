//! Names from elsewhere, made fit to print.
//!
//! Thread names, symbols and paths are whatever the target made them: an escape sequence that
//! repaints the terminal, a line break that forges a line of the report, bytes that are no text.
//! What goes in is such a name; what comes out is one line of printable characters. What is fit
//! already is not copied.

use std::borrow::Cow;
use std::fmt::Write;

/// A name of any bytes as text; what is not UTF-8 becomes `\xff`, byte by byte.
#[must_use]
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 4);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            push_escaped(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    Cow::Owned(text)
}

/// A name for one line of a terminal or an SVG: `\n`, `\x1b`, `\u{202e}` in place of what is not
/// printable.
#[must_use]
pub fn line(name: &str) -> Cow<'_, str> {
    replace(name, is_unprintable)
}

/// A name for one frame of a folded stack: as [`line()`], and `;`, which divides frames, becomes `,`.
#[must_use]
pub fn frame(name: &str) -> Cow<'_, str> {
    replace(name, |c| c == ';' || is_unprintable(c))
}

/// Whether `c` acts on what is around it: controls, and the marks that turn the writing direction
/// or break or hide what they stand in. The joiners U+200C and U+200D belong to ordinary writing.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

fn replace(name: &str, is_unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !name.chars().any(&is_unfit) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        match c {
            c if !is_unfit(c) => text.push(c),
            ';' => text.push(','),
            '\t' | '\n' | '\r' => push_escaped(&mut text, format_args!("{}", c.escape_default())),
            c if c.is_ascii() => push_escaped(&mut text, format_args!("\\x{:02x}", u32::from(c))),
            c => push_escaped(&mut text, format_args!("{}", c.escape_unicode())),
        }
    }
    Cow::Owned(text)
}

fn push_escaped(text: &mut String, escape: std::fmt::Arguments<'_>) {
    text.write_fmt(escape).expect("a String takes every write");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A printable name stays as it is, whatever its language.
    #[test]
    fn fit_names_are_not_copied() {
        for name in [
            "",
            "main",
            "gr\u{fc}n \u{65e5}\u{672c} \u{1f600}",
            "a\\b \"c\" <d>&[e]",
            "\u{645}\u{6cc}\u{200c}\u{62e}",
        ] {
            assert!(matches!(line(name), Cow::Borrowed(same) if same == name), "{name}");
            assert!(matches!(frame(name), Cow::Borrowed(same) if same == name), "{name}");
            assert!(
                matches!(decode(name.as_bytes()), Cow::Borrowed(same) if same == name),
                "{name}"
            );
        }
    }

    /// Nothing that acts on a terminal or on the lines around a name goes through.
    #[test]
    fn unfit_names() {
        // (name, as a line, as a frame)
        let cases = [
            ("a;b", "a;b", "a,b"),
            ("a\nb\r\tc", r"a\nb\r\tc", r"a\nb\r\tc"),
            ("\u{1b}[31mred\u{7}", r"\x1b[31mred\x07", r"\x1b[31mred\x07"),
            ("\0\u{7f}", r"\x00\x7f", r"\x00\x7f"),
            ("\u{9b}31m", r"\u{9b}31m", r"\u{9b}31m"), // the one-character form of ESC [
            ("x\u{202e}cba\u{2066}", r"x\u{202e}cba\u{2066}", r"x\u{202e}cba\u{2066}"),
            ("a\u{2028}b\u{feff}", r"a\u{2028}b\u{feff}", r"a\u{2028}b\u{feff}"),
            ("\u{ffff}\u{e0041}", r"\u{ffff}\u{e0041}", r"\u{ffff}\u{e0041}"),
        ];
        for (name, as_line, as_frame) in cases {
            assert_eq!(line(name), as_line, "{name:?}");
            assert_eq!(frame(name), as_frame, "{name:?}");
        }
    }

    /// Bytes that are no text are shown, each as what it is.
    #[test]
    fn bytes() {
        // The kernel cuts a thread's name after 15 bytes, and so through characters.
        assert_eq!(decode(b"caf\xc3"), r"caf\xc3");
        assert_eq!(decode(b"\xff\xfe ok \xe6\x97"), r"\xff\xfe ok \xe6\x97");
    }
}
