//! What the tasks need from the machine, and why.
//!
//! In: a look at what is installed ([`Machine`]). Out: the needs that are not met, as data.
//! Whether a need is met is decided by files alone: asking a package manager takes seconds, and
//! a JDK that was unpacked by hand is as good as a package.

use std::{env, path::PathBuf};

use crate::bpf_toolchain::{BpfToolchain, Places};

/// What is installed where.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Programs and compilers.
    pub(crate) places: Places,
    /// Where the programs of the running Rust toolchain are.
    ///
    /// Rustup's own folder has a `cargo-clippy` also when the component is not installed.
    pub(crate) toolchain_bin: PathBuf,
}

/// What a task is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Compile and link both sides.
    Build,
    /// Check formatting and lints.
    Lint,
    /// Run the integration tests.
    Tests,
    /// Fetch more JDKs.
    Jdks,
    /// Boot other kernels.
    Kernels,
    /// Run the fuzz targets.
    Fuzz,
    /// Build and run the demo application.
    Demo,
    /// Run other tools beside memtrace.
    Bench,
}

/// Something that must be installed.
#[derive(Debug)]
pub(crate) struct Need {
    /// Where it comes from.
    pub(crate) source: Source,
    /// Why it is needed; completes "…: ".
    pub(crate) reason: &'static str,
    parts: &'static [Part],
    is_met: fn(&Machine) -> bool,
}

