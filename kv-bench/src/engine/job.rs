//! What a child process can be told to measure.

use super::beyond::Beyond;
use super::dump::Dump;
use super::latency::Latency;
use super::memory::Memory;
use super::recovery::Recovery;
use super::speed::Speed;
use super::synced::{BareSynced, Synced};
use super::utilization::Utilization;
use super::{beyond, dump, latency, memory, recovery, speed, synced, utilization};
use crate::failure::Failure;
use crate::worker::Measured;
use memmap2::MmapMut;
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
    Beyond(Beyond),
}

impl Job {
    /// Carries it out, with files in `dir`.
    pub(crate) fn measure(self, dir: &Path) -> Result<Measured, Failure> {
        warm_memory(WARM_PER_DATA * self.data_bytes());
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
            Job::Beyond(job) => beyond::measure(dir, &job),
        }
    }

    /// Bytes of the keys and values that it puts, once each.
    fn data_bytes(&self) -> u64 {
        match self {
            Job::Speed(job) => job.keys * job.shape.pair_len(),
            Job::Memory(job) => job.keys * job.shape.pair_len(),
            Job::Latency(job) => job.keys * job.shape.pair_len(),
            Job::Dump(job) => job.keys * job.shape.pair_len(),
            Job::BareDump(bytes) => *bytes,
            Job::Recovery(job) => job.keys * job.shape.pair_len(),
            Job::Utilization(job) => job.keys * job.shape.pair_len(),
            Job::Beyond(job) => job.keys * job.shape.pair_len(),
            Job::Synced(_) | Job::BareSynced(_) => 0,
        }
    }
}

/// Memory that is made ready for each byte of data: for the store, its files in the page cache, and what overwriting adds.
const WARM_PER_DATA: u64 = 4;

/// Takes memory from the system and gives it back, so that the system has it at hand. Where the system is a virtual
/// machine, its host takes free memory away after seconds and gives it back page by page when it is touched: here at 2 us
/// a page, which is more than putting a record takes, and falls on whoever runs first.
fn warm_memory(bytes: u64) {
    let Ok(map) =
        usize::try_from(bytes.max(1)).map_err(drop).and_then(|len| MmapMut::map_anon(len).map_err(drop))
    else {
        return;
    };
    // Without either advice a run is measured all the same, colder.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage).and_then(|()| map.advise(memmap2::Advice::PopulateWrite));
    drop(map);
}
