//! What can be counted per stack, by the names that users type.

use std::{fmt, str::FromStr};

use super::{BlockTotal, Total};

/// What is counted per stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Bytes that became accessible.
    #[default]
    Mapped,
    /// Those of them that were not given back.
    MappedLive,
    /// Inflaters and Deflaters opened.
    Inflaters,
    /// Those of them that were not ended.
    InflatersLive,
    /// Bytes asked from an allocator.
    Malloc,
    /// Those of them that were not freed.
    MallocLive,
    /// Bytes of whole pages that malloc holds free and that are resident, by who made them so. Not of the ledger's own:
    /// see [`owners`](crate::owners).
    Retained,
}

/// What a metric's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
}

/// A name that is no metric of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownMetric {
    /// It is a metric, but nothing here measures it.
    #[error("metric {0} is not measured by this version")]
    NotMeasured(String),
    /// It is no metric at all.
    #[error(
        "`{0}` is no metric; write mapped, mapped-live, inflaters, inflaters-live, malloc, malloc-live or retained"
    )]
    NoMetric(String),
}

/// Metrics that have a name already but no measurement yet.
const NOT_MEASURED: [&str; 1] = ["touched"];

impl Metric {
    /// All of them, the most usual first.
    pub const ALL: [Metric; 7] = [
        Metric::Mapped,
        Metric::MappedLive,
        Metric::Inflaters,
        Metric::InflatersLive,
        Metric::Malloc,
        Metric::MallocLive,
        Metric::Retained,
    ];

    /// The name that users type.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Mapped => "mapped",
            Metric::MappedLive => "mapped-live",
            Metric::Inflaters => "inflaters",
            Metric::InflatersLive => "inflaters-live",
            Metric::Malloc => "malloc",
            Metric::MallocLive => "malloc-live",
            Metric::Retained => "retained",
        }
    }

    /// What its values are.
    pub fn unit(self) -> Unit {
        match self {
            Metric::Inflaters | Metric::InflatersLive => Unit::Count,
            _ => Unit::Bytes,
        }
    }

    /// Whether it counts blocks of an allocator, which few traces have.
    pub fn is_malloc(self) -> bool {
        matches!(self, Metric::Malloc | Metric::MallocLive)
    }

    /// Its value in `total`, which has these blocks.
    pub(super) fn of(self, total: &Total, blocks: &BlockTotal) -> u64 {
        match self {
            Metric::Mapped => total.mapped_bytes,
            Metric::MappedLive => total.mapped_live_bytes,
            Metric::Inflaters => total.streams,
            Metric::InflatersLive => total.streams_live,
            Metric::Malloc => blocks.malloc_bytes,
            Metric::MallocLive => blocks.malloc_live_bytes,
            Metric::Retained => 0,
        }
    }

    /// How many calls of `total` it counts, those too whose result is gone again.
    pub(super) fn n_events(self, total: &Total, blocks: &BlockTotal) -> u64 {
        match self {
            Metric::Mapped | Metric::MappedLive => total.n_events.saturating_sub(total.streams),
            Metric::Inflaters | Metric::InflatersLive => total.streams,
            Metric::Malloc | Metric::MallocLive => blocks.mallocs.rounded(),
            Metric::Retained => 0,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match Metric::ALL.into_iter().find(|metric| metric.name() == name) {
            Some(metric) => Ok(metric),
            None if NOT_MEASURED.contains(&name) => Err(UnknownMetric::NotMeasured(name.into())),
            None => Err(UnknownMetric::NoMetric(name.into())),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for metric in Metric::ALL {
            assert_eq!(metric.to_string().parse(), Ok(metric));
        }
    }

    #[test]
    fn other_names() {
        // (what was typed, what is said)
        let cases = [
            ("touched", "metric touched is not measured by this version"),
            (
                "Mapped",
                "`Mapped` is no metric; write mapped, mapped-live, inflaters, inflaters-live, malloc, malloc-live or retained",
            ),
        ];
        for (typed, said) in cases {
            assert_eq!(typed.parse::<Metric>().unwrap_err().to_string(), said);
        }
    }
}
