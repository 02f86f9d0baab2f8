//! HotSpot's own description of its structures, the `gHotSpotVM…` tables that its library exports for debuggers.
//!
//! A [`Library`] goes in; offsets, addresses, sizes and constants come out, by the names that HotSpot's source uses.
//! What a JVM can do is decided by what is in these tables, never by its version.

use rustc_hash::FxHashMap;
use thiserror::Error;

use super::{
    library::Library,
    memory::{Memory, Unreadable},
};

/// Entries of a table that are read; JDK 25 has about 1,300.
const MAX_ENTRIES: u64 = 16_384;
/// Bytes of an entry; it has been 48 at most.
const MAX_ENTRY_BYTES: u64 = 256;

/// Why the tables could not be read.
#[derive(Debug, Error)]
pub enum TablesError {
    /// The library is not HotSpot's, or one that describes nothing.
    #[error("libjvm exports no {0}, so it is not a HotSpot with its tables")]
    NoTable(&'static str),
    /// A table describes no structure of that kind.
    #[error("libjvm describes no {0}")]
    Missing(String),
    /// Its numbers make no sense.
    #[error("libjvm's table {0} makes no sense")]
    Broken(&'static str),
    /// Memory could not be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its type in C++, as `int` or `OopHandle`.
    pub type_name: Box<str>,
    /// Its address if it is static, else its offset.
    pub place: u64,
    /// Whether there is one for all.
    pub is_static: bool,
}

/// The tables of one JVM.
#[derive(Clone, Debug, Default)]
pub struct VmStructs {
    fields: FxHashMap<Box<str>, Field>,
    sizes: FxHashMap<Box<str>, u64>,
    constants: FxHashMap<Box<str>, u64>,
}

impl VmStructs {
    /// Reads the tables of `library`.
    pub fn read(memory: &dyn Memory, library: &Library) -> Result<Self, TablesError> {
        let mut structs = Self::default();
        let Self { fields, sizes, constants } = &mut structs;
        let source = Source { memory, library };
        source.entries(
            "gHotSpotVMStructs",
            "gHotSpotVMStructEntryArrayStride",
            FIELD,
            |words| {
                let [type_name, name, type_of_field, is_static, offset, address] = words else {
                    return Ok(());
                };
                let is_static = *is_static as u32 != 0;
                let place = if is_static { *address } else { *offset };
                let name = format!("{}::{}", source.text(*type_name)?, source.text(*name)?);
                // Some have no type: those of which only the address counts.
                let type_name = source.text(*type_of_field).unwrap_or_default().into();
                fields.insert(name.into(), Field { type_name, place, is_static });
                Ok(())
            },
        )?;
        source.entries("gHotSpotVMTypes", "gHotSpotVMTypeEntryArrayStride", TYPE, |words| {
            sizes.insert(source.text(words[0])?.into(), words[1]);
            Ok(())
        })?;
        for (table, stride, members) in CONSTANTS {
            source.entries(table, stride, &members, |words| {
                let is_int = table == CONSTANTS[0].0;
                let value = if is_int { (words[1] as i32) as i64 as u64 } else { words[1] };
                constants.insert(source.text(words[0])?.into(), value);
                Ok(())
            })?;
        }
        Ok(structs)
    }

    /// The field `Type::name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }

    /// The offset of the field `Type::name`.
    #[must_use]
    pub fn offset(&self, name: &str) -> Option<u64> {
        self.field(name).filter(|field| !field.is_static).map(|field| field.place)
    }

    /// The address of the static field `Type::name`.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<u64> {
        self.field(name).filter(|field| field.is_static).map(|field| field.place)
    }

    /// The size of a type in bytes.
    #[must_use]
    pub fn size(&self, type_name: &str) -> Option<u64> {
        self.sizes.get(type_name).copied()
    }

    /// A constant; negative ones wrap around.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<u64> {
        self.constants.get(name).copied()
    }

    /// As [`VmStructs::offset`], of the first of `names` that there is.
    pub(super) fn need_offset(&self, names: &[&str]) -> Result<u64, TablesError> {
        let missing = || TablesError::Missing(names.join(" or "));
        names.iter().find_map(|name| self.offset(name)).ok_or_else(missing)
    }

