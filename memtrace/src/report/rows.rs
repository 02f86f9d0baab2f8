//! What each stack has of a metric, wherever that is known from.

use std::borrow::Cow;

use crate::{
    ledger::{Metric, StackRow},
    owners::{self, Retained, StackShare},
    trace::Recording,
};

/// Where the values of `metric` are from, the largest first.
pub(super) fn by_stack(recording: &Recording, metric: Metric) -> Vec<StackRow> {
    match metric {
        Metric::Retained => {
            let retained = owners::retained(recording).unwrap_or_default();
            retained.stacks.into_iter().map(row).collect()
        }
        metric => recording.ledger.by_stack(metric),
    }
}

/// The value of `metric` in all; of what is retained that which somebody is known of.
pub(super) fn sum(recording: &Recording, metric: Metric) -> u64 {
    match metric {
        Metric::Retained => {
            let Retained { stacks, .. } = owners::retained(recording).unwrap_or_default();
            stacks.iter().map(|share| share.bytes).sum()
        }
        metric => recording.ledger.sum(metric),
    }
}

/// Why there is nothing of `metric`, where it was not measured.
pub(super) fn not_measured(recording: &Recording, metric: Metric) -> Option<Cow<'static, str>> {
    match metric {
        Metric::Retained if recording.footprint.is_none() => {
            Some("not measured: the process had ended when it was looked at".into())
        }
        Metric::Retained if owners::retained(recording).is_none() => Some(
            "not measured: what the allocator holds free is known of glibc's malloc only".into(),
        ),
        metric if metric.is_malloc() && recording.malloc.is_none() => {
            Some("not measured: calls of malloc were not traced".into())
        }
        _ => None,
    }
}

fn row(StackShare { thread, stack, bytes, n }: StackShare) -> StackRow {
    StackRow { thread, stack, value: bytes, n_events: n, n_live_blocks: 0 }
}
