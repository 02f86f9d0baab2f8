//! The user registers of a process's threads, read without stopping them.
//!
//! In: a process. Out: the records that the kernel side writes, one a thread. A thread that is in the kernel has left its
//! registers there; of one that runs they are those of its last system call or interrupt, and worth nothing.

use std::{fs::File, io::Read};

use anyhow::{Context, Result};
use aya::{Btf, Ebpf, EbpfLoader, programs::Iter};

use super::{
    OBJECT, Obstacle, Offsets, add_target, conditions::Conditions, kernel_offsets, obstacle,
    program_mut,
};

const PROGRAM: &str = "thread_registers";
/// The ring buffer of the traces, which is not used here: a page.
const RING_BYTES: u32 = 4096;
/// What is read at most: some 100,000 threads.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the registers of one process's threads.
pub struct Registers {
    ebpf: Ebpf,
}

impl Registers {
    /// For the threads of process `tgid`. Fails with an [`Obstacle`] where the reason is known.
    pub fn of_process(tgid: u32) -> Result<Self> {
        if let Some(obstacle) = Obstacle::in_any_case(&Conditions::read()) {
            return Err(obstacle.into());
        }
        Self::load(tgid).map_err(obstacle::explained)
    }

    fn load(tgid: u32) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("failed to read the kernel's type information")?;
        let offsets = Offsets(kernel_offsets::read()?);
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .map_max_entries("EVENTS", RING_BYTES)
            .override_global("KERNEL", &offsets, true)
            .load(OBJECT)
            .context("failed to load the kernel side")?;
        add_target(&mut ebpf, tgid, false)?;
        let program: &mut Iter = program_mut(&mut ebpf, PROGRAM)?;
        program
            .load("task", &btf)
            .context("the kernel refused the program that reads registers")?;
        Ok(Self { ebpf })
    }

    /// The records of all threads, as they are now.
    pub fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open().context("failed to ask the kernel for the threads' registers")?;
        file.take(MAX_BYTES).read_to_end(&mut bytes).context("failed to read registers")?;
        Ok(bytes)
    }

    fn open(&mut self) -> Result<File> {
        let program: &mut Iter = program_mut(&mut self.ebpf, PROGRAM)?;
        let link = program.attach()?;
        Ok(program.take_link(link)?.into_file()?)
    }
}
