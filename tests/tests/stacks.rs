//! Stacks equal gdb's, frame by frame.

use std::{collections::BTreeMap, process::Command};

use memtrace_tests::{
    fixtures::built,
    gdb::{self, Frame},
    own_mounts::own_mounts,
    report::{Report, Stack},
    subject::Subject,
    turn,
    watch::{watch, watch_subject},
};

const MAGIC: u64 = 0x123000;
const PAGE: u64 = 4096;
/// More page faults than this of a small program are no samples, of which each is one in 64.
const MAX_SAMPLED: u64 = 8;

/// The innermost frames of dl_late.
const LATE: [&str; 4] = ["main", "late_map", "late_inner", "mmap"];

/// The frames of a report's stack are those of gdb.
fn assert_same(fixture: &str, stack: &Stack, expected: &[Frame]) {
    let same = stack.frames.len() == expected.len()
        && stack.frames.iter().zip(expected).all(|(name, frame)| frame.is_called(name));
    assert!(same, "{fixture}: memtrace has {:#?}\ngdb has {expected:#?}", stack.frames);
}

/// The stacks of a fixture are gdb's, and are called complete.
fn check(fixture: &str, sizes: &[u64]) {
    let expected = gdb::stacks(&built(fixture), sizes);
    let report = watch(fixture, &[], &[]).report;
    for (size, frames) in &expected {
        assert_same(fixture, &report.stack_of_size(*size), frames);
    }
    assert_states(fixture, &report, &[("approximate", 0), ("truncated", 0), ("broken", 0)]);
}

fn assert_states(fixture: &str, report: &Report, states: &[(&str, u64)]) {
    for (state, n) in states {
        assert_eq!(report.stacks_that_are(state), *n, "{fixture}: {state}");
    }
}

/// Deep and recursive stacks, with and without symbols, position independence, dynamic linking
/// and frame pointers.
#[test]
fn plain_calls() {
    let _turn = turn::together();
    for fixture in [
        "stack_deep",
        "stack_deep_stripped",
        "stack_deep_static",
        "stack_deep_static_pie",
        "stack_deep_no_pie",
        "stack_deep_frame_pointers",
        "stack_recursive",
        "stack_longjmp",
        "stack_thread",
    ] {
        check(fixture, &[MAGIC]);
    }
}

/// Through a signal handler: on the same stack, in a handler that interrupts a handler, and out of a fault. Of a
/// handler on an alternate stack only that stack is copied: it is right up to the signal, and called truncated.
#[test]
fn signal_handlers() {
    let _turn = turn::together();
    let sizes = [MAGIC, MAGIC + PAGE, MAGIC + 2 * PAGE, MAGIC + 3 * PAGE];
    let expected = gdb::stacks(&built("stack_signal"), &sizes);
    let report = watch("stack_signal", &[], &[]).report;
    for (size, frames) in &expected {
        let stack = report.stack_of_size(*size);
        let is_alternate = *size == MAGIC + PAGE;
        let n_copied = if is_alternate { stack.frames.len() } else { frames.len() };
        assert!(n_copied >= 4);
        assert_same("stack_signal", &stack, &frames[frames.len() - n_copied..]);
        assert_eq!(stack.quality == "truncated", is_alternate, "{size:#x}");
    }
    assert_states("stack_signal", &report, &[("approximate", 0), ("truncated", 1), ("broken", 0)]);
}

/// Through the PLT of a library without frame pointers, and through one that uses rbp for something else.
#[test]
fn libraries_without_frame_pointers() {
    let _turn = turn::together();
    check("stack_plt", &[MAGIC]);
    check("stack_nofp", &[MAGIC]);
}

