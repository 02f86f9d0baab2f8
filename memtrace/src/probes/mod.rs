//! The kernel side, loaded and attached.
//!
//! In: the processes to trace and what of them. Out: a ring buffer of events, counters, and probes that are gone when
//! [`Probes`] is dropped, for whatever reason the process ends: every link is a file descriptor of it.
//! It decodes no event.

mod allocators;
mod btf;
mod call_sites;
pub mod capabilities;
mod code_maps;
pub mod conditions;
mod counters;
pub mod features;
mod kernel_offsets;
mod links;
mod malloc;
mod misses;
mod obstacle;
mod placement;
mod programs;
mod registers;
mod ring;
mod session;
mod tracefs;
mod zlib;

use std::{collections::HashSet, os::fd::AsFd};

use anyhow::{Context, Result, anyhow};
use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Queue, RingBuf},
    programs::{
        BtfTracePoint, TracePoint,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
    },
};
use memtrace_common::{Counter, KernelOffsets, N_SHADOWS, THREAD_BYTES, Tally, TargetFlags};
use zerocopy::FromBytes;

pub use counters::Counters;
pub use malloc::AllocatorFunction;
pub use obstacle::{Obstacle, is_refusal, one_line};
pub use registers::Registers;
pub use ring::{Messages, Ring};
pub use tracefs::is_mounted as tracefs_is_mounted;

use allocators::Allocators;
use code_maps::CodeMaps;
use conditions::Conditions;
use links::Links;
use programs::{OF_ALLOCATORS, load_if_needed, program_mut, without_work};
use session::Session;

use crate::target::{FileVersion, Library};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memtrace.bpf.o"));

/// The memory system calls that are traced.
pub const SYSCALLS: [&str; 10] = [
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "pkey_mprotect",
    "brk",
    "madvise",
    "process_madvise",
    "shmat",
    "shmdt",
];

/// Programs of process life, with the tracepoint that each is for.
const LIFE: [(&str, &str); 4] = [
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
    ("rename", "task_rename"),
];

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of the ring buffer; a power of two. Its pages count twice in memtrace's own memory.
    pub ring_bytes: u32,
    /// Whether the kernel side tells what it does, for `-vv`.
    pub debug: bool,
    /// Whether zlib's own functions are probed beside the JDK's.
    pub zlib: bool,
    /// Which blocks of allocators are told of.
    pub blocks: Blocks,
    /// Blocks of fewer bytes are added up by thread, and not told of.
    pub min_block_bytes: u64,
    /// Whether allocators' probes run empty programs: what the traps alone cost.
    pub bare: bool,
    /// Whether they are probed by sessions where the kernel has these.
    pub sessions: bool,
}

/// Which blocks of allocators are told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Blocks {
    /// None: allocators' functions are not probed.
    #[default]
    None,
    /// All.
    All,
    /// One for each so many bytes, on average and by chance; all are added up.
    Samples {
        /// Bytes between two of them.
        mean_bytes: u64,
    },
}

/// The kernel side. Dropping it detaches everything.
pub struct Probes {
    ebpf: Ebpf,
    counters: Counters,
    options: Options,
    /// Device and inode of every library whose functions are probed.
    probed: HashSet<(u64, u64)>,
    /// Libraries in which nothing to probe could be found, as they were then.
    unreadable: HashSet<FileVersion>,
    allocators: Allocators,
    /// Probes allocators, where the kernel has sessions.
    session: Option<Session>,
    /// What holds the programs attached.
    links: Links,
    /// Tells of code that processes map, where the kernel allows that.
    code_maps: Option<CodeMaps>,
    /// What the kernel had missed when everything was detached.
    missed: Option<Vec<(&'static str, u64)>>,
}

impl Probes {
    /// Loads the kernel side; nothing is attached yet. Fails with an [`Obstacle`] where the reason is known.
    pub fn load(options: Options) -> Result<Self> {
        if let Some(obstacle) = Obstacle::in_any_case(&Conditions::read()) {
            return Err(obstacle.into());
        }
        Self::try_load(options).map_err(obstacle::explained)
    }

