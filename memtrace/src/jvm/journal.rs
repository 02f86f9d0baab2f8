//! The generated code of a JVM, and what has become of it: each block with the time since when it is there and, once it
//! is gone, until when it was.
//!
//! Code is compiled again and thrown away all the time while a program starts, and its place is used again. So a number,
//! a [`CodeId`], is given to each block once, and an instruction is looked up with the time of the event. What is needed
//! of a method is copied when it is first seen: it stays readable when the method is gone.
//!
//! Changes are found by reading the segment maps (a byte for 128 bytes of code) and the header of every block: a freed
//! place that was used again for a block of the same size looks the same in every smaller record that HotSpot keeps.
//! Headers lie a few KiB apart, so the heaps are read whole: that costs a fifth of one piece for each header.

mod find;
mod look_again;

use std::{ops::Range, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    absent::Absent,
    code::{Code, CodeId, is_same, returns_of},
    code_blob::{Blob, BlobKind, BlobLayout},
    code_cache::{CodeCacheLayout, CodeHeap},
    debug_info::DebugInfo,
    memory::{Memory, Unreadable},
    vm_structs::{TablesError, VmStructs},
};

/// Blocks that are known at once.
const MAX_CODES: usize = 200_000;
/// Blocks that are kept although they are gone, and for how long.
const MAX_GONE: usize = 20_000;
const KEEP_GONE_NS: u64 = 30_000_000_000;
/// Bytes of debug information that are copied, and of wrappers that are searched for calls; beyond, methods have neither.
const MAX_DEBUG_BYTES: usize = 64 << 20;
/// Blocks nearer to each other than this are read together: for the kernel, a piece costs more than a few pages.
const MAX_GAP_BYTES: u64 = 64 << 10;
/// As much is read at once, whatever the heap's own records say.
const MAX_RUN_BYTES: u64 = 4 << 20;
/// Code that is first seen so long after an event was not surely there already: other code may have come and gone.
const MAX_LAG_NS: u64 = 100_000_000;
/// Names of blobs that are remembered by where their text is.
const MAX_NAMES: usize = 10_000;

/// What a look at the code cache has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeChanges {
    /// Blocks that came.
    pub n_new: usize,
    /// Where code was that is gone.
    pub gone: Vec<Range<u64>>,
}

/// The code of one JVM.
#[derive(Debug)]
pub(super) struct Journal {
    cache: CodeCacheLayout,
    layout: BlobLayout,
    heaps: Vec<CodeHeap>,
    codes: FxHashMap<u32, Code>,
    /// What is there now, by address.
    current: Vec<(u64, CodeId)>,
    /// What is gone, oldest first.
    gone: Vec<CodeId>,
    next: u32,
    names: FxHashMap<u64, (Rc<[u8]>, BlobKind)>,
    /// What was asked for in this round, between two looks at what was.
    asked: Vec<CodeId>,
    round: u32,
    looked_ns: u64,
    debug_bytes: usize,
    observed_ns: u64,
    /// A time that is over.
    now_ns: u64,
    absent: Absent,
    /// Where other code was found than the last observation had seen.
    replaced: Vec<Range<u64>>,
    /// How often that was.
    pub(super) n_replaced: u32,
}

impl Journal {
    pub(super) fn new(structs: &VmStructs) -> Result<Self, TablesError> {
        Ok(Self {
            cache: CodeCacheLayout::of(structs)?,
            layout: BlobLayout::of(structs)?,
            heaps: Vec::new(),
            codes: FxHashMap::default(),
            current: Vec::new(),
            gone: Vec::new(),
            next: 0,
            names: FxHashMap::default(),
            asked: Vec::new(),
            round: 1,
            looked_ns: 0,
            debug_bytes: 0,
            observed_ns: 0,
            now_ns: 0,
            absent: Absent::default(),
            replaced: Vec::new(),
            n_replaced: 0,
        })
    }

    /// The block with number `id`, unless it is forgotten.
    pub(super) fn code(&self, id: CodeId) -> Option<&Code> {
        self.codes.get(&id.0)
    }

