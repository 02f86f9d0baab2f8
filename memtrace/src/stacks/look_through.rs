//! A file with code, looked at as the walk and the names look at it, but without a process.

use object::Object;

use super::{symbols::Symbols, unwind_table::UnwindTable};

/// Looks up rule and name at `addresses` of an ELF file; tells how many have one of the two.
pub fn look_through(elf: &[u8], addresses: impl Iterator<Item = u64>) -> usize {
    let Ok(elf) = object::File::parse(elf) else { return 0 };
    let (table, symbols) = (UnwindTable::of_elf(&elf), Symbols::of_elf(&elf));
    let entry = elf.entry();
    let near = (0..64).map(|n| entry.wrapping_add(n));
    let is_known = |&address: &u64| {
        let (rule, name) = (table.rule(address), symbols.name(address));
        rule.is_some() || name.is_some()
    };
    addresses.chain(near).filter(is_known).count()
}
