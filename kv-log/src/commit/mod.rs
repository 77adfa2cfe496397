//! Commit: the way of a change from the caller into the log and the index.

mod batch;
mod committer;
mod pipeline;

pub(crate) use batch::commit_batch;
pub(crate) use committer::Committer;
