//! Which functions of an allocator are probed, and where they lie in its file.
//!
//! In: any file with code. Out: the functions of the allocator in it, if it has one, by their names; none where it has
//! none, or no symbols to find it by.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::FileExt,
};

use anyhow::{Context, Result};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use memtrace_common::Kind;
use object::{Object, ObjectSymbol, ObjectSymbolTable, Relocation, RelocationTarget};

use super::{call_sites, placement, zlib::file_offset};
use crate::target::{
    Library,
    elf_parts::{self, Parts},
};

/// A longer function is looked at up to there.
const MAX_FUNCTION_BYTES: u64 = 16 << 10;
/// What is looked at of a function whose size is not told.
const UNSIZED_FUNCTION_BYTES: u64 = 256;
/// A browser's or a JVM's symbols are some millions.
const MAX_SYMBOLS: usize = 8_000_000;

/// A JVM's library has some hundred thousand.
const MAX_RELOCATIONS: usize = 4_000_000;
/// Functions that a block is handed on by before it gets to the one that takes it back.
const MAX_HANDS: u32 = 4;
/// An entry of the procedure linkage table.
const LINKAGE_ENTRY_BYTES: u64 = 16;

/// A function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Offset of the probed instruction in the file: of the entry, or one where all is still as it was there.
    pub(super) file_offset: u64,
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
        Self { name, offset, instruction, is_emulated, hands_out: !is_end(kind) }
    }
}

/// The functions of the C library's interface (C23 7.24.3, POSIX.1-2024, malloc(3)). Of several names of one function the
/// first one counts.
const C: [(&str, Kind); 13] = [
    ("malloc", Kind::MALLOC),
    ("calloc", Kind::CALLOC),
    ("realloc", Kind::REALLOC),
    ("reallocarray", Kind::REALLOCARRAY),
    ("posix_memalign", Kind::POSIX_MEMALIGN),
    ("aligned_alloc", Kind::ALIGNED_ALLOC),
    ("memalign", Kind::MEMALIGN),
    ("valloc", Kind::VALLOC),
    ("pvalloc", Kind::PVALLOC),
    ("free", Kind::FREE),
    ("cfree", Kind::FREE),
    ("free_sized", Kind::FREE),
    ("free_aligned_sized", Kind::FREE),
];

/// What allocators that are built into a program call their functions, so that the C library's stay beside them: jemalloc
/// by itself and in Rust programs, mimalloc, tcmalloc.
const PREFIXES: [&str; 4] = ["je_", "_rjem_", "mi_", "tc_"];

/// C++'s operators of the Itanium ABI, by how their names begin, whatever more arguments follow.
const OPERATORS: [(&str, Kind); 4] = [
    ("_Znwm", Kind::OPERATOR_NEW),
    ("_Znam", Kind::OPERATOR_NEW),
    ("_ZdlPv", Kind::OPERATOR_DELETE),
    ("_ZdaPv", Kind::OPERATOR_DELETE),
];

/// A function that was found: its size as the symbol tells it, 0 if it does not.
#[derive(Clone, Copy, Debug)]
struct Function<'s> {
    name: &'s str,
    kind: Kind,
    size: u64,
}

/// The functions of the allocator in `library`; none where it has none.
pub(super) fn sites(library: &Library) -> Result<Vec<Site>> {
    let path = library.name();
    let bytes = elf_parts::read(library.file(), Parts::Linkage)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let elf = object::File::parse(&*bytes)
        .with_context(|| format!("failed to parse {}", path.display()))?;
    let functions = functions(&elf);
    let code = Code { library, elf: &elf, slots: linked_slots(&elf, &functions) };
    let sites = functions.iter().filter(|&(&entry, function)| {
        // One that hands the block on to another that is probed would take it back twice.
        !is_end(function.kind) || !code.hands_on(entry, function.size, &functions, MAX_HANDS)
    });
    Ok(sites.filter_map(|(&entry, function)| code.site(entry, function)).collect())
}

fn is_end(kind: Kind) -> bool {
    matches!(kind, Kind::FREE | Kind::OPERATOR_DELETE)
}

