//! A block of generated code, as the journal keeps it.

use std::rc::Rc;

use super::{
    code_blob::{Blob, BlobKind},
    debug_info::DebugInfo,
    memory::Memory,
};

/// The smallest frame of a fixed size: return address and frame pointer.
const MIN_FRAME_BYTES: u32 = 16;

/// The code of a native method's wrapper; those that HotSpot makes have some KiB at the most.
const MAX_WRAPPER_BYTES: usize = 64 << 10;

/// The number of a block of generated code; none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeId(pub(super) u32);

/// A block of generated code.
#[derive(Debug)]
pub(super) struct Code {
    pub(super) blob: Blob,
    pub(super) kind: BlobKind,
    pub(super) name: Rc<[u8]>,
    /// A method's debug information; `None` where it could not be copied yet.
    pub(super) debug: Option<DebugInfo>,
    /// Where calls of a native method's wrapper return to, from its code on: the compiler does not describe them. `None`
    /// where that could not be read.
    pub(super) returns: Option<Box<[u32]>>,
    /// When it was first seen.
    pub(super) since_ns: u64,
    /// When it was last seen: for later events other code may be there.
    pub(super) seen_ns: u64,
    /// When it was last asked for.
    pub(super) round: u32,
    /// When it was last seen, and first seen to be gone; `None` while it is there.
    pub(super) gone: Option<(u64, u64)>,
}

impl Code {
    pub(super) fn contains(&self, pc: u64) -> bool {
        (self.blob.code..self.blob.code_end).contains(&pc)
    }

    /// Bytes of what was copied, and of code that was searched.
    pub(super) fn size_bytes(&self) -> usize {
        let searched = self.returns.as_ref().map_or(0, |returns| {
            (self.blob.code_end - self.blob.code) as usize + size_of_val(&**returns)
        });
        self.debug.as_ref().map_or(0, DebugInfo::size_bytes) + searched
    }

    /// Whether it is a method of which it is not known what is inlined where.
    pub(super) fn is_incomplete(&self) -> bool {
        self.kind == BlobKind::Method && self.debug.is_none()
    }

    /// Whether a call may return to `pc`.
    pub(super) fn may_return_to(&self, pc: u64) -> bool {
        match (&self.debug, self.kind) {
            (Some(debug), BlobKind::Method) => {
                self.blob.deopt.contains(&pc) || debug.is_exact((pc - self.blob.code) as u32)
            }
            (_, BlobKind::NativeWrapper) => {
                let offset = (pc - self.blob.code) as u32;
                self.has_rule() && self.returns.as_ref().is_none_or(|all| all.contains(&offset))
            }
            // A compiler's buffer, say: when its thread ends, code comes in that place.
            _ => self.has_rule(),
        }
    }

    /// Whether it is known how to leave it for its caller.
    pub(super) fn has_rule(&self) -> bool {
        let needs_size =
            matches!(self.kind, BlobKind::Method | BlobKind::NativeWrapper | BlobKind::Unknown);
        self.blob.frame_bytes >= MIN_FRAME_BYTES || !needs_size
    }
}

/// Where calls in the code of `blob` may return to, from its code on.
pub(super) fn returns_of(memory: &dyn Memory, blob: &Blob) -> Option<Box<[u32]>> {
    let len = usize::try_from(blob.code_end.checked_sub(blob.code)?).ok()?;
    let code = memory.bytes(blob.code, (len <= MAX_WRAPPER_BYTES).then_some(len)?).ok()?;
    let may_return = |&end: &usize| ends_in_call(&code[..end]);
    Some((1..=len).filter(may_return).map(|end| end as u32).collect())
}

/// Whether the last of these instructions may be a call: `call rel32`, `call reg`, `call [reg+…]`.
pub(super) fn ends_in_call(code: &[u8]) -> bool {
    matches!(
        code,
        [.., 0xe8, _, _, _, _]
            | [.., 0xff, 0xd0..=0xd7]
            | [.., 0xff, 0x50..=0x57, _]
            | [.., 0xff, 0x90..=0x97, _, _, _, _]
    )
}

/// Whether what is seen at a place is what was there before.
pub(super) fn is_same(old: &Blob, new: &Blob) -> bool {
    (old.size, old.name, old.code, old.code_end, old.frame_bytes)
        == (new.size, new.name, new.code, new.code_end, new.frame_bytes)
        && (old.compile_id, old.method) == (new.compile_id, new.method)
}
