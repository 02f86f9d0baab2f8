//! Classes of a made-up heap, and how much room their instances take.
//!
//! In: names and fields. Out: sizes as HotSpot packs fields: the widest first, and what fits in the gap behind the header.

use super::records::Format;

/// Where a class stands in the heap's list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub(super) usize);

/// What a field or an element is, by HPROF's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A reference.
    Object = 2,
    /// 1 byte.
    Boolean = 4,
    /// 2 bytes.
    Char = 5,
    /// 4 bytes.
    Float = 6,
    /// 1 byte.
    Byte = 8,
    /// 4 bytes.
    Int = 10,
    /// 8 bytes.
    Long = 11,
}

impl Kind {
    /// Bytes in the file.
    pub(super) fn dumped_bytes(self, id_bytes: usize) -> usize {
        match self {
            Self::Object => id_bytes,
            Self::Boolean | Self::Byte => 1,
            Self::Char => 2,
            Self::Int | Self::Float => 4,
            Self::Long => 8,
        }
    }

    /// Bytes in the heap.
    pub(super) fn heap_bytes(self, format: Format) -> u64 {
        match self {
            Self::Object => format.reference_bytes,
            other => other.dumped_bytes(0) as u64,
        }
    }
}

/// A class.
#[derive(Clone, Debug)]
pub struct Class {
    /// As a dump has it, with slashes.
    pub name: String,
    /// The address of its mirror, which is its id.
    pub address: u64,
    /// The id of its superclass; 0 for `java/lang/Object`.
    pub superclass: u64,
    /// Whether it is of the application's class loader, rather than of the boot loader.
    pub is_of_application: bool,
    /// Its own instance fields.
    pub fields: Vec<(String, Kind)>,
    /// Its static fields, all of them references.
    pub statics: Vec<(String, u64)>,
    /// Kinds of an instance's fields in the order of the dump: its own, then those of its superclasses.
    pub all_kinds: Vec<Kind>,
    /// Bytes of an instance; 0 for the class of an array.
    pub instance_bytes: u64,
}

/// Bytes of an instance with these fields.
pub(super) fn instance_bytes(format: Format, kinds: &[Kind]) -> u64 {
    let widths = kinds.iter().map(|kind| kind.heap_bytes(format));
    let (wide, narrow): (Vec<u64>, Vec<u64>) = widths.partition(|width| *width == 8);
    let (wide, narrow) = (wide.iter().sum::<u64>(), narrow.iter().sum::<u64>());
    let gap =
        if wide > 0 { format.header_bytes.next_multiple_of(8) - format.header_bytes } else { 0 };
    (format.header_bytes + wide + narrow.max(gap)).next_multiple_of(8)
}

/// Bytes of an array.
pub(super) fn array_bytes(format: Format, kind: Kind, length: usize) -> u64 {
    (format.array_header_bytes + kind.heap_bytes(format) * length as u64).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes that JDK 17's class histogram shows for the same fields.
    #[test]
    fn sizes_are_hotspots() {
        use Kind::{Boolean, Byte, Int, Long, Object};
        let cases: [(&str, &[Kind], u64); 7] = [
            ("java/lang/Object", &[], 16),
            ("java/lang/Integer", &[Int], 16),
            ("java/lang/Long", &[Long], 24),
            ("java/lang/String", &[Object, Int, Byte, Boolean], 24),
            ("java/util/HashMap$Node", &[Int, Object, Object, Object], 32),
            ("java/util/LinkedList$Node", &[Object, Object, Object], 24),
            ("an int in the gap before a long", &[Int, Long], 24),
        ];
        for (name, kinds, want) in cases {
            assert_eq!(instance_bytes(Format::JDK_17, kinds), want, "{name}");
        }
        assert_eq!(array_bytes(Format::JDK_17, Byte, 0), 16);
        assert_eq!(array_bytes(Format::JDK_17, Object, 3), 32);
        assert_eq!(array_bytes(Format::JDK_5_32_BITS, Byte, 5), 24);
    }
}
