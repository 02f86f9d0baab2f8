//! What is tried out, because the user asked for it by name.
//!
//! In: a command with settings to compare. Out: what each start came to, with median and spread. It starts the command
//! and ends it, with everything that it has started; nothing else is changed.
//!
//! Or a JVM that is to trim malloc's heap or to collect its own. Out: what was predicted, and what was returned.

mod before;
mod comparison;
mod heard;
mod returns;
mod settling;
mod spread;
mod start;
mod trial;
mod variant;

pub use comparison::{Comparison, Failure, Measure, Measured};
pub use heard::Heard;
pub use returns::{CollectionFlags, HeapBefore, Prediction, of_collection};
pub use settling::{MAX_CHANGE_PERCENT, SETTLING_TIME};
pub use spread::{Difference, Spread};
pub use start::{Failed, Goal, Plan, Run, Settled, follow};
pub use trial::{Act, Trial, TrialError, perform};
pub use variant::{SettingError, Variant};
