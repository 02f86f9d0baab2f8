//! The code of one process: which file or memory an instruction lies in, and how to unwind from there.
//!
//! The map is read again when an instruction lies nowhere, or when the process mapped code. A module that is gone
//! stays known until its addresses are used again: events of it may still be on their way.

use std::{io, rc::Rc};

use rustc_hash::FxHashMap;

use super::{module::Module, origin::Origin};
use crate::target::maps::Mapping;

/// What lies at an instruction.
#[derive(Debug)]
pub(super) enum Code<'a> {
    /// Code of a file: the module and the address as the file has addresses.
    Module(&'a Rc<Module>, u64),
    /// Code that the process made itself: a JIT compiler's.
    Anonymous,
    /// The kernel's return probe trampoline.
    ReturnProbe,
    /// Nothing that is known.
    Nowhere,
}

/// The executable mappings of one process.
#[derive(Debug, Default)]
pub(super) struct Modules {
    areas: Vec<Area>,
    /// Whether a JVM's library is among the modules.
    pub(super) has_jvm: bool,
}

#[derive(Clone, Debug)]
struct Area {
    start: u64,
    end: u64,
    offset: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Module(Rc<Module>),
    Anonymous,
    ReturnProbe,
}

/// The files with code of all processes, each opened and read once.
#[derive(Debug)]
pub(super) struct Files {
    by_key: FxHashMap<(u64, u64, Vec<u8>), Rc<Module>>,
    /// Where they, and the maps, are from.
    pub(super) origin: Rc<dyn Origin>,
}

/// Areas of a process that are kept; more than Linux lets one have at once (`vm.max_map_count`, by default), for those that
/// are gone are kept, too.
const MAX_AREAS: usize = 100_000;
/// Files that are kept though no process has them mapped any more.
const MAX_FILES: usize = 2048;
/// Files that are kept open until they are read.
const MAX_OPEN_FILES: usize = 200;

impl Modules {
    /// What lies at `address`.
    pub(super) fn at(&self, address: u64) -> Code<'_> {
        let index = self.areas.partition_point(|area| area.end <= address);
        match self.areas.get(index).filter(|area| area.start <= address) {
            None => Code::Nowhere,
            Some(Area { what: What::Anonymous, .. }) => Code::Anonymous,
            Some(Area { what: What::ReturnProbe, .. }) => Code::ReturnProbe,
            Some(Area { start, offset, what: What::Module(module), .. }) => {
                Code::Module(module, module.address(address - start + offset))
            }
        }
    }

    /// Reads the map of process `pid` again.
    ///
    /// Tells whether code took the place of other code.
    pub(super) fn refresh(&mut self, files: &mut Files, pid: u32) -> io::Result<bool> {
        let mut is_changed = false;
        for mapping in files.origin.maps(pid)?.iter().filter(|mapping| mapping.exec) {
            is_changed |= self.add(files, pid, mapping);
        }
        Ok(is_changed)
    }

    /// Process `pid` has mapped code. Tells whether it took the place of other code.
    pub(super) fn add(&mut self, files: &mut Files, pid: u32, mapping: &Mapping) -> bool {
        let Some(new) = self.area(files, pid, mapping) else { return false };
        self.put(new)
    }

    /// Tells whether `new` took the place of other code. What it covers a part of stays on both sides of it.
    ///
    /// Where there are too many all are forgotten: those that are still there are found in the map, when they are missed.
    fn put(&mut self, new: Area) -> bool {
        if self.areas.len() >= MAX_AREAS {
            self.areas = vec![new];
            return true;
        }
        let first = self.areas.partition_point(|old| old.end <= new.start);
        let n_replaced = self.areas[first..].partition_point(|old| old.start < new.end);
        let replaced = &self.areas[first..first + n_replaced];
        let is_changed = replaced.iter().any(|old| !new.is_same_code(old));
        let left = replaced.first().filter(|old| old.start < new.start);
        let left = left.map(|old| Area { end: new.start, ..old.clone() });
        let right = replaced.last().filter(|old| new.end < old.end);
        let right = right.map(|old| old.from(new.end));
        let areas = left.into_iter().chain([new]).chain(right);
        self.areas.splice(first..first + n_replaced, areas);
        is_changed
    }

    /// Reads every file now, so that no stack has to wait for it.
    pub(super) fn prepare(&self) {
        for area in &self.areas {
            if let What::Module(module) = &area.what {
                module.prepare();
            }
        }
    }

    /// The code of a child, which has its parent's mappings.
    pub(super) fn inherited(&self) -> Self {
        Self { areas: self.areas.clone(), has_jvm: self.has_jvm }
    }

    fn area(&mut self, files: &mut Files, pid: u32, mapping: &Mapping) -> Option<Area> {
        let what = match mapping.path.as_slice() {
            b"[uprobes]" => What::ReturnProbe,
            b"[vsyscall]" => return None,
            _ if mapping.is_anonymous() => What::Anonymous,
            _ => {
                self.has_jvm |= is_jvm(mapping);
                What::Module(files.module(pid, mapping))
            }
        };
        let offset = if mapping.path == b"[vdso]" { 0 } else { mapping.offset };
        Some(Area { start: mapping.start, end: mapping.end, offset, what })
    }
}

