//! Registers and stack of each thread, copied without stopping it, or while it is held.
//!
//! A thread that waits in the kernel has left its registers there, and nobody changes its stack. That it waited all the
//! time, from before its registers were read until its stack was copied, the kernel tells ([`Standstill`]); a thread that
//! did not is tried again a few times.

use std::{thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use memtrace_common::ThreadRegisters;
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::clock;
use crate::{
    events::thread_registers,
    jvm::{LiveMemory, Memory},
    probes::Registers,
    target::{
        self, Held, Standstill,
        maps::{self, Mapping},
    },
};

/// How often a thread that runs is tried.
const MAX_ROUNDS: u32 = 5;
/// Time between two rounds.
const PAUSE: Duration = Duration::from_millis(5);
/// The most that is copied of a stack.
const MAX_STACK_BYTES: u64 = 1 << 20;
/// Bytes of copies that wait to be walked; the last of them may make it more.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// What is told of single threads at the most.
const MAX_NOTES: usize = 20;
/// As the kernel side has them: how far the thread block may lie above the stack pointer, and the first frame.
const MAX_TO_THREAD_BLOCK: u64 = 8 << 20;
const MAX_TO_START: u64 = 1 << 30;

/// A thread's registers and its stack.
pub(super) struct Copied {
    pub(super) registers: ThreadRegisters,
    /// From the stack pointer on.
    pub(super) stack: Vec<u8>,
    /// Bytes of stack that there were, 0 if that is not known.
    pub(super) used: u64,
    /// When it was copied.
    pub(super) time_ns: u64,
    /// Whether registers and stack belong together.
    pub(super) is_consistent: bool,
}

/// The taking of one process's stacks.
pub(super) struct Taking<'a> {
    copier: Copier,
    waiting: Waiting<'a>,
}

impl<'a> Taking<'a> {
    /// Of process `pid`; each copy is given to `walk`, soon after it was made.
    pub(super) fn of_process(pid: u32, walk: &'a mut dyn FnMut(Copied)) -> Result<Self> {
        let waiting = Waiting { copies: Vec::new(), n_bytes: 0, walk };
        Ok(Self { copier: Copier::of_process(pid)?, waiting })
    }

    /// All threads, none of which is stopped. Returns what could not be taken, a line each.
    pub(super) fn standing(mut self) -> Result<Vec<String>> {
        let mut registers = Registers::of_process(self.copier.pid)?;
        let mut taken = FxHashSet::default();
        for n_left in (0..MAX_ROUNDS).rev() {
            let n_running = self.take_standing(&mut registers, &mut taken, n_left == 0)?;
            self.waiting.walk();
            if n_running == 0 || n_left == 0 {
                break;
            }
            thread::sleep(PAUSE);
        }
        Ok(self.copier.notes)
    }

    /// One round: takes those that were not taken yet, and in the last one those that run as well. Returns how many ran.
    fn take_standing(
        &mut self,
        registers: &mut Registers,
        taken: &mut FxHashSet<u32>,
        is_last: bool,
    ) -> Result<usize> {
        let Self { copier, waiting } = self;
        let before: FxHashMap<u32, Option<Standstill>> = target::threads(copier.pid)
            .into_iter()
            .filter(|tid| !taken.contains(tid))
            .map(|tid| (tid, Standstill::begin(copier.pid, tid)))
            .collect();
        let mut n_running = 0;
        for registers in thread_registers(&registers.read()?) {
            let tid = registers.tid;
            let Some(before) = before.get(&tid) else { continue };
            let mut copied = copier.copy(registers);
            copied.is_consistent = before.is_some_and(|before| before.has_lasted());
            n_running += usize::from(!copied.is_consistent);
            if copied.is_consistent || is_last {
                taken.insert(tid);
                waiting.add(copied);
            }
        }
        Ok(n_running)
    }

    /// All threads, each stopped as long as it is copied. Returns what could not be taken, a line each.
    ///
    /// They are held by a thread that ends soon: whatever happens, the kernel lets go then of what it still holds, be it a
    /// thread that did not stop in time and does so later.
    pub(super) fn frozen(mut self) -> Result<Vec<String>> {
        let Self { copier, waiting } = &mut self;
        let mut tids = target::threads(copier.pid).into_iter();
        while tids.len() > 0 {
            let held = thread::scope(|scope| scope.spawn(|| copier.copy_frozen(&mut tids)).join());
            let copies =
                held.map_err(|_| anyhow!("failed to stop the threads of process {}", copier.pid))?;
            copies.into_iter().for_each(|copied| waiting.add(copied));
            waiting.walk();
        }
        Ok(self.copier.notes)
    }
}

