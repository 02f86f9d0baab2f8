//! Sizes and times as people type them.

use std::time::Duration;

/// `512`, `4K`, `2M`, `1G` as bytes; powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size; write it like 512, 4K, 2M or 1G");
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// `500ms`, `30s`, `5m`, `1h` as a duration; a bare number is seconds.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time; write it like 500ms, 30s, 5m or 1h");
    let (number, unit) = split(text);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_ms).filter(|&ms| ms > 0).map(Duration::from_millis).ok_or_else(wrong)
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("512", Some(512)),
            ("4K", Some(4096)),
            ("2m", Some(2 << 20)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("5X", None),
            ("K", None),
            ("-1", None),
            ("99999999999T", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_size(text).ok(), want, "{text}");
        }
        assert_eq!(
            parse_size("5X").unwrap_err(),
            "`5X` is not a size; write it like 512, 4K, 2M or 1G"
        );
    }

    #[test]
    fn times() {
        let cases = [
            ("30s", Some(30_000)),
            ("5m", Some(300_000)),
            ("2", Some(2000)),
            ("500ms", Some(500)),
            ("0", None),
            ("1d", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_time(text).ok().map(|time| time.as_millis()), want, "{text}");
        }
    }
}
