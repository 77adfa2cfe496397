//! The named workloads of the study, write-intensive and read-intensive, with latencies.

use crate::dataset::{Dataset, KEY_LEN_MAX, touch};
use crate::engines::{Contender, EngineName, Policy};
use crate::evaluation::Evaluation;
use crate::failure::Failure;
use crate::figure::{Figure, Kind, Series};
use crate::report::{Section, Table};
use crate::results::parameters;
use crate::units;
use crate::verify::verify_workloads;
use crate::worker::{Measured, RUN_LIMIT, Sample, Task, milliseconds, nanoseconds, resident_bytes};
use crate::workload::{Command, Mix, Workload};
use hdrhistogram::Histogram;
use kv_core::Engine;
use std::sync::Arc;
use std::time::Instant;

/// Name and read fraction, as in the study.
const WORKLOADS: [(&str, f64); 2] = [("write-intensive", 0.05), ("read-intensive", 0.8)];
const KINDS: [&str; 3] = ["get", "put", "delete"];
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Plans and reports.
pub(crate) fn run(evaluation: &mut Evaluation<'_>) -> Result<(), Failure> {
    let options = evaluation.options;
    let mut contenders: Vec<Contender> = options.engines.iter().map(|engine| engine.standard()).collect();
    if options.has(EngineName::Naive) {
        // The same policy for both, beside the one of the study.
        contenders.push(Contender::new(EngineName::Naive, Policy::Default));
    }
    let columns = ["workload", "hot keys", "threads", "engine", "commands/s"];
    let latencies = ["get p50", "get p99", "get p99.9", "put p50", "put p99", "put p99.9", "put max"];
    let mut table = Table::new(columns.iter().chain(&latencies).copied());
    let mut figures = Vec::new();
    for (workload, read_fraction) in WORKLOADS {
        for (hot, threads) in [(false, 1), (true, 1), (false, 2)] {
            let mix = evaluation.mix(read_fraction, hot);
            let mut curves = Vec::new();
            for contender in &contenders {
                let task = Task::Mixed { contender: *contender, mix, threads, samples: 1, latencies: true };
                let measured = evaluation.measure_often(&task)?;
                let label = contender.label();
                let parameters = parameters(&[
                    ("workload", workload.into()),
                    ("commands", mix.commands.into()),
                    ("read_fraction", read_fraction.into()),
                    ("hit_rate", mix.hit_rate.into()),
                    ("hot_fraction", mix.hot_fraction.into()),
                    ("hot_rate", mix.hot_rate.into()),
                    ("threads", threads.into()),
                    ("key_len", mix.shape.key_len.into()),
                    ("value_len", mix.shape.value_len.into()),
                ]);
                evaluation.results.add_all("mixed", &label, &parameters, &measured);
                let cell = |name: &str| {
                    let values: Vec<f64> = measured.iter().filter_map(|run| run.get(name)).collect();
                    units::number(crate::results::median(&values))
                };
                let hot =
                    if hot { format!("{} / {}", mix.hot_fraction, mix.hot_rate) } else { "none".into() };
                let mut row = vec![workload.into(), hot, threads.to_string(), label.clone()];
                row.push(cell("throughput_per_s"));
                row.extend(latencies.iter().map(|name| cell(&format!("{}_us", name.replace(' ', "_")))));
                table.push(row);
                for kind in ["get", "put"] {
                    curves.push((kind, latency_curve(kind, &label, &measured)));
                }
            }
            // A figure for what each workload has most of.
            if !hot && threads == 1 {
                let kind = if read_fraction < 0.5 { "put" } else { "get" };
                figures.push(Figure {
                    title: format!("Latency of a {kind}, {workload}, one thread"),
                    x: "percentile".to_owned(),
                    y: "microseconds".to_owned(),
                    kind: Kind::Percentiles(QUANTILES.map(|(name, _)| name.to_owned()).to_vec()),
                    series: curves
                        .into_iter()
                        .filter(|(of, _)| *of == kind)
                        .map(|(_, curve)| curve)
                        .collect(),
                });
            }
        }
    }
    evaluation.sections.push(Section {
        title: "Mixed workloads".to_owned(),
        method: format!(
            "{} commands on pairs of {} + {} bytes; reads {} of the write-intensive commands and {} of the \
             read-intensive ones, hit rate {}; of the rest one in ten deletes, the others put new keys. Hot keys: \
             share of keys / share of hitting reads. Latencies in microseconds, the clock's own {} ns included. \
             Median of {} runs in processes of their own; each run ends after {} s at the latest; its state is \
             verified, and again after closing and reopening.",
            units::count(options.scaled(options.commands)),
            evaluation.shape().key_len,
            evaluation.shape().value_len,
            WORKLOADS[0].1,
            WORKLOADS[1].1,
            options.hit_rate,
            clock_ns(),
            options.repetitions(),
            RUN_LIMIT.as_secs()
        ),
        table,
        figures,
    });
    Ok(())
}

