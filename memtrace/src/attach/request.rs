//! The bytes of a question and of an answer.
//!
//! Version 1 of the protocol, which every JDK understands: the version, the command and exactly
//! three arguments, each ended by a zero byte; back come a status, a line break and text.

use super::AttachError;

/// Arguments of a request; those not given are sent empty.
const N_ARGS: usize = 3;

/// Bytes of a command's name that the JVM takes.
const MAX_COMMAND_BYTES: usize = 16;

/// Bytes of an argument that the JVM takes.
const MAX_ARG_BYTES: usize = 1024;

/// Characters of a failing JVM's message that are kept.
const MAX_MESSAGE_CHARS: usize = 200;

/// The request for `command` with `args`.
pub(super) fn encode(command: &str, args: &[&str]) -> Result<Vec<u8>, AttachError> {
    let refuse = |reason| Err(AttachError::BadRequest { command: one_line(command), reason });
    if args.len() > N_ARGS {
        return refuse("the protocol has three arguments");
    }
    if command.len() > MAX_COMMAND_BYTES || args.iter().any(|arg| arg.len() > MAX_ARG_BYTES) {
        return refuse("the command or an argument is too long");
    }
    if command.is_empty() || command.contains('\0') || args.iter().any(|arg| arg.contains('\0')) {
        return refuse("the command is empty or an argument holds a zero byte");
    }
    let mut request = b"1\0".to_vec();
    let parts = std::iter::once(command).chain(args.iter().copied());
    for part in parts.chain(std::iter::repeat("")).take(1 + N_ARGS) {
        request.extend_from_slice(part.as_bytes());
        request.push(0);
    }
    Ok(request)
}

/// The text of an answer to `command`.
pub(super) fn decode(command: &str, answer: &[u8]) -> Result<String, AttachError> {
    if answer.is_empty() {
        return Err(AttachError::NoAnswer);
    }
    let end = answer.iter().position(|byte| *byte == b'\n').ok_or(AttachError::Malformed)?;
    let (status, text) = (&answer[..end], &answer[end + 1..]);
    let status: i32 = std::str::from_utf8(status)
        .ok()
        .and_then(|status| status.parse().ok())
        .ok_or(AttachError::Malformed)?;
    let text = String::from_utf8_lossy(text);
    if status == 0 {
        return Ok(text.into_owned());
    }
    Err(AttachError::CommandFailed { command: one_line(command), status, message: one_line(&text) })
}

/// The first line of `text` that is not blank, for an error message.
fn one_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim();
    let visible = line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    visible.take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Command, arguments, and the bytes unless it is refused.
    type RequestCase<'a> = (&'a str, &'a [&'a str], Option<&'a [u8]>);

    /// A request always has three arguments, and nothing that would shift them.
    #[test]
    fn requests() {
        let long = "x".repeat(1025);
        let cases: [RequestCase; 8] = [
            ("threaddump", &[], Some(b"1\0threaddump\0\0\0\0")),
            ("jcmd", &["GC.heap_info -a"], Some(b"1\0jcmd\0GC.heap_info -a\0\0\0")),
            ("dumpheap", &["/a b", "-live", "1"], Some(b"1\0dumpheap\0/a b\0-live\x001\0")),
            ("jcmd", &["1", "2", "3", "4"], None),
            ("jcmd", &["a\0b"], None),
            ("jcmd", &[&long], None),
            ("", &[], None),
            ("a-command-of-17-b", &[], None),
        ];
        for (command, args, expected) in cases {
            let got = encode(command, args).ok();
            assert_eq!(got.as_deref(), expected, "{command} {args:?}");
        }
    }

    /// An answer is a status, a line break and text; all else is an error on one line.
    #[test]
    fn answers() {
        let cases: [(&[u8], Result<&str, &str>); 9] = [
            (b"0\n", Ok("")),
            (b"0\n\"main\" #1\n", Ok("\"main\" #1\n")),
            (b"0\n\xff\n", Ok("\u{fffd}\n")),
            (b"", Err("failed to get an answer: the JVM closed the connection")),
            (b"0", Err("failed to read the JVM's answer: it does not begin with a status")),
            (b"x\n0\n", Err("failed to read the JVM's answer: it does not begin with a status")),
            (
                b"99999999999\n",
                Err("failed to read the JVM's answer: it does not begin with a status"),
            ),
            (b"1\n", Err("failed to carry out `jcmd`: the JVM says 1: nothing")),
            (
                b"1\n\n  java.lang.X: \x1b[31mUnknown\r\nmore\n",
                Err("failed to carry out `jcmd`: the JVM says 1: java.lang.X: \u{fffd}[31mUnknown"),
            ),
        ];
        for (answer, expected) in cases {
            let got = decode("jcmd", answer).map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{answer:x?}");
        }
    }
}
