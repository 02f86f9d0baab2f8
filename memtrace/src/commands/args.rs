//! What can be typed.

mod comparing;
mod tracing;
mod trying;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    comparing::CompareArgs,
    tracing::TraceArgs,
    trying::{TryArgs, TryWhat},
};
use super::units;
use crate::ledger::Metric;

const EXAMPLES: &str = "\
Examples:
  memtrace --pid 4242                        Trace a running process until Ctrl-C
  memtrace --pid 4242 -d 60s -o trace.mt     Trace for a minute and keep the trace
  memtrace -- java -jar app.jar              Start a program and trace it from its first instruction
  memtrace report trace.mt --folded -        Folded stacks of a recorded trace
  memtrace footprint 4242                    Where its resident bytes are now
  memtrace stacks 4242                       What every thread does now, Java and native
  memtrace heap dump.hprof                   Leaked class loaders of a heap dump, and what keeps them
  memtrace compare --with MALLOC_ARENA_MAX=2 -- java -jar app.jar
                                             The same start-up under other settings, side by side

Exit status:
  0 the trace ended in order, 2 an error, 3 a trace or a dump was read only in part.
  A started command's own status is passed on: 128 + N if signal N ended it; 125 if memtrace failed,
  126 if the command could not be run, 127 if it was not found.";

