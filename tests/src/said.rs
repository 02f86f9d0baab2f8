//! What a fixture said it did: `key value` lines.

use std::{collections::BTreeMap, str::FromStr};

/// The lines of one fixture, by key.
#[derive(Clone, Debug, Default)]
pub struct Said(BTreeMap<String, String>);

impl Said {
    /// Takes in one line.
    pub(crate) fn add(&mut self, line: &str) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        self.0.insert(key.to_owned(), value.to_owned());
    }

    /// What was said of `key`.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("the fixture did not say `{key}`: {self:?}"))
    }

    /// The number that was said of `key`.
    pub fn number(&self, key: &str) -> u64 {
        parse(key, self.text(key))
    }

    /// The number that was said of `key`, if anything was.
    pub fn number_if_said(&self, key: &str) -> Option<u64> {
        self.0.get(key).map(|text| parse(key, text))
    }

    /// What was said of `what.ID.key`, by id.
    pub fn texts_of(&self, what: &str, key: &str) -> BTreeMap<u32, &str> {
        let mut found = BTreeMap::new();
        for (line, value) in &self.0 {
            let mut parts = line.splitn(3, '.');
            if parts.next() == Some(what)
                && let (Some(id), Some(last)) = (parts.next(), parts.next())
                && last == key
            {
                found.insert(parse(line, id), value.as_str());
            }
        }
        found
    }

    /// The numbers that were said of `what.ID.key`, by id.
    pub fn numbers_of(&self, what: &str, key: &str) -> BTreeMap<u32, u64> {
        let texts = self.texts_of(what, key);
        texts.into_iter().map(|(id, text)| (id, parse(key, text))).collect()
    }
}

impl<'a> FromIterator<&'a str> for Said {
    fn from_iter<T: IntoIterator<Item = &'a str>>(lines: T) -> Self {
        let mut said = Self::default();
        lines.into_iter().for_each(|line| said.add(line));
        said
    }
}

fn parse<T: FromStr>(key: &str, text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("`{key}` is no number: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys with and without an id are found, others are not mixed in.
    #[test]
    fn finds_keys() {
        let said =
            Said::from_iter(["mmap 12", "thread.7.live 3", "thread.9.live 4", "process.7.live 5"]);
        assert_eq!(said.number("mmap"), 12);
        assert_eq!(said.numbers_of("thread", "live"), BTreeMap::from([(7, 3), (9, 4)]));
        assert!(said.numbers_of("thread", "mapped").is_empty());
    }
}
