//! What a command prints, while it prints it.
//!
//! Its output is read so that it never waits, searched for a text, written to a file where that is wanted, and of the rest
//! only the end is kept, in case it fails.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, PipeReader, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What is kept of the end.
const MAX_KEPT_BYTES: usize = 16 << 10;
/// Lines of the end that are shown.
const MAX_LINES: usize = 10;
/// Characters of such a line.
const MAX_LINE_CHARS: usize = 200;

/// The output of a command.
#[derive(Debug)]
pub struct Heard {
    end: Arc<Mutex<End>>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct End {
    kept: VecDeque<u8>,
    /// When the text was seen.
    seen: Option<Instant>,
}

impl Heard {
    /// Begins to read: until `text` has been seen it is looked for, and everything goes to `log`.
    ///
    /// # Errors
    ///
    /// Where no pipe or thread can be made.
    pub fn begin(text: Option<&str>, log: Option<File>) -> io::Result<(Self, File)> {
        let (reader, writer) = io::pipe()?;
        let end: Arc<Mutex<End>> = Arc::default();
        let (shared, text) = (end.clone(), text.map(|text| text.as_bytes().to_vec()));
        let reader = thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || read(reader, &shared, text.as_deref(), log))?;
        Ok((Self { end, reader }, File::from(std::os::fd::OwnedFd::from(writer))))
    }

    /// When the text was seen, if it was.
    #[must_use]
    pub fn seen(&self) -> Option<Instant> {
        locked(&self.end).seen
    }

    /// Waits for a moment until everything that was printed has been read.
    pub fn finish(&self, patience: Duration) {
        let began = Instant::now();
        while !self.reader.is_finished() && began.elapsed() < patience {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines, as they came.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        let kept: Vec<u8> = locked(&self.end).kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(MAX_LINES)..].iter();
        last.map(|line| line.chars().take(MAX_LINE_CHARS).collect()).collect()
    }
}

fn locked(end: &Mutex<End>) -> MutexGuard<'_, End> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(mut from: PipeReader, end: &Mutex<End>, text: Option<&[u8]>, mut log: Option<File>) {
    let mut buffer = vec![0; 64 << 10];
    // A text may begin in one piece and end in the next.
    let mut searched: Vec<u8> = Vec::new();
    loop {
        let piece = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => &buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        // A log that can't be written ends; the command must not wait for it.
        log = log.filter(|mut log| log.write_all(piece).is_ok());
        let mut end = locked(end);
        if let Some(text) = text.filter(|_| end.seen.is_none()) {
            searched.extend_from_slice(piece);
            if contains(&searched, text) {
                end.seen = Some(Instant::now());
            }
            searched.drain(..searched.len().saturating_sub(text.len()));
        }
        end.kept.extend(piece);
        let surplus = end.kept.len().saturating_sub(MAX_KEPT_BYTES);
        end.kept.drain(..surplus);
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text is seen that comes in pieces, amid bytes of any kind, and the last lines are kept of a long output.
    #[test]
    fn pieces() {
        let (heard, mut output) = Heard::begin(Some("Started App"), None).unwrap();
        output.write_all(&vec![b'x'; 300_000]).unwrap();
        output.write_all(b"\n\xff\nStarted").unwrap();
        assert!(heard.seen().is_none());
        output.write_all(b" App\n\n").unwrap();
        for n in 0..20 {
            writeln!(output, "line {n}").unwrap();
        }
        drop(output);
        heard.finish(Duration::from_secs(10));
        assert!(heard.seen().is_some());
        let lines = heard.last_lines();
        assert_eq!((lines.len(), &*lines[0], &*lines[9]), (10, "line 10", "line 19"));
    }

    /// What does not come is not seen, and nothing is no line.
    #[test]
    fn nothing() {
        let (heard, output) = Heard::begin(Some("x"), None).unwrap();
        drop(output);
        heard.finish(Duration::from_secs(10));
        assert!(heard.seen().is_none() && heard.last_lines().is_empty());
    }
}
