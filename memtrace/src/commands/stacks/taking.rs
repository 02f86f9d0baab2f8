//! Registers and stack of each thread, copied without stopping it, or while it is held.
//!
//! A thread that waits in the kernel has left its registers there, and nobody changes its stack. That it waited all the
//! time, from before its registers were read until its stack was copied, the kernel tells by its turns; a thread that did
//! not is tried again a few times.

use std::{thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use memtrace_common::ThreadRegisters;
use rustc_hash::FxHashMap;

use super::super::clock;
use crate::{
    events::thread_registers,
    jvm::{LiveMemory, Memory},
    probes::Registers,
    target::{
        self, Held, Schedule,
        maps::{self, Mapping},
    },
};

/// How often a thread that runs is tried.
const MAX_ROUNDS: u32 = 5;
/// Time between two rounds.
const PAUSE: Duration = Duration::from_millis(5);
/// The most that is copied of a stack.
const MAX_STACK_BYTES: u64 = 1 << 20;
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
pub(super) struct Taking {
    pid: u32,
    memory: LiveMemory,
    maps: Vec<Mapping>,
    start_stack: u64,
    /// What could not be taken, a line each.
    pub(super) notes: Vec<String>,
}

impl Taking {
    /// Of process `pid`.
    pub(super) fn of_process(pid: u32) -> Result<Self> {
        let maps = maps::read(pid)
            .with_context(|| format!("failed to read the memory map of process {pid}"))?;
        let start_stack = target::start_stack(pid).unwrap_or_default();
        Ok(Self { pid, memory: LiveMemory::new(pid), maps, start_stack, notes: Vec::new() })
    }

    /// All threads, none of which is stopped.
    pub(super) fn standing(&mut self) -> Result<Vec<Copied>> {
        let mut registers = Registers::of_process(self.pid)?;
        let mut taken: FxHashMap<u32, Copied> = FxHashMap::default();
        for round in 0..MAX_ROUNDS {
            self.take_standing(&mut registers, &mut taken)?;
            let all_stood = taken.values().all(|copied| copied.is_consistent);
            if all_stood || round + 1 == MAX_ROUNDS {
                break;
            }
            thread::sleep(PAUSE);
        }
        // One that has ended since is no thread of this moment.
        let living = target::threads(self.pid);
        taken.retain(|tid, _| living.contains(tid));
        Ok(taken.into_values().collect())
    }

    /// One round: takes those that were not taken yet, or not well.
    fn take_standing(
        &mut self,
        registers: &mut Registers,
        taken: &mut FxHashMap<u32, Copied>,
    ) -> Result<()> {
        let is_wanted = |tid: &u32| taken.get(tid).is_none_or(|copied| !copied.is_consistent);
        let before: FxHashMap<u32, Schedule> = target::threads(self.pid)
            .into_iter()
            .filter(is_wanted)
            .filter_map(|tid| Some((tid, Schedule::of(self.pid, tid)?)))
            .collect();
        for registers in thread_registers(&registers.read()?) {
            let Some(before) = before.get(&registers.tid) else { continue };
            let mut copied = self.copy(registers);
            let after = Schedule::of(self.pid, registers.tid);
            copied.is_consistent = after.is_some_and(|after| after.is_unchanged_since(before));
            taken.insert(registers.tid, copied);
        }
        Ok(())
    }

    /// All threads, each stopped as long as it is copied.
    ///
    /// They are held by a thread that ends with this: whatever happens, the kernel lets go then of what it still holds, be
    /// it a thread that did not stop in time and does so later.
    pub(super) fn frozen(&mut self) -> Result<Vec<Copied>> {
        let taken = thread::scope(|scope| scope.spawn(|| self.take_frozen()).join());
        taken.map_err(|_| anyhow!("failed to stop the threads of process {}", self.pid))
    }

    fn take_frozen(&mut self) -> Vec<Copied> {
        let mut taken = Vec::new();
        for tid in target::threads(self.pid) {
            match Held::stop(tid) {
                // Its number may have passed to a thread of another process, which goes on at once.
                Ok(_) if !target::threads(self.pid).contains(&tid) => {}
                Ok(held) => {
                    let mut copied = self.copy(held.registers);
                    copied.is_consistent = true;
                    taken.push(copied);
                }
                // It has ended meanwhile.
                Err(_) if !target::threads(self.pid).contains(&tid) => {}
                Err(error) => self.notes.push(format!("failed to stop thread {tid}: {error}")),
            }
        }
        taken
    }

    fn copy(&mut self, registers: ThreadRegisters) -> Copied {
        let sp = registers.regs.sp;
        let used = self.stack_used(sp, registers.fs_base);
        let stack = self.stack(sp, used).or_else(|| {
            // The thread may be younger than what is known of the map.
            self.maps = maps::read(self.pid).unwrap_or_default();
            self.stack(sp, used)
        });
        if stack.is_none() && self.notes.len() < MAX_NOTES {
            self.notes.push(format!("failed to read the stack of thread {}", registers.tid));
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
