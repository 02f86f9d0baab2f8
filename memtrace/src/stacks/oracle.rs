//! The rules that are made of a file's unwind information, compared with what framehop does with the same information.
//!
//! In every function of libraries that stand in a JVM's stacks, at many instructions: from registers and a stack that
//! are made up, both must get to the same caller. framehop goes by the frame pointer where it knows no better, and does
//! not say so: [`Shortcoming`] names where that is.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
};

use framehop::{
    ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};
use gimli::{CieOrFde, EhFrame, LittleEndian, UnwindSection};
use object::{Object, ObjectSection};

use super::{
    rules::{Cfa, Rule, Saved},
    unwind_table::UnwindTable,
};

const SP: u64 = 0x7fff_1000_0000;
const BP: u64 = SP + 0x4_0000;
const BX: u64 = SP + 0x2_0000;
/// Functions of a library that are compared; with `cargo xtask test --all` it is all of them.
const MAX_FUNCTIONS: usize = 5000;
/// Instructions of a function: as many at its beginning as spread over it.
const N_PLACES: u64 = 12;

/// Where framehop does not follow the information, and goes by the frame pointer instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shortcoming {
    /// A signal's frame: its expressions read memory.
    Signal,
    /// The canonical frame address stands in memory, where a function has realigned its stack.
    Realigned,
    /// The canonical frame address depends on rbx, which framehop does not follow.
    Rbx,
    /// The return address was taken off the stack (`vfork`): framehop takes what is left below it. Here it is no rule.
    ReturnAddressInRegister,
}

/// The caller's rip, rsp and rbp; `None` at a thread's first frame.
type Caller = Option<[u64; 3]>;

/// The stack that is made up: every word is different, and an address in the stack.
fn word(address: u64) -> u64 {
    let mixed = (address ^ address >> 17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    SP + 0x10_0000 + (mixed >> 40) * 8
}

/// Where a rule leads; `None` where it is not understood.
fn by_rule(rule: Rule, pc: u64) -> Option<Caller> {
    let Rule::Frame { cfa, bp, .. } = rule else {
        return (rule == Rule::End).then_some(None);
    };
    let add = |base: u64, offset: i32| base.wrapping_add_signed(i64::from(offset));
    let cfa = match cfa {
        Cfa::Sp(offset) => add(SP, offset),
        Cfa::Bp(offset) => add(BP, offset),
        Cfa::Bx(offset) => add(BX, offset),
        Cfa::AtBp(offset) => word(add(BP, offset)),
        Cfa::Plt => SP + if pc & 15 >= 11 { 16 } else { 8 },
    };
    let bp = match bp {
        Saved::Same => BP,
        Saved::AtCfa(offset) => word(add(cfa, offset)),
        Saved::AtBp(offset) => word(add(BP, offset)),
        Saved::Lost => return None,
    };
    Some(Some([word(cfa - 8), cfa, bp]))
}

/// Where following the frame pointer leads.
fn by_frame_pointer() -> Result<Caller, framehop::Error> {
    Ok(Some([word(BP + 8), BP + 16, word(BP)]))
}

impl Shortcoming {
    /// What explains that framehop gets to `theirs` at a place with `rule`, if it is one of these.
    fn of(rule: Rule, theirs: Result<Caller, framehop::Error>) -> Option<Self> {
        // Before and after the return address is put back.
        let in_register = [SP, SP + 8].map(|cfa| Ok(Some([word(cfa - 8), cfa, BP])));
        let (why, explained) = match rule {
            Rule::Signal => (Self::Signal, theirs == by_frame_pointer()),
            Rule::Frame { cfa: Cfa::AtBp(_), .. } => {
                (Self::Realigned, theirs == by_frame_pointer())
            }
            Rule::Frame { cfa: Cfa::Bx(_), .. } => (Self::Rbx, theirs == by_frame_pointer()),
            Rule::Unsupported => (Self::ReturnAddressInRegister, in_register.contains(&theirs)),
            _ => return None,
        };
        explained.then_some(why)
    }
}

struct Oracle<'a> {
    unwinder: UnwinderX86_64<&'a [u8]>,
    cache: CacheX86_64,
}

