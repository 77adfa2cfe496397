//! One measured run in a process of its own, so that memory figures are its own, and so that it can be killed.

use crate::Failure;
use crate::workload::{Command, Mix, Workload, fill_value, key, verify};
use hdrhistogram::Histogram;
use kv_core::{
    Always, Engine, EngineExt, EngineFactory, Env, Manual, MaxLogSize, OpenOptions, PersistencePolicy,
    default_persistence,
};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) engine: EngineName,
    pub(crate) policy: Policy,
    pub(crate) dir: PathBuf,
    pub(crate) task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EngineName {
    Log,
    Naive,
    /// A bare hash table: no engine, no durability.
    Dashmap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Policy {
    Default,
    Always,
    Manual,
    MaxLogSize(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A mixed workload on some threads, verified, closed, reopened and verified again.
    Mixed { mix: Mix, threads: u64, samples: u64 },
    /// Puts, then gets, as fast as they go.
    Speed { keys: u64, value_len: usize },
    /// Single puts, each waited for; then many puts and one sync.
    Persist { singles: u64, bulk: u64, value_len: usize },
    /// Puts, a sync, and the process goes without closing.
    FillAndDie { keys: u64, value_len: usize },
    /// Opens what `FillAndDie` left, and verifies it.
    Recover { keys: u64, value_len: usize },
    /// Puts until it is killed; says which are made and which are durable.
    UntilKilled { keys: u64, value_len: usize },
}

/// What was measured: names with a unit at the end, and values; and samples along the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) values: Vec<(String, f64)>,
    /// Commands so far, commands a second since the last sample, resident bytes.
    pub(crate) samples: Vec<(f64, f64, f64)>,
}

impl Measured {
    fn add(&mut self, name: impl Into<String>, value: f64) {
        self.values.push((name.into(), value));
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// Carries out a run given as JSON; prints what was measured as JSON.
pub(crate) fn run(json: &str) -> Result<(), Failure> {
    let run: Run = serde_json::from_str(json)?;
    let measured = match &run.task {
        Task::Mixed { mix, threads, samples } => mixed(&run, mix, *threads, *samples)?,
        Task::Speed { keys, value_len } => speed(&run, *keys, *value_len)?,
        Task::Persist { singles, bulk, value_len } => persist(&run, *singles, *bulk, *value_len)?,
        Task::FillAndDie { keys, value_len } => {
            let engine = open(&run)?;
            fill(&*engine, 0..*keys, *value_len)?;
            engine.sync()?;
            // Neither destructors nor a close: recovery has to do its work.
            std::process::exit(0);
        }
        Task::Recover { keys, value_len } => recover(&run, *keys, *value_len)?,
        Task::UntilKilled { keys, value_len } => return until_killed(&run, *keys, *value_len),
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

pub(crate) fn open(run: &Run) -> Result<Arc<dyn Engine>, Failure> {
    let persistence: Arc<dyn PersistencePolicy> = match run.policy {
        Policy::Default => Arc::new(default_persistence()),
        Policy::Always => Arc::new(Always),
        Policy::Manual => Arc::new(Manual),
        Policy::MaxLogSize(bytes) => Arc::new(MaxLogSize::new(bytes)),
    };
    let factory: &dyn EngineFactory = match run.engine {
        EngineName::Log => &kv_log::LogFactory,
        EngineName::Naive => &kv_naive::NaiveFactory,
        EngineName::Dashmap => return Err("a bare table opens nothing".into()),
    };
    Ok(factory.open(&run.dir, &Env::os(), &OpenOptions { persistence, ..OpenOptions::default() })?)
}

/// Resident memory of this process, bytes.
fn resident_bytes() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    pages.unwrap_or(f64::NAN) * 4096.0
}

/// Bytes that the files of a directory take.
fn directory_bytes(dir: &Path) -> Result<f64, Failure> {
    use std::os::unix::fs::MetadataExt;
    let mut blocks = 0;
    for entry in std::fs::read_dir(dir)? {
        blocks += entry?.metadata()?.blocks();
    }
    Ok(blocks as f64 * 512.0)
}

fn fill(engine: &dyn Engine, keys: std::ops::Range<u64>, value_len: usize) -> Result<(), Failure> {
    let mut value = vec![0; value_len];
    for number in keys {
        fill_value(number, &mut value);
        engine.put(&key(number), &value)?;
    }
    Ok(())
}

/// Latencies of one kind of command, nanoseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid")
}

/// A byte of each cache line of a value, so that a borrowed value is really read.
fn touch(value: &[u8]) -> u64 {
    value.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

type Latencies = [Histogram<u64>; 3];

/// Carries out the next `count` commands.
fn step(
    engine: &dyn Engine,
    workload: &mut Workload,
    count: u64,
    value: &mut [u8],
    latencies: &mut Latencies,
) -> Result<u64, Failure> {
    let [gets, puts, deletes] = latencies;
    let mut touched = 0;
    for _ in 0..count {
        let command = workload.next();
        let start;
        match command {
            Command::Get { key: number, hit } => {
                let key = key(number);
                start = Instant::now();
                let found = engine.read(&key, &mut |value| touched += touch(value))?;
                gets.saturating_record(nanoseconds(start));
                if found != hit {
                    return Err(format!("the engine is wrong: key {number} is there: {found}").into());
                }
            }
            Command::Put { key: number } => {
                let key = key(number);
                fill_value(number, value);
                start = Instant::now();
                engine.put(&key, value)?;
                puts.saturating_record(nanoseconds(start));
            }
            Command::Delete { key: number } => {
                let key = key(number);
                start = Instant::now();
                let found = engine.delete(&key)?.is_some();
                deletes.saturating_record(nanoseconds(start));
                if !found {
                    return Err(format!("the engine is wrong: key {number} was not there to delete").into());
                }
            }
        }
    }
    Ok(touched)
}

fn mixed(run: &Run, mix: &Mix, threads: u64, samples: u64) -> Result<Measured, Failure> {
    let engine = open(run)?;
    let mut measured = Measured::default();
    let mut states: Vec<(Workload, Latencies)> = (0..threads)
        .map(|thread| (Workload::new(mix, thread), [histogram(), histogram(), histogram()]))
        .collect();
    let part = (mix.commands / threads / samples).max(1);
    let mut total = 0.0;
    for sample in 1..=samples {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let engine = &engine;
            let running: Vec<_> = states
                .iter_mut()
                .map(|(workload, latencies)| {
                    scope.spawn(move || {
                        step(&**engine, workload, part, &mut vec![0; mix.value_len], latencies)
                    })
                })
                .collect();
            running
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?.map(|_| ()))
        })?;
        let seconds = start.elapsed().as_secs_f64();
        total += seconds;
        let done = (sample * part * threads) as f64;
        measured.samples.push((done, (part * threads) as f64 / seconds, resident_bytes()));
    }
    measured.add("throughput_per_s", (samples * part * threads) as f64 / total);
    measured.add("resident_bytes", resident_bytes());
    let (mut workloads, mut all) = (Vec::new(), [histogram(), histogram(), histogram()]);
    for (workload, latencies) in states {
        workloads.push(workload);
        all.iter_mut().zip(&latencies).for_each(|(sum, one)| sum.add(one).expect("all have the same bounds"));
    }
    for (name, histogram) in ["get", "put", "delete"].iter().zip(&all) {
        for (percentile, quantile) in
            [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)]
        {
            if !histogram.is_empty() {
                measured.add(
                    format!("{name}_{percentile}_us"),
                    histogram.value_at_quantile(quantile) as f64 / 1000.0,
                );
            }
        }
    }
    let live: u64 = workloads.iter().map(Workload::live_bytes).sum();
    measured.add("live_bytes", live as f64);
    verify(&*engine, &workloads)?;
    let start = Instant::now();
    engine.close()?;
    measured.add("close_ms", start.elapsed().as_secs_f64() * 1e3);
    measured.add("disk_bytes", directory_bytes(&run.dir)?);
    let again = open(run)?;
    verify(&*again, &workloads)?;
    Ok(measured)
}

