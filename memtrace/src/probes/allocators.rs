//! Probes on allocators, in the processes that are traced and nowhere else.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    rc::Rc,
};

use anyhow::{Context, Result};
use aya::programs::uprobe::UProbeScope;
use memtrace_common::{COOKIE_LEAF, Kind};

use super::{
    Blocks, Probes,
    links::{self, Links},
    malloc::{self, AllocatorFunction, Site, Sites},
    session::Point,
};
use crate::target::{self, FileVersion, Library};

/// The allocators that are probed.
#[derive(Default)]
pub(super) struct Allocators {
    /// The functions of allocators, by the file that they are in.
    sites: HashMap<FileVersion, Rc<[Site]>>,
    by_process: HashMap<u32, Probed>,
    /// What is not seen of those files, and was not told yet.
    notes: Vec<String>,
    /// See [`Probes::n_allocators`].
    n_found: usize,
    /// See [`Probes::n_unprobed`].
    n_failed: u64,
}

/// What is probed in one process.
#[derive(Default)]
struct Probed {
    /// Device and inode of each file that was looked at.
    known: HashSet<(u64, u64)>,
    /// Those in which an allocator is.
    libraries: Vec<Library>,
    links: Links,
}

impl Allocators {
    /// The links of all processes.
    pub(super) fn take_links(&mut self) -> Links {
        let mut all = Links::default();
        self.by_process.values_mut().for_each(|it| all.add(std::mem::take(&mut it.links)));
        all
    }

    fn sites_of(&mut self, library: &Library) -> Result<Rc<[Site]>> {
        let version = library.version().context("failed to look at a file")?;
        if let Some(known) = self.sites.get(&version) {
            return Ok(known.clone());
        }
        let Sites { sites, notes } = malloc::sites(library)?;
        self.notes.extend(notes);
        let sites: Rc<[Site]> = sites.into();
        self.sites.insert(version, sites.clone());
        Ok(sites)
    }
}

impl Probes {
    /// Whether allocators' functions are to be probed.
    pub fn wants_allocators(&self) -> bool {
        self.options.blocks != Blocks::None
    }

    /// In how many files an allocator was found and probed, a file in two processes twice.
    pub fn n_allocators(&self) -> usize {
        self.allocators.n_found
    }

    /// The functions of the allocator in `library`, as they would be probed; nothing is. None where it has none.
    pub fn allocator_functions(library: &Library) -> Result<Vec<AllocatorFunction>> {
        let Sites { sites, .. } = malloc::sites(library)?;
        Ok(sites.into_iter().map(AllocatorFunction::from).collect())
    }

    /// What of the files that were looked at is not seen: a line each, once.
    pub fn take_notes_on_allocators(&mut self) -> Vec<String> {
        std::mem::take(&mut self.allocators.notes)
    }

    /// Whether the file of this device and inode was looked at for process `tgid`.
    pub fn knows_allocator(&self, tgid: u32, key: (u64, u64)) -> bool {
        self.allocators.by_process.get(&tgid).is_some_and(|probed| probed.known.contains(&key))
    }

    /// Probes the functions of the allocator that is in `library` in process `tgid`, which need not have mapped it yet;
    /// only who has its memory traps, and nobody else. Returns how many functions were probed; 0 where there is none, or
    /// they are probed already.
    pub fn attach_allocator(&mut self, tgid: u32, library: &Library) -> Result<usize> {
        if self.knows_allocator(tgid, library.key()) {
            return Ok(0);
        }
        let probed = self.try_attach_allocator(tgid, library);
        self.allocators.n_failed += u64::from(probed.is_err() && target::is_alive(tgid));
        probed
    }

    fn try_attach_allocator(&mut self, tgid: u32, library: &Library) -> Result<usize> {
        let sites = self.allocators.sites_of(library)?;
        if sites.is_empty() {
            self.allocators.by_process.entry(tgid).or_default().known.insert(library.key());
            return Ok(0);
        }
        let links = self.attach_sites(tgid, library, &sites)?;
        let names: Vec<_> = sites.iter().map(|site| site.name).collect();
        let name = library.name().display();
        log::info!("probed {} of {name} in process {tgid}", names.join(", "));
        self.allocators.n_found += 1;
        let probed = self.allocators.by_process.entry(tgid).or_default();
        probed.known.insert(library.key());
        probed.links.add(links);
        probed.libraries.push(library.clone());
        Ok(sites.len())
    }

