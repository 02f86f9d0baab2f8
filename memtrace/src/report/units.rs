//! Numbers as people read them: `212.3 MiB`, `60,312`, `8.1 s`.

/// Names of the powers of 1024, from the first on.
const POWERS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes, with one decimal from 1 KiB on.
#[must_use]
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let tenths = |power: usize| {
        let unit = 1_u128 << (10 * (power + 1));
        (u128::from(n) * 10 + unit / 2) / unit
    };
    // What would round to 1024.0 is 1.0 of the next power.
    let power = (0..POWERS.len()).find(|&power| tenths(power) < 10_240).unwrap_or(POWERS.len() - 1);
    format!("{}.{} {}", tenths(power) / 10, tenths(power) % 10, POWERS[power])
}

/// Bytes, and from 1 KiB on the exact number behind.
#[must_use]
pub fn exact_bytes(n: u64) -> String {
    if n < 1024 { bytes(n) } else { format!("{} ({} bytes)", bytes(n), count(n)) }
}

/// A whole number, with a comma every three digits.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things and their name, which gets an `s` unless it is one.
#[must_use]
pub fn things(n: u64, name: &str) -> String {
    format!("{} {name}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A time span: tenths of a second below 100 s, above it minutes and hours.
#[must_use]
pub fn span(ns: u64) -> String {
    let tenths = ns.saturating_add(50_000_000) / 100_000_000;
    let seconds = tenths / 10;
    match seconds {
        0..100 => format!("{}.{} s", seconds, tenths % 10),
        100..6000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Nanoseconds as seconds, to the microsecond.
#[must_use]
pub fn seconds(ns: u64) -> f64 {
    (ns / 1000) as f64 / 1e6
}

/// A part of a whole: `62 %`, `<1 %`; `None` of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<String> {
    let (part, whole) = (u128::from(part), u128::from(whole));
    let percent = (part * 100 + whole / 2).checked_div(whole)?;
    Some(if percent == 0 && part > 0 { "<1 %".to_owned() } else { format!("{percent} %") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_bytes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4096, "4.0 KiB"),
            (222_613_504, "212.3 MiB"),
            ((1 << 20) - 1, "1.0 MiB"), // not 1024.0 KiB
            ((1 << 20) - 60, "1023.9 KiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text, "{n}");
        }
        assert_eq!(exact_bytes(512), "512 B");
        assert_eq!(exact_bytes(4096), "4.0 KiB (4,096 bytes)");
    }

    #[test]
    fn of_counts() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), text);
        }
        assert_eq!((things(1, "call"), things(2, "call")), ("1 call".into(), "2 calls".into()));
    }

    #[test]
    fn of_spans() {
        let s = 1_000_000_000;
        let cases = [
            (0, "0.0 s"),
            (8_149_999_999, "8.1 s"),
            (99 * s, "99.0 s"),
            (99_960_000_000, "1 min 40 s"),
            (725 * s, "12 min 5 s"),
            (7 * 86_400 * s, "168 h 0 min"),
        ];
        for (ns, text) in cases {
            assert_eq!(span(ns), text, "{ns}");
        }
        assert_eq!(seconds(8_100_000_999), 8.1);
    }

    #[test]
    fn of_parts() {
        // (part, whole, share)
        let cases = [
            (0, 0, None),
            (0, 9, Some("0 %")),
            (1, 900, Some("<1 %")),
            (2, 3, Some("67 %")),
            (u64::MAX, u64::MAX, Some("100 %")),
        ];
        for (part, whole, expected) in cases {
            assert_eq!(share(part, whole).as_deref(), expected, "{part} of {whole}");
        }
    }
}
