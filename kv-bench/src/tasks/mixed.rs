//! A mix of gets, puts and deletes, sampled along the run.

use crate::failure::Failure;
use crate::load::{Command, Dataset, KEY_LEN_MAX, Mix, Workload, check_filled, touch};
use crate::process::probe::{directory_bytes, histogram, milliseconds, nanoseconds};
use crate::process::resident::{resident_bytes, settled_bytes, with_peak};
use crate::process::threads::concurrently;
use crate::process::{Measured, Run, Sample, Task};
use crate::subjects::{Setup, Subject};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A mixed workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mixed {
    pub(crate) setup: Setup,
    pub(crate) mix: Mix,
    pub(crate) threads: u64,
    pub(crate) samples: u64,
    /// Whether to time each command. Otherwise, the run looks at the peak of its memory, and at its
    /// memory at rest: both would disturb the clock.
    pub(crate) latencies: bool,
}

/// After this time a run ends, with the commands that it has made.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(8);

const KINDS: [&str; 3] = ["get", "put", "delete"];
pub(crate) const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

impl Task for Mixed {
    const NAME: &'static str = "mixed";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let open = || self.setup.open(&run.dir);
        let mut measured = measure(&open, &self.mix, self.threads, self.samples, self.latencies)?;
        measured.add("disk_bytes", directory_bytes(&run.dir)?);
        Ok(measured)
    }
}

/// One histogram for each kind of command.
type Latencies = [Histogram<u64>; 3];

fn histograms() -> Latencies {
    [(); 3].map(|()| histogram())
}

/// One thread of a run.
struct Client {
    workload: Workload,
    latencies: Option<Latencies>,
    value: Vec<u8>,
    touched: u64,
}

/// Runs a mix on the subject that `open` opens, and verifies it. Then closes, reopens and verifies
/// it again.
pub(super) fn measure(
    open: &dyn Fn() -> Result<Box<dyn Subject>, Failure>,
    mix: &Mix,
    threads: u64,
    samples: u64,
    latencies: bool,
) -> Result<Measured, Failure> {
    let data = Dataset::new(mix.shape);
    let mut measured = Measured::default();
    let mut clients: Vec<Client> = (0..threads)
        .map(|thread| Client {
            workload: Workload::new(mix, thread),
            latencies: latencies.then(histograms),
            value: Vec::new(),
            touched: 0,
        })
        .collect();
    let before = resident_bytes()?;
    let subject = open()?;
    let part = (mix.commands / threads / samples).max(1);
    let (mut done, mut seconds) = (0, 0.0);
    let truth_bytes = |clients: &[Client]| -> f64 {
        clients.iter().map(|client| client.workload.truth_bytes()).sum::<u64>() as f64
    };
    let mut peak: f64 = 0.0;
    for _ in 0..samples {
        let start = Instant::now();
        let mut work = || concurrently(&mut clients, |client| client.commands(&*subject, &data, part));
        let (made, most) = if latencies { (work()?, 0.0) } else { with_peak(work)? };
        let made: u64 = made.iter().sum();
        let elapsed = start.elapsed().as_secs_f64();
        peak = peak.max(most - before - truth_bytes(&clients));
        done += made;
        seconds += elapsed;
        measured.samples.push(Sample {
            commands: done as f64,
            throughput_per_s: made as f64 / elapsed,
            memory_bytes: (resident_bytes()? - before - truth_bytes(&clients)).max(0.0),
        });
        if seconds > RUN_LIMIT.as_secs_f64() {
            break;
        }
    }
    measured.add("commands", done as f64);
    measured.add("throughput_per_s", done as f64 / seconds);
    measured.add("memory_bytes", measured.samples.last().map_or(0.0, |sample| sample.memory_bytes));
    if !latencies {
        measured.add("peak_memory_bytes", peak);
        measured.add("rest_memory_bytes", settled_bytes()? - before - truth_bytes(&clients));
    }
    let mut workloads = Vec::new();
    let mut all = histograms();
    for client in clients {
        workloads.push(client.workload);
        for (sum, one) in all.iter_mut().zip(client.latencies.iter().flatten()) {
            sum.add(one).expect("all have the same bounds");
        }
    }
    for (kind, histogram) in KINDS.iter().zip(&all) {
        measured.add_quantiles(kind, histogram, &QUANTILES);
    }
    measured.add("live_bytes", workloads.iter().map(Workload::live_bytes).sum::<u64>() as f64);
    let live = || workloads.iter().flat_map(Workload::live);
    check_filled(&*subject, &data, live())?;
    let start = Instant::now();
    subject.close()?;
    measured.add("close_ms", milliseconds(start));
    check_filled(&*open()?, &data, live())?;
    Ok(measured)
}

impl Client {
    /// Carries out the next `count` commands, or as many as the time limit allows; checks each
    /// answer.
    fn commands(&mut self, subject: &dyn Subject, data: &Dataset, count: u64) -> Result<u64, Failure> {
        let begin = Instant::now();
        for made in 0..count {
            if made % 256 == 255 && begin.elapsed() > RUN_LIMIT {
                return Ok(made);
            }
            self.command(subject, data)?;
        }
        Ok(count)
    }

    #[inline]
    fn command(&mut self, subject: &dyn Subject, data: &Dataset) -> Result<(), Failure> {
        let mut key = [0; KEY_LEN_MAX];
        let command = self.workload.next();
        let (Command::Get { index, .. } | Command::Put { index } | Command::Delete { index }) = command;
        let key = data.key(index, &mut key);
        if let Command::Put { .. } = command {
            data.value(index, index, &mut self.value);
        }
        let start = self.latencies.is_some().then(Instant::now);
        let (kind, right) = match command {
            Command::Get { hit, .. } => {
                let (touched, mut same) = (&mut self.touched, !hit);
                let found = subject.read(key, &mut |value| {
                    *touched = touched.wrapping_add(touch(value));
                    // Compares the tag only. The check after the run compares whole values.
                    same = hit && value.first_chunk() == Some(&index.to_le_bytes());
                })?;
                (0, found == hit && same)
            }
            Command::Put { .. } => subject.put(key, &self.value).map(|()| (1, true))?,
            Command::Delete { .. } => subject.delete(key).map(|()| (2, true))?,
        };
        if let (Some(start), Some(latencies)) = (start, &mut self.latencies) {
            let latency = nanoseconds(start);
            if let Some(histogram) = latencies.get_mut(kind) {
                histogram.saturating_record(latency);
            }
        }
        if right { Ok(()) } else { Err(Failure::Wrong(format!("its answer to {command:?}"))) }
    }
}
