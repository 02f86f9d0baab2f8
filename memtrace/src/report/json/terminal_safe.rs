//! JSON as serde writes it for people, with an escape for each character that acts on a terminal and that JSON allows as
//! it is. The document means the same.

use std::io::{self, Write};

use serde_json::ser::{Formatter, PrettyFormatter};

use crate::report::escape;

/// Lays out a document.
#[derive(Default)]
pub(super) struct TerminalSafe(PrettyFormatter<'static>);

/// Hands these calls to the formatter within.
macro_rules! as_pretty {
    ($($name:ident($($argument:ident: $of:ty)?);)*) => {
        $(fn $name<W: ?Sized + Write>(&mut self, out: &mut W $(, $argument: $of)?) -> io::Result<()> {
            self.0.$name(out $(, $argument)?)
        })*
    };
}

impl Formatter for TerminalSafe {
    as_pretty! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        begin_object_value();
        end_object_value();
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
            let mut serializer = Serializer::with_formatter(&mut out, TerminalSafe::default());
            string.serialize(&mut serializer).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
