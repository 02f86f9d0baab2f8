//! Objects on the Java heap, as far as names need them: references, classes, strings.
//!
//! The heap moves while it is read. What was read of an object is therefore bounded and harmless, but may be torn.

use super::{
    fields::FieldsLayout,
    memory::{Memory, Unreadable},
    release::{Flags, Release},
    symbol::SymbolLayout,
    vm_structs::{TablesError, VmStructs},
};

/// Characters of a string that are kept.
const MAX_CHARS: u32 = 1024;
/// Superclasses that are followed.
const MAX_SUPERS: usize = 64;

/// How this JVM's objects look.
#[derive(Clone, Debug)]
pub(super) struct Oops {
    /// Base and shift of references of 32 bits, where there are any.
    narrow_oop: Option<(u64, u32)>,
    class: ClassPointer,
    /// Whether references are coloured, as generational ZGC does it.
    is_coloured: bool,
    /// Where the bytes of an array begin; its length stands before.
    array_length: u64,
    array_data: u64,
    pub(super) symbols: SymbolLayout,
    fields: FieldsLayout,
    klass_name: u64,
    klass_super: u64,
}

/// Where the class of an object stands.
#[derive(Clone, Copy, Debug)]
enum ClassPointer {
    /// In the upper bits of the first word.
    InMark {
        shift: u32,
        base: u64,
        scale: u32,
    },
    /// 32 bits.
    Narrow {
        offset: u64,
        base: u64,
        scale: u32,
    },
    Whole {
        offset: u64,
    },
}

impl Oops {
    pub(super) fn of(
        memory: &dyn Memory,
        structs: &VmStructs,
        flags: &Flags,
        release: &Release,
    ) -> Result<Self, TablesError> {
        let is_on = |flag: &str| flags.is_on(memory, flag);
        let narrow_oop = match is_on("UseCompressedOops") {
            Some(true) => Some(base_and_shift(
                memory,
                structs,
                [
                    "CompressedOops::_base",
                    "CompressedOops::_narrow_oop._base",
                    "Universe::_narrow_oop._base",
                ],
                [
                    "CompressedOops::_shift",
                    "CompressedOops::_narrow_oop._shift",
                    "Universe::_narrow_oop._shift",
                ],
            )?),
            _ => None,
        };
        let class = ClassPointer::of(memory, structs, flags)?;
        let feature = release.feature.unwrap_or(u32::MAX);
        // From JDK 23 on data begins right after the length, before at a multiple of 8.
        let (array_length, array_data) = match class {
            ClassPointer::InMark { .. } => (8, 12),
            ClassPointer::Narrow { .. } => (12, 16),
            ClassPointer::Whole { .. } if feature >= 23 => (16, 20),
            ClassPointer::Whole { .. } => (16, 24),
        };
        let is_generational = is_on("ZGenerational").unwrap_or(feature >= 24);
        Ok(Self {
            narrow_oop,
            class,
            is_coloured: is_on("UseZGC") == Some(true) && is_generational,
            array_length,
            array_data,
            symbols: SymbolLayout::of(structs)?,
            fields: FieldsLayout::of(structs)?,
            klass_name: structs.need_offset(&["Klass::_name"])?,
            klass_super: structs.need_offset(&["Klass::_super"])?,
        })
    }

    /// The object that a reference outside of the heap (an `oop` or what an `OopHandle` points at) means.
    pub(super) fn resolve(&self, reference: u64) -> u64 {
        // ZPointerLoadShift by the colour bits 12 to 15 of which one is set.
        let shift = match reference >> 12 & 15 {
            1 => 13,
            2 => 14,
            4 => 15,
            8 => 16,
            _ => return reference,
        };
        if self.is_coloured { reference >> shift } else { reference }
    }

    /// The object in the field at `place`.
    pub(super) fn reference(&self, memory: &dyn Memory, place: u64) -> Result<u64, Unreadable> {
        match self.narrow_oop {
            Some((base, shift)) => Ok(match memory.u32(place)? {
                0 => 0,
                narrow => base.wrapping_add(u64::from(narrow) << shift),
            }),
            None => memory.u64(place).map(|reference| self.resolve(reference)),
        }
    }

