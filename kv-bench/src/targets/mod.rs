//! Figures with targets. `kv-bench engine` and `kv-bench moments` share this room.
//!
//! | file | holds |
//! |---|---|
//! | `row.rs` | a row: a metric, the one that it is compared with, and the target |
//! | `plan.rs` | the rows of a command, and the experiments that measure them |
//! | `judge.rs` | ratios, differences and verdicts |
//! | `command.rs` | runs the experiments, writes the tables and the JSON |
//! | `document.rs` | the table in Markdown, and its place in a document |

pub(crate) mod command;
pub(crate) mod document;
mod judge;
mod plan;
pub(crate) mod row;

pub(crate) use plan::Plan;
