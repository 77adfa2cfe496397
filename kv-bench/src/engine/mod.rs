//! `kv-bench engine`: the log engine against volatile tables, foreign stores, and itself.
//!
//! | file | holds |
//! |---|---|
//! | `row.rs` | a row: a metric, its divisor and its target |
//! | `rows.rs`, `recovery_rows.rs` | the rows |
//! | `plan.rs`, `recovery_plan.rs` | the experiments that measure them |
//! | `names.rs` | the names that rows and experiments share |
//! | `judge.rs` | ratios and verdicts |
//! | `command.rs` | runs the experiments, writes the tables and `engine.json` |
//! | `document.rs` | the table in Markdown, and its place in a document |

pub(crate) mod command;
pub(crate) mod document;
mod judge;
mod names;
mod plan;
mod recovery_plan;
mod recovery_rows;
mod row;
mod rows;
