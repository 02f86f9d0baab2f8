//! Which compiler builds the kernel side.
//!
//! In: where this machine keeps its programs ([`Places`]). Out: a [`BpfToolchain`] and the cargo
//! command that builds `memtrace-ebpf` with it, or what is missing of either.
//! Installs nothing and runs nothing; shared by `xtask` and the build script of `memtrace`, so it
//! needs only the standard library.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The target that the kernel side is compiled for.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";

/// A compiler and a linker that turn `memtrace-ebpf` into a BPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BpfToolchain {
    /// Debian's `rustc-web`, whose `core` for BPF comes prebuilt.
    Debian {
        /// Debian's compiler, beside rustup's.
        rustc: PathBuf,
        /// bpf-linker.
        linker: PathBuf,
    },
    /// A nightly of rustup, which builds `core` from `rust-src`.
    Nightly {
        /// The directory of the toolchain in rustup's home.
        toolchain: PathBuf,
        /// bpf-linker.
        linker: PathBuf,
    },
}

/// Where programs and compilers live on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Directories searched for programs, in order.
    pub(crate) path: Vec<PathBuf>,
    /// Where Debian's packages were unpacked: `/`.
    pub(crate) root: PathBuf,
    /// Toolchains that rustup keeps.
    pub(crate) toolchains: PathBuf,
}

/// What neither toolchain can do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// No compiler has a `core` for BPF.
    pub(crate) compiler: bool,
    /// No bpf-linker.
    pub(crate) linker: bool,
}

impl BpfToolchain {
    /// Finds a toolchain in `places`; Debian's first, because it is a release and not a nightly.
    pub(crate) fn find(places: &Places) -> Result<Self, Missing> {
        match (places.program("bpf-linker"), places.debian_rustc(), places.nightly()) {
            (Some(linker), Some(rustc), _) => Ok(Self::Debian { rustc, linker }),
            (Some(linker), None, Some(toolchain)) => Ok(Self::Nightly { toolchain, linker }),
            (linker, ..) => {
                Err(Missing { compiler: !places.has_bpf_compiler(), linker: linker.is_none() })
            }
        }
    }

    /// `cargo SUBCOMMAND` for the kernel side, in its folder and with this toolchain.
    ///
    /// `cargo` is the one that runs the caller; `target_dir` must belong to this build alone:
    /// features and flags of the host crates would break it.
    pub(crate) fn cargo(
        &self,
        cargo: &Path,
        subcommand: &str,
        ebpf_crate: &Path,
        target_dir: &Path,
    ) -> Command {
        let mut command = Command::new(match self {
            Self::Debian { .. } => cargo.to_owned(),
            Self::Nightly { toolchain, .. } => toolchain.join("bin/cargo"),
        });
        for (name, _) in env::vars_os().filter(|(name, _)| steers_the_outer_build(name)) {
            command.env_remove(name);
        }
        command.current_dir(ebpf_crate).arg(subcommand);
        command
            .args(["--locked", "--release", "--target", BPF_TARGET])
            .arg("--target-dir")
            .arg(target_dir);
        match self {
            // A prebuilt `core` for a tier 3 target uses features that only nightly names.
            Self::Debian { rustc, .. } => command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1"),
            Self::Nightly { toolchain, .. } => {
                command.env("RUSTC", toolchain.join("bin/rustc")).args(["-Z", "build-std=core"])
            }
        };
        let (Self::Debian { linker, .. } | Self::Nightly { linker, .. }) = self;
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
        command
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", "-C link-arg=--btf -C debuginfo=2");
        command
    }
}

impl fmt::Display for BpfToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { .. } => f.write_str("Debian's rustc-web and bpf-linker"),
            Self::Nightly { toolchain, .. } => {
                let name = toolchain.file_name().unwrap_or_default().to_string_lossy();
                write!(f, "rustup's {name} with rust-src and bpf-linker")
            }
        }
    }
}

impl Places {
    /// The places that the environment of this process names.
    pub(crate) fn of_this_machine() -> Self {
        let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo_home =
            env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let rustup = env::var_os("RUSTUP_HOME").map_or_else(|| home.join(".rustup"), PathBuf::from);
        let mut path: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
        // `cargo install` puts bpf-linker here, also where the shell's PATH does not have it.
        path.push(cargo_home.join("bin"));
        Self { path, root: PathBuf::from("/"), toolchains: rustup.join("toolchains") }
    }