/// Who installs a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Packages of Debian.
    Debian(&'static [&'static str]),
    /// bpf-linker, built by cargo with Debian's LLVM.
    BpfLinker,
    /// cargo-fuzz, built by cargo.
    CargoFuzz,
    /// A rustup toolchain beside the one in use.
    Toolchain(&'static str),
    /// A component of the rustup toolchain in use.
    Component(&'static str),
}

const NEEDS: &[Need] = &[
    Need {
        source: Source::Debian(&["gcc", "libc6-dev"]),
        reason: "cc links every Rust program and compiles zstd, the C fixtures and what is measured",
        parts: &[Part::Build, Part::Bench],
        is_met: |machine| machine.has_program("cc") && machine.has_file("usr/include/stdio.h"),
    },
    Need {
        source: Source::Debian(&["rustc-web", "libstd-rust-web-dev-bpf"]),
        reason: "a Rust compiler with a core library for BPF compiles the kernel side",
        parts: &[Part::Build],
        is_met: |machine| machine.places.has_bpf_compiler(),
    },
    Need {
        source: Source::Debian(&["llvm-22-dev"]),
        reason: "LLVM 22, with which bpf-linker is built",
        parts: &[Part::Build],
        is_met: |machine| {
            machine.has_program("bpf-linker") || machine.has_program("llvm-config-22")
        },
    },
    Need {
        source: Source::BpfLinker,
        reason: "bpf-linker turns the compiled kernel side into a BPF object",
        parts: &[Part::Build],
        is_met: |machine| machine.has_program("bpf-linker"),
    },
    Need {
        source: Source::Debian(&["rust-web-clippy"]),
        reason: "clippy of the compiler that compiles the kernel side",
        parts: &[Part::Lint],
        is_met: |machine| {
            machine.has_file("usr/bin/clippy-driver")
                || matches!(BpfToolchain::find(&machine.places), Ok(BpfToolchain::Nightly { .. }))
        },
    },
    Need {
        source: Source::Component("rustfmt"),
        reason: "rustfmt checks the formatting",
        parts: &[Part::Lint],
        is_met: |machine| machine.has_component("cargo-fmt"),
    },
    Need {
        source: Source::Component("clippy"),
        reason: "clippy checks the lints",
        parts: &[Part::Lint],
        is_met: |machine| machine.has_component("cargo-clippy"),
    },
    Need {
        source: Source::Debian(&["openjdk-17-jdk-headless"]),
        reason: "the JVM that is traced, the compiler of the Java fixtures, and what unpacks jars",
        parts: &[Part::Tests, Part::Demo, Part::Bench],
        is_met: |machine| machine.has_program("java") && machine.has_program("javac"),
    },
    Need {
        source: Source::Debian(&["maven"]),
        reason: "Maven builds the demo application, and fetches async-profiler",
        parts: &[Part::Tests, Part::Demo, Part::Bench],
        is_met: |machine| machine.has_program("mvn"),
    },
    Need {
        source: Source::Debian(&["gdb"]),
        reason: "gdb says what a stack really is",
        parts: &[Part::Tests],
        is_met: |machine| machine.has_program("gdb"),
    },
    Need {
        source: Source::Debian(&["bpftrace"]),
        reason: "bpftrace counts events beside memtrace, and is measured against it",
        parts: &[Part::Tests, Part::Bench],
        is_met: |machine| machine.has_program("bpftrace"),
    },
    Need {
        source: Source::Debian(&["strace"]),
        reason: "strace lists system calls beside memtrace, and is measured against it",
        parts: &[Part::Tests, Part::Bench],
        is_met: |machine| machine.has_program("strace"),
    },
    Need {
        source: Source::Debian(&["heaptrack"]),
        reason: "heaptrack is measured against memtrace",
        parts: &[Part::Bench],
        is_met: |machine| {
            [HEAPTRACK_PRELOAD, HEAPTRACK_INTERPRETER]
                .into_iter()
                .all(|name| library(&machine.places, name).is_some())
        },
    },
    Need {
        source: Source::Debian(&["libjemalloc2"]),
        reason: "jemalloc's own profiler is measured against memtrace",
        parts: &[Part::Bench],
        is_met: |machine| library(&machine.places, JEMALLOC).is_some(),
    },
    Need {
        source: Source::Debian(&["binutils"]),
        reason: "strip makes the fixture without symbols",
        parts: &[Part::Tests],
        is_met: |machine| machine.has_program("strip"),
    },
    Need {
        source: Source::Debian(&["python3-pip"]),
        reason: "pip fetches JVMs of other releases from PyPI",
        parts: &[Part::Jdks],
        is_met: |machine| machine.has_program("pip3"),
    },
    Need {
        source: Source::Debian(&["qemu-system-x86"]),
        reason: "qemu emulates the machine that other kernels boot on",
        parts: &[Part::Kernels],
        is_met: |machine| machine.has_program("qemu-system-x86_64"),
    },
    Need {
        source: Source::Debian(&["kmod"]),
        reason: "depmod says which modules of a kernel need which",
        parts: &[Part::Kernels],
        is_met: |machine| machine.has_file("usr/sbin/depmod") || machine.has_file("sbin/depmod"),
    },
    Need {
        source: Source::Debian(&["zlib1g-dev"]),
        reason: "the header that the zlib fixture is compiled with",
        parts: &[Part::Tests],
        is_met: |machine| machine.has_file("usr/include/zlib.h"),
    },
    Need {
        source: Source::Debian(&["g++"]),
        reason: "c++ compiles the fixture with C++'s operators new and delete",
        parts: &[Part::Tests],
        is_met: |machine| machine.has_program("c++"),
    },
    Need {
        source: Source::Debian(&["libjemalloc2", "libtcmalloc-minimal4", "libmimalloc2.0"]),
        reason: "allocators, besides glibc's, whose blocks are counted",
        parts: &[Part::Tests],
        is_met: |machine| {
            let libraries = ["libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2.0"];
            let is_there = |name| machine.has_file(&format!("usr/lib/x86_64-linux-gnu/{name}"));
            libraries.into_iter().all(is_there)
        },
    },
    Need {
        source: Source::Debian(&["musl-tools"]),
        reason: "musl-gcc makes programs with musl's allocator",
        parts: &[Part::Tests],
        is_met: |machine| machine.has_program("musl-gcc"),
    },
    Need {
        source: Source::Toolchain("nightly"),
        reason: "the sanitizers that fuzz targets are built with are nightly Rust's",
        parts: &[Part::Fuzz],
        is_met: |machine| machine.has_toolchain("nightly"),
    },
    Need {
        source: Source::CargoFuzz,
        reason: "cargo-fuzz builds and runs the fuzz targets",
        parts: &[Part::Fuzz],
        is_met: |machine| machine.has_program("cargo-fuzz"),
    },
];

/// jemalloc, as Debian builds it: with its profiler.
pub(crate) const JEMALLOC: &str = "libjemalloc.so.2";
/// What heaptrack preloads.
pub(crate) const HEAPTRACK_PRELOAD: &str = "libheaptrack_preload.so";
/// What resolves heaptrack's frames.
pub(crate) const HEAPTRACK_INTERPRETER: &str = "libexec/heaptrack_interpret";

/// A file of a package in `/usr/lib/DIR`, where DIR is the platform's or the package's.
pub(crate) fn library(places: &Places, name: &str) -> Option<PathBuf> {
    let folders = places.root.join("usr/lib").read_dir().ok()?.flatten();
    folders.map(|folder| folder.path().join(name)).find(|path| path.is_file())
}

/// The needs of `parts` that this machine does not meet, in the order to install them.
pub(crate) fn unmet(machine: &Machine, parts: &[Part]) -> Vec<&'static Need> {
    let concerns = |need: &&Need| need.parts.iter().any(|part| parts.contains(part));
    NEEDS.iter().filter(concerns).filter(|need| !(need.is_met)(machine)).collect()
}

impl Machine {
    /// This machine, with the Rust toolchain that runs this task.
    pub(crate) fn this() -> Self {
        let cargo = env::var_os("CARGO").map(PathBuf::from).unwrap_or_default();
        let toolchain_bin = cargo.parent().map(PathBuf::from).unwrap_or_default();
        Self { places: Places::of_this_machine(), toolchain_bin }
    }

