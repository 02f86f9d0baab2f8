//! How a trace ended, in words.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use crate::trace::{End, Why};

/// Why tracing ended, as JSON has it.
#[must_use]
pub fn why(why: Why) -> &'static str {
    match why {
        Why::Asked => "asked",
        Why::Duration => "duration",
        Why::TargetEnded => "target_ended",
        Why::OutputFailed => "output_failed",
    }
}

/// The exit code and the signal that the target ended with, as far as it is known.
#[must_use]
pub fn code_and_signal(end: &End) -> (Option<i32>, Option<i32>) {
    let status = end.status.map(ExitStatus::from_raw);
    (status.and_then(|status| status.code()), status.and_then(|status| status.signal()))
}

/// What follows the time that was traced.
#[must_use]
pub fn clause(end: Option<&End>) -> String {
    let Some(end) = end else { return "so far".to_owned() };
    match (end.why, code_and_signal(end)) {
        (Why::Asked, _) => "until stopped".to_owned(),
        (Why::Duration, _) => "as asked".to_owned(),
        (Why::OutputFailed, _) => "until the trace could not be written any more".to_owned(),
        (Why::TargetEnded, (Some(code), _)) => format!("until it ended with exit code {code}"),
        (Why::TargetEnded, (_, Some(signal))) => format!("until signal {signal} killed it"),
        (Why::TargetEnded, (None, None)) => "until it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses() {
        // (why, status as wait(2) has it, what is said)
        let cases = [
            (Why::Asked, None, "until stopped"),
            (Why::Duration, None, "as asked"),
            (Why::OutputFailed, None, "until the trace could not be written any more"),
            (Why::TargetEnded, None, "until it ended"),
            (Why::TargetEnded, Some(0), "until it ended with exit code 0"),
            (Why::TargetEnded, Some(3 << 8), "until it ended with exit code 3"),
            (Why::TargetEnded, Some(9), "until signal 9 killed it"),
        ];
        for (why, status, said) in cases {
            let end = End { time_ns: 0, why, status, self_cpu_ns: 0, self_max_rss_bytes: 0 };
            assert_eq!(clause(Some(&end)), said);
        }
        assert_eq!(clause(None), "so far");
    }
}