    /// Probes in process `child` what is probed in its `parent`. Returns in how many files.
    pub fn attach_allocators_of(&mut self, parent: u32, child: u32) -> Result<usize> {
        let libraries = self.allocators.by_process.get(&parent).map(|it| it.libraries.clone());
        let libraries = libraries.unwrap_or_default();
        for library in &libraries {
            self.attach_allocator(child, library)?;
        }
        Ok(libraries.len())
    }

    /// Whether what is probed in a process stays probed when its first thread has ended.
    pub fn outlive_first_thread(&self) -> bool {
        self.session.is_some()
    }

    /// Probes process `tgid` anew: its probes were those of a thread that is gone, as the kernel has it. Returns in how many
    /// files.
    pub fn renew_allocators(&mut self, tgid: u32) -> Result<usize> {
        let libraries = self.allocators.by_process.get(&tgid).map(|it| it.libraries.clone());
        self.forget_allocators(tgid);
        let libraries = libraries.unwrap_or_default();
        for library in &libraries {
            self.attach_allocator(tgid, library)?;
        }
        Ok(libraries.len())
    }

    /// How often an allocator could not be probed.
    pub fn n_unprobed(&self) -> u64 {
        self.allocators.n_failed
    }

    /// Lets go of what is probed in process `tgid`, which has ended.
    pub fn forget_allocators(&mut self, tgid: u32) {
        let Some(probed) = self.allocators.by_process.remove(&tgid) else { return };
        links::drop_later(&mut self.ebpf, probed.links);
    }

    fn attach_sites(&mut self, tgid: u32, library: &Library, sites: &[Site]) -> Result<Links> {
        // The kernel asks for the memory of one thread, which the first has no more once it has ended.
        let thread = target::living_thread(tgid).context("the process has ended")?;
        if let Some(session) = self.session.as_ref().filter(|_| thread == tgid) {
            let points: Vec<Point> =
                sites.iter().map(|site| site.point(tgid, site.is_leaf)).collect();
            let link = session.attach(library, &points, tgid)?;
            return Ok(Links { sessions: vec![link], ..Links::default() });
        }
        let n_before = self.links.functions.len();
        let attached = self.attach_one_by_one(tgid, thread, library, sites);
        let functions = self.links.functions.split_off(n_before);
        let links = Links { functions, ..Links::default() };
        if let Err(error) = attached {
            // Half an allocator would be counted wrong.
            links::drop_all(&mut self.ebpf, links);
            return Err(error);
        }
        Ok(links)
    }

    fn attach_one_by_one(
        &mut self,
        tgid: u32,
        thread: u32,
        library: &Library,
        sites: &[Site],
    ) -> Result<()> {
        let thread = NonZeroU32::new(thread).context("the process has ended")?;
        let scope = UProbeScope::OneProcess(thread);
        for site in sites {
            // A call whose return is always seen need not be a leaf.
            let Point { file_offset, cookie } = site.point(tgid, false);
            let mut attach = |name| self.attach_function(name, library, file_offset, cookie, scope);
            match site.kind {
                Kind::FREE => attach("block_given_back")?,
                // The return first, see `attach_site`.
                _ => {
                    attach("block_got")?;
                    attach("block_wanted")?;
                }
            }
        }
        Ok(())
    }
}

impl Site {
    /// What the kernel side is to know of it in process `tgid`. Of a leaf it may leave out returns.
    fn point(&self, tgid: u32, is_leaf: bool) -> Point {
        let leaf = if is_leaf { COOKIE_LEAF } else { 0 };
        let cookie = u64::from(tgid) << 32 | u64::from(self.kind.0 | leaf);
        Point { file_offset: self.file_offset, cookie }
    }
}