    fn has_program(&self, name: &str) -> bool {
        self.places.program(name).is_some()
    }

    fn has_file(&self, path: &str) -> bool {
        self.places.root.join(path).is_file()
    }

    fn has_toolchain(&self, channel: &str) -> bool {
        let entries = self.places.toolchains.read_dir().into_iter().flatten().flatten();
        // `nightly-x86_64-…`, and not one of a day, `nightly-2026-01-01-…`.
        let is_it = |name: &str| {
            name.strip_prefix(channel).is_some_and(|rest| {
                let host = rest.strip_prefix('-').unwrap_or_default();
                rest.is_empty() || host.starts_with(|c: char| c.is_ascii_alphabetic())
            })
        };
        entries.into_iter().any(|entry| is_it(&entry.file_name().to_string_lossy()))
    }

    fn has_component(&self, program: &str) -> bool {
        self.toolchain_bin.join(program).is_file()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sources(machine: &Machine, parts: &[Part]) -> Vec<Source> {
        unmet(machine, parts).into_iter().map(|need| need.source).collect()
    }

    fn empty_machine(name: &str) -> Machine {
        let root = env::temp_dir().join(format!("memtrace-needs-{}-{name}", std::process::id()));
        Machine {
            toolchain_bin: root.join("toolchains/stable/bin"),
            places: Places {
                path: vec![root.join("usr/bin")],
                toolchains: root.join("toolchains"),
                root,
            },
        }
    }

    /// A machine with nothing needs everything of a part, and nothing of the others.
    #[test]
    fn bare_machine() {
        let machine = empty_machine("bare");
        let cases: [(&[Part], &[Source]); 3] = [
            (&[], &[]),
            (
                &[Part::Demo],
                &[Source::Debian(&["openjdk-17-jdk-headless"]), Source::Debian(&["maven"])],
            ),
            (
                &[Part::Bench],
                &[
                    Source::Debian(&["gcc", "libc6-dev"]),
                    Source::Debian(&["openjdk-17-jdk-headless"]),
                    Source::Debian(&["maven"]),
                    Source::Debian(&["bpftrace"]),
                    Source::Debian(&["strace"]),
                    Source::Debian(&["heaptrack"]),
                    Source::Debian(&["libjemalloc2"]),
                ],
            ),
        ];
        for (parts, want) in cases {
            assert_eq!(sources(&machine, parts), want, "{parts:?}");
        }
        let build = sources(&machine, &[Part::Build]);
        assert_eq!(build.last(), Some(&Source::BpfLinker), "built after its libraries: {build:?}");
    }

    /// An install that was cut short goes on where it stopped; LLVM is only for the linker's sake.
    #[test]
    fn half_installed_linker() {
        let build = [Source::Debian(&["llvm-22-dev"]), Source::BpfLinker];
        for (program, left) in [("cc", 2), ("llvm-config-22", 1), ("bpf-linker", 0)] {
            let machine = empty_machine(program);
            let bin = machine.places.root.join("usr/bin");
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join(program), "").unwrap();
            let mut sources = sources(&machine, &[Part::Build]);
            sources.retain(|source| build.contains(source));
            assert_eq!(sources, build[2 - left..], "{program}");
            fs::remove_dir_all(&machine.places.root).unwrap();
        }
    }

    /// What is there is not asked for, whoever installed it; a rustup component must be the
    /// running toolchain's.
    #[test]
    fn met_needs_are_not_listed() {
        let machine = empty_machine("met");
        let bin = machine.places.root.join("usr/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&machine.toolchain_bin).unwrap();
        for program in ["java", "javac", "strace", "clippy-driver", "cargo-clippy"] {
            fs::write(bin.join(program), "").unwrap();
        }
        for file in [
            "lib/heaptrack/libheaptrack_preload.so",
            "lib/heaptrack/libexec/heaptrack_interpret",
            "lib/x86_64-linux-gnu/libjemalloc.so.2",
        ] {
            let file = machine.places.root.join("usr").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        fs::write(machine.toolchain_bin.join("cargo-fmt"), "").unwrap();
        assert_eq!(sources(&machine, &[Part::Demo]), [Source::Debian(&["maven"])]);
        let bench = ["gcc", "maven", "bpftrace"];
        let of_bench = sources(&machine, &[Part::Bench]);
        let first =
            |source: &Source| matches!(source, Source::Debian(names) if bench.contains(&names[0]));
        assert!(of_bench.len() == bench.len() && of_bench.iter().all(first), "{of_bench:?}");
        assert_eq!(sources(&machine, &[Part::Lint]), [Source::Component("clippy")]);
        fs::remove_dir_all(&machine.places.root).unwrap();
    }
}