fn latency_curve(kind: &str, label: &str, runs: &[Measured]) -> Series {
    let points = QUANTILES.iter().enumerate().map(|(at, (name, _))| {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.get(&format!("{kind}_{name}_us"))).collect();
        (at as f64, crate::results::median(&values))
    });
    Series::new(label, points)
}

/// What one reading of the clock costs, nanoseconds.
fn clock_ns() -> u64 {
    let start = Instant::now();
    for _ in 0..10_000 {
        std::hint::black_box(Instant::now());
    }
    nanoseconds(start) / 10_000
}

/// One histogram of nanoseconds for each kind of command.
type Latencies = [Histogram<u64>; 3];

fn histograms() -> Latencies {
    [(); 3].map(|()| Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are valid"))
}

/// One thread of a run.
struct Client {
    workload: Workload,
    latencies: Option<Latencies>,
    value: Vec<u8>,
    touched: u64,
}

/// Runs a mix on what `open` opens, verifies it, closes it, opens it again and verifies it again.
pub(crate) fn measure(
    open: &dyn Fn() -> Result<Arc<dyn Engine>, Failure>,
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
    let engine = open()?;
    let part = (mix.commands / threads / samples).max(1);
    let (mut done, mut seconds) = (0, 0.0);
    for _ in 0..samples {
        let start = Instant::now();
        let made = concurrently(&mut clients, |client| client.commands(&*engine, &data, part))?;
        let elapsed = start.elapsed().as_secs_f64();
        done += made;
        seconds += elapsed;
        let truth: u64 = clients.iter().map(|client| client.workload.truth_bytes()).sum();
        measured.samples.push(Sample {
            commands: done as f64,
            throughput_per_s: made as f64 / elapsed,
            memory_bytes: (resident_bytes()? - before - truth as f64).max(0.0),
        });
        if seconds > RUN_LIMIT.as_secs_f64() {
            break;
        }
    }
    measured.add("commands", done as f64);
    measured.add("throughput_per_s", done as f64 / seconds);
    measured.add("memory_bytes", measured.samples.last().map_or(0.0, |sample| sample.memory_bytes));
    let mut workloads = Vec::new();
    let mut all = histograms();
    for client in clients {
        workloads.push(client.workload);
        for (sum, one) in all.iter_mut().zip(client.latencies.iter().flatten()) {
            sum.add(one).expect("all have the same bounds");
        }
    }
    for (kind, histogram) in KINDS.iter().zip(&all).filter(|(_, histogram)| !histogram.is_empty()) {
        for (name, quantile) in QUANTILES {
            let latency_us = histogram.value_at_quantile(quantile) as f64 / 1e3;
            measured.add(format!("{kind}_{name}_us"), latency_us);
        }
    }
    measured.add("live_bytes", workloads.iter().map(Workload::live_bytes).sum::<u64>() as f64);
    verify_workloads(&*engine, &data, &workloads)?;
    let start = Instant::now();
    engine.close()?;
    measured.add("close_ms", milliseconds(start));
    drop(engine);
    verify_workloads(&*open()?, &data, &workloads)?;
    Ok(measured)
}

/// Lets each client do its work on a thread; returns how many commands they made.
fn concurrently(
    clients: &mut [Client],
    work: impl Fn(&mut Client) -> Result<u64, Failure> + Sync,
) -> Result<u64, Failure> {
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || work(client))).collect();
        running.into_iter().try_fold(0, |sum, thread| {
            let made = thread.join().map_err(|_| Failure::Wrong("a thread panicked".to_owned()))?;
            Ok(sum + made?)
        })
    })
}

impl Client {
    /// Carries out the next `count` commands, or as many as the limit of time allows; checks each answer.
    fn commands(&mut self, engine: &dyn Engine, data: &Dataset, count: u64) -> Result<u64, Failure> {
        let begin = Instant::now();
        for made in 0..count {
            if made % 256 == 255 && begin.elapsed() > RUN_LIMIT {
                return Ok(made);
            }
            self.command(engine, data)?;
        }
        Ok(count)
    }

    #[inline]
    fn command(&mut self, engine: &dyn Engine, data: &Dataset) -> Result<(), Failure> {
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
                let found = engine.read(key, &mut |value| {
                    *touched = touched.wrapping_add(touch(value));
                    // The tag alone: all of each value is compared when the run is over.
                    same = hit && value.first_chunk() == Some(&index.to_le_bytes());
                })?;
                (0, found == hit && same)
            }
            Command::Put { .. } => engine.put(key, &self.value).map(|_| (1, true))?,
            Command::Delete { .. } => (2, engine.delete(key)?.is_some()),
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
