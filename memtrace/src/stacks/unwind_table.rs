//! The unwind information of a module (`.eh_frame`), compiled into a table from instruction to [`Rule`].
//!
//! A table is made once for each file and looked up for every frame; rules repeat, so they are kept once.
//! The information is the target's file and may say anything: what is not understood becomes [`Rule::Unsupported`].

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, Expression, LittleEndian, Operation,
    Register, RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use object::{Object, ObjectSection};
use rustc_hash::FxHashMap;

use super::rules::{Cfa, Rule, Saved};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// The most rows that are kept of one module; the largest libraries have half a million.
const MAX_ROWS: usize = 4 << 20;

/// Rules by address, as the module's file has addresses.
#[derive(Debug, Default)]
pub(super) struct UnwindTable {
    /// Address that a row begins at, ascending.
    starts: Vec<u32>,
    /// Index into `rules` for each row; [`NO_RULE`] where no function is.
    indexes: Vec<u16>,
    rules: Vec<Rule>,
}

const NO_RULE: u16 = u16::MAX;

/// Rows while they are collected: address and index.
#[derive(Default)]
struct Builder {
    rows: Vec<(u32, u16)>,
    rules: Vec<Rule>,
    known: FxHashMap<Rule, u16>,
}

impl UnwindTable {
    /// Compiles the unwind information of an ELF file; empty where it has none.
    pub(super) fn of_elf(elf: &object::File<'_>) -> Self {
        let Some(section) = elf.section_by_name(".eh_frame") else { return Self::default() };
        let Ok(bytes) = section.uncompressed_data() else { return Self::default() };
        let address = |name: &str| elf.section_by_name(name).map_or(0, |section| section.address());
        let bases = BaseAddresses::default()
            .set_eh_frame(section.address())
            .set_text(address(".text"))
            .set_got(address(".got"));
        Self::of_eh_frame(&bytes, &bases)
    }

    fn of_eh_frame(bytes: &[u8], bases: &BaseAddresses) -> Self {
        let frames = EhFrame::new(bytes, LittleEndian);
        let mut builder = Builder::default();
        let mut context = UnwindContext::new();
        let mut entries = frames.entries(bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else { continue };
            builder.function(&frames, bases, &fde, &mut context);
            if builder.rows.len() > MAX_ROWS {
                break;
            }
        }
        builder.finish()
    }

    /// The rule at `address`, `None` where the module describes no function.
    pub(super) fn rule(&self, address: u64) -> Option<Rule> {
        let address = u32::try_from(address).ok()?;
        let row = self.starts.partition_point(|&start| start <= address).checked_sub(1)?;
        self.rules.get(usize::from(self.indexes[row])).copied()
    }
}

impl Builder {
    fn function(
        &mut self,
        frames: &EhFrame<Bytes<'_>>,
        bases: &BaseAddresses,
        fde: &gimli::FrameDescriptionEntry<Bytes<'_>>,
        context: &mut UnwindContext<usize>,
    ) {
        let (start, end) = (fde.initial_address(), fde.end_address());
        let Ok(mut rows) = fde.rows(frames, bases, context) else {
            return self.row(start, Some(Rule::Unsupported));
        };
        loop {
            match rows.next_row() {
                Ok(Some(row)) => {
                    let rule = if fde.is_signal_trampoline() {
                        Rule::Signal
                    } else {
                        rule_of(row, frames)
                    };
                    self.row(row.start_address(), Some(rule));
                }
                Ok(None) => break,
                Err(_) => {
                    self.row(start, Some(Rule::Unsupported));
                    break;
                }
            }
        }
        self.row(end, None);
    }

    fn row(&mut self, address: u64, rule: Option<Rule>) {
        let Ok(address) = u32::try_from(address) else { return };
        let index = rule.map_or(NO_RULE, |rule| self.index(rule));
        self.rows.push((address, index));
    }

    fn index(&mut self, rule: Rule) -> u16 {
        let Self { rules, known, .. } = self;
        *known.entry(rule).or_insert_with(|| {
            // More kinds of frames than indexes: not seen in any library; the rest is not understood.
            let index = u16::try_from(rules.len()).unwrap_or(NO_RULE).min(NO_RULE - 1);
            if usize::from(index) == rules.len() {
                rules.push(rule);
            }
            index
        })
    }

    fn finish(self) -> UnwindTable {
        let Self { mut rows, mut rules, .. } = self;
        if rules.len() == usize::from(NO_RULE) {
            rules[usize::from(NO_RULE) - 1] = Rule::Unsupported;
        }
        // Where one function ends and the next begins at one address, the beginning counts.
        rows.sort_by_key(|&(address, index)| (address, index != NO_RULE));
        rows.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                *earlier = *later;
            }
            same || later.1 == earlier.1
        });
        rows.shrink_to_fit();
        let (starts, indexes) = rows.into_iter().unzip();
        UnwindTable { starts, indexes, rules }
    }
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
