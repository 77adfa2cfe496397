//! One run in a process of its own: its memory is its own, and it can be killed.

use crate::dataset::Shape;
use crate::engine::job::Job;
use crate::engines::Contender;
use crate::experiments::{kill, mixed, persistence, recovery, speed};
use crate::failure::Failure;
use crate::workload::Mix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After this time a run measures what it has done so far.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(8);

/// What to run, and in which directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) dir: PathBuf,
    pub(crate) task: Task,
}

/// What the experiments let a child process do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Puts, then gets, as fast as they go; `None`: on a table without an engine.
    Speed { contender: Option<Contender>, shape: Shape, keys: u64, threads: u64 },
    /// A mixed workload, sampled along the run.
    Mixed { contender: Contender, mix: Mix, threads: u64, samples: u64, latencies: bool },
    /// Single puts, each waited for; then many puts and one sync.
    Persist { contender: Contender, shape: Shape, singles: u64, bulk: u64 },
    /// Puts and a sync, says so, and waits to be killed.
    FillUntilKilled { contender: Contender, shape: Shape, keys: u64 },
    /// Opens what `FillUntilKilled` left.
    Recover { contender: Contender, shape: Shape, keys: u64 },
    /// Changes until it is killed; reports how many are made and how many are durable.
    WriteUntilKilled { contender: Contender, shape: Shape },
    /// A measurement of `kv-bench engine`.
    Engine(Job),
}

/// What a run measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// By name, with the unit at its end.
    pub(crate) values: BTreeMap<String, f64>,
    /// Along the run.
    pub(crate) samples: Vec<Sample>,
}

/// One moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Commands done so far.
    pub(crate) commands: f64,
    /// Commands a second since the last sample.
    pub(crate) throughput_per_s: f64,
    /// Memory that the engine has added to the process.
    pub(crate) memory_bytes: f64,
}

impl Measured {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(name.into(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}

/// Carries out a run given as JSON; prints what was measured as one line of JSON.
pub(crate) fn run(json: &str) -> Result<(), Failure> {
    let Run { dir, task } = serde_json::from_str(json)?;
    let measured = match task {
        Task::Speed { contender, shape, keys, threads } => {
            speed::measure(&dir, contender, shape, keys, threads)?
        }
        Task::Mixed { contender, mix, threads, samples, latencies } => {
            let engine = || contender.open(&dir);
            let mut measured = mixed::measure(&engine, &mix, threads, samples, latencies)?;
            measured.add("disk_bytes", directory_bytes(&dir)?);
            measured
        }
        Task::Persist { contender, shape, singles, bulk } => {
            persistence::measure(&dir, contender, shape, singles, bulk)?
        }
        Task::FillUntilKilled { contender, shape, keys } => {
            return recovery::fill_until_killed(&dir, contender, shape, keys);
        }
        Task::Recover { contender, shape, keys } => recovery::measure(&dir, contender, shape, keys)?,
        Task::WriteUntilKilled { contender, shape } => {
            return kill::write_until_killed(&dir, contender, shape);
        }
        Task::Engine(job) => job.measure(&dir)?,
    };
    println!("{}", serde_json::to_string(&measured)?);
    // What is still open is not closed: the directory goes, and closing would only cost time.
    std::process::exit(0);
}

/// Resident memory of this process, bytes. `/proc/self/statm` counts pages of 4 KiB.
pub(crate) fn resident_bytes() -> Result<f64, Failure> {
    let path = "/proc/self/statm";
    let text = std::fs::read_to_string(path).map_err(Failure::io(format!("read {path}")))?;
    let pages = text.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok());
    pages
        .map(|pages| pages * 4096.0)
        .ok_or_else(|| Failure::Worker(format!("{path} holds no resident size: {text}")))
}

/// Bytes that the files of a directory take on disk.
pub(crate) fn directory_bytes(dir: &Path) -> Result<f64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let failed = || Failure::io(format!("list {}", dir.display()));
    let mut blocks = 0;
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        blocks += entry.and_then(|entry| entry.metadata()).map_err(failed())?.blocks();
    }
    Ok(blocks as f64 * 512.0)
}

/// Nanoseconds since `start`.
#[inline]
pub(crate) fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Milliseconds since `start`.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
