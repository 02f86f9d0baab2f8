//! gzip in many members, unpacked by all processors.
//!
//! Where a member ends is known when it was unpacked. So each place that looks like the beginning of one is unpacked as if
//! it were; those count that lie where the one before ended, which its checksum has confirmed.

use std::io::{self, Read};

use flate2::bufread::GzDecoder;

use super::{Progress, SpoolError, sink::Sink};
use crate::heap::in_parallel;

/// How each member but the first begins: no name, no time, no comment (heapDumperCompression.cpp, JDK 17 to 25; deflate
/// is method 8).
const BEGIN: [u8; 8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
/// Members that are unpacked at a time.
const BATCH: usize = 64;
/// What comes out of one; HotSpot's have 1 MiB.
const MAX_MEMBER_BYTES: u64 = 16 << 20;

/// A member that was unpacked.
struct Member {
    bytes: Vec<u8>,
    /// Where it ends.
    end: usize,
    /// Why there is no more.
    error: Option<String>,
}

/// Unpacks all members into `sink`; returns why it ended early, if it did.
pub(super) fn unpack(
    packed: &[u8],
    sink: &mut Sink,
    progress: Progress<'_>,
) -> Result<Option<String>, SpoolError> {
    let mut at = 0;
    while at < packed.len() {
        let begins = begins(packed, at);
        let members = in_parallel(begins.len(), |n| member(packed, begins[n]));
        for (begin, member) in begins.into_iter().zip(members) {
            if begin != at {
                continue;
            }
            sink.write(&member.bytes)?;
            if member.error.is_some() {
                return Ok(member.error);
            }
            at = member.end;
        }
        progress(at as u64, packed.len() as u64);
    }
    Ok(None)
}

/// Where the next members may begin: at `at`, and wherever it looks so.
fn begins(packed: &[u8], at: usize) -> Vec<usize> {
    let behind = &packed[at + 1..];
    let found = memchr::memmem::find_iter(behind, &BEGIN).map(|place| at + 1 + place);
    std::iter::once(at).chain(found).take(BATCH).collect()
}

fn member(packed: &[u8], begin: usize) -> Member {
    let mut rest = &packed[begin..];
    let mut bytes = Vec::new();
    let read = GzDecoder::new(&mut rest).take(MAX_MEMBER_BYTES + 1).read_to_end(&mut bytes);
    let error = match read {
        Ok(_) if bytes.len() as u64 > MAX_MEMBER_BYTES => Some("a block is too large".to_owned()),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some("it is cut".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    Member { bytes, end: packed.len() - rest.len(), error }
}