fn speed(run: &Run, keys: u64, value_len: usize) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    let mut value = vec![0; value_len];
    fill_value(7, &mut value);
    // The order of gets has nothing to do with the order of puts.
    let shuffled = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) % keys;
    let rate = |start: Instant| keys as f64 / start.elapsed().as_secs_f64();
    let mut touched = 0;
    if run.engine == EngineName::Dashmap {
        let table: dashmap::DashMap<Box<[u8]>, Box<[u8]>, foldhash::fast::RandomState> =
            dashmap::DashMap::default();
        let start = Instant::now();
        for number in 0..keys {
            table.insert(Box::from(key(number).as_slice()), Box::from(value.as_slice()));
        }
        measured.add("put_per_s", rate(start));
        let start = Instant::now();
        for number in 0..keys {
            touched += table.get(key(shuffled(number)).as_slice()).map_or(0, |value| touch(value.value()));
        }
        measured.add("get_per_s", rate(start));
    } else {
        let engine = open(run)?;
        let start = Instant::now();
        for number in 0..keys {
            engine.put(&key(number), &value)?;
        }
        measured.add("put_per_s", rate(start));
        let start = Instant::now();
        for number in 0..keys {
            engine.read(&key(shuffled(number)), &mut |value| touched += touch(value))?;
        }
        measured.add("get_per_s", rate(start));
    }
    if touched != keys * touch(&value) {
        return Err("the engine is wrong: the gets did not see the values that were put".into());
    }
    Ok(measured)
}