    /// As [`VmStructs::address`], of the first of `names` that there is.
    pub(super) fn need_address(&self, names: &[&str]) -> Result<u64, TablesError> {
        let missing = || TablesError::Missing(names.join(" or "));
        names.iter().find_map(|name| self.address(name)).ok_or_else(missing)
    }

    /// As [`VmStructs::size`].
    pub(super) fn need_size(&self, type_name: &str) -> Result<u64, TablesError> {
        self.size(type_name).ok_or_else(|| TablesError::Missing(type_name.to_owned()))
    }
}

/// The members of an entry: the variable that holds their offset, and their size.
type Members = [(&'static str, u64)];

const FIELD: &Members = &[
    ("gHotSpotVMStructEntryTypeNameOffset", 8),
    ("gHotSpotVMStructEntryFieldNameOffset", 8),
    ("gHotSpotVMStructEntryTypeStringOffset", 8),
    ("gHotSpotVMStructEntryIsStaticOffset", 4),
    ("gHotSpotVMStructEntryOffsetOffset", 8),
    ("gHotSpotVMStructEntryAddressOffset", 8),
];
const TYPE: &Members =
    &[("gHotSpotVMTypeEntryTypeNameOffset", 8), ("gHotSpotVMTypeEntrySizeOffset", 8)];
/// A table of constants: its name, that of its stride, and the members.
type Constants = (&'static str, &'static str, [(&'static str, u64); 2]);

const CONSTANTS: [Constants; 2] = [
    (
        "gHotSpotVMIntConstants",
        "gHotSpotVMIntConstantEntryArrayStride",
        [("gHotSpotVMIntConstantEntryNameOffset", 8), ("gHotSpotVMIntConstantEntryValueOffset", 4)],
    ),
    (
        "gHotSpotVMLongConstants",
        "gHotSpotVMLongConstantEntryArrayStride",
        [
            ("gHotSpotVMLongConstantEntryNameOffset", 8),
            ("gHotSpotVMLongConstantEntryValueOffset", 8),
        ],
    ),
];

/// Where the tables are read from.
#[derive(Clone, Copy)]
struct Source<'a> {
    memory: &'a dyn Memory,
    library: &'a Library,
}

impl Source<'_> {
    /// The value of the exported 64-bit variable `name`.
    fn variable(&self, name: &'static str) -> Result<u64, TablesError> {
        let address = self.library.symbol(self.memory, name)?.ok_or(TablesError::NoTable(name))?;
        Ok(self.memory.u64(address)?)
    }

    /// Calls `each` with the members of every entry of `table`, up to the one without a name.
    fn entries(
        &self,
        table: &'static str,
        stride: &'static str,
        members: &Members,
        mut each: impl FnMut(&[u64]) -> Result<(), TablesError>,
    ) -> Result<(), TablesError> {
        let (start, stride) = (self.variable(table)?, self.variable(stride)?);
        let mut places = Vec::new();
        for &(variable, len) in members {
            places.push((self.variable(variable)?, len));
        }
        let is_inside = |&(offset, len): &(u64, u64)| offset.saturating_add(len) <= stride;
        if stride == 0 || stride > MAX_ENTRY_BYTES || !places.iter().all(is_inside) {
            return Err(TablesError::Broken(table));
        }
        let mut words = vec![0; places.len()];
        for n in 0..MAX_ENTRIES {
            let entry = start.wrapping_add(n * stride);
            for (word, &(offset, len)) in words.iter_mut().zip(&places) {
                let place = entry.wrapping_add(offset);
                *word = if len == 4 {
                    u64::from(self.memory.u32(place)?)
                } else {
                    self.memory.u64(place)?
                };
            }
            if words[0] == 0 {
                return Ok(());
            }
            each(&words)?;
        }
        Err(TablesError::Broken(table))
    }

    fn text(&self, address: u64) -> Result<String, TablesError> {
        let text = self.memory.text(address)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
