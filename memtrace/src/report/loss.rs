//! What was lost, in words.

use super::{escape, units};
use crate::trace::Recording;

/// Every loss that happened with its number, or `nothing`.
#[must_use]
pub fn line(recording: &Recording) -> String {
    parts(&recording.losses).map_or_else(|| "nothing".to_owned(), |parts| parts.join(", "))
}

/// `3 ring_full`, `1 recursion`; `None` where all numbers are 0.
#[must_use]
pub fn parts(numbers: &[(String, u64)]) -> Option<Vec<String>> {
    let parts: Vec<_> = numbers
        .iter()
        .filter(|&&(_, n)| n > 0)
        .map(|(name, n)| format!("{} {}", units::count(*n), escape::line(name)))
        .collect();
    (!parts.is_empty()).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        // (losses, what is said)
        let cases: [(&[(&str, u64)], &str); 4] = [
            (&[], "nothing"),
            (&[("ring_full", 0), ("recursion", 0)], "nothing"),
            (&[("ring_full", 1234), ("recursion", 0), ("x\n", 1)], r"1,234 ring_full, 1 x\n"),
            (&[("recursion", u64::MAX)], "18,446,744,073,709,551,615 recursion"),
        ];
        for (losses, said) in cases {
            let losses = losses.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
            assert_eq!(line(&Recording { losses, ..Recording::default() }), said);
        }
    }
}
