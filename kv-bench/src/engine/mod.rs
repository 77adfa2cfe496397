//! `kv-bench engine`: the log engine against volatile tables, foreign stores, and itself.
//!
//! | file | holds |
//! |---|---|
//! | `rows.rs`, `recovery_rows.rs` | the rows |
//! | `plan.rs`, `recovery_plan.rs` | the experiments that measure them |
//! | `names.rs` | the names that rows and experiments share |

mod names;
mod plan;
mod recovery_plan;
mod recovery_rows;
mod rows;

use crate::args::TargetOptions;
use crate::failure::Failure;
use crate::targets::Plan;

/// Every row, and every experiment with every subject that is compiled in.
pub(crate) fn plan(options: &TargetOptions) -> Result<Plan, Failure> {
    let rows = rows::rows(options.keys(), options.kills());
    Ok(Plan { command: "engine", rows, experiments: plan::experiments(options)? })
}
