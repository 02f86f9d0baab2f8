//! Where a Java class has its fields: what its `InstanceKlass` says.

use super::{
    memory::{Memory, Unreadable},
    symbol::SymbolLayout,
    unsigned5::{Base, Numbers},
    vm_structs::{TablesError, VmStructs},
};

/// Bytes of a class's description of its fields that are looked at.
const MAX_BYTES: usize = 64 << 10;
/// The six 16-bit words of a field, before JDK 21: access, name, signature, value, low and high half of the offset.
const WORDS: usize = 6;
const NAME: usize = 1;
const OFFSET: usize = 4;

/// Bits of a field's flags, from JDK 21 on: what follows, and whether the VM has added it.
const HAS_VALUE: u32 = 1;
const IS_INJECTED: u32 = 2;
const HAS_SIGNATURE: u32 = 4;
const HAS_GROUP: u32 = 16;

/// How a class's fields are described.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldsLayout {
    form: Form,
    constants: u64,
    constant_pool_size: u64,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// `_fields`, an array of 16-bit words.
    Words { fields: u64, n_fields: u64 },
    /// `_fieldinfo_stream`, an array of bytes with packed numbers.
    Stream { stream: u64 },
}

impl FieldsLayout {
    pub(super) fn of(structs: &VmStructs) -> Result<Self, TablesError> {
        let form = match structs.offset("InstanceKlass::_fieldinfo_stream") {
            Some(stream) => Form::Stream { stream },
            None => Form::Words {
                fields: structs.need_offset(&["InstanceKlass::_fields"])?,
                n_fields: structs.need_offset(&["InstanceKlass::_java_fields_count"])?,
            },
        };
        Ok(Self {
            form,
            constants: structs.need_offset(&["InstanceKlass::_constants"])?,
            constant_pool_size: structs.need_size("ConstantPool")?,
        })
    }

    /// Where objects of `klass` have the field `wanted`, which it declares itself.
    pub(super) fn offset(
        &self,
        memory: &dyn Memory,
        symbols: &SymbolLayout,
        klass: u64,
        wanted: &str,
    ) -> Result<Option<u64>, Unreadable> {
        let pool = memory.u64(klass.wrapping_add(self.constants))?;
        let is_wanted = |index: u32| {
            let entry = pool.wrapping_add(self.constant_pool_size + 8 * u64::from(index));
            let symbol = memory.u64(entry).unwrap_or_default() & !1;
            symbols.text(memory, symbol).is_ok_and(|name| name == wanted)
        };
        match self.form {
            Form::Words { fields, n_fields } => {
                let n = usize::from(memory.u16(klass.wrapping_add(n_fields))?);
                let array = memory.u64(klass.wrapping_add(fields))?;
                let n = n.min(memory.u32(array)? as usize / WORDS);
                let bytes = memory.bytes(array.wrapping_add(4), 2 * WORDS * n)?;
                Ok(find_in_words(&bytes, is_wanted))
            }
            Form::Stream { stream } => {
                let array = memory.u64(klass.wrapping_add(stream))?;
                let len = (memory.u32(array)? as usize).min(MAX_BYTES);
                Ok(find_in_stream(&memory.bytes(array.wrapping_add(4), len)?, is_wanted))
            }
        }
    }
}

fn find_in_words(bytes: &[u8], is_wanted: impl Fn(u32) -> bool) -> Option<u64> {
    bytes.chunks_exact(2 * WORDS).find_map(|field| {
        let word = |n: usize| u32::from(u16::from_le_bytes([field[2 * n], field[2 * n + 1]]));
        // The two lowest bits tell what kind of offset it is.
        is_wanted(word(NAME)).then(|| u64::from((word(OFFSET) | word(OFFSET + 1) << 16) >> 2))
    })
}

fn find_in_stream(bytes: &[u8], is_wanted: impl Fn(u32) -> bool) -> Option<u64> {
    let mut numbers = Numbers::new(bytes, Base::One);
    let n_fields = numbers.next()?;
    let _n_injected = numbers.next()?;
    for _ in 0..n_fields {
        let (name, _signature, offset) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let (_access, flags) = (numbers.next()?, numbers.next()?);
        for follows in [HAS_VALUE, HAS_SIGNATURE, HAS_GROUP] {
            if flags & follows != 0 {
                numbers.next()?;
            }
        }
        if flags & IS_INJECTED == 0 && is_wanted(name) {
            return Some(u64::from(offset));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both forms, with what stands between the fields.
    #[test]
    fn forms() {
        let words: Vec<u8> = [[1, 5, 0, 0, 0x31, 0], [1, 6, 0, 0, 0x3 + (24 << 2), 1]]
            .concat()
            .iter()
            .flat_map(|word: &u16| word.to_le_bytes())
            .collect();
        assert_eq!(find_in_words(&words, |name| name == 5), Some(12));
        assert_eq!(find_in_words(&words, |name| name == 6), Some(24 + (1 << 14)));
        assert_eq!(find_in_words(&words, |name| name == 7), None);
        // Each number is one larger than what it means; the first field has a value and a signature.
        let stream = [3, 1, 6, 1, 13, 1, 1 + 5, 99, 98, 7, 1, 17, 1, 1];
        assert_eq!(find_in_stream(&stream, |name| name == 5), Some(12));
        assert_eq!(find_in_stream(&stream, |name| name == 6), Some(16));
        assert_eq!(find_in_stream(&stream, |name| name == 8), None);
        assert_eq!(find_in_stream(&stream[..9], |name| name == 6), None);
    }
}
