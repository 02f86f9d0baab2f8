//! A block of generated code: what it is, where its instructions are, how large its frame is.
//!
//! The bytes of a `CodeBlob` go in, a [`Blob`] comes out, whatever HotSpot's release: JDK 8 counts offsets from the
//! blob, 9 to 22 have pointers, 23 counts again, 25 has moved the rest out of the code cache.

use super::vm_structs::{TablesError, VmStructs};

/// Bytes of a blob's header that are read at most.
const MAX_HEADER_BYTES: u64 = 1024;
/// Bytes of a frame that make sense.
const MAX_FRAME_BYTES: u64 = 1 << 20;

/// What a block of generated code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlobKind {
    /// A compiled Java method.
    Method,
    /// The way from Java into a native method.
    NativeWrapper,
    Interpreter,
    /// A stub with a frame of a fixed size.
    RuntimeStub,
    /// Stubs with frames of their own kinds, found by the frame pointer.
    Stubs,
    /// Stubs that freeze and thaw virtual threads.
    Continuation,
    /// Stubs without a frame: vtable stubs, adapters.
    Frameless,
    Deoptimization,
    /// The way from native code into Java (foreign functions).
    Upcall,
    Unknown,
}

impl BlobKind {
    /// The kind of a blob by its name, which every release has had in the same words.
    pub(super) fn of_name(name: &[u8]) -> Self {
        const STARTS: [(&[u8], BlobKind); 16] = [
            (b"nmethod", BlobKind::Method),
            (b"native nmethod", BlobKind::NativeWrapper),
            (b"Interpreter", BlobKind::Interpreter),
            (b"vtable chunks", BlobKind::Frameless),
            (b"I2C/C2I adapters", BlobKind::Frameless),
            (b"MethodHandles adapters", BlobKind::Frameless),
            (b"StubRoutines", BlobKind::Stubs),
            (b"DeoptimizationBlob", BlobKind::Deoptimization),
            (b"SafepointBlob", BlobKind::RuntimeStub),
            (b"ExceptionBlob", BlobKind::RuntimeStub),
            (b"UncommonTrapBlob", BlobKind::RuntimeStub),
            (b"nep_invoker_blob", BlobKind::RuntimeStub),
            (b"upcall_stub", BlobKind::Upcall),
            (b"RuntimeStub", BlobKind::RuntimeStub),
            // Barriers of the first compiler, which have names of their own up to JDK 21.
            (b"g1_", BlobKind::Stubs),
            (b"shenandoah_", BlobKind::Stubs),
        ];
        let contains = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
        if contains(b"ontinuation") && name.starts_with(b"StubRoutines") {
            return BlobKind::Continuation;
        }
        let known = STARTS.iter().find(|(start, _)| name.starts_with(start));
        match known {
            Some(&(_, kind)) => kind,
            None if contains(b"Runtime") || contains(b"runtime") => BlobKind::RuntimeStub,
            None => BlobKind::Unknown,
        }
    }

    pub(super) fn is_method(self) -> bool {
        matches!(self, BlobKind::Method | BlobKind::NativeWrapper)
    }
}

/// A block of generated code, as its header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) address: u64,
    pub(super) size: u64,
    /// Where the text of its name is.
    pub(super) name: u64,
    pub(super) code: u64,
    pub(super) code_end: u64,
    /// 0 when it has none of a fixed size.
    pub(super) frame_bytes: u32,
    pub(super) method: u64,
    pub(super) compile_id: u32,
    pub(super) level: u8,
    /// Whether it is entered in the middle of a loop.
    pub(super) is_osr: bool,
    /// Where its frame keeps the real return address once it is deoptimised.
    pub(super) orig_pc: u32,
    /// The addresses that stand in a deoptimised frame's place.
    pub(super) deopt: [u64; 2],
    pub(super) debug: DebugPlaces,
}

/// Where a method's debug information is: start and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DebugPlaces {
    pub(super) pcs: (u64, u64),
    pub(super) scopes: (u64, u64),
    pub(super) metadata: (u64, u64),
}

/// How this JVM's blobs look.
#[derive(Clone, Debug)]
pub(super) struct BlobLayout {
    name: u64,
    size: u64,
    code_begin: Place,
    code_end: Place,
    frame_size: u64,
    method: u64,
    compile_id: u64,
    level: Number,
    entry_bci: Option<u64>,
    orig_pc: u64,
    deopt: [Option<Place>; 2],
    pcs: (Place, Place),
    scopes: (Place, Place),
    metadata: (Place, Place),
    /// Bytes of a header that hold all of this, for a method and for any other blob.
    pub(super) header: usize,
}

