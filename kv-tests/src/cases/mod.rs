//! The cases: one file for each group. A new case goes into its group's `CASES`, with the next free
//! number.

mod asking;
pub(crate) mod batch;
pub(crate) mod concurrency;
pub(crate) mod corruption;
pub(crate) mod crash;
pub(crate) mod directory;
pub(crate) mod disk;
pub(crate) mod durability;
pub(crate) mod errors;
mod futures;
pub(crate) mod lifecycle;
pub(crate) mod linearizability;
mod loss;
pub(crate) mod model;
mod obeying;
pub(crate) mod policy;
pub(crate) mod process;
pub(crate) mod read_only;
pub(crate) mod scan;
mod written;

use crate::{Case, CaseResult, Context, Level, Need};

/// A case; its id contains its level.
const fn case(
    id: &'static str,
    level: Level,
    needs: &'static [Need],
    summary: &'static str,
    run: fn(&Context) -> CaseResult,
) -> Case {
    Case { id, level, needs, summary, run }
}
