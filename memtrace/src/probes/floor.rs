//! That the kernel side asks for nothing newer than [`OLDEST_KERNEL`](super::conditions::OLDEST_KERNEL).
//!
//! There is no such kernel to try it on, so the object is read: a newer helper, kernel function, instruction, kind of map
//! or kind of type would be refused there. What its verifier makes of the programs is not proven.

use object::{
    Object as _, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind,
    elf::{SHF_EXECINSTR, SHT_NOBITS},
    read::elf::ElfFile64,
};

use super::OBJECT;

/// `BPF_FUNC_task_pt_regs`, the last helper of Linux 5.15 (include/uapi/linux/bpf.h).
const LAST_HELPER: i32 = 175;
/// `BTF_KIND_FLOAT`, the last kind of Linux 5.15 (include/uapi/linux/btf.h).
const LAST_BTF_KIND: u32 = 16;
/// `BPF_MAP_TYPE_TASK_STORAGE`, the last kind of map of Linux 5.15 (include/uapi/linux/bpf.h).
const LAST_MAP_TYPE: u32 = 29;

/// Programs that tracing goes on without where the kernel refuses them.
const OPTIONAL: [&str; 2] = ["block_session", "trap_session"];

/// One instruction (include/uapi/linux/bpf.h, `struct bpf_insn`).
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn read(bytes: [u8; 8]) -> Self {
        let [code, registers, o0, o1, i0, i1, i2, i3] = bytes;
        let immediate = i32::from_le_bytes([i0, i1, i2, i3]);
        Self { code, source: registers >> 4, offset: i16::from_le_bytes([o0, o1]), immediate }
    }

    /// What of it Linux 5.15 does not know.
    fn newer(self) -> Option<String> {
        let Self { code, source, offset, immediate } = self;
        let (class, operation) = (code & 7, code & 0xf0);
        match (class, operation) {
            // BPF_JMP | BPF_CALL: of a helper, of the program's own function, of the kernel's.
            (5, 0x80) if source == 0 && immediate > LAST_HELPER => {
                Some(format!("helper {immediate}"))
            }
            (5, 0x80) if source == 2 => Some("a function of the kernel".into()),
            // The rest came with Linux 6.6 or later: far jumps, signed division, moves that extend the sign, swaps of
            // bytes without a condition, loads that extend the sign.
            (6, 0x00 | 0xe0) => Some("a far jump".into()),
            (4 | 7, 0x30 | 0x90 | 0xb0) if offset != 0 => Some("signed arithmetic".into()),
            (7, 0xd0) => Some("an unconditional swap of bytes".into()),
            (1, _) if code & 0xe0 == 0x80 => Some("a load that extends the sign".into()),
            _ => None,
        }
    }
}

/// What of a program's code Linux 5.15 does not know.
fn newer_in(code: &[u8]) -> Vec<String> {
    let mut newer = Vec::new();
    let mut instructions = code.chunks_exact(8).map(|bytes| bytes.try_into().unwrap());
    while let Some(instruction) = instructions.next().map(Instruction::read) {
        newer.extend(instruction.newer());
        // A constant of 64 bits has its upper half in the next one.
        if instruction.code == 0x18 {
            instructions.next();
        }
    }
    newer
}

/// Kinds of types (Documentation/bpf/btf.rst): a header, then types, each with what its kind has behind it.
fn btf_kinds(btf: &[u8]) -> Vec<u32> {
    let word = |at: usize| u32::from_le_bytes(btf[at..at + 4].try_into().unwrap());
    let types = word(4) as usize + word(8) as usize;
    let end = types + word(12) as usize;
    let (mut at, mut kinds) = (types, Vec::new());
    while at < end {
        let info = word(at + 4);
        let (kind, n) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        kinds.push(kind);
        at += 12
            + match kind {
                // Integers, variables and tags of declarations have one more word.
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * n,
                6 | 13 => 8 * n,
                _ => 0,
            };
    }
    kinds
}