/// An address in a header.
#[derive(Clone, Copy, Debug)]
enum Place {
    Pointer(u64),
    /// Counted from the blob.
    Offset(u64),
    /// 16 bits, counted from where another offset leads to.
    Small(u64, u64),
    /// Counted from a pointer.
    From(u64, u64),
}

/// A number in a header, by size and offset.
#[derive(Clone, Copy, Debug)]
enum Number {
    I32(u64),
    I16(u64),
    U8(u64),
}

impl Number {
    fn of(structs: &VmStructs, name: &str) -> Result<Self, TablesError> {
        let offset = structs.need_offset(&[name])?;
        Ok(match structs.field(name).map(|field| &*field.type_name) {
            Some("int16_t") => Number::I16(offset),
            Some("CompLevel" | "u1") => Number::U8(offset),
            _ => Number::I32(offset),
        })
    }
}

impl BlobLayout {
    pub(super) fn of(structs: &VmStructs) -> Result<Self, TablesError> {
        let need = |names: &[&str]| structs.need_offset(names);
        let pointer = |name: &str| structs.offset(name).map(Place::Pointer);
        let offset = |name: &str| structs.offset(name).map(Place::Offset);
        let missing = |name: &str| TablesError::Missing(name.to_owned());
        let size = Place::Offset(need(&["CodeBlob::_size"])?);
        let handler = |old: &str, middle: &str, new: &str, newest: &str| {
            offset(old).or(pointer(middle)).or(offset(new)).or(offset(newest))
        };
        let places = DebugLayout::of(structs, size)?;
        let of_blobs = structs.size("nmethod").unwrap_or(0).max(structs.need_size("CodeBlob")?);
        Ok(Self {
            name: need(&["CodeBlob::_name"])?,
            size: need(&["CodeBlob::_size"])?,
            code_begin: pointer("CodeBlob::_code_begin")
                .or(offset("CodeBlob::_code_offset"))
                .ok_or_else(|| missing("CodeBlob::_code_begin"))?,
            code_end: pointer("CodeBlob::_code_end")
                .or(offset("CodeBlob::_data_offset"))
                .ok_or_else(|| missing("CodeBlob::_code_end"))?,
            frame_size: need(&["CodeBlob::_frame_size"])?,
            method: need(&["nmethod::_method", "CompiledMethod::_method"])?,
            compile_id: need(&["nmethod::_compile_id"])?,
            level: Number::of(structs, "nmethod::_comp_level")?,
            entry_bci: structs.offset("nmethod::_entry_bci"),
            orig_pc: need(&["nmethod::_orig_pc_offset"])?,
            deopt: [
                handler(
                    "nmethod::_deoptimize_offset",
                    "CompiledMethod::_deopt_handler_begin",
                    "nmethod::_deopt_handler_offset",
                    "nmethod::_deopt_handler_entry_offset",
                ),
                handler(
                    "nmethod::_deoptimize_mh_offset",
                    "CompiledMethod::_deopt_mh_handler_begin",
                    "nmethod::_deopt_mh_handler_offset",
                    "",
                ),
            ],
            pcs: places.pcs,
            scopes: places.scopes,
            metadata: places.metadata,
            header: of_blobs.min(MAX_HEADER_BYTES) as usize,
        })
    }

    /// What `header` says, the first bytes of the blob at `address`; `None` when it makes no sense.
    ///
    /// The fields of methods hold nothing meaningful for other kinds of blobs.
    pub(super) fn parse(&self, address: u64, header: &[u8]) -> Option<Blob> {
        let header = Header { address, bytes: header };
        let size = u64::from(header.u32(self.size)?);
        let (code, code_end) = (header.place(self.code_begin)?, header.place(self.code_end)?);
        let end = address.checked_add(size)?;
        if !(address <= code && code <= code_end && code_end <= end) {
            return None;
        }
        let frame_bytes = u64::from(header.u32(self.frame_size)?).saturating_mul(8);
        let range = |(start, end): (Place, Place)| {
            let start = header.place(start).unwrap_or(0);
            (start, header.place(end).unwrap_or(0).saturating_sub(start))
        };
        let deopt =
            self.deopt.map(|place| place.and_then(|place| header.place(place)).unwrap_or(0));
        Some(Blob {
            address,
            size,
            name: header.u64(self.name)?,
            code,
            code_end,
            frame_bytes: if frame_bytes < MAX_FRAME_BYTES { frame_bytes as u32 } else { 0 },
            method: header.u64(self.method).unwrap_or(0),
            compile_id: header.u32(self.compile_id).unwrap_or(0),
            level: header.number(self.level).unwrap_or(0) as u8,
            is_osr: self.entry_bci.and_then(|at| header.u32(at)).is_some_and(|bci| bci != u32::MAX),
            orig_pc: header.u32(self.orig_pc).unwrap_or(0),
            deopt,
            debug: DebugPlaces {
                pcs: range(self.pcs),
                scopes: range(self.scopes),
                metadata: range(self.metadata),
            },
        })
    }
}

