//! What a child process can be told to measure.

use super::dump::Dump;
use super::latency::Latency;
use super::memory::Memory;
use super::recovery::Recovery;
use super::speed::Speed;
use super::synced::{BareSynced, Synced};
use super::utilization::Utilization;
use super::{dump, latency, memory, recovery, speed, synced, utilization};
use crate::failure::Failure;
use crate::worker::Measured;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Job {
    Speed(Speed),
    Memory(Memory),
    Latency(Latency),
    Synced(Synced),
    BareSynced(BareSynced),
    Dump(Dump),
    /// So many bytes.
    BareDump(u64),
    Recovery(Recovery),
    Utilization(Utilization),
}

impl Job {
    /// Carries it out, with files in `dir`.
    pub(crate) fn measure(self, dir: &Path) -> Result<Measured, Failure> {
        match self {
            Job::Speed(job) => speed::measure(dir, &job),
            Job::Memory(job) => memory::measure(dir, &job),
            Job::Latency(job) => latency::measure(dir, &job),
            Job::Synced(job) => synced::measure(dir, &job),
            Job::BareSynced(job) => synced::measure_bare(dir, job),
            Job::Dump(job) => dump::measure(dir, job),
            Job::BareDump(bytes) => dump::measure_bare(dir, bytes),
            Job::Recovery(job) => recovery::measure(dir, job),
            Job::Utilization(job) => utilization::measure(dir, job),
        }
    }
}