/// Where the memory of a running process comes from: which thread and which stack put it there
///
/// Traces mmap, munmap, mremap, mprotect, brk and madvise, and the Inflaters and Deflaters of a Java virtual machine,
/// in a process that was started with no special flag. Nothing in the process is changed. Needs root.
#[derive(Debug, Parser)]
#[command(name = "memtrace", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do other than to trace
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the report of a recorded trace
    ///
    /// Needs neither root nor the process. A trace that was cut is read up to the cut (exit status 3).
    Report(ReportArgs),
    /// Print where the resident bytes of a process are at this moment
    ///
    /// A table whose rows add up to what the kernel counts as resident (RSS): Java heap, metaspace, code, stacks, malloc,
    /// libraries, files. It is read from outside: nothing is traced, and the process is neither stopped nor written to.
    /// What can't be placed is the row `unexplained`.
    Footprint(FootprintArgs),
    /// Print the stacks of all threads at this moment, Java and native
    ///
    /// Nothing is stopped, and the process does not notice: a thread that waits has left its registers in the kernel. Each
    /// stack says whether it was taken while its thread stood still (consistent), and how far it goes (complete,
    /// approximate, truncated, broken). That of a thread that runs is worth little without --freeze.
    Stacks(StacksArgs),
    /// Tell what a Java heap dump holds: leaked class loaders, what keeps them, and what retains the most
    ///
    /// Of a file that `jcmd PID GC.heap_dump`, `jmap` or an OutOfMemoryError wrote (HPROF). Without a view, one screen.
    /// Views, before the file: `histogram`, `dominators`, `loaders`, `threads`, `paths CLASS|ID` (what keeps it),
    /// `refs ID` (what it refers to), `object ID`. Takes some 46 bytes of memory for each object, beside the mapped file;
    /// `histogram` takes next to none. A dump that was cut is read up to the cut (exit status 3).
    Heap(HeapArgs),
    /// Have a JVM return memory, and print what was predicted against what was returned
    ///
    /// `trim` gives back what malloc has free, `gc` collects the whole Java heap. Both act on the process, through the JVM's
    /// own commands (as jcmd does); what that costs is said before. Nothing else is changed.
    Try(TryArgs),
    /// Start a command under several settings, and compare what becomes resident
    ///
    /// The command as it is and each variant are started in turn, several times, followed until their memory has settled,
    /// measured, and ended (SIGTERM, after 10 s SIGKILL) with everything that they have started. Printed are peak and settled
    /// RSS, where it is, and the start-up time: median and spread, and whether a difference is larger than the spread.
    Compare(CompareArgs),
    /// Tell what this kernel and a process allow, and what to do about the rest
    ///
    /// Exit status 0 if tracing will work, 2 if something indispensable is missing.
    Doctor(DoctorArgs),
    /// Resolve captured stacks again, and measure it
    #[command(name = "__replay", hide = true)]
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The recorded trace
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) outputs: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct FootprintArgs {
    /// The process
    #[arg(value_name = "PID", required_unless_present = "diff")]
    pub(crate) pid: Option<u32>,

    /// Write the footprint as JSON to this file, `-` for stdout
    ///
    /// With --watch a line for each look.
    #[arg(long, value_name = "FILE", conflicts_with = "diff")]
    pub(crate) json: Option<PathBuf>,

    /// Look again and again with this time between, written like 5s or 1m, and print what changed
    ///
    /// Until Ctrl-C or the process's end.
    #[arg(long, value_name = "TIME", value_parser = units::parse_time, conflicts_with = "diff")]
    pub(crate) watch: Option<Duration>,

    /// Look into the pages that malloc holds and nobody uses, and say what lies there
    ///
    /// Class files, members of zip files, text, pointers, what is packed or encrypted, zeros: pages of each, and a few short samples.
    /// These are secrets of the process: what it has freed may have been passwords, keys, or data of its users. Of more than
    /// 128 MiB a part is looked at, evenly chosen. Only glibc's malloc is known well enough.
    #[arg(long, conflicts_with = "diff")]
    pub(crate) peek: bool,

    /// Print what changed between two footprints, or two reports, that --json wrote
    #[arg(long, value_names = ["BEFORE", "AFTER"], num_args = 2, conflicts_with = "pid")]
    pub(crate) diff: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct HeapArgs {
    /// The heap dump, behind the view where there is one, `-` for stdin; it may be packed with gzip, xz or zstd
    #[arg(value_name = "VIEW|FILE", required = true, num_args = 1..=3)]
    pub(crate) what: Vec<PathBuf>,

    /// Write everything as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Tell only of classes, or threads, whose name this regular expression matches
    #[arg(long, value_name = "REGEX")]
    pub(crate) filter: Option<String>,

    /// With `histogram`, tell also what the objects of each class retain together
    #[arg(long)]
    pub(crate) retained: bool,

    /// Take no more memory than this for the one screen, `dominators` and `loaders`, the dump itself apart
    ///
    /// All takes about 40 bytes for each object. Where that is too much, what is retained is left out; where 32 bytes are
    /// still too much, only a histogram is printed. The exit status is 3 then.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub(crate) max_memory: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct StacksArgs {
    /// The process
    #[arg(value_name = "PID")]
    pub(crate) pid: u32,

    /// Stop each thread for as long as its stack is copied
    ///
    /// One after the other, mostly for less than a millisecond each. A system call that it waits in may return early (EINTR).
    #[arg(long)]
    pub(crate) freeze: bool,

    /// Print folded stacks, with the number of threads as their value
    #[arg(long, conflicts_with = "json")]
    pub(crate) folded: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// What --capture wrote
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// Read everything of the processes as well, which still live
    #[arg(long)]
    pub(crate) living: bool,

    /// Do it so many times
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) rounds: u8,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at this process, too
    #[arg(short, long, value_name = "PID")]
    pub(crate) pid: Option<u32>,

    /// Color the words ok, warn and FAIL
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,

    /// Tell which functions of the process's allocators can be probed, and where
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What concerns the output, of a trace and of a report alike.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Write folded stacks for flame graphs to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) folded: Option<PathBuf>,

    /// Write a flame graph (SVG) to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) flamegraph: Option<PathBuf>,

    /// Write the whole report as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Count this in folded stacks and flame graph
    ///
    /// mapped: bytes made accessible; mapped-live: those not given back by the end;
    /// inflaters: Inflaters and Deflaters opened; inflaters-live: those not ended by the end;
    /// malloc: bytes asked from the allocator, malloc-live: those not freed (with --malloc);
    /// retained: free pages that malloc keeps resident, by who made them resident.
    #[arg(long, value_name = "NAME", default_value = "mapped")]
    pub(crate) metric: Metric,

    /// Take Java thread names from the JVM's own thread dump
    ///
    /// `attach` asks the JVM for one (a safepoint each time); a FILE is what `jstack` printed.
    /// Without this, names are read from the JVM's memory, and nobody is asked.
    #[arg(long, value_name = "attach|FILE")]
    pub(crate) jstack: Option<PathBuf>,

    /// Color the report
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,

    /// Print neither progress nor warnings
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// Tell more; twice, also the kernel side's messages
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// When the report is colored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every option has a help text, an imperative without a full stop.
    #[test]
    fn every_flag_has_help() {
        let command = Cli::command();
        let all =
            command.get_subcommands().chain([&command]).flat_map(|command| command.get_arguments());
        for argument in all {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty() && !help.ends_with('.'), "{}: {help:?}", argument.get_id());
        }
    }

    #[test]
    fn what_can_be_typed() {
        // (arguments, whether they are understood)
        let cases: [(&[&str], bool); 36] = [
            (&["--pid", "1"], true),
            (&["-p", "1", "-d", "5m", "-o", "x.mt", "--max-size", "2G"], true),
            (&["--", "ls", "-l"], true),
            (&["--user", "nobody", "--", "ls"], true),
            (&["report", "x.mt", "--metric", "inflaters-live"], true),
            (&["doctor", "--pid", "1"], true),
            (&["stacks", "1", "--freeze", "--json"], true),
            (&["stacks", "1", "--folded", "--json"], false),
            (&["-p", "1", "--capture", "x"], true),
            (&["-p", "1", "--malloc", "exact", "--min-size", "4K"], true),
            (&["-p", "1", "--malloc", "exact", "--min-size", "5X"], false),
            (&["__replay", "x", "y", "--living", "--rounds", "3"], true),
            (&["__replay", "x", "--rounds", "0"], false),
            (&["stacks"], false),
            (&["footprint", "1", "--json", "-", "--watch", "5s"], true),
            (&["footprint", "--diff", "a", "b"], true),
            (&["footprint", "--diff", "a"], false),
            (&["footprint", "1", "--diff", "a", "b"], false),
            (&["footprint", "1", "--watch", "0s"], false),
            (&["footprint"], false),
            (&["heap", "x.hprof", "--json", "-"], true),
            (&["heap", "histogram", "x.hprof", "--filter", "String$"], true),
            (&["heap"], false),
            (&["compare", "--with", "A=1", "--with", "-Xmx1g -Xss1m", "--", "java", "-jar"], true),
            (&["compare", "--with", "A=1", "--runs", "0", "--", "ls"], false),
            (
                &["compare", "--with", "A=1", "--until", "Started", "--timeout", "5s", "--", "ls"],
                true,
            ),
            (&["compare", "--with", "A=1"], false),
            (&["compare", "--", "ls"], false),
            (&["try", "trim", "1", "--json", "-"], true),
            (&["try", "gc"], false),
            (&["try", "everything", "1"], false),
            (&[], false),
            (&["--pid", "1", "--", "ls"], false),
            (&["--pid", "1", "--user", "x"], false),
            (&["--pid", "1", "--max-size", "1G"], false),
            (&["--pid", "1", "--metric", "nonsense"], false),
        ];
        for (arguments, want) in cases {
            let parsed = Cli::try_parse_from([&["memtrace"], arguments].concat());
            assert_eq!(parsed.is_ok(), want, "{arguments:?}: {parsed:?}");
        }
    }
}