/// Where methods have their debug information.
struct DebugLayout {
    pcs: (Place, Place),
    scopes: (Place, Place),
    metadata: (Place, Place),
}

impl DebugLayout {
    fn of(structs: &VmStructs, size: Place) -> Result<Self, TablesError> {
        let need = |name: &str| structs.need_offset(&[name]);
        if let Some(data) = structs.offset("nmethod::_immutable_data") {
            let scopes = Place::From(data, need("nmethod::_scopes_data_offset")?);
            let metadata = match structs.offset("CodeBlob::_mutable_data") {
                Some(data) => (
                    Place::From(data, need("CodeBlob::_relocation_size")?),
                    Place::From(data, need("CodeBlob::_mutable_data_size")?),
                ),
                None => (
                    Place::Small(
                        need("CodeBlob::_data_offset")?,
                        need("nmethod::_metadata_offset")?,
                    ),
                    size,
                ),
            };
            let pcs = (Place::From(data, need("nmethod::_scopes_pcs_offset")?), scopes);
            let end = Place::From(data, need("nmethod::_immutable_data_size")?);
            return Ok(Self { pcs, scopes: (scopes, end), metadata });
        }
        let pcs = Place::Offset(need("nmethod::_scopes_pcs_offset")?);
        let scopes = match structs.offset("CompiledMethod::_scopes_data_begin") {
            Some(pointer) => Place::Pointer(pointer),
            None => Place::Offset(need("nmethod::_scopes_data_offset")?),
        };
        Ok(Self {
            pcs: (pcs, Place::Offset(need("nmethod::_dependencies_offset")?)),
            scopes: (scopes, pcs),
            metadata: (Place::Offset(need("nmethod::_metadata_offset")?), scopes),
        })
    }
}

/// The first bytes of a blob.
struct Header<'a> {
    address: u64,
    bytes: &'a [u8],
}

impl Header<'_> {
    fn array<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }

    fn u64(&self, offset: u64) -> Option<u64> {
        self.array(offset).map(u64::from_le_bytes)
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn number(&self, number: Number) -> Option<i32> {
        match number {
            Number::I32(offset) => self.array(offset).map(i32::from_le_bytes),
            Number::I16(offset) => self.array(offset).map(i16::from_le_bytes).map(i32::from),
            Number::U8(offset) => self.array(offset).map(|[byte]| i32::from(byte)),
        }
    }

    fn place(&self, place: Place) -> Option<u64> {
        match place {
            Place::Pointer(offset) => self.u64(offset),
            Place::Offset(offset) => self.address.checked_add(u64::from(self.u32(offset)?)),
            Place::From(base, offset) => self.u64(base)?.checked_add(u64::from(self.u32(offset)?)),
            Place::Small(base, offset) => {
                let small = self.array(offset).map(u16::from_le_bytes)?;
                self.address.checked_add(u64::from(self.u32(base)?) + u64::from(small))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        // (name, kind)
        let cases: [(&str, BlobKind); 11] = [
            ("g1_post_barrier_slow", BlobKind::Stubs),
            ("nmethod", BlobKind::Method),
            ("native nmethod", BlobKind::NativeWrapper),
            ("Interpreter", BlobKind::Interpreter),
            ("StubRoutines (1)", BlobKind::Stubs),
            ("StubRoutines (continuation stubs)", BlobKind::Continuation),
            ("StubRoutines (continuationstubs)", BlobKind::Continuation),
            ("RuntimeStub - _new_array_Java", BlobKind::RuntimeStub),
            ("C1 Runtime new_instance", BlobKind::RuntimeStub),
            ("new_instance Runtime1 stub", BlobKind::RuntimeStub),
            ("I2C/C2I adapters(0xbb)", BlobKind::Frameless),
        ];
        for (name, kind) in cases {
            assert_eq!(BlobKind::of_name(name.as_bytes()), kind, "{name}");
        }
    }
}
