//! Registers of threads, from bytes.

use memtrace_common::ThreadRegisters;
use zerocopy::FromBytes;

/// The records in `bytes`; what is left at the end is no record.
pub fn thread_registers(bytes: &[u8]) -> Vec<ThreadRegisters> {
    let records = bytes.chunks_exact(size_of::<ThreadRegisters>());
    records.filter_map(|record| ThreadRegisters::read_from_bytes(record).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    /// Whole records are read, a part of one is not.
    #[test]
    fn records() {
        let of = |tid| ThreadRegisters { tid, ..Default::default() };
        let bytes = [of(1).as_bytes(), of(2).as_bytes()].concat();
        assert_eq!(thread_registers(&bytes), [of(1), of(2)]);
        assert_eq!(thread_registers(&bytes[..bytes.len() - 1]), [of(1)]);
        assert_eq!(thread_registers(&[]), []);
    }
}
