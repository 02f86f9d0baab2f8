//! The fixtures and the witnesses agree with each other, without memtrace: what the other tests rest on.

use memtrace_tests::{
    bpftrace::{self, SYSCALLS},
    fixtures::built,
    gdb,
    subject::Subject,
    turn,
};

/// The page-wise counts that map_ops says are those that the kernel saw.
#[test]
fn map_ops_counts_what_bpftrace_counts() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let counting = bpftrace::count(subject.pid(), None);
    let said = subject.finish();
    let counted = counting.stop();
    for call in SYSCALLS {
        assert_eq!(counted.get(call).copied().unwrap_or_default(), said.number(call), "{call}");
    }
    assert!(subject.leave().success());
}

/// Threads of a fixture map nothing but what the fixture says.
#[test]
fn storm_counts_what_bpftrace_counts() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("storm"), &["4", "0.2"]);
    let counting = bpftrace::count(subject.pid(), None);
    let said = subject.finish();
    let counted = counting.stop();
    assert_eq!(counted.get("mmap"), Some(&said.number("mmap")));
    assert_eq!(counted.get("munmap"), Some(&said.number("munmap")));
    assert_eq!(counted.len(), 2, "{counted:?}");
}

/// gdb finds a hundred frames between main and the innermost function, and names what is around them.
#[test]
fn gdb_sees_a_hundred_frames() {
    let stacks = gdb::stacks(&built("stack_deep"), &[0x123000]);
    let frames = &stacks[&0x123000];
    let position = |name: &str| frames.iter().position(|frame| frame.is_called(name));
    let main = position("main").unwrap();
    assert!(main > 0, "{frames:?}");
    for i in 0..100 {
        assert!(frames[main + 1 + i].is_called(&format!("f{i:02}")), "{:?}", frames[main + 1 + i]);
    }
    assert!(frames[main + 101].is_called("map_magic"), "{frames:?}");
    assert!(frames[main + 102].is_called("mmap"), "{frames:?}");
    assert_eq!(frames.len(), main + 103, "{frames:?}");
}
