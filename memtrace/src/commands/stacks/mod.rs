//! `memtrace stacks PID`: the stacks of all threads at this moment.

mod taking;

use std::{io::Write, process::ExitCode};

use anyhow::anyhow;

use super::{args::StacksArgs, failure::Failure, outputs};
use crate::{
    jvm::{Look, ThreadNames},
    ledger::NameFrom,
    report::threads_now::{Taken, ThreadNow, ThreadsNow},
    report::{escape, json, threads_now},
    stacks::{Frame, FrameId, New, Stack, Stacks},
    target::{self, JavaHome},
    trace::{Jvm, Target},
};
use taking::{Copied, Taking};

pub(super) fn run(args: &StacksArgs) -> Result<ExitCode, Failure> {
    if let Err(error) = target::check(args.pid) {
        let hint = error.hint();
        return Err(Failure::new(error, hint));
    }
    let now = take(args.pid, args.freeze)?;
    if args.folded {
        // They have no place in folded stacks.
        now.notes.iter().for_each(|note| eprintln!("memtrace: {}", escape::line(note)));
    }
    outputs::to_stdout_by(|out: &mut dyn Write| {
        let written = if args.json {
            json::write_threads(&now, out)
        } else if args.folded {
            threads_now::write_folded(&now, out)
        } else {
            out.write_all(threads_now::text(&now).as_bytes())
        };
        Ok(written?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn take(pid: u32, freeze: bool) -> Result<ThreadsNow, Failure> {
    let mut taking = Taking::of_process(pid)?;
    let copies = if freeze { taking.frozen()? } else { taking.standing()? };
    if copies.is_empty() {
        let why = taking.notes.first().map_or("no thread was found", String::as_str);
        return Err(anyhow!("failed to take a stack of process {pid}: {why}").into());
    }
    let mut resolved = Resolved::new(pid);
    let mut threads: Vec<ThreadNow> =
        copies.into_iter().map(|copied| resolved.thread(pid, copied)).collect();
    let mut names = ThreadNames::of_process(pid);
    let vm_names = names.as_mut().map(|names| names.look(Look::Last)).unwrap_or_default();
    for (tid, name) in vm_names {
        if let Some(thread) = threads.iter_mut().find(|thread| thread.tid == tid) {
            (thread.name, thread.name_from) = (name.into_bytes(), NameFrom::Vm);
        }
    }
    threads.sort_by_key(|thread| thread.tid);
    let jvm = JavaHome::of_process(pid).map(|home| {
        let version = home.version().unwrap_or_default();
        Jvm { major: target::feature_release(&version), version }
    });
    let command = target::command_line(pid);
    let target = Target { pid, command, allocator: None, jvm };
    let mut notes = taking.notes;
    let error = names.as_ref().and_then(ThreadNames::error);
    notes.extend(error.map(|error| {
        format!("the JVM can't be read from outside: {error}; its threads have the kernel's names, and its \
             stacks end at Java")
    }));
    Ok(ThreadsNow { target, is_frozen: freeze, threads, notes })
}

/// What copied stacks turn out to be.
struct Resolved {
    stacks: Stacks,
    frames: Vec<Frame>,
    all: Vec<Stack>,
}

impl Resolved {
    fn new(pid: u32) -> Self {
        let mut stacks = Stacks::new();
        stacks.refresh(pid);
        // After the copies: what it finds was there when they were made, or came since.
        stacks.observe(pid, super::clock::now_ns());
        Self { stacks, frames: Vec::new(), all: Vec::new() }
    }

    fn thread(&mut self, pid: u32, copied: Copied) -> ThreadNow {
        let Copied { registers, stack, used, time_ns, is_consistent } = copied;
        let tid = registers.tid;
        let id = self.stacks.resolve_thread(pid, time_ns, &registers, &stack, used);
        for new in self.stacks.take_new() {
            match new {
                New::Frame(frame) => self.frames.push(frame),
                New::Stack(stack) => self.all.push(stack),
            }
        }
        let stack = &self.all[id.0 as usize];
        let frame = |&FrameId(number): &FrameId| self.frames[number as usize].clone();
        ThreadNow {
            tid,
            nid: target::namespace_tid(pid, tid).unwrap_or(tid),
            name: target::comm(pid, tid).unwrap_or_default(),
            name_from: NameFrom::Comm,
            taken: if is_consistent { Taken::Consistent } else { Taken::Running },
            quality: stack.quality,
            frames: stack.frames.iter().map(frame).collect(),
        }
    }
}
