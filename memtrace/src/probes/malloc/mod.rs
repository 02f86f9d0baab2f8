//! Which functions of an allocator are probed, and where they lie in its file.
//!
//! In: any file with code. Out: the functions of the allocators in it, if it has any, by their names; none where it has
//! none, or no symbols to find it by.
//!
//! C++'s operators new are not probed: one that throws would be unwound through the probe of its return, and end the target.

mod names;
mod symbols;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    os::unix::fs::FileExt,
};

use anyhow::{Context, Result};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use memtrace_common::Kind;
use object::{
    LittleEndian, Object, ObjectSymbol, ObjectSymbolTable, Relocation, RelocationTarget, elf,
    read::elf::ProgramHeader,
};

use super::{call_sites, placement};
use crate::target::{
    Library,
    elf_parts::{self, Parts},
};
use symbols::{Elf, Function, MAX_FUNCTIONS};

/// A longer function is looked at up to there.
const MAX_FUNCTION_BYTES: u64 = 16 << 10;
/// What is looked at of a function whose size is not told.
const UNSIZED_FUNCTION_BYTES: u64 = 256;
/// A JVM's library has some hundred thousand.
const MAX_RELOCATIONS: usize = 4_000_000;
/// Functions that a block is handed on by before it gets to the one that takes it back.
const MAX_HANDS: u32 = 4;
/// An entry of the procedure linkage table.
const LINKAGE_ENTRY_BYTES: u64 = 16;
/// A file has one or two with code.
const MAX_SEGMENTS: usize = 64;
/// Pieces of code that are read of a file: what it calls may be calls all over. An allocator takes some thousand.
const MAX_READS: u32 = 200_000;

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Offset of the probed instruction in the file: of the entry, or one where all is still as it was there.
    pub(super) file_offset: u64,
    /// Whether it calls no other function that is probed, whatever the program does.
    pub(super) is_leaf: bool,
    /// Bytes from the function's entry to that instruction.
    offset: u64,
    /// See [`placement::instruction_at`].
    instruction: (Option<Mnemonic>, bool),
}

/// How a function of an allocator would be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatorFunction {
    /// Its name.
    pub name: String,
    /// Bytes from its entry to the instruction that its probe belongs on.
    pub offset: u64,
    /// What that instruction is called, such as `push`; empty where the code can't be read.
    pub instruction: String,
    /// Whether the kernel emulates the instruction under the probe. Others it steps over, which costs ten times as much.
    pub is_emulated: bool,
    /// Whether it hands out blocks: then its return is probed, too, for the result.
    pub hands_out: bool,
}

impl From<Site> for AllocatorFunction {
    fn from(site: Site) -> Self {
        let Site { name, kind, offset, instruction: (mnemonic, is_emulated), .. } = site;
        let instruction = mnemonic.map(|it| format!("{it:?}").to_lowercase()).unwrap_or_default();
        let (name, hands_out) = (name.to_owned(), !is_end(kind));
        Self { name, offset, instruction, is_emulated, hands_out }
    }
}

/// What is probed of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sites {
    pub(super) sites: Vec<Site>,
    /// What of its allocators is not seen, a line each.
    pub(super) notes: Vec<String>,
}

/// The functions of the allocators in `library`; none where it has none.
pub(super) fn sites(library: &Library) -> Result<Sites> {
    let path = library.name();
    let bytes = elf_parts::read(library.file(), Parts::Linkage)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let elf = Elf::parse(&*bytes).with_context(|| format!("failed to parse {}", path.display()))?;
    let found = symbols::find(&elf);
    if found.functions.is_empty() {
        return Ok(Sites::default());
    }
    let functions = &found.functions;
    let code = Code::of(library, &elf, functions);
    let is_leaf = |name| found.is_glibc_without_hooks && ["malloc", "calloc"].contains(&name);
    let sites = functions.iter().filter(|&(&entry, function)| {
        // One that hands the block on to another that is probed would take it back twice.
        !is_end(function.kind) || !code.hands_on(entry, function.size, entry, &is_end, MAX_HANDS)
    });
    let sites = sites.filter_map(|(&entry, function)| {
        Some(Site { is_leaf: is_leaf(function.name), ..code.site(entry, function)? })
    });
    let sites = sites.collect();
    let name = path.file_name().unwrap_or(path.as_os_str()).display();
    // What it does only when it has run out of memory is not what it does.
    let is_unseen =
        |&(entry, size): &(u64, u64)| !code.hands_on(entry, size, entry, &|it| !is_end(it), 0);
    let operators = found.operator_new.filter(is_unseen).map(|_| {
        format!(
            "C++'s operators new of {name} are not seen; where their blocks are given back, that counts as of blocks from \
             before or unknown ones"
        )
    });
    let excess = found.is_too_much.then(|| {
        format!("an allocator in {name} may be unseen: it has more symbols, or more than {MAX_FUNCTIONS} functions")
    });
    Ok(Sites { sites, notes: operators.into_iter().chain(excess).collect() })
}

fn is_end(kind: Kind) -> bool {
    kind == Kind::FREE
}

