//! The child's side of a run.

use super::backup::Backup;
use super::bare_read::BareRead;
use super::beyond::Beyond;
use super::ceiling::Ceiling;
use super::checkpoint::Checkpoint;
use super::dump::{BareDump, Dump};
use super::empty::Empty;
use super::fill_latency::FillLatency;
use super::kill::{Kill, WriteUntilKilled};
use super::latency::Latency;
use super::memory::Memory;
use super::mixed::Mixed;
use super::open_load::OpenLoad;
use super::opening::{FillAndEnd, Opening};
use super::persistence::Persistence;
use super::read_at::ReadAt;
use super::recovery::{FillUntilKilled, Recovery};
use super::repair::Repair;
use super::restore::Restore;
use super::retention::Retention;
use super::speed::Speed;
use super::survival::{Survival, WriteAtFullSpeed};
use super::synced::{BareSynced, Synced};
use super::tail::Tail;
use super::utilization::Utilization;
use super::verify::Verify;
use crate::failure::Failure;
use crate::process::probe::warm_memory;
use crate::process::{Measured, Run, Task};

type Measure = fn(&Run) -> Result<Measured, Failure>;

/// Every task by its name.
const TASKS: [(&str, Measure); 32] = [
    entry::<Speed>(),
    entry::<Mixed>(),
    entry::<Persistence>(),
    entry::<Recovery>(),
    entry::<FillUntilKilled>(),
    entry::<Kill>(),
    entry::<WriteUntilKilled>(),
    entry::<Memory>(),
    entry::<Latency>(),
    entry::<FillLatency>(),
    entry::<OpenLoad>(),
    entry::<Ceiling>(),
    entry::<Empty>(),
    entry::<Synced>(),
    entry::<BareSynced>(),
    entry::<Dump>(),
    entry::<BareDump>(),
    entry::<Utilization>(),
    entry::<Beyond>(),
    entry::<Survival>(),
    entry::<WriteAtFullSpeed>(),
    entry::<Tail>(),
    entry::<Opening>(),
    entry::<FillAndEnd>(),
    entry::<BareRead>(),
    entry::<Checkpoint>(),
    entry::<Retention>(),
    entry::<Restore>(),
    entry::<ReadAt>(),
    entry::<Backup>(),
    entry::<Verify>(),
    entry::<Repair>(),
];

const fn entry<T: Task>() -> (&'static str, Measure) {
    (T::NAME, |run| T::deserialize(&run.input)?.measure(run))
}

/// Carries out a run given as JSON, and prints its results as one line of JSON.
pub(crate) fn run(json: &str) -> Result<(), Failure> {
    let run: Run = serde_json::from_str(json)?;
    let task = TASKS.iter().find(|(name, _)| *name == run.task);
    let (_, measure) = task.ok_or_else(|| Failure::Worker(format!("no task is named {:?}", run.task)))?;
    warm_memory(run.warm_bytes);
    println!("{}", serde_json::to_string(&measure(&run)?)?);
    // The parent removes the directory, so closing an open store would only cost time.
    std::process::exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_tasks_apart() {
        let names: std::collections::HashSet<_> = TASKS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), TASKS.len());
    }
}
