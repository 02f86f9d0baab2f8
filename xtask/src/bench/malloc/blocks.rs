//! The memory that memtrace takes to know many live blocks.
//!
//! In: a bed and a number. Out: memtrace's RSS. The program asks for so many small blocks, from 256 stacks, and gives none
//! back; it does so at a rate that memtrace keeps up with.

use crate::bench::{
    Bed, grouped,
    program::{Program, number},
    said::Said,
    table::bar,
    tool::Tool,
};

/// Bytes, of 10 million blocks.
const BAR: f64 = 600e6;
const AIM: f64 = 300e6;
const OF_BLOCKS: u64 = 10_000_000;

/// Calls a second.
const RATE: u64 = 100_000;
const N_THREADS: u64 = 2;

/// Measures with so many blocks; returns what is to be said.
pub(super) fn run(bed: &Bed, n_blocks: u64) -> anyhow::Result<Vec<String>> {
    let program = Program::compile(bed, "paced", include_str!("paced.c"))?;
    eprintln!("Asking for {} blocks.", grouped(n_blocks));
    let target = program.target(&[RATE, n_blocks, N_THREADS, n_blocks]);
    let said = bed.trace(Tool::MemtraceExact, &target)?;
    let n_mallocs = number(&program.take_figures()?, "mallocs")?;
    Ok(lines(n_mallocs, &said))
}

fn lines(n_mallocs: u64, said: &Said) -> Vec<String> {
    let live = said.live_blocks.map_or("not in its report".to_owned(), grouped);
    let mut lines = vec![
        format!("{} blocks that are not given back", grouped(n_mallocs)),
        format!(
            "memtrace: {} calls of malloc traced; live at the end: {live}",
            grouped(said.n_calls("malloc"))
        ),
        format!(
            "memtrace: lost: {}; {} stacks left out in {} intervals; {:.1} s of CPU",
            said.losses().unwrap_or_else(|| "nothing".to_owned()),
            grouped(said.n_left_out),
            said.n_intervals,
            said.cpu_seconds
        ),
    ];
    let rss = said.max_rss_bytes as f64;
    let knows_all = said.live_blocks.is_some_and(|n| n >= n_mallocs);
    let show = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
    if n_mallocs >= OF_BLOCKS && knows_all {
        lines.push(bar("bar", "memtrace's RSS", rss, BAR, show));
        lines.push(bar("aim", "memtrace's RSS", rss, AIM, show));
    } else {
        // Fewer blocks than the bars are about.
        lines.push(format!("memtrace's RSS: {}; not judged", show(rss)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bench::said;

    /// RSS is judged only if memtrace knew as many blocks as the bar is about.
    #[test]
    fn judged_by_what_was_known() {
        let mut said = said::tests::said(&json!({"ring_full": 2}), &[]);
        for (n_mallocs, live_blocks, is_judged) in [
            (OF_BLOCKS, Some(OF_BLOCKS + 3), true),
            (OF_BLOCKS, Some(OF_BLOCKS - 1), false),
            (OF_BLOCKS, None, false),
            (1_000, Some(1_000), false),
        ] {
            said.live_blocks = live_blocks;
            let text = lines(n_mallocs, &said).join("\n");
            assert_eq!(
                text.contains("bar: memtrace's RSS: 70 MB (bar 600 MB): met"),
                is_judged,
                "{text}"
            );
            assert_eq!(text.contains("not judged"), !is_judged, "{text}");
            assert!(text.contains("lost: ring_full 2;"), "{text}");
        }
    }
}