/// Where the slots that the linkage table jumps through lead, as far as that is in the file itself.
fn linked_slots(elf: &Elf<'_>) -> HashMap<u64, u64> {
    let address_of = |relocation: &Relocation| {
        let RelocationTarget::Symbol(index) = relocation.target() else { return None };
        let symbol = elf.dynamic_symbol_table()?.symbol_by_index(index).ok()?;
        // Without a look at its name, which may be as long as the file.
        (!symbol.is_undefined()).then(|| symbol.address())
    };
    let relocations = elf.dynamic_relocations().into_iter().flatten().take(MAX_RELOCATIONS);
    relocations.filter_map(|(at, relocation)| Some((at, address_of(&relocation)?))).collect()
}

/// Whether nothing goes on behind `instruction`.
fn is_last(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
    )
}

/// What of the file is mapped to run.
struct Segment {
    address: u64,
    file_offset: u64,
    len: u64,
}

struct Code<'f> {
    library: &'f Library,
    functions: &'f BTreeMap<u64, Function>,
    segments: Vec<Segment>,
    /// See [`linked_slots`].
    slots: HashMap<u64, u64>,
    /// See [`MAX_READS`].
    n_reads_left: Cell<u32>,
}

impl<'f> Code<'f> {
    fn of(library: &'f Library, elf: &Elf<'_>, functions: &'f BTreeMap<u64, Function>) -> Self {
        let segments = elf.elf_program_headers().iter().filter(|segment| {
            segment.p_type(LittleEndian) == elf::PT_LOAD
                && segment.p_flags(LittleEndian) & elf::PF_X != 0
        });
        let segments = segments.take(MAX_SEGMENTS).map(|segment| Segment {
            address: segment.p_vaddr(LittleEndian),
            file_offset: segment.p_offset(LittleEndian),
            len: segment.p_filesz(LittleEndian),
        });
        Self {
            library,
            functions,
            segments: segments.collect(),
            slots: linked_slots(elf),
            n_reads_left: Cell::new(MAX_READS),
        }
    }

    fn site(&self, entry: u64, function: &Function) -> Option<Site> {
        let code = self.read(entry, function.size);
        let address = placement::of_entry(&code, entry);
        Some(Site {
            name: function.name,
            kind: function.kind,
            file_offset: self.file_offset(address)?,
            is_leaf: false,
            offset: address.wrapping_sub(entry),
            instruction: placement::instruction_at(&code, entry, address),
        })
    }

    /// Whether the function at `entry` hands what it is for on to another that is probed and `is_wanted`, by a call or as
    /// its last act, and by way of `n_hands` others at the most. The function at `origin` is no other: glibc's `free` begins
    /// anew when it has set up what a thread keeps (malloc/malloc.c of 2.42, `tcache_free_init`).
    fn hands_on(
        &self,
        entry: u64,
        size: u64,
        origin: u64,
        is_wanted: &dyn Fn(Kind) -> bool,
        n_hands: u32,
    ) -> bool {
        let code = self.read(entry, size);
        let Some(end) = entry.checked_add(code.len() as u64) else { return false };
        let mut calls = Decoder::with_ip(64, &code, entry, DecoderOptions::NONE)
            .into_iter()
            // Where its size is not told, up to where it must end.
            .scan(false, |has_ended, it| {
                let is_over = std::mem::replace(has_ended, is_last(&it) && size == 0);
                (!is_over).then_some(it)
            })
            .filter(|it| it.is_call_near() || it.is_jmp_short_or_near());
        calls.any(|call| {
            let target = self.linked(call.near_branch_target());
            let known = self.functions.get(&target);
            let is_elsewhere = !(entry..end).contains(&target) || known.is_some();
            is_elsewhere
                && target != entry
                && target != origin
                && (known.is_some_and(|it| is_wanted(it.kind))
                    || call.is_jmp_short_or_near()
                        && n_hands > 0
                        && self.hands_on(target, 0, origin, is_wanted, n_hands - 1))
        })
    }

    /// Where a call of `address` leads, which may be an entry of the linkage table.
    fn linked(&self, address: u64) -> u64 {
        let code = self.read(address, LINKAGE_ENTRY_BYTES);
        let slot = call_sites::slot_of_entry(&code, address);
        slot.and_then(|slot| self.slots.get(&slot)).copied().unwrap_or(address)
    }

    /// The code of a function, as much as can be read of it.
    fn read(&self, entry: u64, size: u64) -> Vec<u8> {
        let Some(at) = self.file_offset(entry) else { return Vec::new() };
        let Some(n_left) = self.n_reads_left.get().checked_sub(1) else { return Vec::new() };
        self.n_reads_left.set(n_left);
        let size = if size == 0 { UNSIZED_FUNCTION_BYTES } else { size.min(MAX_FUNCTION_BYTES) };
        let mut code = vec![0; size as usize];
        let n = self.library.file().read_at(&mut code, at).unwrap_or_default();
        code.truncate(n);
        code
    }

    /// Where the code at `address` lies in the file.
    fn file_offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let offset = address.checked_sub(segment.address).filter(|&it| it < segment.len)?;
            segment.file_offset.checked_add(offset)
        })
    }
}
