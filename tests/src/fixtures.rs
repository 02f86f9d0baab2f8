//! The fixture programs in C: what each is built from, and building it.
//!
//! A name goes in, the path of a program that is up to date comes out. What was built is kept in
//! cargo's target directory under a hash of everything it was built from.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{java::system_jdk, turn::Lock};

/// How one program or library is made.
struct Fixture {
    /// The name of the file that comes out.
    name: &'static str,
    /// The source, without `.c`, `.cc` or `.s`.
    source: &'static str,
    /// What the compiler is told besides `-O1 -g`; later flags win.
    flags: &'static [&'static str],
    /// Libraries of this table that it is linked with.
    libraries: &'static [&'static str],
}

const fn fixture(
    name: &'static str,
    source: &'static str,
    flags: &'static [&'static str],
    libraries: &'static [&'static str],
) -> Fixture {
    Fixture { name, source, flags, libraries }
}

const THREADS: &[&str] = &["-pthread"];
/// As distributions build libraries: nothing but unwind tables to find a caller by.
const LIBRARY: &[&str] = &["-shared", "-fPIC", "-O2", "-g0", "-fomit-frame-pointer", "-Wl,-z,lazy"];

/// As distributions build them that guard indirect branches.
const GUARDED: &[&str] = &["-shared", "-fPIC", "-O2", "-g0", "-fcf-protection=full"];

/// What Java loads: a library with the JDK's header, and threads.
const OF_JAVA: &[&str] =
    &["-Wno-unused-function", "-shared", "-fPIC", "-O2", "-g0", "-fomit-frame-pointer", "-pthread"];

/// Programs that call the allocator: a compiler that knows what malloc does may leave calls out.
const BLOCKS: &[&str] = &["-fno-builtin", "-pthread"];

/// A library that is an allocator, or stands before one.
const ALLOCATOR: &[&str] = &["-shared", "-fPIC", "-O2", "-g0", "-fno-builtin"];

/// Programs that leave their heap in some shape; what looks up a function by name needs a library before 2.34.
const HEAPS: &[&str] = &["-fno-builtin", "-pthread", "-ldl", "-Wno-deprecated-declarations"];