/// Every program but the optional ones, and every function that they call.
#[test]
fn nothing_newer() {
    let elf: ElfFile64 = ElfFile64::parse(OBJECT).unwrap();
    let mut n_functions = 0;
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let Some(section) = symbol.section_index() else { continue };
        let data = elf.section_by_index(section).unwrap().data().unwrap();
        let (start, n_bytes) = (symbol.address() as usize, symbol.size() as usize);
        let name = symbol.name().unwrap();
        if n_bytes == 0 || OPTIONAL.contains(&name) {
            continue;
        }
        n_functions += 1;
        let newer = newer_in(&data[start..start + n_bytes]);
        assert!(newer.is_empty(), "{name}: {newer:?}");
    }
    assert!(n_functions >= 10, "{n_functions}");
    assert_each_instruction_has_a_function(&elf);
}

/// Code that belongs to no symbol would not be looked at.
fn assert_each_instruction_has_a_function(elf: &ElfFile64<'_>) {
    for section in elf.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(SHF_EXECINSTR) == 0 || section.size() == 0 {
            continue;
        }
        assert_ne!(section.elf_section_header().sh_type.get(elf.endian()), SHT_NOBITS);
        let symbols =
            elf.symbols().filter(|symbol| symbol.section_index() == Some(section.index()));
        let functions = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text);
        let n_bytes: u64 = functions.map(|symbol| symbol.size()).sum();
        assert_eq!(n_bytes, section.size(), "{:?}", section.name());
    }
}

/// `BPF_FUNC_tail_call` (include/uapi/linux/bpf.h).
const TAIL_CALL: i32 = 12;

/// Programs on functions that do something keep off the processor's stack, which a kernel that may be preempted would give
/// to two threads at once (`memtrace-ebpf/src/own_stack.rs`).
#[test]
fn programs_on_functions_have_their_own_stack() {
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    let mut n_programs = 0;
    for (name, program) in &object.programs {
        use aya_obj::ProgramSection::{UProbe, URetProbe};
        let is_on_function = matches!(program.section, UProbe { .. } | URetProbe { .. });
        if !is_on_function || name.starts_with("trap") {
            continue;
        }
        n_programs += 1;
        let code = &object.functions[&program.function_key()].instructions;
        let calls_on =
            code.iter().any(|it| (it.code, it.src_reg(), it.imm) == (0x85, 0, TAIL_CALL));
        assert!(calls_on, "{name}");
    }
    assert!(n_programs >= 8, "{n_programs}");
}

/// The description of the kernel side's own types, and the maps.
#[test]
fn no_newer_types() {
    let elf: ElfFile64 = ElfFile64::parse(OBJECT).unwrap();
    let btf = elf.section_by_name(".BTF").unwrap();
    let kinds = btf_kinds(btf.data().unwrap());
    assert!(kinds.len() > 100, "{}", kinds.len());
    for kind in kinds {
        assert!((1..=LAST_BTF_KIND).contains(&kind), "{kind}");
    }
    let object = aya_obj::Object::parse(OBJECT).unwrap();
    assert!(object.maps.len() > 5);
    for (name, map) in &object.maps {
        assert!(map.map_type() <= LAST_MAP_TYPE, "{name}: {}", map.map_type());
    }
}

/// The reader sees what it is there to see.
#[test]
fn newer_things_are_seen() {
    // (instructions, how many are newer)
    let cases: [(&[[u8; 8]], usize); 9] = [
        // bpf_get_attach_cookie, bpf_task_pt_regs, bpf_loop
        (&[[0x85, 0, 0, 0, 174, 0, 0, 0], [0x85, 0, 0, 0, 175, 0, 0, 0]], 0),
        (&[[0x85, 0, 0, 0, 181, 0, 0, 0]], 1),
        // A function of the program's, which has no number yet, and one of the kernel's.
        (&[[0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff]], 0),
        (&[[0x85, 0x20, 0, 0, 1, 0, 0, 0]], 1),
        // The second half of a constant is none.
        (&[[0x18, 0, 0, 0, 0, 0, 0, 0], [0x85, 0, 0, 0, 181, 0, 0, 0]], 0),
        // r1 s/= 2, r1 = (s8)r2, gotol, r1 = *(s8 *)(r2 + 0)
        (&[[0x37, 1, 1, 0, 2, 0, 0, 0]], 1),
        (&[[0xbf, 0x21, 8, 0, 0, 0, 0, 0]], 1),
        (&[[0x06, 0, 0, 0, 1, 0, 0, 0]], 1),
        (&[[0x91, 0x21, 0, 0, 0, 0, 0, 0]], 1),
    ];
    for (instructions, want) in cases {
        assert_eq!(newer_in(instructions.as_flattened()).len(), want, "{instructions:x?}");
    }
}
