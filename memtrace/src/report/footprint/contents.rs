//! What lies in the pages that malloc holds and nobody uses, a line for each kind.

use super::{escape, share, units};
use crate::footprint::{Content, ContentKind, Contents};

/// A line that says how much was looked at, and one for each kind, the largest first; each with its label.
pub(super) fn lines(contents: &Contents) -> Vec<(&'static str, String)> {
    let Contents { n_pages, n_looked_at, .. } = *contents;
    let looked_at = match n_looked_at {
        n if n == n_pages => "all of them looked at".to_owned(),
        n => format!("{n} of {n_pages} of them looked at, evenly chosen"),
    };
    let all = units::bytes(n_pages * 4096);
    let mut lines = vec![("contents", format!("{all} on free whole pages, {looked_at}"))];
    let mut kinds: Vec<&Content> = contents.kinds.iter().collect();
    kinds.sort_by_key(|content| std::cmp::Reverse(content.n_pages));
    lines.extend(kinds.into_iter().map(|content| ("", line(contents, content))));
    lines
}

fn line(contents: &Contents, content: &Content) -> String {
    let bytes = units::bytes(contents.bytes(content));
    let share = share(content.n_pages, contents.n_looked_at);
    let samples = content.samples.iter().map(|sample| format!("`{}`", escape::line(sample)));
    let samples: Vec<String> = samples.collect();
    let samples = match &samples[..] {
        [] => String::new(),
        samples => format!(": {}", samples.join(", ")),
    };
    format!("{bytes:>10}  {share:>6}  {}{samples}", words(content.kind))
}

fn words(kind: ContentKind) -> &'static str {
    match kind {
        ContentKind::ClassFile => "class files and pieces of them",
        ContentKind::Zip => "members of zip files",
        ContentKind::Text => "text",
        ContentKind::Pointers => "pointers",
        ContentKind::Packed => "packed or encrypted",
        ContentKind::Zeros => "zeros",
        ContentKind::Other => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest first; what was not looked at is said; nothing in a sample acts on a terminal.
    #[test]
    fn as_text() {
        let content = |kind, n_pages, samples: &[&str]| Content {
            kind,
            n_pages,
            samples: samples.iter().map(|&sample| sample.to_owned()).collect(),
        };
        let kinds = vec![
            content(ContentKind::Text, 64, &["a\u{202e}b", "c"]),
            content(ContentKind::Zeros, 192, &[]),
        ];
        let mut contents = Contents { n_pages: 1024, n_looked_at: 256, kinds };
        let want = [
            (
                "contents",
                "4.0 MiB on free whole pages, 256 of 1024 of them looked at, evenly chosen",
            ),
            ("", "   3.0 MiB  75.0 %  zeros"),
            ("", "   1.0 MiB  25.0 %  text: `a\\u{202e}b`, `c`"),
        ];
        let lines = lines(&contents);
        let lines: Vec<(&str, &str)> =
            lines.iter().map(|(label, text)| (*label, &**text)).collect();
        assert_eq!(lines, want);
        contents.n_looked_at = 1024;
        assert!(super::lines(&contents)[0].1.ends_with("all of them looked at"));
    }
}
