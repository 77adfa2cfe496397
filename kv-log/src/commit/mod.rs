//! Commit: how a change gets into the log and the index.
//!
//! | to | file |
//! |---|---|
//! | carry out a put, a delete or a batch | `committer.rs` |
//! | encode the records of a batch | `batch.rs` |
//! | wait for memory or make space, and try again | `pipeline.rs` |

mod batch;
mod committer;
mod pipeline;

pub(crate) use batch::commit_batch;
pub(crate) use committer::Committer;
