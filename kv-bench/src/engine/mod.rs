//! `kv-bench engine`: the log engine against volatile tables, foreign stores, and itself.
//!
//! | file | holds |
//! |---|---|
//! | `rows.rs` | the rows: each metric, its divisor and its target |
//! | `plan.rs` | the experiments that measure them |
//! | `names.rs` | the names that rows and experiments share |
//! | `judge.rs` | ratios and verdicts |
//! | `command.rs` | runs the experiments, writes the tables and `engine.json` |
//! | `document.rs` | the table in Markdown, and its place in a document |

pub(crate) mod command;
pub(crate) mod document;
mod judge;
mod names;
mod plan;
mod rows;