impl Area {
    /// What of the area lies at `start` and beyond.
    fn from(&self, start: u64) -> Self {
        let offset = self.offset.wrapping_add(start - self.start);
        Self { start, offset, ..self.clone() }
    }

    /// Whether the same code lies at the addresses that both have.
    fn is_same_code(&self, other: &Self) -> bool {
        let begin = |area: &Self| area.start.wrapping_sub(area.offset);
        self.what.is_same(&other.what)
            && (matches!(self.what, What::Anonymous) || begin(self) == begin(other))
    }
}

impl What {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (What::Module(one), What::Module(another)) => Rc::ptr_eq(one, another),
            (What::Anonymous, What::Anonymous) | (What::ReturnProbe, What::ReturnProbe) => true,
            _ => false,
        }
    }
}

impl Files {
    /// None yet; they are opened where `origin` says.
    pub(super) fn new(origin: Rc<dyn Origin>) -> Self {
        Self { by_key: FxHashMap::default(), origin }
    }

    /// Files that could not be read, by name and reason.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&str, String)> {
        self.by_key.values().filter_map(|module| Some((module.name.as_str(), module.error()?)))
    }

    fn module(&mut self, pid: u32, mapping: &Mapping) -> Rc<Module> {
        let key = (mapping.device, mapping.inode, mapping.path.clone());
        if let Some(module) = self.by_key.get(&key) {
            return module.clone();
        }
        if self.by_key.len() >= MAX_FILES {
            self.by_key.retain(|_, module| Rc::strong_count(module) > 1);
        }
        let source = self.origin.module(pid, mapping);
        let module = Rc::new(Module::new(key.clone(), mapping.file_name(), source));
        if self.n_open() >= MAX_OPEN_FILES {
            module.prepare();
        }
        self.by_key.insert(key, module.clone());
        module
    }

    fn n_open(&self) -> usize {
        self.by_key.values().filter(|module| module.is_open()).count()
    }
}

fn is_jvm(mapping: &Mapping) -> bool {
    mapping.file_name().starts_with("libjvm.so")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{module::Source, origin::Living},
        *,
    };

    /// Code that takes the place of a part of other code leaves the rest of it where it was, at its place in the file.
    #[test]
    fn in_part() {
        let old = Source::Unreadable(String::new());
        let old = Rc::new(Module::new((0, 0, Vec::new()), "old".into(), old));
        let area =
            |start, end, offset| Area { start, end, offset, what: What::Module(old.clone()) };
        let jit = |start, end| Area { start, end, offset: 0, what: What::Anonymous };
        // (what comes to lie over 10..50 and 60..90 of the file, whether it is other code, what lies where then)
        type Case = (Area, bool, &'static [(u64, u64, u64)]);
        let cases: [Case; 7] = [
            (jit(20, 30), true, &[(10, 20, 110), (20, 30, 0), (30, 50, 130), (60, 90, 160)]),
            (jit(10, 50), true, &[(10, 50, 0), (60, 90, 160)]),
            (jit(5, 20), true, &[(5, 20, 0), (20, 50, 120), (60, 90, 160)]),
            (jit(40, 70), true, &[(10, 40, 110), (40, 70, 0), (70, 90, 170)]),
            (jit(0, 99), true, &[(0, 99, 0)]),
            (jit(50, 60), false, &[(10, 50, 110), (50, 60, 0), (60, 90, 160)]),
            (
                area(20, 30, 120),
                false,
                &[(10, 20, 110), (20, 30, 120), (30, 50, 130), (60, 90, 160)],
            ),
        ];
        for (new, is_changed, want) in cases {
            let mut modules = Modules::default();
            for area in [area(10, 50, 110), area(60, 90, 160)] {
                modules.put(area);
            }
            let what = format!("{new:?}");
            assert_eq!(modules.put(new), is_changed, "{what}");
            let areas = modules.areas.iter().map(|area| (area.start, area.end, area.offset));
            assert_eq!(areas.collect::<Vec<_>>(), want, "{what}");
        }
    }

    /// A process that maps code at one new address after the other takes no more and more memory.
    #[test]
    fn few_are_remembered() {
        let mut modules = Modules::default();
        let jit = |n: u64| Area { start: 2 * n, end: 2 * n + 1, offset: 0, what: What::Anonymous };
        let n_anew = (0..3 * MAX_AREAS as u64).filter(|&n| {
            let is_anew = modules.put(jit(n));
            assert!(modules.areas.len() <= MAX_AREAS);
            assert!(matches!(modules.at(2 * n), Code::Anonymous));
            is_anew
        });
        assert_eq!(n_anew.count(), 2);
    }

    /// However many files have code: descriptors are for other things, too.
    #[test]
    fn few_stay_open() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::new(Rc::new(Living));
        for number in 0..MAX_OPEN_FILES as u64 + 50 {
            let path = folder.path().join(format!("lib{number}.so"));
            std::fs::write(&path, "no library").unwrap();
            let mapping = Mapping {
                start: 0x1000,
                end: 0x2000,
                access: true,
                exec: true,
                offset: 0,
                device: 1,
                inode: number,
                path: path.into_os_string().into_encoded_bytes(),
            };
            files.module(std::process::id(), &mapping);
        }
        assert_eq!((files.by_key.len(), files.n_open()), (MAX_OPEN_FILES + 50, MAX_OPEN_FILES));
    }
}