impl<'a> Oracle<'a> {
    fn new(elf: &object::File<'a>) -> Self {
        let svma = |name| {
            let section = elf.section_by_name(name)?;
            Some(section.address()..section.address() + section.size())
        };
        let data = |name| elf.section_by_name(name)?.data().ok();
        let sections = ExplicitModuleSectionInfo {
            text_svma: svma(".text"),
            got_svma: svma(".got"),
            eh_frame_svma: svma(".eh_frame"),
            eh_frame: data(".eh_frame"),
            eh_frame_hdr_svma: svma(".eh_frame_hdr"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            ..ExplicitModuleSectionInfo::default()
        };
        let mut unwinder = UnwinderX86_64::new();
        unwinder.add_module(Module::new("library".into(), 0..u64::from(u32::MAX), 0, sections));
        Self { unwinder, cache: CacheX86_64::<_>::new() }
    }

    fn caller(&mut self, pc: u64) -> Result<Caller, framehop::Error> {
        let mut regs = UnwindRegsX86_64::new(pc, SP, BP);
        let at = FrameAddress::from_instruction_pointer(pc);
        let mut stack = |address| Ok(word(address));
        let caller = self.unwinder.unwind_frame(at, &mut regs, &mut self.cache, &mut stack)?;
        Ok(caller.map(|pc| [pc, regs.sp(), regs.bp()]))
    }
}

/// First address and length of every function that is described.
fn functions(elf: &object::File<'_>) -> Vec<(u64, u64)> {
    let section = elf.section_by_name(".eh_frame").unwrap();
    let bases = gimli::BaseAddresses::default().set_eh_frame(section.address());
    let frames = EhFrame::new(section.data().unwrap(), LittleEndian);
    let mut entries = frames.entries(&bases);
    let mut functions = Vec::new();
    while let Some(entry) = entries.next().unwrap() {
        if let CieOrFde::Fde(partial) = entry {
            let fde = partial.parse(EhFrame::cie_from_offset).unwrap();
            functions.push((fde.initial_address(), fde.len()));
        }
    }
    functions
}

/// What was compared in a library.
#[derive(Debug, Default)]
struct Seen {
    n_equal: u64,
    n_not_understood: u64,
    shortcomings: BTreeMap<Shortcoming, u64>,
}

fn compare(path: &Path) -> Seen {
    let bytes = fs::read(path).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let (table, mut oracle, mut seen) =
        (UnwindTable::of_elf(&elf), Oracle::new(&elf), Seen::default());
    let functions = functions(&elf);
    let is_all = env::var_os("MEMTRACE_TEST_ALL").is_some();
    let step = if is_all { 1 } else { functions.len().div_ceil(MAX_FUNCTIONS).max(1) };
    for &(start, len) in functions.iter().step_by(step) {
        let spread = (0..N_PLACES).map(|n| n * len / N_PLACES);
        for pc in (0..N_PLACES).filter(|n| *n < len).chain(spread).map(|n| start + n) {
            let what = || format!("{} at {pc:#x} of {start:#x}", path.display());
            let rule = table.rule(pc).unwrap_or_else(|| panic!("no rule in {}", what()));
            let theirs = oracle.caller(pc);
            if let Some(why) = Shortcoming::of(rule, theirs) {
                *seen.shortcomings.entry(why).or_default() += 1;
            } else if let Some(ours) = by_rule(rule, pc) {
                assert_eq!(Ok(ours), theirs, "{rule:?} in {}", what());
                seen.n_equal += 1;
            } else {
                // What neither understands.
                assert_eq!(theirs, by_frame_pointer(), "{rule:?} in {}", what());
                seen.n_not_understood += 1;
            }
        }
    }
    seen
}

/// Libraries of the machine, and those of each of its JVMs.
fn libraries() -> (Vec<PathBuf>, usize) {
    let system = Path::new("/lib/x86_64-linux-gnu");
    let names = ["libc.so.6", "ld-linux-x86-64.so.2", "libm.so.6", "libstdc++.so.6", "libz.so.1"];
    let mut libraries: Vec<PathBuf> = names.iter().map(|name| system.join(name)).collect();
    let more = env::var("MEMTRACE_TEST_JDKS").unwrap_or_default();
    let jdks = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let jdks = jdks.map(|entry| entry.path()).chain(more.split(':').map(PathBuf::from));
    let in_jdk = ["lib/server/libjvm.so", "lib/libzip.so", "lib/libjava.so"];
    let n_system = libraries.len();
    libraries.extend(jdks.flat_map(|jdk| in_jdk.map(|name| jdk.join(name))));
    let is_there = |path: &PathBuf| path.is_file();
    let n_jvm = libraries[n_system..].iter().filter(|path| is_there(path)).count();
    let mut real: Vec<PathBuf> =
        libraries.iter().filter_map(|path| path.canonicalize().ok()).filter(is_there).collect();
    real.sort();
    real.dedup();
    (real, n_jvm)
}

/// Everywhere both get to the same caller, but for what framehop does not follow.
#[test]
fn same_as_framehop() {
    let (libraries, n_jvm) = libraries();
    if n_jvm == 0 {
        // Not `eprintln!`, whose output the test harness keeps to itself when the test passes.
        let _ =
            writeln!(std::io::stderr(), "skipped: same_as_framehop: no libjvm below /usr/lib/jvm");
    }
    let mut n_equal = 0;
    for path in &libraries {
        let seen = compare(path);
        let _ = writeln!(std::io::stderr(), "{}: {seen:?}", path.display());
        assert!(seen.n_not_understood * 1000 <= seen.n_equal, "{}: {seen:?}", path.display());
        n_equal += seen.n_equal;
    }
    assert!(n_equal > 20_000, "only {n_equal} instructions of {libraries:?} were compared");
}
