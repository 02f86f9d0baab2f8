//! Reference stacks: what gdb says the stack is when a fixture maps.
//!
//! gdb runs the fixture, stops at each mmap of a wanted size, and lists frames and mappings. Functions
//! that were inlined, or that jumped to another at their end, are left out: they have no frame.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::symbols::Symbols;

/// What gdb is told to do, in its own Python. It prints for each stack a line `stack NUMBER`,
/// lines `frame KIND PC NAME` innermost first, and the lines of the memory map.
const SHOW: &str = r#"
import gdb

for line in ["pagination off", "confirm off", "backtrace past-main on", "debuginfod enabled off",
             "backtrace limit 1000", "style enabled off"]:
    gdb.execute("set " + line)

def show(number):
    print("\nstack %d" % number)
    frame = gdb.newest_frame()
    while frame is not None:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            kind = "signal" if frame.type() == gdb.SIGTRAMP_FRAME else "call"
            symbol = gdb.execute("info symbol %d" % frame.pc(), to_string=True).split()[0]
            print("frame %s %d %s" % (kind, frame.pc(), symbol))
        frame = frame.older()
    print(open("/proc/%d/maps" % gdb.selected_inferior().pid).read())
"#;

/// Shows the stack at the first mmap of each wanted size.
const RUN: &str = r#"
def settings():
    for signal in ["SIGUSR1", "SIGUSR2", "SIGHUP", "SIGTERM", "SIGSEGV"]:
        gdb.execute("handle " + signal + " nostop noprint pass", to_string=True)
    gdb.execute("catch syscall mmap", to_string=True)
    gdb.execute("condition 1 " + " || ".join("$rsi == %d" % size for size in wanted))

settings()
gdb.execute("run", to_string=True)
shown = set()
while gdb.selected_inferior().pid != 0:
    size = int(gdb.parse_and_eval("$rsi"))
    if size not in shown:
        shown.add(size)
        show(size)
    gdb.execute("continue", to_string=True)
"#;

/// Shows the stack of each thread of the process that it is attached to.
const ATTACHED: &str = r#"
for thread in gdb.selected_inferior().threads():
    thread.switch()
    show(thread.ptid[1])
"#;

/// One frame as gdb has it.
#[derive(Debug)]
pub struct Frame {
    /// Names that the frame may have in a report.
    names: Vec<String>,
}

impl Frame {
    /// Whether a report that calls this frame `name` is right.
    pub fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// The stacks of `program` at its calls of mmap with these sizes; frames are outermost first.
pub fn stacks(program: &Path, sizes: &[u64]) -> BTreeMap<u64, Vec<Frame>> {
    let script = format!("{SHOW}\nwanted = {sizes:?}\n{RUN}");
    let stacks = told_by(&script, &[OsStr::new("--args"), program.as_os_str()]);
    assert_eq!(stacks.len(), sizes.len(), "{stacks:?}");
    stacks
}

/// The stacks of all threads of process `pid`, which stands still meanwhile, by thread id; frames are outermost first.
pub fn stacks_of_process(pid: u32) -> BTreeMap<u64, Vec<Frame>> {
    let pid = pid.to_string();
    told_by(&format!("{SHOW}{ATTACHED}"), &[OsStr::new("-p"), OsStr::new(&pid)])
}

fn told_by(script: &str, arguments: &[&OsStr]) -> BTreeMap<u64, Vec<Frame>> {
    let file = tempfile::Builder::new().suffix(".py").tempfile().expect("a temporary file");
    std::fs::write(file.path(), script).expect("the temporary file is writable");
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-x"])
        .arg(file.path())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("gdb is on the PATH");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut stacks = BTreeMap::new();
    for part in printed.split("\nstack ").skip(1) {
        let (number, rest) = part.split_once('\n').unwrap_or((part, ""));
        let number = number.parse().unwrap_or_else(|_| panic!("gdb printed {part}"));
        stacks.insert(number, frames(rest));
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!stacks.is_empty(), "gdb printed {printed}\nand said {errors}");
    stacks
}

/// The frames of one stack, outermost first.
fn frames(printed: &str) -> Vec<Frame> {
    let mappings: Vec<Mapping> = printed.lines().filter_map(Mapping::parse).collect();
    let mut frames = Vec::new();
    // The innermost frame is where it is; so is what a signal interrupted. Others return to their pc.
    let mut is_exact = true;
    for line in printed.lines().filter_map(|line| line.strip_prefix("frame ")) {
        let mut words = line.split(' ');
        let (kind, pc, name) = (words.next(), words.next(), words.next());
        let pc: u64 = pc.and_then(|pc| pc.parse().ok()).expect("gdb prints a number");
        let is_signal = kind == Some("signal");
        let lookup = if is_exact || is_signal { pc } else { pc - 1 };
        frames.push(frame(&mappings, lookup, pc, name.unwrap_or_default()));
        is_exact = is_signal;
    }
    frames.reverse();
    frames
}

/// The frame whose instruction is at `lookup` and that gdb calls `name`.
fn frame(mappings: &[Mapping], lookup: u64, pc: u64, name: &str) -> Frame {
    let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&lookup));
    let mapping = mapping.unwrap_or_else(|| panic!("{lookup:#x} ({name}) is not mapped"));
    let symbols = Symbols::of(&mapping.path);
    let offset = lookup - mapping.start + mapping.offset;
    let address = symbols.address(offset).expect("what runs lies in a segment");
    let mut names: Vec<String> = symbols.names(address).into_iter().map(str::to_owned).collect();
    if names.is_empty() {
        // The file itself names it not, so a report may only say where it is: at the call or after it.
        let module = mapping.path.file_name().unwrap_or_default().to_string_lossy();
        names.push(format!("{module}+{address:#x}"));
        names.push(format!("{module}+{:#x}", address + (pc - lookup)));
        if name != "No" {
            names.push(name.to_owned()); // from separate debug information
        }
    }
    Frame { names }
}

/// A mapping of a file.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: PathBuf,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (range, _access, offset) = (words.next()?, words.next()?, words.next()?);
        let path = words.nth(2).filter(|path| path.starts_with('/'))?;
        let (start, end) = range.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { start: hex(start)?, end: hex(end)?, offset: hex(offset)?, path: path.into() })
    }
}