const FIXTURES: &[Fixture] = &[
    fixture("map_ops", "map_ops", &[], &[]),
    fixture("residency", "residency", &[], &[]),
    fixture("mappings", "mappings", &[], &[]),
    fixture("denied", "denied", &["-Wno-unused-function"], &[]),
    fixture("crowd", "crowd", THREADS, &[]),
    fixture("changing", "changing", THREADS, &[]),
    fixture("heap_shapes", "heap_shapes", HEAPS, &[]),
    fixture("heap_damaged", "heap_damaged", HEAPS, &[]),
    fixture("heap_busy", "heap_busy", HEAPS, &[]),
    fixture("heap_contents", "heap_contents", HEAPS, &[]),
    fixture("lookalike", "lookalike", HEAPS, &[]),
    fixture("retained", "retained", HEAPS, &[]),
    fixture("starts", "starts", &["-Wno-unused-function"], &[]),
    fixture("heap_small", "heap_small", HEAPS, &[]),
    fixture("threads", "threads", THREADS, &[]),
    fixture("storm", "storm", THREADS, &[]),
    fixture("reuse", "reuse", THREADS, &[]),
    fixture("names", "names", THREADS, &[]),
    fixture("forks", "forks", THREADS, &[]),
    fixture("exits", "exits", &[], &[]),
    fixture("vanish", "vanish", &[], &[]),
    fixture("leaderless", "leaderless", THREADS, &[]),
    fixture("growing", "growing", &["-Wno-unused-function"], &[]),
    fixture("first_brk", "first_brk", &["-Wno-unused-function"], &[]),
    fixture("silent_jvm", "silent_jvm", &[], &[]),
    fixture("fake_jvm", "fake_jvm", &[], &["libjvm.so"]),
    fixture("libjvm.so", "fake_libjvm", LIBRARY, &[]),
    fixture("late_zlib", "late_zlib", &[], &[]),
    fixture("guarded_zip", "guarded_zip", &["-Wno-unused-function"], &["libzip.so"]),
    fixture("libzip.so", "guarded_libzip", GUARDED, &[]),
    fixture("zlib_user", "zlib_user", &["-lz"], &[]),
    fixture("dl_late", "dl_late", &[], &[]),
    fixture("late_lib", "late_lib", LIBRARY, &[]),
    fixture("stack_deep", "stack_deep", &[], &[]),
    fixture("stack_deep_stripped", "stack_deep", &["-g0", "-s"], &[]),
    fixture("stack_deep_static", "stack_deep", &["-static", "-no-pie"], &[]),
    fixture("stack_deep_static_pie", "stack_deep", &["-static-pie", "-fPIE"], &[]),
    fixture("stack_deep_no_pie", "stack_deep", &["-no-pie"], &[]),
    fixture("stack_deep_frame_pointers", "stack_deep", &["-fno-omit-frame-pointer"], &[]),
    fixture("stack_recursive", "stack_recursive", &[], &[]),
    fixture("stack_signal", "stack_signal", &[], &[]),
    fixture("stack_alloca", "stack_alloca", &[], &[]),
    fixture("stack_hidden", "stack_hidden", &[], &[]),
    fixture("stack_longjmp", "stack_longjmp", &[], &[]),
    fixture("stack_thread", "stack_thread", THREADS, &[]),
    fixture("stack_waits", "stack_waits", THREADS, &[]),
    fixture("stack_many", "stack_many", THREADS, &[]),
    fixture("stack_plt", "stack_plt", &[], &["plt_lib"]),
    fixture("plt_lib", "plt_lib", LIBRARY, &[]),
    fixture("stack_nofp", "stack_nofp", &[], &["nofp_lib"]),
    fixture("nofp_lib", "nofp_lib", LIBRARY, &[]),
    fixture("libupcalls.so", "upcalls", OF_JAVA, &[]),
    fixture("libblocks.so", "jni_blocks", OF_JAVA, &[]),
    fixture("zlib_sizes", "zlib_sizes", &["-lz"], &[]),
    fixture("blocks", "blocks", BLOCKS, &[]),
    fixture("blocks_stress", "blocks_stress", BLOCKS, &[]),
    fixture("blocks_each", "blocks_each", BLOCKS, &[]),
    fixture("blocks_edges", "blocks_edges", BLOCKS, &[]),
    fixture("blocks_fork", "blocks_fork", BLOCKS, &[]),
    fixture("blocks_of_child", "blocks_of_child", BLOCKS, &[]),
    fixture("blocks_in_turn", "blocks_in_turn", BLOCKS, &["two_frees.so"]),
    fixture("blocks_pairs", "blocks_pairs", BLOCKS, &[]),
    fixture("two_frees.so", "two_frees", ALLOCATOR, &[]),
    fixture("blocks_crowd", "blocks_crowd", BLOCKS, &[]),
    fixture("blocks_before", "blocks_before", BLOCKS, &[]),
    fixture("blocks_replaced", "blocks_replaced", BLOCKS, &[]),
    fixture("blocks_new", "blocks_new", &["-fno-builtin"], &[]),
    fixture("blocks_throw", "blocks_throw", &["-fno-builtin"], &[]),
    fixture("hands_on.so", "hands_on", ALLOCATOR, &[]),
    fixture(
        "hands_on_last.so",
        "hands_on",
        &["-shared", "-fPIC", "-O2", "-g0", "-fno-builtin", "-DAS_ITS_LAST_ACT"],
        &[],
    ),
    fixture("own_malloc.so", "own_malloc", ALLOCATOR, &[]),
    fixture("kernel_init", "kernel_init", &["-static"], &[]),
];

/// The source of the fixture `heap_shapes`, to be built with another C library.
pub const HEAP_SHAPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/c/heap_shapes.c");

/// The C library and the allocator that a program is linked with, other than the system's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Linked {
    /// glibc, in the program itself.
    Static,
    /// The same, without a symbol.
    StaticStripped,
    /// musl's library.
    Musl,
    /// musl, in the program itself.
    MuslStatic,
    /// A library that has this name, before glibc.
    Library(&'static str),
}

impl Linked {
    fn compiler(self) -> &'static str {
        match self {
            Linked::Musl | Linked::MuslStatic => "musl-gcc",
            Linked::Static | Linked::StaticStripped | Linked::Library(_) => "cc",
        }
    }

    fn flags(self) -> Vec<String> {
        let flags: &[&str] = match self {
            Linked::Musl => &[],
            Linked::Static | Linked::MuslStatic => &["-static"],
            Linked::StaticStripped => &["-static", "-s"],
            Linked::Library(name) => return vec![format!("-l:{name}")],
        };
        flags.iter().map(|&flag| flag.to_owned()).collect()
    }
}