/// Copies that wait to be walked: to walk each at once would hold up the copying of the others. They are as many as
/// memory is for.
struct Waiting<'a> {
    copies: Vec<Copied>,
    n_bytes: usize,
    walk: &'a mut dyn FnMut(Copied),
}

impl Waiting<'_> {
    fn add(&mut self, copied: Copied) {
        self.n_bytes += copied.stack.len();
        self.copies.push(copied);
        if self.n_bytes >= MAX_WAITING_BYTES {
            self.walk();
        }
    }

    fn walk(&mut self) {
        self.n_bytes = 0;
        self.copies.drain(..).for_each(&mut *self.walk);
    }
}

/// What copies the stacks of one process.
struct Copier {
    pid: u32,
    memory: LiveMemory,
    maps: Vec<Mapping>,
    start_stack: u64,
    /// What could not be taken, a line each.
    notes: Vec<String>,
}

impl Copier {
    fn of_process(pid: u32) -> Result<Self> {
        let maps = maps::read(pid)
            .with_context(|| format!("failed to read the memory map of process {pid}"))?;
        let start_stack = target::start_stack(pid).unwrap_or_default();
        Ok(Self { pid, memory: LiveMemory::new(pid), maps, start_stack, notes: Vec::new() })
    }

    /// The next of `tids`, as many as may wait.
    fn copy_frozen(&mut self, tids: &mut impl Iterator<Item = u32>) -> Vec<Copied> {
        let (mut copies, mut n_bytes) = (Vec::new(), 0);
        while n_bytes < MAX_WAITING_BYTES
            && let Some(tid) = tids.next()
        {
            if let Some(copied) = self.copy_held(tid) {
                n_bytes += copied.stack.len();
                copies.push(copied);
            }
        }
        copies
    }

    /// Thread `tid`, stopped as long as it is copied; `None` where it has ended, or could not be stopped.
    fn copy_held(&mut self, tid: u32) -> Option<Copied> {
        match Held::stop(tid) {
            // Its number may have passed to a thread of another process, which goes on at once.
            Ok(_) if !target::threads(self.pid).contains(&tid) => None,
            Ok(held) => {
                let copied = self.copy(held.registers);
                Some(Copied { is_consistent: true, ..copied })
            }
            // It has ended meanwhile.
            Err(_) if !target::threads(self.pid).contains(&tid) => None,
            Err(error) => {
                self.note(format!("failed to stop thread {tid}: {error}"));
                None
            }
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }

    fn copy(&mut self, registers: ThreadRegisters) -> Copied {
        let sp = registers.regs.sp;
        let used = self.stack_used(sp, registers.fs_base);
        let stack = self.stack(sp, used).or_else(|| {
            // The thread may be younger than what is known of the map.
            self.maps = maps::read(self.pid).unwrap_or_default();
            self.stack(sp, used)
        });
        if stack.is_none() {
            self.note(format!("failed to read the stack of thread {}", registers.tid));
        }
        let stack = stack.unwrap_or_default();
        Copied { registers, stack, used, time_ns: clock::now_ns(), is_consistent: false }
    }

    /// The bytes from `sp` on, `used` of them if that is known, up to the end of what is mapped there.
    fn stack(&self, sp: u64, used: u64) -> Option<Vec<u8>> {
        let mapping =
            self.maps.iter().find(|mapping| (mapping.start..mapping.end).contains(&sp))?;
        let there = (mapping.end - sp).min(MAX_STACK_BYTES);
        let len = if used == 0 { there } else { there.min(used) };
        self.memory.forget();
        self.memory.bytes(sp, len as usize).ok()
    }

    /// As the kernel side tells it of an event's stack.
    fn stack_used(&self, sp: u64, fs_base: u64) -> u64 {
        let to_thread_block = fs_base.wrapping_sub(sp);
        if to_thread_block < MAX_TO_THREAD_BLOCK {
            return to_thread_block;
        }
        let to_start = self.start_stack.wrapping_sub(sp);
        if to_start < MAX_TO_START { to_start } else { 0 }
    }
}
