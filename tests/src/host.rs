//! What memtrace must leave as it was: the machine's mounts and its loaded BPF programs.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

/// How long the kernel may take to free the programs of a process that has ended.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a trace could change on the machine and must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Lines of the mount table about tracing and BPF file systems.
    pub mounts: Vec<String>,
    /// Ids of the loaded BPF programs.
    pub programs: Vec<u32>,
}

impl Host {
    /// The machine as it is now.
    pub fn now() -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let is_tracing = |line: &&str| {
            let kind = line.split_once(" - ").map_or("", |(_, rest)| rest);
            ["tracefs ", "debugfs ", "bpf "].iter().any(|name| kind.starts_with(name))
        };
        let mounts = table.lines().filter(is_tracing).map(str::to_owned).collect();
        Self { mounts, programs: loaded_programs() }
    }

    /// Waits until nothing is there that was not there before, and fails if that does not happen.
    pub fn assert_nothing_left(&self) {
        assert_eq!(Self::now().mounts, self.mounts, "memtrace changed the machine's mounts");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left = loaded_programs();
            left.retain(|id| !self.programs.contains(id));
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "BPF programs are left: {left:?}");
            sleep(Duration::from_millis(50));
        }
    }
}

/// Ids of all BPF programs that are loaded, in ascending order.
fn loaded_programs() -> Vec<u32> {
    let mut ids = Vec::new();
    while let Some(id) = program_after(ids.last().copied().unwrap_or(0)) {
        ids.push(id);
    }
    ids
}

/// The lowest id of a BPF program above `id`.
fn program_after(id: u32) -> Option<u32> {
    const BPF_PROG_GET_NEXT_ID: libc::c_int = 11;
    // start_id, next_id, open_flags
    let mut request = [id, 0, 0];
    // SAFETY: the command reads and writes the twelve bytes of `request`, which is borrowed here.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_GET_NEXT_ID,
            request.as_mut_ptr(),
            size_of_val(&request),
        )
    };
    (result == 0).then_some(request[1])
}
