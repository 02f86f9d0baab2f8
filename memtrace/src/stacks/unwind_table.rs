//! The unwind information of a module (`.eh_frame`): from an instruction to its [`Rule`].
//!
//! Nothing is compiled ahead: a large library has half a million rules, a trace needs some thousands, and while they all
//! were made the ring buffer would fill. What was looked up is remembered by [`Steps`](super::steps::Steps).
//! The information is the target's file and may say anything: what is not understood becomes [`Rule::Unsupported`].

use std::cell::RefCell;

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, DW_EH_PE_udata4, EhFrame, EhFrameHdr, EhFrameOffset,
    EndianSlice, Expression, FrameDescriptionEntry, LittleEndian, Operation, Register,
    RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use object::{Object, ObjectSection};

use super::{
    rules::{Cfa, Rule, Saved},
    start_files::StartFiles,
};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Fde<'a> = FrameDescriptionEntry<Bytes<'a>>;

/// The most functions that are indexed where the file brings no index; the largest libraries have a fifth of that.
const MAX_FUNCTIONS: usize = 4 << 20;
/// The most bytes of one function's unwind information that are followed for a rule.
const MAX_ENTRY_BYTES: usize = 64 << 10;

/// Rules by address, as the module's file has addresses.
#[derive(Debug, Default)]
pub(super) struct UnwindTable {
    eh_frame: Box<[u8]>,
    bases: BaseAddresses,
    index: Index,
    context: RefCell<UnwindContext<usize>>,
    /// What has no unwind information in any module.
    start_files: StartFiles,
}

/// How the unwind information of a function is found.
#[derive(Debug)]
enum Index {
    /// By the linker's own index, `.eh_frame_hdr`.
    Header(Box<[u8]>),
    /// By one of our own: functions' first addresses, ascending, and where their information stands.
    Own(Vec<(u64, usize)>),
}

impl Default for Index {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl UnwindTable {
    /// Takes the unwind information of an ELF file; none where it has none.
    pub(super) fn of_elf(elf: &object::File<'_>) -> Self {
        let section = |name: &str| elf.section_by_name(name);
        let Some(Ok(eh_frame)) = section(".eh_frame").map(|section| section.uncompressed_data())
        else {
            return Self::default();
        };
        let address = |name: &str| section(name).map_or(0, |section| section.address());
        let bases = BaseAddresses::default()
            .set_eh_frame(address(".eh_frame"))
            .set_eh_frame_hdr(address(".eh_frame_hdr"))
            .set_text(address(".text"))
            .set_got(address(".got"));
        let header = section(".eh_frame_hdr").and_then(|section| section.data().ok());
        let index = header
            .filter(|header| is_searchable(header, &bases))
            .map_or_else(|| index_of(&eh_frame, &bases), |header| Index::Header(header.into()));
        let (context, start_files) = (RefCell::default(), StartFiles::of_elf(elf));
        Self { eh_frame: eh_frame.into(), bases, index, context, start_files }
    }

    /// The rule at `address`, `None` where the module describes no function.
    pub(super) fn rule(&self, address: u64) -> Option<Rule> {
        self.described(address).or_else(|| self.start_files.rule(address))
    }

    fn described(&self, address: u64) -> Option<Rule> {
        let frames = EhFrame::new(&self.eh_frame, LittleEndian);
        let fde = self.function(&frames, address).filter(|fde| fde.contains(address))?;
        if fde.is_signal_trampoline() {
            return Some(Rule::Signal);
        }
        if fde.entry_len().max(fde.cie().entry_len()) > MAX_ENTRY_BYTES {
            return Some(Rule::Unsupported);
        }
        let mut context = self.context.borrow_mut();
        let row = fde.unwind_info_for_address(&frames, &self.bases, &mut context, address);
        Some(row.map_or(Rule::Unsupported, |row| rule_of(row, &frames)))
    }

