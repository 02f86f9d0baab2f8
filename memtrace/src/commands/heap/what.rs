//! Which view of which file was typed.

use std::{fmt, path::PathBuf};

use anyhow::{Result, bail};

/// A view, what of, and the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct What {
    pub(super) view: View,
    pub(super) file: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum View {
    /// One screen.
    Answer,
    Histogram,
    Dominators,
    Loaders,
    Threads,
    Paths(Object),
    References(u64),
    Object(u64),
}

/// One object, or all of a class.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Object {
    Id(u64),
    Class(String),
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(formatter, "{id:#x}"),
            Self::Class(class) => write!(formatter, "an object of {class}"),
        }
    }
}

const VIEWS: &str =
    "histogram, dominators, loaders, threads, paths CLASS|ID, refs ID and object ID";

impl What {
    pub(super) fn parse(words: &[PathBuf]) -> Result<Self> {
        let Some((file, words)) = words.split_last() else { bail!("a heap dump is missing") };
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let words: Vec<&str> = words.iter().map(|word| &**word).collect();
        let view = match words[..] {
            [] => View::Answer,
            ["histogram"] => View::Histogram,
            ["dominators"] => View::Dominators,
            ["loaders"] => View::Loaders,
            ["threads"] => View::Threads,
            ["paths", of] => {
                View::Paths(id(of).map_or_else(|_| Object::Class(of.to_owned()), Object::Id))
            }
            ["refs", of] => View::References(id(of)?),
            ["object", of] => View::Object(id(of)?),
            ["paths" | "refs" | "object"] => {
                bail!("`{}` wants an object before the file: an ID such as 0x7f001238", words[0])
            }
            _ => bail!("the views of a heap dump are {VIEWS}, before its file"),
        };
        Ok(Self { view, file: file.clone() })
    }
}

/// An identifier, as it is printed.
fn id(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or("-");
    match u64::from_str_radix(digits, 16) {
        Ok(id) => Ok(id),
        Err(_) => bail!("{text} is no ID: they look like 0x7f001238"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_typed() {
        // (words, the view)
        let cases = [
            ("x", Some(View::Answer)),
            ("histogram", Some(View::Answer)), // a file of that name
            ("histogram x", Some(View::Histogram)),
            (
                "paths java.lang.String x",
                Some(View::Paths(Object::Class("java.lang.String".into()))),
            ),
            ("paths 0x10 x", Some(View::Paths(Object::Id(16)))),
            ("refs 0xff x", Some(View::References(255))),
            ("refs x", None),
            ("object 12 x", None),
            ("nonsense x", None),
            ("histogram x y", None),
            ("", None),
        ];
        for (words, want) in cases {
            let words: Vec<PathBuf> = words.split_whitespace().map(PathBuf::from).collect();
            assert_eq!(What::parse(&words).ok().map(|what| what.view), want, "{words:?}");
        }
    }
}