    fn try_load(options: Options) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("failed to read the kernel's type information")?;
        let offsets = Offsets(kernel_offsets::read()?);
        let wake_at_bytes = u64::from(options.ring_bytes / 16);
        let malloc_rate_bytes = match options.blocks {
            Blocks::Samples { mean_bytes } => mean_bytes,
            Blocks::None | Blocks::All => 0,
        };
        let log_level: u8 = if options.debug { log::Level::Debug as u8 } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .map_max_entries("EVENTS", options.ring_bytes)
            .override_global("KERNEL", &offsets, true)
            .override_global("WAKE_AT_BYTES", &wake_at_bytes, true)
            .override_global("MALLOC_RATE_BYTES", &malloc_rate_bytes, true)
            .override_global("MIN_BLOCK_BYTES", &options.min_block_bytes, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .load(OBJECT)
            .context("failed to load the kernel side")?;
        let counters = match ebpf.map("COUNTERS") {
            Some(aya::maps::Map::Array(data)) => Counters::of_map(data.fd().as_fd())?,
            _ => return Err(anyhow!("the kernel side has no counters")),
        };
        free_shadows(&mut ebpf)?;
        programs::load(&mut ebpf, &btf)?;
        let session = session(&ebpf, &btf, options);
        if options.blocks != Blocks::None && session.is_none() {
            OF_ALLOCATORS
                .into_iter()
                .try_for_each(|name| load_if_needed(&mut ebpf, name).map(drop))?;
        }
        Ok(Self {
            ebpf,
            counters,
            options,
            probed: HashSet::new(),
            unreadable: HashSet::new(),
            allocators: Allocators::default(),
            session,
            links: Links::default(),
            code_maps: None,
            missed: None,
        })
    }

    /// The kernel side's debug messages.
    pub fn messages(&mut self) -> Result<Messages> {
        let logger = aya_log::EbpfLogger::init(&mut self.ebpf)
            .context("failed to read the kernel side's messages")?;
        Ok(Messages(logger))
    }

    /// Takes the ring buffer; only the first call gets it.
    pub fn take_ring(&mut self) -> Result<Ring> {
        let map = self.ebpf.take_map("EVENTS").context("the ring buffer is taken already")?;
        Ok(Ring(RingBuf::try_from(map).context("failed to map the ring buffer")?))
    }

    /// What the kernel side has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Events that the kernel itself did not hand to the programs, by reason: recursion is the only one it counts.
    pub fn missed_by_kernel(&self) -> Vec<(&'static str, u64)> {
        self.missed.clone().unwrap_or_else(|| self.read_misses())
    }

    fn read_misses(&self) -> Vec<(&'static str, u64)> {
        misses::read(&self.ebpf, self.session.as_ref())
    }

    /// What of the kernel is used.
    pub fn features(&self) -> Vec<String> {
        let mut features =
            ["bpf_link", "attach_cookie", "task_pt_regs"].map(str::to_owned).to_vec();
        features.extend(self.session.as_ref().map(|_| "uprobe_session".to_owned()));
        features.extend(self.code_maps.as_ref().map(|_| "perf_mmap2".to_owned()));
        features
    }

    /// From here on no call that begins is taken note of.
    pub fn stop(&self) {
        self.counters.set(Counter::ON, false);
    }

    /// The ring buffer is empty: nothing has to be left out.
    pub fn caught_up(&self) {
        self.counters.set(Counter::BEHIND, false);
    }

    /// Detaches everything; the counters and the ring buffer stay.
    pub fn detach(&mut self) {
        self.stop();
        self.missed = Some(self.read_misses());
        let mut links = std::mem::take(&mut self.links);
        links.add(self.allocators.take_links());
        links::drop_all(&mut self.ebpf, links);
    }

    /// Makes process `tgid` a traced one.
    pub fn add_target(&mut self, tgid: u32, follow: bool) -> Result<()> {
        add_target(&mut self.ebpf, tgid, follow)
    }

    /// Hands the records of code that any process has mapped since the last call to `take`; `false` where the kernel
    /// does not tell, and the processes' maps have to be read instead.
    pub fn read_code_maps(&mut self, take: impl FnMut(&[u8])) -> bool {
        self.code_maps.as_mut().map(|code_maps| code_maps.read(take)).is_some()
    }

    /// Whether the kernel tells of code that processes map.
    pub fn tells_code_maps(&self) -> bool {
        self.code_maps.is_some()
    }

    /// Attaches to process life and to the memory system calls. Fails as [`Self::load`] does.
    pub fn attach(&mut self) -> Result<()> {
        self.try_attach().map_err(obstacle::explained)
    }

    fn try_attach(&mut self) -> Result<()> {
        self.code_maps = CodeMaps::open()
            .inspect_err(|error| log::info!("the kernel does not tell of mapped code: {error}"))
            .ok();
        for (program_name, tracepoint) in LIFE {
            let program: &mut BtfTracePoint = program_mut(&mut self.ebpf, program_name)?;
            let link = program.attach();
            let link =
                link.with_context(|| format!("failed to attach to tracepoint {tracepoint}"))?;
            self.links.life.push((program_name, link));
        }
        let Self { ebpf, links, .. } = self;
        tracefs::with_tracefs(move || {
            for program_name in ["sys_exit", "sys_enter"] {
                let program: &mut TracePoint = program_mut(ebpf, program_name)?;
                for syscall in SYSCALLS {
                    let name = format!("{program_name}_{syscall}");
                    let link = program.attach("syscalls", &name);
                    let link = link.with_context(|| {
                        format!("failed to attach to tracepoint syscalls:{name}")
                    })?;
                    links.syscalls.push((program_name, link));
                }
            }
            Ok(())
        })?;
        self.counters.set(Counter::ON, true);
        Ok(())
    }