    /// The function that begins last before `address`.
    fn function<'a>(&'a self, frames: &EhFrame<Bytes<'a>>, address: u64) -> Option<Fde<'a>> {
        let offset = match &self.index {
            Index::Header(header) => {
                let header = EhFrameHdr::new(header, LittleEndian).parse(&self.bases, 8).ok()?;
                let pointer = header.table()?.lookup(address, &self.bases).ok()?.direct().ok()?;
                // Not by `pointer_to_offset`, which expects that one lies after the other.
                let first = header.eh_frame_ptr().direct().ok()?;
                EhFrameOffset(usize::try_from(pointer.checked_sub(first)?).ok()?)
            }
            Index::Own(functions) => {
                let next = functions.partition_point(|(start, _)| *start <= address);
                EhFrameOffset(functions.get(next.checked_sub(1)?)?.1)
            }
        };
        frames.fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset).ok()
    }
}

/// Whether the linker's index has a table that can be searched.
fn is_searchable(header: &[u8], bases: &BaseAddresses) -> bool {
    // Linkers write the number of functions in 32 bits; gimli multiplies it without a check.
    if header.get(2) != Some(&DW_EH_PE_udata4.0) {
        return false;
    }
    let header = EhFrameHdr::new(header, LittleEndian).parse(bases, 8);
    header.is_ok_and(|header| header.table().is_some_and(|table| table.lookup(0, bases).is_ok()))
}

fn index_of(eh_frame: &[u8], bases: &BaseAddresses) -> Index {
    let frames = EhFrame::new(eh_frame, LittleEndian);
    let mut functions = Vec::new();
    let mut entries = frames.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
        functions.push((fde.initial_address(), fde.offset()));
        if functions.len() >= MAX_FUNCTIONS {
            break;
        }
    }
    functions.sort_unstable();
    functions.shrink_to_fit();
    Index::Own(functions)
}

fn rule_of(row: &gimli::UnwindTableRow<usize>, frames: &EhFrame<Bytes<'_>>) -> Rule {
    let ra = row.register(X86_64::RA);
    if matches!(ra, RegisterRule::Undefined) {
        return Rule::End;
    }
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => cfa_of_register(*register, *offset),
        CfaRule::Expression(expression) => expression.get(frames).ok().and_then(cfa_of_expression),
    };
    let Some(cfa) = cfa else { return Rule::Unsupported };
    if !matches!(ra, RegisterRule::Offset(-8)) {
        return Rule::Unsupported;
    }
    let saved = |register| saved_of(row.register(register), frames);
    Rule::Frame { cfa, bp: saved(X86_64::RBP), bx: saved(X86_64::RBX) }
}

fn cfa_of_register(register: Register, offset: i64) -> Option<Cfa> {
    let offset = i32::try_from(offset).ok()?;
    match register {
        X86_64::RSP => Some(Cfa::Sp(offset)),
        X86_64::RBP => Some(Cfa::Bp(offset)),
        X86_64::RBX => Some(Cfa::Bx(offset)),
        _ => None,
    }
}

/// `breg7 8; breg16 0; lit15; and; lit11; ge; lit3; shl; plus`: what linkers write for lazy PLT entries.
const PLT: [u8; 11] = [0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];

fn cfa_of_expression(expression: Expression<Bytes<'_>>) -> Option<Cfa> {
    if expression.0.slice() == PLT {
        return Some(Cfa::Plt);
    }
    let (register, offset, derefs) = based_expression(expression)?;
    match (register, derefs) {
        (X86_64::RSP, false) => Some(Cfa::Sp(offset)),
        (X86_64::RBP, false) => Some(Cfa::Bp(offset)),
        (X86_64::RBP, true) => Some(Cfa::AtBp(offset)),
        _ => None,
    }
}

/// A register and an offset, and whether the word there is meant.
fn based_expression(expression: Expression<Bytes<'_>>) -> Option<(Register, i32, bool)> {
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 4 };
    let mut operations = expression.operations(encoding);
    let Ok(Some(Operation::RegisterOffset { register, offset, .. })) = operations.next() else {
        return None;
    };
    let offset = i32::try_from(offset).ok()?;
    match operations.next() {
        Ok(None) => Some((register, offset, false)),
        Ok(Some(Operation::Deref { size: 8, space: false, .. }))
            if matches!(operations.next(), Ok(None)) =>
        {
            Some((register, offset, true))
        }
        _ => None,
    }
}