    /// The heaps' addresses, whether used or not.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.heaps.iter().map(|heap| heap.low..heap.end)
    }

    /// Where the interpreter is.
    pub(super) fn interpreter(&self) -> Option<Range<u64>> {
        let code = self.codes.values().find(|code| code.kind == BlobKind::Interpreter)?;
        Some(code.blob.code..code.blob.code_end)
    }

    /// How many blocks there are, and bytes of debug information.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.current.len(), self.debug_bytes)
    }

    /// The methods' code, and where each block says whether it is in use.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> Vec<(CodeId, u64)> {
        let methods = self
            .current
            .iter()
            .filter(|(_, id)| self.code(*id).is_some_and(|code| code.kind == BlobKind::Method));
        methods.map(|&(at, id)| (id, at - self.cache.header + self.cache.used)).collect()
    }

    /// An instruction that a call in a method returns to, the bytes of the method's frame, and where other methods begin;
    /// what is known of the method is from now on other code's, with a frame that is so much larger.
    #[cfg(test)]
    pub(super) fn replace_a_method(&mut self, more_bytes: u32) -> (u64, u32, u64) {
        let starts: Vec<u64> = self.codes.values().map(|code| code.blob.code).collect();
        let methods = self.codes.values_mut().filter(|code| code.kind == BlobKind::Method);
        let with_call = methods.filter_map(|code| {
            let mut pcs = code.blob.code..code.blob.code_end;
            let pc = pcs.find(|&pc| code.may_return_to(pc) && !code.blob.deopt.contains(&pc))?;
            Some((code, pc))
        });
        let (code, pc) = with_call.min_by_key(|(_, pc)| *pc).expect("a method was recorded");
        let bytes = code.blob.frame_bytes;
        code.blob.frame_bytes += more_bytes;
        code.blob.compile_id ^= 1;
        let other = starts.into_iter().find(|&start| start != code.blob.code);
        (pc, bytes, other.expect("more than one was recorded"))
    }

    /// The time, as far as it is known.
    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// It is `now_ns` or later: a look at the target's memory shows what is there after that.
    pub(super) fn set_time(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Looks at the code cache. `now_ns` is the time before the call, on the clock of the events.
    pub(super) fn observe(
        &mut self,
        memory: &dyn Memory,
        now_ns: u64,
    ) -> Result<CodeChanges, Unreadable> {
        self.set_time(now_ns);
        self.heaps = self.cache.heaps(memory)?;
        self.absent.clear();
        let mut changes = CodeChanges::default();
        let seen = self.read_blobs(memory)?;
        let old = std::mem::take(&mut self.current);
        let mut old = old.into_iter().peekable();
        for blob in seen {
            while let Some((_, id)) = old.next_if(|&(address, _)| address < blob.address) {
                self.retire(id, now_ns, &mut changes);
            }
            if let Some((_, id)) = old.next_if(|&(address, _)| address == blob.address) {
                if let Some(code) = self.codes.get_mut(&id.0).filter(|it| is_same(&it.blob, &blob))
                {
                    code.seen_ns = code.seen_ns.max(now_ns);
                    self.current.push((blob.address, id));
                    self.complete(memory, id);
                    continue;
                }
                self.retire(id, now_ns, &mut changes);
            }
            changes.n_new += usize::from(self.add(memory, blob, now_ns).is_some());
        }
        old.for_each(|(_, id)| self.retire(id, now_ns, &mut changes));
        self.observed_ns = now_ns;
        self.forget_old(now_ns);
        changes.gone.sort_by_key(|range| range.start);
        Ok(changes)
    }

    /// All blobs in use, by address.
    fn read_blobs(&self, memory: &dyn Memory) -> Result<Vec<Blob>, Unreadable> {
        let (mut blobs, mut bytes) = (Vec::new(), Vec::new());
        let len = self.cache.header as usize + self.layout.header;
        for heap in &self.heaps {
            let blocks = heap.blocks(memory)?;
            let is_near = |&block: &u64, &next: &u64| {
                next - block < MAX_GAP_BYTES && block / MAX_RUN_BYTES == next / MAX_RUN_BYTES
            };
            for run in blocks.chunk_by(is_near) {
                let (first, last) = (run[0], run[run.len() - 1]);
                // The last block may be smaller than a method's header.
                let end = (last + len as u64).min(heap.committed);
                bytes.resize((end - first) as usize, 0);
                if memory.read(first, &mut bytes).is_ok() {
                    let parsed = run.iter().filter_map(|&block| {
                        let block_bytes = bytes.get((block - first) as usize..)?;
                        self.parse(block, &block_bytes[..block_bytes.len().min(len)])
                    });
                    blobs.extend(parsed);
                } else {
                    blobs.extend(run.iter().filter_map(|&at| self.read_blob(memory, heap, at)));
                }
            }
        }
        Ok(blobs)
    }

    /// The blob in the block at `block`, if it is in use.
    fn read_blob(&self, memory: &dyn Memory, heap: &CodeHeap, block: u64) -> Option<Blob> {
        let len = self.cache.header as usize + self.layout.header;
        let len = len.min(heap.committed.checked_sub(block)? as usize);
        self.parse(block, &memory.bytes(block, len).ok()?)
    }

    fn parse(&self, block: u64, bytes: &[u8]) -> Option<Blob> {
        let is_used = *bytes.get(self.cache.used as usize)? == 1;
        let header = bytes.get(self.cache.header as usize..)?;
        is_used.then(|| self.layout.parse(block + self.cache.header, header)).flatten()
    }

    /// Gives `blob` a number and copies what is needed of it.
    fn add(&mut self, memory: &dyn Memory, blob: Blob, now_ns: u64) -> Option<CodeId> {
        if self.codes.len() >= MAX_CODES + MAX_GONE {
            return None;
        }
        let (name, kind) = self.name(memory, blob.name)?;
        let mut debug = None;
        if kind.is_method() && self.debug_bytes < MAX_DEBUG_BYTES {
            debug = DebugInfo::read(memory, &blob.debug);
        }
        let mut returns = None;
        if kind == BlobKind::NativeWrapper && self.debug_bytes < MAX_DEBUG_BYTES {
            returns = returns_of(memory, &blob);
        }
        let id = CodeId(self.next);
        self.next = self.next.checked_add(1)?;
        let place = self.current.partition_point(|&(address, _)| address < blob.address);
        self.current.insert(place, (blob.address, id));
        let (since_ns, seen_ns, round) = (now_ns, now_ns, 0);
        let code = Code { blob, kind, name, debug, returns, since_ns, seen_ns, round, gone: None };
        self.debug_bytes += code.size_bytes();
        self.codes.insert(id.0, code);
        Some(id)
    }

    /// Copies a method's debug information if it was not whole when it was first seen.
    fn complete(&mut self, memory: &dyn Memory, id: CodeId) {
        let Some(code) = self.codes.get_mut(&id.0).filter(|code| code.is_incomplete()) else {
            return;
        };
        if self.debug_bytes < MAX_DEBUG_BYTES {
            memory.forget();
            code.debug = DebugInfo::read(memory, &code.blob.debug);
            self.debug_bytes += code.debug.as_ref().map_or(0, DebugInfo::size_bytes);
        }
    }

    fn name(&mut self, memory: &dyn Memory, address: u64) -> Option<(Rc<[u8]>, BlobKind)> {
        if let Some(known) = self.names.get(&address) {
            return Some(known.clone());
        }
        let name: Rc<[u8]> = memory.text(address).ok()?.into();
        let known = (name.clone(), BlobKind::of_name(&name));
        // Names of methods are constants in the library; other names may be freed with their blob.
        if known.1.is_method() && self.names.len() < MAX_NAMES {
            self.names.insert(address, known.clone());
        }
        Some(known)
    }

    fn retire(&mut self, id: CodeId, now_ns: u64, changes: &mut CodeChanges) {
        if let Some(code) = self.codes.get_mut(&id.0) {
            code.gone = Some((code.seen_ns, now_ns.max(code.seen_ns)));
            changes.gone.push(code.blob.code..code.blob.code_end);
            self.gone.push(id);
        }
    }

    fn forget_old(&mut self, now_ns: u64) {
        let Self { gone, codes, debug_bytes, .. } = self;
        let n_too_many = gone.len().saturating_sub(MAX_GONE);
        let is_old = |id: &CodeId| {
            let when = codes.get(&id.0).and_then(|code| code.gone);
            when.is_none_or(|(_, gone_ns)| gone_ns.saturating_add(KEEP_GONE_NS) < now_ns)
        };
        let n = gone.iter().take_while(|id| is_old(id)).count().max(n_too_many);
        for id in gone.drain(..n) {
            let code = codes.remove(&id.0);
            *debug_bytes -= code.map_or(0, |code| code.size_bytes());
        }
    }
}