/// A stack that fits into the copy is whole; of a larger one the inner part is right, and it says so.
#[test]
fn large_stacks() {
    let _turn = turn::together();
    let expected = gdb::stacks(&built("stack_alloca"), &[MAGIC, MAGIC + PAGE]);
    let report = watch("stack_alloca", &[], &[]).report;
    assert_same("40 KiB", &report.stack_of_size(MAGIC), &expected[&MAGIC]);

    let cut = report.stack_of_size(MAGIC + PAGE);
    assert_eq!(cut.quality, "truncated");
    let whole = &expected[&(MAGIC + PAGE)];
    // main is beyond the copy: with_room, map_magic and mmap are left.
    assert_same("200 KiB", &cut, &whole[whole.len() - 3..]);
}

/// Pages of a stack that were never touched do not hide what lies beyond them.
#[test]
fn untouched_pages() {
    let _turn = turn::together();
    let size = MAGIC + 2 * PAGE;
    let expected = gdb::stacks(&built("stack_alloca"), &[size]);
    let report = watch("stack_alloca", &[], &[]).report;
    assert_same("untouched", &report.stack_of_size(size), &expected[&size]);
    assert_states("stack_alloca", &report, &[("approximate", 0), ("broken", 0)]);
    // A page fault in the same function that happens to be a sample has such a stack, too.
    let n_truncated = report.stacks_that_are("truncated");
    assert!((1..=MAX_SAMPLED).contains(&n_truncated), "{n_truncated}");
}

/// A stack with a page of callers that can't be read is not called complete.
#[test]
fn hidden_page() {
    let _turn = turn::together();
    let report = watch("stack_hidden", &[], &[]).report;
    let stack = report.stack_of_size(MAGIC);
    assert_eq!(stack.frames, ["is_hidden", "hides", "map_magic", "mmap"]);
    assert_eq!(stack.quality, "truncated");
}

/// A library that is opened late, and whose file is deleted or replaced then, is still unwound and named.
#[test]
fn late_library() {
    let _turn = turn::together();
    for how in ["keep", "delete", "replace"] {
        let folder = tempfile::TempDir::new().unwrap();
        let library = folder.path().join("late.so");
        std::fs::copy(built("late_lib"), &library).unwrap();
        let report = watch("dl_late", &[how, library.to_str().unwrap()], &[]).report;
        let frames = report.stack_of(2 * MAGIC + PAGE, 2).frames;
        assert_eq!(frames[frames.len() - 4..], LATE, "{how}: {frames:?}");
        assert_states(how, &report, &[("approximate", 0), ("truncated", 0), ("broken", 0)]);
    }
}

/// A library whose file was replaced before memtrace came is not read from the new file.
#[test]
fn library_replaced_before_the_attach() {
    let _turn = turn::together();
    // The same build under another name takes the place of the running program.
    let folder = tempfile::TempDir::new().unwrap();
    let program = folder.path().join("program");
    std::fs::copy(built("stack_deep"), &program).unwrap();
    let subject = Subject::ready(&program, &[]);
    std::fs::remove_file(&program).unwrap();
    std::fs::copy(built("stack_recursive"), &program).unwrap();
    let report = watch_subject(subject, &[]).report;
    let expected: BTreeMap<u64, Vec<Frame>> = gdb::stacks(&built("stack_deep"), &[MAGIC]);
    assert_same("replaced", &report.stack_of_size(MAGIC), &expected[&MAGIC]);
}

/// The libraries of a target in another mount namespace are found through its own root.
#[test]
fn another_mount_namespace() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let (program, library) = (built("dl_late"), built("late_lib"));
    let script = "mount -t tmpfs inner \"$1\" && cp \"$2\" \"$1/program\" && cp \"$3\" \"$1/late.so\" && \
                  exec \"$1/program\" keep \"$1/late.so\" --wait";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(folder.path()).arg(program).arg(library);
    let report = watch_subject(Subject::start(own_mounts(&mut shell)), &[]).report;
    assert!(!folder.path().join("program").exists(), "the target is in this namespace");
    let frames = report.stack_of(2 * MAGIC + PAGE, 2).frames;
    assert_eq!(frames[frames.len() - 4..], LATE, "{frames:?}");
}
