//! A run in a process and a directory of its own: its memory figures are the subject's alone, and
//! the bench can kill it.

pub(crate) mod cache;
pub(crate) mod child;
pub(crate) mod probe;
pub(crate) mod resident;
pub(crate) mod scratch;
mod task;
pub(crate) mod threads;

pub(crate) use task::{Measured, Run, Sample, Task};
