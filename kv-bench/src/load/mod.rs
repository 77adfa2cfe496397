//! The load of a run: keys, values and commands from a seed, and the ground truth that follows from
//! them.

mod access;
mod dataset;
mod truth;
mod workload;

pub(crate) use access::{Access, Planner, WRITES};
pub(crate) use dataset::{Dataset, KEY_LEN_MAX, LEN_MIN, Shape, VALUE_LEN_MAX, touch};
pub(crate) use truth::{Truth, check_filled, sequence};
pub(crate) use workload::{Command, Mix, Workload};