/// A callee-saved register that nothing is said of (gimli calls it undefined) still holds the caller's value.
fn saved_of(rule: RegisterRule<usize>, frames: &EhFrame<Bytes<'_>>) -> Saved {
    match rule {
        RegisterRule::Undefined | RegisterRule::SameValue => Saved::Same,
        RegisterRule::Offset(offset) => i32::try_from(offset).map_or(Saved::Lost, Saved::AtCfa),
        RegisterRule::Expression(expression) => {
            let based = expression.get(frames).ok().and_then(based_expression);
            match based {
                Some((X86_64::RBP, offset, false)) => Saved::AtBp(offset),
                _ => Saved::Lost,
            }
        }
        _ => Saved::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_this_program(use_header: bool) -> UnwindTable {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let table = UnwindTable::of_elf(&object::File::parse(&*bytes).unwrap());
        assert!(matches!(table.index, Index::Header(_)));
        if use_header {
            return table;
        }
        let index = index_of(&table.eh_frame, &table.bases);
        UnwindTable { index, ..table }
    }

    /// The linker's index and our own lead to the same rules, everywhere in a function and around it.
    #[test]
    fn both_indexes() {
        let (by_header, by_own) = (of_this_program(true), of_this_program(false));
        let Index::Own(functions) = &by_own.index else { panic!("it has its own index") };
        assert!(functions.len() > 1000);
        let mut n_frames = 0;
        for (start, _) in functions.iter().step_by(functions.len() / 500) {
            for address in (start.saturating_sub(3)..start + 100).step_by(3) {
                let rule = by_own.rule(address);
                assert_eq!(by_header.rule(address), rule, "{address:#x}");
                n_frames += usize::from(matches!(rule, Some(Rule::Frame { .. })));
            }
        }
        assert!(n_frames > 10_000, "{n_frames}");
    }

    /// A function's first instruction has its return address on top of the stack.
    #[test]
    fn first_instruction() {
        let table = of_this_program(true);
        let rule = table.rule(both_indexes as *const () as u64 - load_address());
        let want = Rule::Frame { cfa: Cfa::Sp(8), bp: Saved::Same, bx: Saved::Same };
        assert_eq!(rule, Some(want));
        assert_eq!(table.rule(1), None);
        assert_eq!(table.rule(u64::MAX), None);
        assert_eq!(UnwindTable::default().rule(1), None);
    }

    /// An index that leads to before the information leads to no rule.
    #[test]
    fn index_to_before() {
        // Version 1; where the information is, the number of functions and both columns are four bytes each.
        let mut header = vec![1, 3, 3, 3];
        for number in [0x2000_u32, 1, 0x10, 0x1fff] {
            header.extend(number.to_le_bytes());
        }
        let bases = BaseAddresses::default().set_eh_frame_hdr(0x1000).set_eh_frame(0x2000);
        assert!(is_searchable(&header, &bases));
        let index = Index::Header(header.into());
        let table =
            UnwindTable { eh_frame: [0; 64].into(), bases, index, ..UnwindTable::default() };
        assert_eq!(table.rule(0x20), None);
    }

    /// An index of more functions than there are numbers is none.
    #[test]
    fn index_of_too_many() {
        let mut header = vec![1, 3, 4, 3];
        header.extend(0x2000_u32.to_le_bytes());
        header.extend(u64::MAX.to_le_bytes());
        let bases = BaseAddresses::default().set_eh_frame_hdr(0x1000).set_eh_frame(0x2000);
        assert!(!is_searchable(&header, &bases));
    }

    fn load_address() -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap()
    }

    /// Information that is damaged anywhere gives some rule or none, and ends.
    #[test]
    fn damaged() {
        let mut table = of_this_program(false);
        let Index::Own(functions) = &table.index else { panic!("it has its own index") };
        let starts: Vec<u64> = functions.iter().map(|(start, _)| *start).collect();
        let mut random = 1_u64;
        for round in 0..2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 20) as usize % table.eh_frame.len();
            table.eh_frame[at] ^= (random >> 12) as u8;
            for start in starts.iter().skip(round % 97).step_by(starts.len() / 20) {
                table.rule(start + 20);
            }
        }
        let Index::Own(_) = index_of(&table.eh_frame, &table.bases) else {
            panic!("it is our own")
        };
    }
}
