//! Heaps that are damaged: what is read of them is bounded, and says what is wrong.

use std::process::Command;

use memtrace_tests::fixtures::built;

use super::Shaped;

/// What one kind of damage may cost.
struct Damage {
    /// As the fixture knows it.
    name: &'static str,
    /// Bytes that may be unknown for it.
    max_unknown: u64,
    /// Whether it must have been noticed as a place that does not fit.
    is_skip: bool,
    /// Whether it must have been noticed as a broken ring.
    is_ring: bool,
    /// Whether it must have been noticed as a heap that lies.
    is_lie: bool,
}

const fn damage(name: &'static str, max_unknown: u64, is_skip: bool) -> Damage {
    Damage { name, max_unknown, is_skip, is_ring: false, is_lie: false }
}

/// Every damage is noticed, costs what lies around it, and leaves the rest as malloc knew it.
#[test]
fn damages() {
    let cases = [
        damage("size", 64 << 10, true),
        damage("size_zero", 64 << 10, true),
        damage("size_huge", 64 << 10, true),
        damage("random", 8 << 20, true),
        damage("fastbin_loop", 0, false),
        damage("tcache_loop", 0, false),
        damage("bins", 0, false),
        damage("top", 64 << 20, true),
        Damage { is_ring: true, ..damage("ring", 0, false) },
        Damage { is_lie: true, ..damage("heap_size", 64 << 20, false) },
    ];
    for case in cases {
        let shape = (case.name, "");
        let shaped = Shaped::start(&mut Command::new(built("heap_damaged")), &shape);
        let scan = shaped.scan();
        let losses = scan.malloc.losses;
        eprintln!("{}: {:?} {losses:?}", case.name, scan.took);
        assert!(!losses.is_late, "{}", case.name);
        assert!(losses.unknown_bytes <= case.max_unknown, "{}: {losses:?}", case.name);
        assert_eq!(losses.n_skips > 0, case.is_skip, "{}: {losses:?}", case.name);
        assert_eq!(losses.is_ring_broken, case.is_ring, "{}: {losses:?}", case.name);
        assert_eq!(losses.n_lying_heaps > 0, case.is_lie, "{}: {losses:?}", case.name);
        assert_eq!(
            losses.n_lists_cut > 0,
            case.name.ends_with("_loop"),
            "{}: {losses:?}",
            case.name
        );
        // What was live before the damage is nearly all there.
        let live = scan.malloc.live_bytes() + losses.unknown_bytes;
        let want = shaped.said.number("live");
        assert!(
            live >= want && live <= want + want / 20 + case.max_unknown,
            "{}: {live} {want}",
            case.name
        );
        for part in scan.malloc.parts() {
            let resident = scan.resident.bytes_in(part.range.clone()).resident();
            assert_eq!(part.resident.total(), resident, "{}: {part:#x?}", case.name);
        }
    }
}
