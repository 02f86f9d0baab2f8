//! What could not be resolved, counted by reason, and the reasons in words.

use super::walk::{Break, End};

/// What could not be resolved as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Stacks that there was no room for.
    pub not_kept: u64,
    /// Stacks of which only the part that had changed was received.
    pub unfounded: u64,
    /// How often all that was remembered of frames was forgotten, to bound memory: no stack is lost by it, only time.
    pub anew: u64,
    /// Stacks that end at an instruction outside of all known code.
    pub nowhere: u64,
    /// Stacks that end at unwind information which is missing or not understood.
    pub no_rule: u64,
    /// Stacks that end at the trampoline of another tool's return probe.
    pub foreign_probe: u64,
    /// Stacks that end in code which the process made itself and which is not Java's.
    pub anonymous: u64,
    /// Stacks that end at Java code that is not there any more.
    pub no_java_code: u64,
    /// Stacks that end at a Java frame that can't be right.
    pub java_frame: u64,
}

impl Losses {
    /// How many stacks end early, and where, in words.
    pub fn reasons(&self) -> [(u64, &'static str); 6] {
        [
            (self.nowhere, "at an instruction that lies in no code of a known file"),
            (self.no_rule, "at code whose unwind information is missing or not understood"),
            (self.foreign_probe, "at a return probe of another tool"),
            (self.anonymous, "in code that the process made itself and that is not Java's"),
            (self.no_java_code, "at Java code that was thrown away meanwhile"),
            (self.java_frame, "at a Java frame that can't be right"),
        ]
    }

    /// Counts how a walk ended.
    pub(super) fn count(&mut self, end: End) {
        let Losses { nowhere, no_rule, foreign_probe, anonymous, no_java_code, java_frame, .. } =
            self;
        match end {
            End::Broken(Break::Nowhere) => *nowhere += 1,
            End::Broken(Break::Rule) => *no_rule += 1,
            End::Broken(Break::ForeignProbe) => *foreign_probe += 1,
            End::Broken(Break::Anonymous) => *anonymous += 1,
            End::Broken(Break::NoJavaCode) => *no_java_code += 1,
            End::Broken(Break::JavaFrame) => *java_frame += 1,
            End::First | End::Java | End::Truncated => {}
        }
    }
}