/// The functions by address: the C library's names, among the symbols that other files can use or else among all; where
/// there are none, those with a prefix.
fn functions<'s>(elf: &'s object::File<'_>) -> BTreeMap<u64, Function<'s>> {
    let prefixes = [""].iter().chain(&PREFIXES);
    let of_prefix = |prefix: &&str| {
        let dynamic = find(elf.dynamic_symbols(), prefix);
        if dynamic.is_empty() { find(elf.symbols(), prefix) } else { dynamic }
    };
    prefixes.map(of_prefix).find(|found| !found.is_empty()).unwrap_or_default()
}

/// The functions whose names begin with `prefix`; none without one that hands out blocks.
fn find<'d: 's, 's>(
    symbols: impl Iterator<Item = object::Symbol<'d, 's>>,
    prefix: &str,
) -> BTreeMap<u64, Function<'s>> {
    let mut found: BTreeMap<u64, (usize, Function<'s>)> = BTreeMap::new();
    for symbol in symbols.take(MAX_SYMBOLS).filter(|symbol| symbol.is_definition()) {
        let Ok(name) = symbol.name() else { continue };
        let Some((rank, kind)) = rank_of(name, prefix) else { continue };
        let function = Function { name, kind, size: symbol.size() };
        let entry = found.entry(symbol.address()).or_insert((rank, function));
        if rank < entry.0 {
            *entry = (rank, function);
        }
    }
    let hands_out = |(_, function): &(usize, Function<'_>)| function.kind == Kind::MALLOC;
    if !found.values().any(hands_out) {
        return BTreeMap::new();
    }
    found.into_iter().map(|(address, (_, function))| (address, function)).collect()
}

/// What a function of this name does, and which of several names of one function counts.
fn rank_of(name: &str, prefix: &str) -> Option<(usize, Kind)> {
    let c = name.strip_prefix(prefix).and_then(|name| C.iter().position(|&(it, _)| it == name));
    if let Some(rank) = c {
        return Some((rank, C[rank].1));
    }
    let operator = OPERATORS.iter().position(|&(begin, _)| name.starts_with(begin))?;
    Some((C.len() + operator, OPERATORS[operator].1))
}

/// Where the slots that the linkage table jumps through lead, as far as that is in the file itself; none where there are no
/// functions to ask for.
fn linked_slots(
    elf: &object::File<'_>,
    functions: &BTreeMap<u64, Function<'_>>,
) -> HashMap<u64, u64> {
    if functions.is_empty() {
        return HashMap::new();
    }
    let address_of = |relocation: &Relocation| {
        let RelocationTarget::Symbol(index) = relocation.target() else { return None };
        let symbol = elf.dynamic_symbol_table()?.symbol_by_index(index).ok()?;
        symbol.is_definition().then(|| symbol.address())
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

struct Code<'f> {
    library: &'f Library,
    elf: &'f object::File<'f>,
    /// See [`linked_slots`].
    slots: HashMap<u64, u64>,
}

impl Code<'_> {
    fn site(&self, entry: u64, function: &Function<'_>) -> Option<Site> {
        let code = self.read(entry, function.size);
        let address = placement::of_entry(&code, entry);
        Some(Site {
            name: function.name.to_owned(),
            kind: function.kind,
            file_offset: file_offset(self.elf, address)?,
            offset: address - entry,
            instruction: placement::instruction_at(&code, entry, address),
        })
    }

    /// Whether the function at `entry` hands its block on to another of `functions` that takes blocks back, by a call or as
    /// its last act, and by way of `n_hands` others at the most.
    fn hands_on(
        &self,
        entry: u64,
        size: u64,
        functions: &BTreeMap<u64, Function<'_>>,
        n_hands: u32,
    ) -> bool {
        let code = self.read(entry, size);
        let end = entry + code.len() as u64;
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
            let is_elsewhere = !(entry..end).contains(&target) || functions.contains_key(&target);
            let takes_back = |it: &Function<'_>| is_end(it.kind);
            is_elsewhere
                && target != entry
                && (functions.get(&target).is_some_and(takes_back)
                    || call.is_jmp_short_or_near()
                        && n_hands > 0
                        && self.hands_on(target, 0, functions, n_hands - 1))
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
        let Some(at) = file_offset(self.elf, entry) else { return Vec::new() };
        let size = if size == 0 { UNSIZED_FUNCTION_BYTES } else { size.min(MAX_FUNCTION_BYTES) };
        let mut code = vec![0; size as usize];
        let n = self.library.file().read_at(&mut code, at).unwrap_or_default();
        code.truncate(n);
        code
    }
}
