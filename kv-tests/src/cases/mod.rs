//! The cases: one file for each group. A new case goes into its group's `CASES`, with the next free
//! number.

mod after_crash;
mod asking;
mod audit;
mod backups;
pub(crate) mod batch;
mod batches;
mod callbacks;
mod calls;
mod checkpoints;
mod closed;
mod closing;
pub(crate) mod concurrency;
pub(crate) mod corruption;
pub(crate) mod crash;
mod crowd;
pub(crate) mod directory;
pub(crate) mod disk;
pub(crate) mod durability;
pub(crate) mod errors;
mod futures;
mod gated;
mod gated_close;
mod gated_work;
pub(crate) mod handles;
mod histories;
pub(crate) mod kills;
pub(crate) mod layouts;
mod left;
pub(crate) mod lifecycle;
pub(crate) mod linearizability;
mod lookalikes;
mod loss;
mod lsns;
mod many;
pub(crate) mod model;
mod moments;
mod moments_kept;
mod obeying;
pub(crate) mod opening;
pub(crate) mod own_io;
mod places;
pub(crate) mod policy;
pub(crate) mod process;
mod process_safe;
pub(crate) mod read_only;
pub(crate) mod resources;
mod restores;
pub(crate) mod scan;
mod scan_changes;
mod shuffle;
mod sizes;
mod stage;
pub(crate) mod stats;
mod stored;
mod sweeps;
pub(crate) mod tails;
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

/// All cases of the suite, in the order of their ids' numbers.
pub fn all_cases() -> Vec<Case> {
    [
        model::CASES,
        batch::CASES,
        scan::CASES,
        lifecycle::CASES,
        opening::CASES,
        directory::CASES,
        handles::CASES,
        read_only::CASES,
        crash::CASES,
        tails::CASES,
        errors::CASES,
        disk::CASES,
        corruption::CASES,
        layouts::CASES,
        resources::CASES,
        concurrency::CASES,
        linearizability::CASES,
        durability::CASES,
        policy::CASES,
        stats::CASES,
        process::CASES,
        own_io::CASES,
        moments::CASES,
    ]
    .concat()
}