fn persist(run: &Run, singles: u64, bulk: u64, value_len: usize) -> Result<Measured, Failure> {
    let engine = open(run)?;
    let (mut measured, mut value, mut latencies) = (Measured::default(), vec![0; value_len], histogram());
    for number in 0..singles {
        fill_value(number, &mut value);
        let start = Instant::now();
        engine.put_durable(&key(number), &value)?;
        latencies.saturating_record(nanoseconds(start));
    }
    measured.add("put_durable_p50_us", latencies.value_at_quantile(0.5) as f64 / 1000.0);
    measured.add("put_durable_p99_us", latencies.value_at_quantile(0.99) as f64 / 1000.0);
    if run.policy != Policy::Always {
        fill(&*engine, singles..singles + bulk, value_len)?;
        let start = Instant::now();
        engine.sync()?;
        measured.add("sync_after_bulk_ms", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(measured)
}

fn recover(run: &Run, keys: u64, value_len: usize) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    let start = Instant::now();
    let engine = open(run)?;
    measured.add("recovery_ms", start.elapsed().as_secs_f64() * 1e3);
    let mut expected = vec![0; value_len];
    for number in 0..keys {
        fill_value(number, &mut expected);
        let mut same = false;
        engine.read(&key(number), &mut |value| same = value == expected)?;
        if !same {
            return Err(format!("recovery is wrong: key {number} was durable, and is lost or another").into());
        }
    }
    Ok(measured)
}

/// Put `n` is under key `n % keys`, with a value that says `n`. Each line is: puts made, puts durable.
fn until_killed(run: &Run, keys: u64, value_len: usize) -> Result<(), Failure> {
    let engine = open(run)?;
    let mut out = std::io::stdout().lock();
    let mut value = vec![0; value_len];
    let mut lsns = std::collections::VecDeque::new();
    let mut durable = 0u64;
    for number in 0u64.. {
        fill_value(number, &mut value);
        lsns.push_back(engine.put(&key(number % keys), &value)?);
        let reached = engine.durable_lsn();
        while lsns.front().is_some_and(|lsn| *lsn <= reached) {
            lsns.pop_front();
            durable += 1;
        }
        if number % 16 == 15 {
            writeln!(out, "{} {durable}", number + 1)?;
            out.flush()?;
        }
    }
    Ok(())
}
