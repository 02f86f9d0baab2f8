//! Which blocks are samples: one for each so many bytes on average, each byte with the same chance.
//!
//! A thread has a number of bytes to go until its next sample, drawn anew after each from the exponential distribution. So
//! a block of S bytes is a sample with the probability 1 - e^(-S/mean), whatever came before it, as jemalloc and tcmalloc
//! have it.

use aya_ebpf::{
    helpers::bpf_get_prandom_u32,
    macros::map,
    maps::{Array, HashMap},
};
use memtrace_common::Counter;

use crate::{
    counters::count,
    maps::{MALLOC_RATE_BYTES, target},
    opaque::opaque,
    task::Ids,
    threads::Thread,
};

/// ln 2 in units of 1/65536.
const LN_2: u64 = 45_426;
/// ln(1 + i/64) in units of 1/65536.
static LN: [u32; 65] = [
    0, 1016, 2017, 3002, 3973, 4930, 5873, 6802, 7719, 8623, 9515, 10_394, 11_262, 12_119, 12_965,
    13_800, 14_624, 15_438, 16_242, 17_037, 17_821, 18_597, 19_364, 20_121, 20_870, 21_611, 22_343,
    23_067, 23_783, 24_492, 25_193, 25_886, 26_573, 27_252, 27_924, 28_589, 29_248, 29_900, 30_546,
    31_185, 31_818, 32_445, 33_067, 33_682, 34_292, 34_896, 35_494, 36_087, 36_675, 37_258, 37_835,
    38_407, 38_975, 39_537, 40_095, 40_648, 41_196, 41_740, 42_280, 42_815, 43_345, 43_872, 44_394,
    44_912, 45_426,
];

/// A block of a process.
#[repr(C)]
#[derive(Clone, Copy)]
struct Block {
    tgid: u32,
    /// How many images the process has had: another one may have blocks at the same places.
    image: u32,
    addr: u64,
}

/// The samples that are live.
#[map]
static SAMPLES: HashMap<Block, u8> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);
/// Memory for an element only when there is one.
const BPF_F_NO_PREALLOC: u32 = 1;

/// A byte that is not 0 for each place that a sample was at, and by chance for some others: most blocks that are given back
/// were none, and to find that out in the table takes as long as all the rest.
#[map]
static MARKS: Array<Marks> = Array::with_max_entries(1, 0);
type Marks = [u8; N_MARKS];
const N_MARKS: usize = 1 << 18;

/// The mean number of bytes between two samples; 0 if every block is told of.
#[inline(always)]
pub(crate) fn rate_bytes() -> u64 {
    MALLOC_RATE_BYTES.load()
}

/// Whether the next block of `thread`, of `size` bytes, is a sample.
#[inline(always)]
pub(crate) fn is_due(thread: &mut Thread, size: u64) -> bool {
    if thread.until_sample == 0 {
        // Its first block: nothing was drawn yet.
        thread.until_sample = draw();
    }
    if size < thread.until_sample {
        thread.until_sample -= size;
        return false;
    }
    thread.until_sample = 0;
    true
}

/// Remembers a sample, so that its end is told of; `false` where there is no room, which is counted.
#[inline(always)]
pub(crate) fn remember(ids: Ids, addr: u64) -> bool {
    if let Some(mark) = mark(addr) {
        // SAFETY: it lies in the map's element; whoever writes it writes the same.
        unsafe { mark.write_volatile(1) };
    }
    let result = SAMPLES.insert(block(ids, addr), 1, 0);
    if result.is_err() {
        count(Counter::SAMPLES_FULL);
    }
    result.is_ok()
}

/// Whether the block, which is given back, was a sample; it is none any more.
#[inline(always)]
pub(crate) fn forget(ids: Ids, addr: u64) -> bool {
    // SAFETY: it lies in the map's element, and any byte will do.
    let is_marked = mark(addr).is_some_and(|mark| unsafe { mark.read_volatile() } != 0);
    is_marked && SAMPLES.remove(block(ids, addr)).is_ok()
}

/// The mark of what is at `addr`.
#[inline(always)]
fn mark(addr: u64) -> Option<*mut u8> {
    // Fibonacci hashing; blocks lie at multiples of 16.
    let hash = (addr >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let marks = MARKS.get_ptr_mut(0)?.cast::<u8>();
    // SAFETY: masked, it lies in the element.
    Some(unsafe { marks.add(opaque(hash) as usize & (N_MARKS - 1)) })
}

#[inline(always)]
fn block(ids: Ids, addr: u64) -> Block {
    let image = target(ids.tgid).map_or(0, |flags| flags.image);
    Block { tgid: ids.tgid, image, addr }
}

/// Bytes until the next sample, 1 or more: -ln(u) times the mean for a u from 0 to 1.
#[inline(always)]
fn draw() -> u64 {
    // SAFETY: the helper has no preconditions.
    let random = unsafe { bpf_get_prandom_u32() } | 1;
    // u = 2^-(zeros + 1) * (1 + mantissa / 2^31): the logarithm is exact at 64 places between two powers, and straight in
    // between.
    let zeros = leading_zeros(random);
    let mantissa = u64::from(random << zeros) & 0x7fff_ffff;
    let (index, part) = ((mantissa >> 25) as usize & 63, (mantissa >> 9) & 0xffff);
    let (low, high) = (u64::from(LN[index]), u64::from(LN[index + 1]));
    let ln_mantissa = low + (((high - low) * part) >> 16);
    let units = (u64::from(zeros) + 1) * LN_2 - ln_mantissa;
    ((rate_bytes() * units) >> 16) + 1
}

/// The instruction set has no instruction for it.
#[inline(always)]
fn leading_zeros(mut value: u32) -> u32 {
    let mut zeros = 0;
    if value >> 16 == 0 {
        zeros += 16;
        value <<= 16;
    }
    if value >> 24 == 0 {
        zeros += 8;
        value <<= 8;
    }
    if value >> 28 == 0 {
        zeros += 4;
        value <<= 4;
    }
    if value >> 30 == 0 {
        zeros += 2;
        value <<= 2;
    }
    if value >> 31 == 0 { zeros + 1 } else { zeros }
}