    /// What threads that have ended could not tell.
    fn left_tallies(&self) -> Vec<(u32, Tally)> {
        let map = self.ebpf.map("LEFT_TALLIES");
        let left = map.and_then(|map| aya::maps::HashMap::<_, u64, LeftTally>::try_from(map).ok());
        let Some(left) = left else { return Vec::new() };
        let tally = |(key, LeftTally(bytes)): (u64, LeftTally)| {
            Some((key as u32, Tally::read_from_bytes(&bytes).ok()?))
        };
        left.iter().filter_map(Result::ok).filter_map(tally).collect()
    }

    /// What of the threads' blocks has not been told when everything is detached, where not all are told of one by one.
    pub fn tallies(&self) -> Vec<(u32, Tally)> {
        let Some(map) = self.ebpf.map("THREADS") else { return Vec::new() };
        let Ok(threads) = aya::maps::HashMap::<_, u32, Thread>::try_from(map) else {
            return Vec::new();
        };
        let tally = |(tid, Thread(bytes)): (u32, Thread)| {
            let (tally, _) = Tally::read_from_prefix(&bytes).ok()?;
            (tally.tgid != 0).then_some((tid, tally))
        };
        let living = threads.iter().filter_map(Result::ok).filter_map(tally);
        living.chain(self.left_tallies()).collect()
    }

    fn attach_function(
        &mut self,
        name: &'static str,
        library: &Library,
        file_offset: u64,
        cookie: u64,
        scope: UProbeScope,
    ) -> Result<()> {
        let name = if self.options.bare { without_work(name) } else { name };
        let program = load_if_needed(&mut self.ebpf, name)?;
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(file_offset),
            cookie: Some(cookie),
        };
        let link = program.attach(point, library.path(), scope).with_context(|| {
            format!("failed to probe offset {file_offset:#x} of {}", library.name().display())
        })?;
        self.links.functions.push((name, link));
        Ok(())
    }
}

/// The program that allocators are probed with, where they are to be and the kernel has sessions.
fn session(ebpf: &Ebpf, btf: &Btf, options: Options) -> Option<Session> {
    let name = if options.bare { "trap_session" } else { "block_session" };
    let is_wanted = options.sessions && options.blocks != Blocks::None;
    let session = is_wanted.then(|| Session::load(ebpf, btf, name))?;
    session.inspect_err(|error| log::info!("functions are probed one by one: {error:#}")).ok()
}

/// Gives the kernel side the shadows that threads may have.
fn free_shadows(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("FREE_SHADOWS").context("the kernel side has no list of shadows")?;
    let mut free: Queue<_, u32> = Queue::try_from(map)?;
    for number in 0..N_SHADOWS as u32 {
        free.push(number, 0).context("failed to list the shadows")?;
    }
    Ok(())
}

fn add_target(ebpf: &mut Ebpf, tgid: u32, follow: bool) -> Result<()> {
    let map = ebpf.map_mut("TARGETS").context("the kernel side has no table of processes")?;
    let mut targets: aya::maps::HashMap<_, u32, Flags> = aya::maps::HashMap::try_from(map)?;
    let flags = Flags(TargetFlags { follow: u32::from(follow), image: 0 });
    targets.insert(tgid, flags, 0).with_context(|| format!("failed to trace process {tgid}"))
}

/// [`KernelOffsets`] as bytes for a global.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Offsets(KernelOffsets);

// SAFETY: 64-bit integers only, no padding, any bytes are valid.
unsafe impl aya::Pod for Offsets {}

/// What the kernel side remembers of a thread, as bytes of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Thread([u8; THREAD_BYTES]);

// SAFETY: bytes.
unsafe impl aya::Pod for Thread {}

/// A [`Tally`] as bytes of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct LeftTally([u8; size_of::<Tally>()]);

// SAFETY: bytes.
unsafe impl aya::Pod for LeftTally {}

/// [`TargetFlags`] as bytes for a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Flags(TargetFlags);

// SAFETY: two 32-bit integers, no padding, any bytes are valid.
unsafe impl aya::Pod for Flags {}
