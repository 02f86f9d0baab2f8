//! A block of generated code, as the journal keeps it.

use std::rc::Rc;

use super::{
    code_blob::{Blob, BlobKind},
    debug_info::DebugInfo,
};

/// The smallest frame of a fixed size: return address and frame pointer.
const MIN_FRAME_BYTES: u32 = 16;

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

/// Whether what is seen at a place is what was there before.
pub(super) fn is_same(old: &Blob, new: &Blob) -> bool {
    (old.size, old.name, old.code, old.code_end, old.frame_bytes)
        == (new.size, new.name, new.code, new.code_end, new.frame_bytes)
        && (old.compile_id, old.method) == (new.compile_id, new.method)
}
