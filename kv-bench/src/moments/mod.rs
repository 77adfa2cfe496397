//! `kv-bench moments`: past states of the log engine, restores, backups, checks and repairs.
//!
//! `rows.rs` has the rows, and `plan.rs` the experiments that measure them. Both name an experiment
//! after `names.rs`.

mod names;
mod plan;
mod rows;

use crate::args::TargetOptions;
use crate::failure::Failure;
use crate::targets::Plan;

/// Every row and every experiment.
pub(crate) fn plan(options: &TargetOptions) -> Result<Plan, Failure> {
    let rows = rows::rows(options.keys());
    Ok(Plan { command: "moments", rows, experiments: plan::experiments(options)? })
}
