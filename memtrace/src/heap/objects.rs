//! The inner layer of a dump: objects, classes and roots, one after the other.

use super::bytes::Bytes;

/// The types of fields and elements, by their numbers in a dump: boolean to long are 4 to 11, an object is 2.
pub(super) const OBJECT: u8 = 2;
/// The first number of a primitive type, and how many there are.
pub(super) const FIRST_PRIMITIVE: u8 = 4;
pub(super) const N_PRIMITIVES: usize = 8;
/// Names of the primitive types, from the first on.
pub(super) const PRIMITIVES: [&str; N_PRIMITIVES] =
    ["boolean", "char", "float", "double", "byte", "short", "int", "long"];

/// Bytes of a value of a type.
#[inline]
pub(super) fn width(kind: u8, id_bytes: usize) -> Option<usize> {
    const WIDTHS: [u8; N_PRIMITIVES] = [1, 2, 4, 8, 1, 2, 4, 8];
    match kind {
        OBJECT => Some(id_bytes),
        _ => WIDTHS.get(usize::from(kind.checked_sub(FIRST_PRIMITIVE)?)).map(|&n| n.into()),
    }
}

/// Why an object is there whatever else refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RootKind {
    /// A thread that runs.
    Thread,
    /// A local variable of a method that a thread is in.
    JavaFrame,
    /// A local reference of native code.
    JniLocal,
    /// A global reference of native code or of the VM.
    JniGlobal,
    /// A class that is never unloaded.
    StickyClass,
    /// A monitor that is held.
    Monitor,
    /// Of a native method's arguments, or of a thread's block.
    Native,
    /// Something else.
    Unknown,
}

impl RootKind {
    /// How it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::JavaFrame => "java_frame",
            Self::JniLocal => "jni_local",
            Self::JniGlobal => "jni_global",
            Self::StickyClass => "class",
            Self::Monitor => "monitor",
            Self::Native => "native",
            Self::Unknown => "unknown",
        }
    }
}

/// A root, with the serial number of its thread where it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) kind: RootKind,
    pub(super) id: u64,
    pub(super) thread_serial: u32,
    /// Of a thread: its stack's serial number; of a local variable: the number of the frame.
    pub(super) extra: u32,
}

/// One entry of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'d> {
    Root(Root),
    /// The class begins here; [`super::classes`] reads it.
    Class(usize),
    Instance {
        id: u64,
        class: u64,
        data: &'d [u8],
    },
    Objects {
        id: u64,
        class: u64,
        elements: &'d [u8],
    },
    Primitives {
        id: u64,
        kind: u8,
        elements: &'d [u8],
    },
}

/// Reads the entry that `bytes` stand at; `None` where it is cut or of no known kind.
#[inline]
pub(super) fn entry<'d>(bytes: &mut Bytes<'d>) -> Option<Entry<'d>> {
    let tag = bytes.u8()?;
    match tag {
        0x21 => {
            let (id, _trace, class) = (bytes.id()?, bytes.u32()?, bytes.id()?);
            let n = bytes.u32()?;
            Some(Entry::Instance { id, class, data: bytes.take(n as usize)? })
        }
        0x22 => {
            let (id, _trace, n) = (bytes.id()?, bytes.u32()?, bytes.u32()?);
            let class = bytes.id()?;
            let n_bytes = (n as usize).checked_mul(bytes.id_bytes())?;
            Some(Entry::Objects { id, class, elements: bytes.take(n_bytes)? })
        }
        0x23 => {
            let (id, _trace, n) = (bytes.id()?, bytes.u32()?, bytes.u32()?);
            let kind = bytes.u8()?;
            let width = width(kind, 0).filter(|&width| width > 0)?;
            let n_bytes = (n as usize).checked_mul(width)?;
            Some(Entry::Primitives { id, kind, elements: bytes.take(n_bytes)? })
        }
        0x20 => {
            let at = bytes.at() - 1;
            skip_class(bytes)?;
            Some(Entry::Class(at))
        }
        _ => root(bytes, tag).map(Entry::Root),
    }
}

fn root(bytes: &mut Bytes<'_>, tag: u8) -> Option<Root> {
    let id = bytes.id()?;
    let mut root = Root { kind: RootKind::Unknown, id, thread_serial: 0, extra: u32::MAX };
    match tag {
        0xff => {}
        0x01 => {
            bytes.id()?;
            root.kind = RootKind::JniGlobal;
        }
        0x02 | 0x03 => {
            root.kind = if tag == 2 { RootKind::JniLocal } else { RootKind::JavaFrame };
            (root.thread_serial, root.extra) = (bytes.u32()?, bytes.u32()?);
        }
        0x04 | 0x06 => {
            root.kind = RootKind::Native;
            root.thread_serial = bytes.u32()?;
        }
        0x05 => root.kind = RootKind::StickyClass,
        0x07 => root.kind = RootKind::Monitor,
        0x08 => {
            root.kind = RootKind::Thread;
            (root.thread_serial, root.extra) = (bytes.u32()?, bytes.u32()?);
        }
        _ => return None,
    }
    Some(root)
}

/// Goes behind a class whose tag was read.
fn skip_class(bytes: &mut Bytes<'_>) -> Option<()> {
    let id_bytes = bytes.id_bytes();
    bytes.take(id_bytes + 4 + 6 * id_bytes + 4)?;
    for _ in 0..bytes.u16()? {
        bytes.u16()?;
        let kind = bytes.u8()?;
        bytes.take(width(kind, id_bytes)?)?;
    }
    for _ in 0..bytes.u16()? {
        bytes.id()?;
        let kind = bytes.u8()?;
        bytes.take(width(kind, id_bytes)?)?;
    }
    let n_fields = usize::from(bytes.u16()?);
    bytes.take(n_fields * (id_bytes + 1))?;
    Some(())
}
