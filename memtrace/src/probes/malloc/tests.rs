use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use object::read::elf::SectionHeader;

use super::*;

/// An allocator with the C library's names, and jemalloc's with Rust's prefix that no other file can use.
const SOURCE: &str = "
    #define NOTHING __asm__ volatile(\"\")
    #define HIDDEN __attribute__((visibility(\"hidden\")))
    #define FUNCTION __attribute__((noinline))
    typedef unsigned long size;
    static char room[64];
    HIDDEN FUNCTION void forget(void *it) { NOTHING; }
    FUNCTION void *malloc(size n) { NOTHING; return room; }
    FUNCTION void *realloc(void *it, size n) { NOTHING; return room + 1; }
    FUNCTION void free(void *it) { forget(it); NOTHING; }
    FUNCTION void cfree(void *it) { NOTHING; free(it); NOTHING; }
    HIDDEN FUNCTION void on_its_way(void *it) { NOTHING; free(it); }
    FUNCTION void sdallocx(void *it, size n, int flags) { NOTHING; on_its_way(it); }
    FUNCTION void dallocx(void *it, int flags) { NOTHING; forget(it); NOTHING; }
    HIDDEN FUNCTION void *_rjem_malloc(size n) { NOTHING; return room + 2; }
    HIDDEN FUNCTION void *_rjem_mallocx(size n, int flags) { NOTHING; return room + 3; }
    HIDDEN FUNCTION void *_rjem_rallocx(void *it, size n, int flags) { NOTHING; return room + 4; }
    HIDDEN FUNCTION void _rjem_sdallocx(void *it, size n, int flags) { NOTHING; forget(it); }
    HIDDEN FUNCTION void *mi_zalloc(size n) { NOTHING; return room + 5; }
    void *tc_malloc = room;
";
/// As libstdc++ has it, and as an allocator that brings its own.
const NEW_BY_MALLOC: &str = "void *_Znwm(size n) { void *it = malloc(n); NOTHING; return it; }";
const NEW_OF_ITS_OWN: &str = "void *_Znwm(size n) { NOTHING; return room + 6; }";

fn sites_of(source: &str, arguments: &[&str]) -> Sites {
    let folder = tempfile::tempdir().unwrap();
    let (file, library) = (folder.path().join("it.c"), folder.path().join("libit.so"));
    fs::write(&file, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-w", "-O2", "-fno-builtin", "-fno-ipa-icf", "-fpic", "-shared"]);
    compiler.args(arguments).arg("-o").args([&library, &file]);
    assert!(compiler.status().unwrap().success());
    sites(&Library::open(&library).unwrap()).unwrap()
}

fn names(sites: &Sites) -> Vec<&'static str> {
    let mut names: Vec<_> = sites.sites.iter().map(|site| site.name).collect();
    names.sort_unstable();
    names
}

/// Malloc and calloc call nothing that is probed in a glibc without hooks only, realloc and others do.
#[test]
fn leaves() {
    const CALLOC: &str = "FUNCTION void *calloc(size n, size m) { NOTHING; return room + 7; }";
    const VERSION: &str = "const char *gnu_get_libc_version(void) { return 0; }";
    const THREADS: &str = "int pthread_create(void) { return 0; }";
    let cases: [(&[&str], &[&str]); 4] = [
        (&[], &[]),
        (&[THREADS], &[]),
        (&[VERSION], &[]),
        (&[VERSION, THREADS], &["calloc", "malloc"]),
    ];
    for (more, want) in cases {
        let source = [&[SOURCE, CALLOC], more].concat().concat();
        let sites = sites_of(&source, &[]).sites;
        let mut leaves: Vec<_> =
            sites.iter().filter(|site| site.is_leaf).map(|site| site.name).collect();
        leaves.sort_unstable();
        assert_eq!(leaves, want, "{more:?}");
    }
}

/// Each allocator of a file is found, once each what takes a block back; what is no function, and what has no malloc, is not.
#[test]
fn families() {
    let of_libc = ["dallocx", "free", "malloc", "realloc"];
    let of_rust = ["_rjem_malloc", "_rjem_mallocx", "_rjem_rallocx", "_rjem_sdallocx"];
    let all = [&of_rust[..], &of_libc].concat();
    for arguments in [&[][..], &["-Wl,-Bsymbolic"], &["-fno-plt", "-Wl,-Bsymbolic"]] {
        let found = sites_of(SOURCE, arguments);
        assert_eq!(names(&found), all, "{arguments:?}");
        assert!(found.notes.is_empty(), "{:?}", found.notes);
        let kind = |name| found.sites.iter().find(|it| it.name == name).unwrap().kind;
        assert_eq!(kind("_rjem_mallocx"), Kind::MALLOC);
        assert_eq!(kind("_rjem_rallocx"), Kind::REALLOC);
        assert_eq!(kind("_rjem_sdallocx"), Kind::FREE);
    }
    assert_eq!(names(&sites_of(SOURCE, &["-s"])), of_libc);
    assert_eq!(sites_of("int main(void) { return 0; }", &[]), Sites::default());
}

