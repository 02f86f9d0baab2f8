//! Private memory without a file, as the map shows it.

use std::ops::Range;

use crate::target::maps::Mapping;

/// Stretches of addresses, apart and in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(Vec<Range<u64>>);

impl Runs {
    /// Mappings that touch, whatever access each has: what was reserved in one piece.
    pub(super) fn reserved(maps: &[Mapping]) -> Self {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for mapping in maps.iter().filter(|mapping| mapping.is_anonymous()) {
            match runs.last_mut() {
                Some(last) if last.end == mapping.start => last.end = mapping.end,
                _ => runs.push(mapping.start..mapping.end),
            }
        }
        Self(runs)
    }

    /// Each mapping that can be touched.
    pub(super) fn touchable(maps: &[Mapping]) -> Self {
        let own = maps.iter().filter(|mapping| mapping.is_anonymous() && mapping.access);
        Self(own.map(|mapping| mapping.start..mapping.end).collect())
    }

    /// The number of the run that holds `address`.
    pub(super) fn index(&self, address: u64) -> Option<usize> {
        let after = self.0.partition_point(|run| run.start <= address);
        let index = after.checked_sub(1)?;
        self.0[index].contains(&address).then_some(index)
    }

    /// The run that holds `address`.
    pub(super) fn at(&self, address: u64) -> Option<&Range<u64>> {
        self.0.get(self.index(address)?)
    }

    /// The run of that number.
    pub(super) fn get(&self, index: usize) -> Option<&Range<u64>> {
        self.0.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::parse;

    /// What touches is one run if it was reserved together, and stays apart by access.
    #[test]
    fn stretches() {
        let maps = parse(
            b"1000-2000 rw-p 0 00:00 0\n2000-3000 ---p 0 00:00 0\n4000-5000 rw-p 0 00:00 0\n\
              5000-6000 r--p 0 fe:00 7 /lib/x\n6000-7000 rw-p 0 00:00 0\n7000-8000 rw-p 0 00:00 0 [heap]\n",
        );
        let (reserved, touchable) = (Runs::reserved(&maps), Runs::touchable(&maps));
        // (address, run that was reserved, run that can be touched)
        type Run = Option<(u64, u64)>;
        let cases: [(u64, Run, Run); 7] = [
            (0xfff, None, None),
            (0x1000, Some((0x1000, 0x3000)), Some((0x1000, 0x2000))),
            (0x2fff, Some((0x1000, 0x3000)), None),
            (0x3000, None, None),
            (0x5000, None, None),
            (0x6fff, Some((0x6000, 0x7000)), Some((0x6000, 0x7000))),
            (0x7000, None, None),
        ];
        for (address, in_reserved, in_touchable) in cases {
            let pair = |run: Option<&Range<u64>>| run.map(|run| (run.start, run.end));
            assert_eq!(pair(reserved.at(address)), in_reserved, "{address:#x}");
            assert_eq!(pair(touchable.at(address)), in_touchable, "{address:#x}");
        }
    }
}
