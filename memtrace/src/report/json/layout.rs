//! How a document is laid out: its parts line by line, and each row of a part, a stack or a thread, on a line of its own.
//!
//! Each character that acts on a terminal and that JSON allows as it is has an escape. The document means the same.

use std::io::{self, Write};

use serde_json::ser::Formatter;

use crate::report::escape;

/// How deep in the document values have lines of their own.
const LINES_DEPTH: usize = 2;

/// Lays out a document.
#[derive(Default)]
pub(super) struct Layout {
    /// Arrays and objects that are open.
    depth: usize,
    /// Whether the innermost of them has a value.
    has_value: bool,
}

impl Layout {
    fn begin<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &str) -> io::Result<()> {
        self.depth += 1;
        self.has_value = false;
        out.write_all(bracket.as_bytes())
    }

    fn end<W: ?Sized + Write>(&mut self, out: &mut W, bracket: &str) -> io::Result<()> {
        let has_lines = self.has_value && self.depth <= LINES_DEPTH;
        self.depth -= 1;
        if has_lines {
            self.new_line(out)?;
        }
        out.write_all(bracket.as_bytes())
    }

    fn separate<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        if self.depth <= LINES_DEPTH {
            return self.new_line(out);
        }
        out.write_all(if first { b"" } else { b" " })
    }

    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b"  "))
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, "[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, "]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.begin(out, "{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.end(out, "}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.separate(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| escape::is_unprintable(c)) {
            out.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::Serializer;

    use super::*;

    /// A row of a part is a line.
    #[test]
    fn rows_are_lines() {
        let document = serde_json::json!({
            "a": 1, "b": [], "c": {}, "d": [{"e": [2, 3], "f": {}}, {"e": []}], "g": {"h": [4, {"i": 5}]},
        });
        let mut out = Vec::new();
        document.serialize(&mut Serializer::with_formatter(&mut out, Layout::default())).unwrap();
        let expected = r#"{
  "a": 1,
  "b": [],
  "c": {},
  "d": [
    {"e": [2, 3], "f": {}},
    {"e": []}
  ],
  "g": {
    "h": [4, {"i": 5}]
  }
}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn strings() {
        // (string, as JSON)
        let cases = [
            ("grün 日本", "\"grün 日本\""),
            ("\n\u{1b}\"", r#""\n\u001b\"""#),
            ("a\u{7f}b\u{9b}\u{feff}", r#""a\u007fb\u009b\ufeff""#),
            ("\u{e0041}!", r#""\udb40\udc41!""#), // beyond 16 bits: two escapes
        ];
        for (string, expected) in cases {
            let mut out = Vec::new();
            let mut serializer = Serializer::with_formatter(&mut out, Layout::default());
            string.serialize(&mut serializer).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
