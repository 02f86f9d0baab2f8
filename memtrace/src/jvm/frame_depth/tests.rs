//! Methods written down by hand, instruction by instruction.

use super::*;

const CODE: u64 = 0x1000;

/// A method by its instructions; a call that ends at one of `described` is described.
struct Listing {
    code: Vec<u8>,
    described: Vec<u64>,
    frame_bytes: u64,
    outside: Option<Outside>,
}

impl Method for Listing {
    fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    fn code(&self, ip: u64) -> Option<Vec<u8>> {
        let at = usize::try_from(ip.checked_sub(CODE)?).ok()?;
        let left = self.code.get(at..).filter(|left| !left.is_empty())?;
        Some(left[..left.len().min(MAX_INSTRUCTION_BYTES)].to_vec())
    }

    fn is_described(&self, ip: u64) -> bool {
        self.described.contains(&ip)
    }

    fn outside(&mut self, _: u64) -> Option<Outside> {
        self.outside
    }
}

const BANG: &[u8] = &[0x89, 0x84, 0x24, 0x00, 0xc0, 0xfe, 0xff];
const PUSH: &[u8] = &[0x55];
const POP: &[u8] = &[0x5d];
const CALL: &[u8] = &[0xe8, 0, 1, 0, 0];
const RET: &[u8] = &[0xc3];
const SUB_20: &[u8] = &[0x48, 0x83, 0xec, 0x20];
const ADD_20: &[u8] = &[0x48, 0x83, 0xc4, 0x20];
const SUB_18: &[u8] = &[0x48, 0x81, 0xec, 0x18, 0, 0, 0];
const ADD_10: &[u8] = &[0x48, 0x83, 0xc4, 0x10];
const SAVE_10: &[u8] = &[0x48, 0x89, 0x6c, 0x24, 0x10];
const NOP: &[u8] = &[0x90];
const POLL_8: &[u8] = &[0x85, 0x05, 1, 2, 3, 4];
const FAR: &[u8] = &[0x49, 0xba, 1, 2, 3, 4, 5, 6, 7, 8];
const POLL_FAR: &[u8] = &[0x41, 0x85, 0x02];
const POLL_11: &[u8] = &[0x4d, 0x8b, 0x97, 1, 2, 0, 0];
const POLL_17: &[u8] = &[0x49, 0x3b, 0xa7, 0x48, 3, 0, 0];
const PUSH_RSI: &[u8] = &[0x56];
const PUSH_RCX: &[u8] = &[0x51];
const POP_RCX: &[u8] = &[0x59];
const POP_RSI: &[u8] = &[0x5e];
/// To the call behind two pops of one byte each.
const JE_2: &[u8] = &[0x0f, 0x84, 2, 0, 0, 0];
const JA_OUT: &[u8] = &[0x0f, 0x87, 0, 1, 0, 0];
const JMP_OUT: &[u8] = &[0xe9, 0, 1, 0, 0];
const PUSHF: &[u8] = &[0x9c];
const POPF: &[u8] = &[0x9d];

const fn at(slot: u64) -> Depth {
    Depth::At { slot, is_saved: false }
}

const fn saved(slot: u64) -> Depth {
    Depth::At { slot, is_saved: true }
}

/// Every instruction of both compilers' methods, by how much of the frame is there before it.
#[test]
fn every_instruction() {
    let whole = saved(0x28);
    let methods: [&[(&[u8], Depth)]; 7] = [
        // The first compiler of JDK 8, and of a page far away.
        &[
            (BANG, at(0)),
            (PUSH, at(0)),
            (SUB_20, saved(8)),
            (NOP, whole),
            (CALL, whole),
            (ADD_20, whole),
            (POP, saved(8)),
            (POLL_8, at(0)),
            (RET, at(0)),
        ],
        &[
            (SUB_20, saved(8)),
            (CALL, whole),
            (ADD_20, whole),
            (POP, saved(8)),
            (FAR, at(0)),
            (POLL_FAR, at(0)),
            (RET, at(0)),
        ],
        // The second compiler of JDK 11 and 17, which makes room first.
        &[
            (SUB_18, at(0)),
            (SAVE_10, at(0x18)),
            (CALL, saved(0x18)),
            (ADD_10, saved(0x18)),
            (POP, saved(8)),
            (POLL_11, at(0)),
            (POLL_FAR, at(0)),
            (RET, at(0)),
        ],
        &[
            (SAVE_10, at(0x18)),
            (NOP, saved(0x18)),
            (ADD_10, saved(0x18)),
            (POP, saved(8)),
            (POLL_17, at(0)),
            (JA_OUT, at(0)),
            (RET, at(0)),
        ],
        // What the first compiler pushes around a look at two classes.
        &[
            (NOP, whole),
            (PUSH_RSI, whole),
            (PUSH_RCX, saved(0x30)),
            (NOP, saved(0x38)),
            (JE_2, saved(0x38)),
            (POP_RCX, saved(0x38)),
            (POP_RSI, saved(0x30)),
            (CALL, whole),
        ],
        // What the second one does to compare numbers.
        &[
            (PUSHF, whole),
            (POPF, saved(0x30)),
            (CALL, whole),
            (ADD_20, whole),
            (POP, saved(8)),
            (RET, at(0)),
        ],
        // The end of one that was left by an exception.
        &[(ADD_20, whole), (POP, saved(8)), (JMP_OUT, at(0))],
    ];
    for listing in methods {
        let code: Vec<u8> = listing.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        let mut ip = CODE;
        let mut ends = Vec::new();
        for (bytes, _) in listing {
            ip += bytes.len() as u64;
            ends.push((*bytes == CALL).then_some(ip));
        }
        let described = ends.into_iter().flatten().collect();
        let is_second = listing.iter().any(|(bytes, _)| *bytes == SAVE_10);
        let frame_bytes = if is_second { 0x20 } else { 0x30 };
        let outside = Some(Outside::Callee);
        let mut method = Listing { code, described, frame_bytes, outside };
        let mut ip = CODE;
        for (bytes, expected) in listing {
            assert_eq!(depth(&mut method, ip), Some(*expected), "{bytes:x?} of {listing:x?}");
            ip += bytes.len() as u64;
        }
    }
}

/// Code that jumps to one of the JVM's handlers, and code that leads nowhere.
#[test]
fn last_jumps() {
    let jump = JMP_OUT.to_vec();
    let push = [PUSH_RSI, JMP_OUT].concat();
    let endless = vec![0xeb, 0xfe];
    let by_pointer = vec![0xc9, 0xc3];
    let own_frame = [PUSH, &[0x48, 0x8b, 0xec], SUB_20, &[0xc9, 0xc3]].concat();
    // (code, what is behind the jump, what is there at its first instruction)
    let cases: [(&[u8], Option<Outside>, Option<Depth>); 9] = [
        (&jump, Some(Outside::Callee), Some(at(0))),
        (&jump, Some(Outside::AboveFrame), Some(saved(0x28))),
        (&push, Some(Outside::AbovePushed), Some(saved(0x28))),
        (&jump, None, None),
        (&push, Some(Outside::Callee), None),
        (&endless, None, None),
        (&[0x06], None, None),
        (&by_pointer, None, Some(Depth::ByPointer)),
        (&own_frame, None, Some(at(0))),
    ];
    for (code, outside, expected) in cases {
        let code = code.to_vec();
        let mut method = Listing { code, described: Vec::new(), frame_bytes: 0x30, outside };
        assert_eq!(depth(&mut method, CODE), expected, "{:x?} {outside:?}", method.code);
    }
}
