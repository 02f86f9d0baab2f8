//! The glibc of other Debian suites, each with its own loader.
//!
//! `cargo xtask test --all` fetches them and names their folders; without them the test says so.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use memtrace_tests::{
    fixtures::{HEAP_SHAPES, target_dir},
    skip::skip,
};

use super::{SHAPES, check};

/// Folders with `libc6` and `libc6-dev` of other suites, as a list of paths.
const FOLDERS: &str = "MEMTRACE_TEST_GLIBCS";
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// In every shape, with every glibc, sums and trim are as with the machine's own.
#[test]
fn other_versions() {
    let Some(folders) = env::var_os(FOLDERS) else {
        return skip("glibc::versions::other_versions", "no other glibc was fetched: `--all` does");
    };
    let mut failed = Vec::new();
    for folder in env::split_paths(&folders) {
        let program = linked(&folder);
        let loader = library(&folder, "ld-linux-x86-64.so.2");
        let version = folder.file_name().unwrap().to_string_lossy().into_owned();
        for shape in SHAPES {
            // Trimming by huge pages is a tunable since 2.35.
            if version == "2.31" && shape.1.contains("hugetlb") {
                continue;
            }
            let mut command = Command::new(&loader);
            let paths = LIBRARIES.map(|path| folder.join(path));
            command.arg("--library-path").arg(env::join_paths(&paths).unwrap()).arg(&program);
            failed.extend(check(&mut command, shape).map(|error| format!("{version}: {error}")));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn library(folder: &Path, name: &str) -> PathBuf {
    let paths = LIBRARIES.map(|path| folder.join(path).join(name));
    let found = paths.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{} has no {name}", folder.display()))
}

/// The fixture, linked with the libc of `folder`: one linked with a newer libc asks for symbols that an older lacks.
fn linked(folder: &Path) -> PathBuf {
    let version = folder.file_name().unwrap().to_string_lossy();
    let output = target_dir().join(format!("heap_shapes-{version}"));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-fno-builtin", "-Wno-deprecated-declarations", "-nostdlib"]).arg("-no-pie");
    cc.args(["crt1.o", "crti.o"].map(|name| library(folder, name))).arg(HEAP_SHAPES);
    cc.arg(library(folder, "libc.so.6"));
    // Until 2.33 they were libraries of their own.
    if version.as_ref() < "2.34" {
        cc.args(["libpthread.so.0", "libdl.so.2"].map(|name| library(folder, name)));
    }
    cc.args(["libc_nonshared.a", "crtn.o"].map(|name| library(folder, name))).arg("-lgcc");
    cc.arg(library(folder, "ld-linux-x86-64.so.2")).arg("-o").arg(&output);
    let built = cc.output().unwrap();
    assert!(built.status.success(), "{cc:?}: {}", String::from_utf8_lossy(&built.stderr));
    output
}
