//! `memtrace stacks PID`: the stacks of all threads at this moment.

mod taking;

use std::{io::Write, process::ExitCode, rc::Rc};

use anyhow::anyhow;
use rustc_hash::FxHashSet;

use super::{args::StacksArgs, clock, failure::Failure, outputs};
use crate::{
    jvm::{Look, ThreadNames},
    ledger::NameFrom,
    report::threads_now::{Taken, ThreadNow, ThreadsNow},
    report::{escape, json, threads_now},
    stacks::{Frame, FrameId, New, Quality, Stacks},
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
            threads_now::write_text(&now, out)
        };
        Ok(written?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn take(pid: u32, freeze: bool) -> Result<ThreadsNow, Failure> {
    let mut resolved = Resolved::new(pid);
    let mut threads: Vec<ThreadNow> = Vec::new();
    let mut walk = |copied| threads.push(resolved.thread(pid, copied));
    let taking = Taking::of_process(pid, &mut walk)?;
    let mut notes = if freeze { taking.frozen()? } else { taking.standing()? };
    if !freeze {
        // One that has ended since is no thread of this moment.
        let living: FxHashSet<u32> = target::threads(pid).into_iter().collect();
        threads.retain(|thread| living.contains(&thread.tid));
    }
    if threads.is_empty() {
        let why = notes.first().map_or("no thread was found", String::as_str);
        return Err(anyhow!("failed to take a stack of process {pid}: {why}").into());
    }
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
    notes.extend(names.as_ref().and_then(note_on_names));
    Ok(ThreadsNow { target, is_frozen: freeze, threads, notes })
}

/// That the JVM can't be read, or its threads can't be listed.
fn note_on_names(names: &ThreadNames) -> Option<String> {
    let error = names.error()?;
    Some(if names.is_open() {
        format!("the JVM's threads can't be listed: {error}; they have the kernel's names")
    } else {
        format!(
            "the JVM can't be read from outside: {error}; its threads have the kernel's names, and its \
             stacks end at Java"
        )
    })
}

/// What copied stacks turn out to be.
struct Resolved {
    stacks: Stacks,
    frames: Vec<Rc<Frame>>,
    all: Vec<(Rc<[Rc<Frame>]>, Quality)>,
}

impl Resolved {
    fn new(pid: u32) -> Self {
        let mut stacks = Stacks::new();
        stacks.refresh(pid);
        stacks.observe(pid, clock::now_ns());
        Self { stacks, frames: Vec::new(), all: Vec::new() }
    }

    fn thread(&mut self, pid: u32, copied: Copied) -> ThreadNow {
        let Copied { registers, stack, used, time_ns, is_consistent } = copied;
        let tid = registers.tid;
        // What is found of the code from now on was there when the copy was made, or came since.
        self.stacks.set_time(clock::now_ns());
        self.stacks.observe(pid, clock::now_ns());
        let id = self.stacks.resolve_thread(pid, time_ns, &registers, &stack, used);
        self.take_new();
        let (frames, quality) = &self.all[id.0 as usize];
        ThreadNow {
            tid,
            nid: target::namespace_tid(pid, tid).unwrap_or(tid),
            name: target::comm(pid, tid).unwrap_or_default(),
            name_from: NameFrom::Comm,
            taken: if is_consistent { Taken::Consistent } else { Taken::Running },
            quality: *quality,
            frames: frames.clone(),
        }
    }

    fn take_new(&mut self) {
        let Self { stacks, frames, all } = self;
        for new in stacks.take_new() {
            match new {
                New::Frame(frame) => frames.push(Rc::new(frame)),
                New::Stack(stack) => {
                    let frame = |&FrameId(number): &FrameId| frames[number as usize].clone();
                    all.push((stack.frames.iter().map(frame).collect(), stack.quality));
                }
            }
        }
    }
}