/// What begins anew when it has prepared something hands nothing on to another; what hands on to that does.
#[test]
fn begins_anew() {
    let source = format!(
        "{SOURCE}
        HIDDEN FUNCTION void prepare(void *it) {{ NOTHING; mi_free(it); }}
        FUNCTION void mi_free(void *it) {{ if (!room[0]) return prepare(it); forget(it); NOTHING; }}
        FUNCTION void mi_free_size(void *it, size n) {{ NOTHING; mi_free(it); }}
        FUNCTION void *mi_malloc(size n) {{ NOTHING; return room + 7; }}"
    );
    let found = names(&sites_of(&source, &["-Wl,-Bsymbolic"]));
    assert!(found.contains(&"mi_free") && !found.contains(&"mi_free_size"), "{found:?}");
}

/// C++'s operators are never probed; that an allocator's own are not seen is told.
#[test]
fn operators() {
    let by_malloc = sites_of(&format!("{SOURCE}{NEW_BY_MALLOC}"), &[]);
    assert!(by_malloc.notes.is_empty(), "{:?}", by_malloc.notes);
    let own = sites_of(&format!("{SOURCE}{NEW_OF_ITS_OWN}"), &[]);
    assert_eq!(own.notes.len(), 1);
    assert!(own.notes[0].starts_with("C++'s operators new of libit.so are not seen"));
    assert_eq!(names(&own), names(&by_malloc));
    assert!(!names(&own).contains(&"_Znwm"));
    let alone = "typedef unsigned long size; void *_Znwm(size n) { return (void *)n; }";
    assert_eq!(sites_of(alone, &[]), Sites::default());
}

/// More functions than any allocator has, each calling all over: no more are probed than are allowed, and in no time.
#[test]
fn excess() {
    let functions: String = (0..3000)
        .map(|n| {
            format!(".type s{n}, @function\ns{n}:\n.rept 4000\njmp s1\n.endr\n.size s{n}, .-s{n}\n")
        })
        .collect();
    let source = format!(".globl malloc\n.type malloc, @function\nmalloc: ret\n{functions}");
    let folder = tempfile::tempdir().unwrap();
    let (file, path) = (folder.path().join("it.s"), folder.path().join("libit.so"));
    fs::write(&file, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-nostdlib", "-Wl,--export-dynamic", "-o"]).args([&path, &file]);
    assert!(compiler.status().unwrap().success());
    let mut bytes = fs::read(&path).unwrap();
    name_all_free(&mut bytes);
    fs::write(&path, &bytes).unwrap();
    let began = Instant::now();
    let found = sites(&Library::open(&path).unwrap()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(found.sites.len() <= MAX_FUNCTIONS, "{}", found.sites.len());
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    assert!(found.notes[0].contains("may be unseen"), "{:?}", found.notes);
}

/// Gives every function of the file the name `free`, but for the one that is `malloc`.
fn name_all_free(bytes: &mut [u8]) {
    let (symbols, n_symbols, names) = {
        let elf = Elf::parse(&*bytes).unwrap();
        let table = elf.elf_symbol_table();
        let base = bytes.as_ptr() as usize;
        let section = elf.elf_section_table().section(table.string_section()).unwrap();
        let names = section.sh_offset(LittleEndian) as usize;
        (table.symbols().as_ptr() as usize - base, table.len(), names)
    };
    let malloc = find_bytes(&bytes[names..], b"\0malloc\0") as u32 + 1;
    let free = find_bytes(&bytes[names..], b"\0s2000\0") as u32 + 1;
    bytes[names + free as usize..][..5].copy_from_slice(b"free\0");
    for symbol in bytes[symbols..][..24 * n_symbols].chunks_exact_mut(24) {
        let is_function = symbol[4] & 0xf == elf::STT_FUNC;
        if is_function && symbol[..4] != malloc.to_le_bytes() {
            symbol[..4].copy_from_slice(&free.to_le_bytes());
        }
    }
}

fn find_bytes(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|it| it == wanted).unwrap()
}