    /// The class of the object at `oop`.
    pub(super) fn klass(&self, memory: &dyn Memory, oop: u64) -> Result<u64, Unreadable> {
        let of_narrow = |narrow: u64, base: u64, scale: u32| base.wrapping_add(narrow << scale);
        Ok(match self.class {
            ClassPointer::InMark { shift, base, scale } => {
                of_narrow(memory.u64(oop)? >> shift, base, scale)
            }
            ClassPointer::Narrow { offset, base, scale } => {
                of_narrow(u64::from(memory.u32(oop.wrapping_add(offset))?), base, scale)
            }
            ClassPointer::Whole { offset } => memory.u64(oop.wrapping_add(offset))?,
        })
    }

    /// The name of a class, with slashes.
    pub(super) fn class_name(&self, memory: &dyn Memory, klass: u64) -> Result<String, Unreadable> {
        self.symbols.text(memory, memory.u64(klass.wrapping_add(self.klass_name))?)
    }

    /// Where objects of `klass` have the field `name` that class `declared_in` declares.
    pub(super) fn field(
        &self,
        memory: &dyn Memory,
        klass: u64,
        declared_in: &str,
        name: &str,
    ) -> Result<Option<u64>, Unreadable> {
        let mut klass = klass;
        for _ in 0..MAX_SUPERS {
            if klass == 0 {
                break;
            }
            if self.class_name(memory, klass)? == declared_in {
                return self.fields.offset(memory, &self.symbols, klass, name);
            }
            klass = memory.u64(klass.wrapping_add(self.klass_super))?;
        }
        Ok(None)
    }

    /// The text of the `java.lang.String` at `oop`, cut after 1,024 characters.
    pub(super) fn string(
        &self,
        memory: &dyn Memory,
        oop: u64,
        place: &StringFields,
    ) -> Result<String, Unreadable> {
        let array = self.reference(memory, oop.wrapping_add(place.value))?;
        let len = memory.u32(array.wrapping_add(self.array_length))?;
        let is_latin1 = match place.coder {
            Some(coder) => memory.u8(oop.wrapping_add(coder))? == 0,
            None => false,
        };
        // Without a coder the array is one of characters, and its length is theirs.
        let max = if is_latin1 || place.coder.is_none() { MAX_CHARS } else { 2 * MAX_CHARS };
        let n_bytes = len.min(max) as usize * if place.coder.is_none() { 2 } else { 1 };
        let bytes = memory.bytes(array.wrapping_add(self.array_data), n_bytes)?;
        if is_latin1 {
            return Ok(bytes.into_iter().map(char::from).collect());
        }
        let units: Vec<u16> =
            bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        Ok(String::from_utf16_lossy(&units))
    }
}

/// Where a `java.lang.String` has its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringFields {
    pub(super) value: u64,
    /// Absent on JDK 8, where every string is UTF-16.
    pub(super) coder: Option<u64>,
}

impl ClassPointer {
    fn of(memory: &dyn Memory, structs: &VmStructs, flags: &Flags) -> Result<Self, TablesError> {
        let narrow = || {
            base_and_shift(
                memory,
                structs,
                [
                    "CompressedKlassPointers::_base",
                    "CompressedKlassPointers::_narrow_klass._base",
                    "Universe::_narrow_klass._base",
                ],
                [
                    "CompressedKlassPointers::_shift",
                    "CompressedKlassPointers::_narrow_klass._shift",
                    "Universe::_narrow_klass._shift",
                ],
            )
        };
        if flags.is_on(memory, "UseCompactObjectHeaders") == Some(true)
            && let Some(shift) = structs.constant("markWord::klass_shift")
        {
            let (base, scale) = narrow()?;
            return Ok(Self::InMark { shift: (shift & 63) as u32, base, scale });
        }
        // The flag is gone where class pointers are always compressed.
        if flags.is_on(memory, "UseCompressedClassPointers") == Some(false) {
            return Ok(Self::Whole {
                offset: structs.need_offset(&["oopDesc::_metadata._klass"])?,
            });
        }
        let (base, scale) = narrow()?;
        let fields = ["oopDesc::_metadata._compressed_klass", "oopDesc::_compressed_klass"];
        Ok(Self::Narrow { offset: structs.need_offset(&fields)?, base, scale })
    }
}

fn base_and_shift(
    memory: &dyn Memory,
    structs: &VmStructs,
    base: [&str; 3],
    shift: [&str; 3],
) -> Result<(u64, u32), TablesError> {
    let base = memory.u64(structs.need_address(&base)?)?;
    Ok((base, memory.u32(structs.need_address(&shift)?)? & 31))
}