    /// The first program of this name.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        self.path.iter().map(|dir| dir.join(name)).find(|file| file.is_file())
    }

    /// Debian's compiler, if its `core` for BPF is there too.
    ///
    /// Debian's older `rustc` has the same path and no such `core`, so the library decides.
    fn debian_rustc(&self) -> Option<PathBuf> {
        let rustc = self.root.join("usr/bin/rustc");
        let libraries = self.root.join("usr/lib/rustlib").join(BPF_TARGET).join("lib");
        let has_core =
            entries(&libraries).iter().any(|file| file_name(file).starts_with("libcore-"));
        (rustc.is_file() && has_core).then_some(rustc)
    }

    /// Whether either toolchain's compiler is there.
    pub(crate) fn has_bpf_compiler(&self) -> bool {
        self.debian_rustc().is_some() || self.nightly().is_some()
    }

    /// The first nightly that has `core`'s source.
    fn nightly(&self) -> Option<PathBuf> {
        entries(&self.toolchains).into_iter().find(|toolchain| {
            file_name(toolchain).starts_with("nightly")
                && toolchain.join("lib/rustlib/src/rust/library/core").is_dir()
        })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.compiler, self.linker) {
            (true, true) => "neither a Rust compiler for BPF nor bpf-linker is",
            (true, false) => "no Rust compiler for BPF is",
            (false, _) => "no bpf-linker is",
        };
        write!(f, "{what} installed\nhint: `cargo xtask setup` installs what is missing")
    }
}

/// Whether a variable tells cargo or rustc how to build, rather than where things are.
///
/// The outer build's compiler, flags, profile and target directory must not reach this one. The
/// job server must, so that both builds together use as many cores as were asked for.
fn steers_the_outer_build(name: &OsStr) -> bool {
    const WHERE_THINGS_ARE: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_CREDENTIAL",
    ];
    const HOW_TO_BUILD: [&str; 5] = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "RUSTUP_TOOLCHAIN"];
    let name = name.to_string_lossy();
    let starts_with_any =
        |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    starts_with_any(&HOW_TO_BUILD) && !starts_with_any(&WHERE_THINGS_ARE)
}

/// The paths in a folder, sorted; none if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "usr/bin/rustc";
    const CORE: &str = "usr/lib/rustlib/bpfel-unknown-none/lib/libcore-1a2b.rlib";
    const LINKER: &str = "bin/bpf-linker";
    const NIGHTLY: &str = "toolchains/nightly-x86_64/lib/rustlib/src/rust/library/core/Cargo.toml";
    const STABLE: &str = "toolchains/stable-x86_64/lib/rustlib/src/rust/library/core/Cargo.toml";

    /// A machine in a folder of its own that has only `files`.
    fn machine(name: &str, files: &[&str]) -> Places {
        let root = env::temp_dir().join(format!("memtrace-places-{}-{name}", std::process::id()));
        for file in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        Places { path: vec![root.join("bin")], toolchains: root.join("toolchains"), root }
    }

    /// Each combination of installed parts gives the toolchain, or names what is missing.
    #[test]
    fn finds_what_is_there() {
        let missing = |compiler, linker| Err(Missing { compiler, linker });
        // (case, installed files, the toolchain's name or what is missing)
        let cases: [(&str, &[&str], Result<&str, Missing>); 8] = [
            ("bare", &[], missing(true, true)),
            ("debian", &[RUSTC, CORE, LINKER], Ok("Debian's rustc-web and bpf-linker")),
            ("old-rustc", &[RUSTC, LINKER], missing(true, false)),
            ("no-linker", &[RUSTC, CORE], missing(false, true)),
            (
                "nightly",
                &[NIGHTLY, LINKER],
                Ok("rustup's nightly-x86_64 with rust-src and bpf-linker"),
            ),
            ("stable-src", &[STABLE, LINKER], missing(true, false)),
            ("both", &[RUSTC, CORE, LINKER, NIGHTLY], Ok("Debian's rustc-web and bpf-linker")),
            ("nightly-alone", &[NIGHTLY], missing(false, true)),
        ];
        for (case, files, want) in cases {
            let places = machine(case, files);
            let got = BpfToolchain::find(&places).map(|toolchain| toolchain.to_string());
            assert_eq!(got, want.map(str::to_owned), "{case}");
            if places.root.exists() {
                fs::remove_dir_all(&places.root).unwrap();
            }
        }
    }

    /// The outer build's settings stay outside; where to download from and job slots go in.
    #[test]
    fn inherits_places_not_settings() {
        let cases = [
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_PROFILE_RELEASE_LTO", true),
            ("RUSTC_WORKSPACE_WRAPPER", true),
            ("RUSTFLAGS", true),
            ("RUSTUP_TOOLCHAIN", true),
            ("RUSTUP_HOME", false),
            ("RUST_BACKTRACE", false),
            ("CARGO_HOME", false),
            ("CARGO_REGISTRIES_CRATES_IO_PROTOCOL", false),
            ("CARGO_MAKEFLAGS", false),
            ("PATH", false),
        ];
        for (name, steers) in cases {
            assert_eq!(steers_the_outer_build(OsStr::new(name)), steers, "{name}");
        }
    }

    /// The error says the one command that helps.
    #[test]
    fn error_names_the_command() {
        let message = Missing { compiler: true, linker: true }.to_string();
        assert!(message.contains("hint: `cargo xtask setup`"), "{message}");
    }
}
