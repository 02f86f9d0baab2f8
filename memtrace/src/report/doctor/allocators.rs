//! The check of a process's allocators.

use super::{super::units, Check};
use crate::probes::AllocatorFunction;

/// A file in which a process has an allocator, or that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatorFile {
    /// Where it is.
    pub path: String,
    /// The functions that can be probed; or why that is not known.
    pub functions: Result<Vec<AllocatorFunction>, String>,
}

/// What can be probed of the allocator that is called `name`, in `files`; its details are the functions.
#[must_use]
pub fn of_allocators(name: Option<&str>, files: &[AllocatorFile]) -> Check {
    let functions = files.iter().filter_map(|file| file.functions.as_ref().ok());
    let (n_files, n) = functions.fold((0, 0), |(files, n), it| (files + 1, n + it.len()));
    let mut found = match (name, n) {
        (None, 0) => "none that is known, and no function of one to probe".to_owned(),
        (Some(name), 0) => format!("{name}, and no function of it to probe"),
        (name, n) => {
            let name = name.unwrap_or("one that is not known");
            format!("{name}: {} can be probed", units::things(n as u64, "function"))
        }
    };
    if n_files > 1 {
        found.push_str(&format!(", in {n_files} files"));
    }
    let has_failed = files.iter().any(|file| file.functions.is_err());
    if has_failed {
        found.push_str("; not every file with code can be read");
    }
    let advice = if n == 0 {
        Some("`memtrace` traces its memory all the same, `memtrace --malloc` sees no block of it")
    } else {
        has_failed.then_some("an allocator in it is unseen; `memtrace doctor -v` tells which file")
    };
    let check = match advice {
        Some(advice) => Check::warn("allocator", found, advice),
        None => Check::ok("allocator", found),
    };
    Check { details: files.iter().flat_map(of_file).collect(), ..check }
}

fn of_file(file: &AllocatorFile) -> Vec<String> {
    let AllocatorFile { path, functions } = file;
    match functions {
        Ok(functions) => [path.clone()].into_iter().chain(functions.iter().map(row)).collect(),
        Err(reason) => vec![format!("{path}: {reason}")],
    }
}

/// A function, the instruction that is probed and where it is from the entry on, and what the kernel does with it.
fn row(function: &AllocatorFunction) -> String {
    let AllocatorFunction { name, offset, instruction, is_emulated, hands_out } = function;
    let how = if *is_emulated { "emulated by the kernel" } else { "stepped over" };
    let result = if *hands_out { ", its result by a return probe" } else { "" };
    format!("  {name:18} +{offset:<3} {instruction:8} {how}{result}")
}

#[cfg(test)]
mod tests {
    use super::{super::doctor, *};

    fn function(name: &str, offset: u64, instruction: &str, hands_out: bool) -> AllocatorFunction {
        let is_emulated = instruction == "push";
        let (name, instruction) = (name.to_owned(), instruction.to_owned());
        AllocatorFunction { name, offset, instruction, is_emulated, hands_out }
    }

    fn file(path: &str, functions: Vec<AllocatorFunction>) -> AllocatorFile {
        AllocatorFile { path: path.into(), functions: Ok(functions) }
    }

    #[test]
    fn functions() {
        let functions = vec![
            function("malloc", 4, "push", true),
            function("posix_memalign", 0, "endbr64", true),
            function("free", 12, "push", false),
        ];
        let want = "\
ok   allocator         glibc 2.36: 3 functions can be probed
     /libc.so.6
       malloc             +4   push     emulated by the kernel, its result by a return probe
       posix_memalign     +0   endbr64  stepped over, its result by a return probe
       free               +12  push     emulated by the kernel
tracing will work
";
        let check = of_allocators(Some("glibc 2.36"), &[file("/libc.so.6", functions)]);
        assert_eq!(doctor(&[check], false), want);
    }

    /// What is not as it usually is, in the line and in the advice; none of it keeps tracing from working.
    #[test]
    fn what_may_be_wrong() {
        let one = |path| file(path, vec![function("malloc", 4, "push", true)]);
        let failed = AllocatorFile { path: "/gone".into(), functions: Err("no access".into()) };
        let cases: [(Option<&str>, &[AllocatorFile], &str, &str); 6] = [
            (
                None,
                &[],
                "warn allocator         none that is known, and no function",
                "sees no block",
            ),
            (Some("musl"), &[], "warn allocator         musl, and no function", "sees no block"),
            (
                None,
                &[one("/a")],
                "ok   allocator         one that is not known: 1 function can",
                "",
            ),
            (
                Some("jemalloc"),
                &[one("/a"), one("/b")],
                "ok   allocator         jemalloc: 2 functions can be probed, in 2 files\n",
                "",
            ),
            (
                Some("musl"),
                &[one("/a"), failed.clone()],
                "warn allocator         musl: 1 function can be probed; not every file",
                "doctor -v",
            ),
            (Some("musl"), &[failed], "warn allocator         musl, and no function", "no block"),
        ];
        for (name, files, begin, advice) in cases {
            let text = doctor(&[of_allocators(name, files)], false);
            assert!(text.starts_with(begin), "`{begin}` does not begin:\n{text}");
            assert_eq!(text.contains("     -> "), !advice.is_empty(), "{text}");
            assert!(text.contains(advice), "{text}");
            let is_told = |file: &AllocatorFile| text.contains(&format!("\n     {}", file.path));
            assert!(files.iter().all(is_told), "{text}");
        }
    }
}