/// The path of the C program or library `name`, built if need be.
pub fn built(name: &str) -> PathBuf {
    let (fixture, source) = find(name);
    let compiler = if source.extension().is_some_and(|is| is == "cc") { "c++" } else { "cc" };
    made(fixture, &source, compiler, &[])
}

/// The path of the C program `name`, linked as `how` says.
pub fn built_as(name: &str, how: Linked) -> PathBuf {
    let (fixture, source) = find(name);
    made(fixture, &source, how.compiler(), &how.flags())
}

/// The row `name`, and the source that it names.
fn find(name: &str) -> (&'static Fixture, PathBuf) {
    let Some(fixture) = FIXTURES.iter().find(|fixture| fixture.name == name) else {
        panic!("no fixture is named `{name}`");
    };
    let source = sources("c").join(fixture.source).with_extension("c");
    let source = if source.exists() { source } else { source.with_extension("cc") };
    (fixture, source)
}

fn made(fixture: &Fixture, source: &Path, compiler: &str, more: &[String]) -> PathBuf {
    let libraries: Vec<PathBuf> = fixture.libraries.iter().map(|name| built(name)).collect();
    let mut inputs = vec![source.to_owned()];
    inputs.extend(headers());
    let how = (compiler, fixture.flags, more, &libraries);
    cached(fixture.name, &inputs, &how, |output| {
        let mut cc = Command::new(compiler);
        cc.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror"]).arg(source).args(&libraries);
        for library in &libraries {
            let folder = library.parent().expect("a library lies in a folder");
            cc.arg(format!("-Wl,-rpath,{}", folder.display()));
        }
        if fixture.flags == OF_JAVA {
            let headers = system_jdk().home.join("include");
            cc.arg("-I").arg(&headers).arg("-I").arg(headers.join("linux"));
        }
        cc.args(fixture.flags).args(more).arg("-o").arg(output);
        run(&mut cc);
    })
}

/// The path of the 32-bit program, which has no libraries and needs none.
pub fn built_elf32() -> PathBuf {
    let source = sources("c").join("elf32.s");
    cached("elf32", std::slice::from_ref(&source), &(), |output| {
        let object = output.with_extension("o");
        run(Command::new("as").arg("--32").arg(&source).arg("-o").arg(&object));
        run(Command::new("ld").args(["-m", "elf_i386"]).arg(&object).arg("-o").arg(output));
    })
}

/// Where the fixtures of one language lie.
pub(crate) fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(language)
}

/// Cargo's target directory, in which the test that asks is running.
pub fn target_dir() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    // target/<profile>/deps/<test>
    test.ancestors().nth(3).expect("cargo runs tests in its target directory").to_path_buf()
}

/// The file `name` made by `make` from `inputs` and `how`, unless it was made from the same before.
pub(crate) fn cached(
    name: &str,
    inputs: &[PathBuf],
    how: &impl Hash,
    make: impl FnOnce(&Path),
) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    for input in inputs {
        fs::read(input).unwrap_or_else(|e| panic!("{}: {e}", input.display())).hash(&mut hasher);
    }
    how.hash(&mut hasher);
    let cache = target_dir().join("fixtures");
    let folder = cache.join(format!("{:016x}", hasher.finish()));
    let output = folder.join(name);
    // On another kernel the folder is there, and nobody may write to it.
    if output.exists() {
        return output;
    }
    fs::create_dir_all(&folder).expect("the target directory is writable");
    let _lock = Lock::exclusive(&folder.join("lock"));
    if !output.exists() {
        let draft = folder.join(format!("{name}.draft"));
        make(&draft);
        fs::rename(&draft, &output).expect("what was made is there");
    }
    output
}

/// Runs a tool that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("failed to run {command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
}

fn headers() -> Vec<PathBuf> {
    let mut headers: Vec<PathBuf> = fs::read_dir(sources("c"))
        .expect("the fixtures are there")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "h"))
        .collect();
    headers.sort();
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every program of the table compiles without a warning.
    #[test]
    fn all_build() {
        for fixture in FIXTURES {
            assert!(built(fixture.name).is_file(), "{}", fixture.name);
        }
        assert!(built_elf32().is_file());
    }

    /// Every source is built by some row.
    #[test]
    fn no_source_is_forgotten() {
        for entry in fs::read_dir(sources("c")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "c" || extension == "cc") {
                let stem = path.file_stem().unwrap().to_str().unwrap();
                assert!(FIXTURES.iter().any(|fixture| fixture.source == stem), "{stem}");
            }
        }
    }
}
