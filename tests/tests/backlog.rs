//! What happens while memtrace has no time to look: it is stopped, and finds all of it afterwards.

use std::{fs, os::unix::process::ExitStatusExt};

use memtrace_tests::{
    bpftrace::SYSCALLS, fixtures::built, memtrace::Memtrace, subject::Subject, turn,
};

/// The innermost frames of dl_late.
const LATE: [&str; 4] = ["main", "late_map", "late_inner", "mmap"];

/// A target that is killed leaves a backlog: every event of it counts, with its stack.
#[test]
fn target_is_killed() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    tracing.signal(libc::SIGSTOP);
    let said = subject.finish();
    subject.signal(libc::SIGKILL);
    assert_eq!(subject.wait().signal(), Some(libc::SIGKILL));
    tracing.signal(libc::SIGCONT);
    let report = tracing.end().report();
    for call in SYSCALLS {
        assert_eq!(report.events(call), said.number(call), "{call}");
    }
    let mut lost = report.lost();
    // Nobody can be asked any more how large a segment was; and others on this machine map code meanwhile.
    lost.retain(|name, _| !["segment_size", "code_maps"].contains(&name.as_str()));
    assert!(lost.is_empty(), "{lost:?}");
    for state in ["approximate", "truncated", "broken"] {
        assert_eq!(report.stacks_that_are(state), 0, "{state}");
    }
}

/// Where the kernel's records of mapped code are lost, that is counted, and the maps give the stacks their names.
#[test]
fn code_maps_are_lost() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let library = folder.path().join("late.so");
    fs::copy(built("late_lib"), &library).unwrap();
    let mut subject = Subject::ready(&built("dl_late"), &["crowd", library.to_str().unwrap()]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    tracing.signal(libc::SIGSTOP);
    let said = subject.finish();
    tracing.signal(libc::SIGCONT);
    let report = tracing.stop().report();
    assert!(subject.leave().success());
    let lost = report.lost();
    assert!(lost.len() == 1 && lost["code_maps"] > 100, "{lost:?}");
    let mapped = said.number("first") + said.number("second");
    let frames = report.stack_of(mapped, 2).frames;
    assert!(frames.ends_with(&LATE.map(str::to_owned)), "{frames:?}");
    for state in ["approximate", "truncated", "broken"] {
        assert_eq!(report.stacks_that_are(state), 0, "{state}");
    }
}

/// Of small blocks more ends are told of than there is room for: those are lost and counted, and no block is.
#[test]
fn sums_are_kept() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("blocks_pairs"), &["1000000"]);
    let tracing =
        Memtrace::of_process(subject.pid()).args(["--malloc", "exact", "--min-size", "4K"]);
    let tracing = tracing.attached();
    tracing.signal(libc::SIGSTOP);
    let said = subject.finish();
    tracing.signal(libc::SIGCONT);
    let report = tracing.stop().report();
    assert!(subject.leave().success());
    let about = format!("{:?} {}", report.lost(), report.about_malloc());
    let n_lost = report.lost()["ring_full"];
    assert!(n_lost > 100_000, "there was room: {about}");
    assert_eq!(report.malloc("ignored_blocks"), said.number("got"), "{about}");
    assert_eq!(report.malloc("freed_before_or_ignored") + n_lost, said.number("got"), "{about}");
}
