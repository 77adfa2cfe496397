//! The experiments.

use crate::Failure;
use crate::args::Compare;
use crate::report::{self, Figure};
use crate::results::Results;
use crate::worker::{self, EngineName, Measured, Policy, Run, Task};
use crate::workload::{Mix, contains, fill_value, key};
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The engines compared, with the policy each has where nothing else is said: the naive one's is the middle one of
/// the study.
const ENGINES: [(EngineName, &str, Policy); 2] =
    [(EngineName::Log, "log", Policy::Default), (EngineName::Naive, "naive", Policy::MaxLogSize(1 << 20))];

/// Runs, and what is taken from them.
type Experiment = fn(&mut Evaluation) -> Result<(), Failure>;

struct Evaluation {
    options: Compare,
    results: Results,
    figures: Vec<Figure>,
    scratch: tempfile::TempDir,
    runs: u64,
    bar: ProgressBar,
}

/// Runs all experiments, and writes what they measured.
pub(crate) fn run(options: &Compare) -> Result<(), Failure> {
    std::fs::create_dir_all(&options.out)?;
    let bar = ProgressBar::new(7);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}")?);
    let mut evaluation = Evaluation {
        options: options.clone(),
        results: Results::new(options.seed),
        figures: Vec::new(),
        scratch: tempfile::TempDir::with_prefix_in("scratch-", &options.out)?,
        runs: 0,
        bar,
    };
    let experiments: [(&str, Experiment); 6] = [
        ("speed in memory", Evaluation::speed),
        ("throughput over commands", Evaluation::over_commands),
        ("mixed workloads", Evaluation::mixed),
        ("persistence", Evaluation::persistence),
        ("recovery", Evaluation::recovery),
        ("kill -9", Evaluation::kills),
    ];
    evaluation.bar.set_length(experiments.len() as u64);
    for (name, experiment) in experiments {
        evaluation.bar.set_message(name);
        experiment(&mut evaluation)?;
        evaluation.bar.inc(1);
    }
    evaluation.bar.finish_and_clear();
    let (results, figures) = (&evaluation.results, &evaluation.figures);
    println!("{}", report::table(results));
    results.write(&options.out.join("results.json"))?;
    std::fs::write(options.out.join("report.html"), report::html(results, figures)?)?;
    println!("every run was verified; see {0}/report.html and {0}/results.json", options.out.display());
    Ok(())
}

impl Evaluation {
    fn fresh_dir(&mut self) -> PathBuf {
        self.runs += 1;
        self.scratch.path().join(self.runs.to_string())
    }

    /// A child process that carries out `run`.
    fn child(run: &Run) -> Result<Command, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("worker").arg(serde_json::to_string(run)?).stdin(Stdio::null());
        Ok(command)
    }

    /// Carries out a run in a child process; `None` if it measured nothing.
    fn measure(run: &Run) -> Result<Option<Measured>, Failure> {
        let output = Self::child(run)?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("a run failed, so nothing is reported: {run:?}").into());
        }
        if output.stdout.is_empty() { Ok(None) } else { Ok(Some(serde_json::from_slice(&output.stdout)?)) }
    }

    /// The same in a directory of its own, which is removed.
    fn measure_fresh(
        &mut self,
        engine: EngineName,
        policy: Policy,
        task: &Task,
    ) -> Result<Measured, Failure> {
        let run = Run { engine, policy, dir: self.fresh_dir(), task: task.clone() };
        let measured = Self::measure(&run)?;
        let _ = std::fs::remove_dir_all(&run.dir);
        measured.ok_or_else(|| "a run measured nothing".into())
    }

    fn mix(&self, read_fraction: f64, hot: bool) -> Mix {
        let (hot_fraction, hot_rate) =
            if hot { (self.options.hot_fraction, self.options.hot_rate) } else { (0.0, 0.0) };
        Mix {
            commands: self.options.scaled(self.options.commands),
            value_len: self.options.value_len,
            read_fraction,
            hit_rate: self.options.hit_rate,
            hot_fraction,
            hot_rate,
            seed: self.options.seed,
        }
    }

    /// Puts and gets of the log engine with its default policy against tables that never persist.
    fn speed(&mut self) -> Result<(), Failure> {
        let keys = self.options.scaled(300_000);
        let contenders = [
            (EngineName::Log, "log, default policy", Policy::Default),
            (EngineName::Naive, "naive, no snapshots", Policy::Manual),
            (EngineName::Dashmap, "bare dashmap", Policy::Manual),
        ];
        for value_len in [100, 500] {
            let task = Task::Speed { keys, value_len };
            let mut measured = vec![Vec::new(); contenders.len()];
            for _ in 0..self.options.repetitions {
                for ((engine, _, policy), measured) in contenders.iter().zip(&mut measured) {
                    measured.push(self.measure_fresh(*engine, *policy, &task)?);
                }
            }
            let parameters = format!("threads=1 keys={keys} value_len={value_len}");
            for metric in ["put_per_s", "get_per_s"] {
                let rates = |measured: &[Measured]| -> Vec<f64> {
                    measured.iter().filter_map(|one| one.get(metric)).collect()
                };
                let all: Vec<Vec<f64>> = measured.iter().map(|measured| rates(measured)).collect();
                for ((_, name, _), rates) in contenders.iter().zip(&all) {
                    self.results.add("speed", name, &parameters, (metric, "1/s"), rates);
                }
                if let [log, tables @ ..] = all.as_slice() {
                    for ((_, name, _), table) in contenders.iter().skip(1).zip(tables) {
                        let ratios: Vec<f64> =
                            log.iter().zip(table).map(|(log, table)| log / table).collect();
                        let metric = format!("{metric}, log to {name}");
                        self.results.add("speed", "ratio", &parameters, (&metric, "x"), &ratios);
                    }
                }
            }
        }
        Ok(())
    }

    /// Figure 3 of the study: throughput and memory over the number of commands.
    fn over_commands(&mut self) -> Result<(), Failure> {
        let (mut throughput, mut memory) = (Vec::new(), Vec::new());
        for read_fraction in self.options.read_fraction.clone() {
            for (engine, name, policy) in ENGINES {
                let mix = self.mix(read_fraction, false);
                let measured =
                    self.measure_fresh(engine, policy, &Task::Mixed { mix, threads: 1, samples: 10 })?;
                let parameters =
                    format!("read_fraction={read_fraction} commands={}", self.mix(0.0, false).commands);
                for metric in [("throughput_per_s", "1/s"), ("resident_bytes", "B"), ("disk_bytes", "B")] {
                    let value: Vec<f64> = measured.get(metric.0).into_iter().collect();
                    self.results.add("over commands", name, &parameters, metric, &value);
                }
                let label = format!("{name}, reads {read_fraction}");
                throughput.push((label.clone(), measured.samples.iter().map(|s| (s.0, s.1 / 1e3)).collect()));
                memory.push((label, measured.samples.iter().map(|s| (s.0, s.2 / 1e6)).collect()));
            }
        }
        let method = format!(
            "One thread, keys of 24 bytes, values of {} bytes, hit rate {}; puts go to new keys, one change in ten deletes. log: \
             100 ms or 8 MiB; naive: a snapshot every 1 MiB of changes. Sampled ten times a run, one run each, in a process of its own.",
            self.options.value_len, self.options.hit_rate
        );
        self.figure(
            "Throughput over number of commands",
            "commands",
            "thousand commands/s",
            &method,
            throughput,
        );
        self.figure("Resident memory over number of commands", "commands", "MB", &method, memory);
        Ok(())
    }

    fn figure(
        &mut self,
        title: &str,
        x: &'static str,
        y: &'static str,
        method: &str,
        series: Vec<report::Series>,
    ) {
        self.figures.push(Figure { title: title.to_owned(), x, y, method: method.to_owned(), series });
    }

    /// The named workloads of the study, with latencies, on one and two threads.
    fn mixed(&mut self) -> Result<(), Failure> {
        for (workload, read_fraction) in [("write-intensive", 0.05), ("read-intensive", 0.8)] {
            for (hot, threads) in [(false, 1), (true, 1), (false, 2)] {
                for (engine, name, policy) in ENGINES {
                    let task = Task::Mixed { mix: self.mix(read_fraction, hot), threads, samples: 1 };
                    let measured = self.measure_fresh(engine, policy, &task)?;
                    let parameters = format!("{workload} hot={hot} threads={threads}");
                    for (metric, value) in &measured.values {
                        let unit = match metric.rsplit('_').next() {
                            Some("us") => "us",
                            Some("ms") => "ms",
                            Some("bytes") => "B",
                            _ => "1/s",
                        };
                        self.results.add("mixed", name, &parameters, (metric, unit), &[*value]);
                    }
                }
            }
        }
        Ok(())
    }

    /// How long until a change is on stable storage.
    fn persistence(&mut self) -> Result<(), Failure> {
        let (bulk, value_len) = (self.options.scaled(20_000), self.options.value_len);
        for (engine, name, policy, singles) in [
            (EngineName::Log, "log, always", Policy::Always, self.options.scaled(1000)),
            (EngineName::Log, "log, default policy", Policy::Default, self.options.scaled(1000)),
            (EngineName::Naive, "naive, always", Policy::Always, 100),
            (EngineName::Naive, "naive, no policy", Policy::Manual, 100),
        ] {
            let task = Task::Persist { singles, bulk, value_len };
            let mut all = Vec::new();
            for _ in 0..self.options.repetitions {
                all.push(self.measure_fresh(engine, policy, &task)?);
            }
            let parameters = format!("singles={singles} bulk={bulk} value_len={value_len}");
            for metric in
                [("put_durable_p50_us", "us"), ("put_durable_p99_us", "us"), ("sync_after_bulk_ms", "ms")]
            {
                let values: Vec<f64> = all.iter().filter_map(|one| one.get(metric.0)).collect();
                self.results.add("persistence", name, &parameters, metric, &values);
            }
        }
        Ok(())
    }

    /// How long opening takes after the process died, as data grow.
    fn recovery(&mut self) -> Result<(), Failure> {
        let value_len = self.options.value_len;
        let mut series = Vec::new();
        for (engine, name, _) in ENGINES {
            let mut points = Vec::new();
            for keys in [25_000, 50_000, 100_000, 200_000].map(|keys| self.options.scaled(keys)) {
                let dir = self.fresh_dir();
                let run = |task| Run { engine, policy: Policy::Manual, dir: dir.clone(), task };
                Self::measure(&run(Task::FillAndDie { keys, value_len }))?;
                let mut times = Vec::new();
                for _ in 0..self.options.repetitions {
                    let measured = Self::measure(&run(Task::Recover { keys, value_len }))?;
                    times.extend(measured.and_then(|measured| measured.get("recovery_ms")));
                }
                let _ = std::fs::remove_dir_all(&dir);
                let parameters = format!("keys={keys} value_len={value_len}");
                self.results.add("recovery", name, &parameters, ("recovery_ms", "ms"), &times);
                points.extend(self.results.rows.last().map(|row| (keys as f64, row.value)));
            }
            series.push((name.to_owned(), points));
        }
        let method = format!(
            "Values of {value_len} bytes, synced, then the process ends without closing. Time of the next open with files in the \
             system's cache, median of {}; every key is verified.",
            self.options.repetitions
        );
        self.figure("Recovery time over data size", "keys", "ms", &method, series);
        Ok(())
    }

    /// What is lost when the process is killed: of all pairs, and of those reported durable.
    fn kills(&mut self) -> Result<(), Failure> {
        let value_len = self.options.value_len;
        // Each put is to a new key, so that what is missing counts and not what is older.
        let keys = 1 << 40;
        let mut rng = Rng::with_seed(self.options.seed);
        for (engine, name, policy) in [
            (EngineName::Log, "log, always", Policy::Always),
            (EngineName::Log, "log, default policy", Policy::Default),
            (EngineName::Naive, "naive, every 1 MiB", Policy::MaxLogSize(1 << 20)),
            (EngineName::Naive, "naive, every 32 MiB", Policy::MaxLogSize(32 << 20)),
        ] {
            let (mut errors, mut durable_losses) = (Vec::new(), Vec::new());
            for _ in 0..self.options.repetitions {
                let dir = self.fresh_dir();
                let run = Run { engine, policy, dir, task: Task::UntilKilled { keys, value_len } };
                let (error_percent, lost) =
                    kill_once(&run, keys, value_len, Duration::from_millis(rng.u64(50..200)))?;
                errors.push(error_percent);
                durable_losses.push(lost);
                let _ = std::fs::remove_dir_all(&run.dir);
            }
            let parameters = format!("value_len={value_len}, killed after 50 to 200 ms");
            self.results.add("kill -9", name, &parameters, ("wrong or missing pairs", "%"), &errors);
            self.results.add(
                "kill -9",
                name,
                &parameters,
                ("durable changes lost", "changes"),
                &durable_losses,
            );
        }
        Ok(())
    }
}

/// Kills a writer, reopens its store and compares. Returns the share of wrong or missing pairs, in percent, and how
/// many changes reported durable are lost.
fn kill_once(run: &Run, keys: u64, value_len: usize, after: Duration) -> Result<(f64, f64), Failure> {
    let mut child = Evaluation::child(run)?.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().ok_or("the child has no standard output")?;
    let reader = std::thread::spawn(move || {
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| {
                let (made, durable) = line.split_once(' ')?;
                Some((made.parse::<u64>().ok()?, durable.parse::<u64>().ok()?))
            })
            .last()
    });
    std::thread::sleep(after);
    child.kill()?;
    child.wait()?;
    let (made, durable) = reader.join().map_err(|_| "the reader panicked")?.unwrap_or((0, 0));

    let engine = worker::open(run)?;
    // The newest change recovered: the last put of the prefix. Its value says which it is.
    let mut newest = None;
    let mut expected = vec![0; value_len];
    let (mut wrong, mut pairs) = (0u64, 0u64);
    for slot in 0..keys.min(made) {
        let last = made - 1 - (made - 1 - slot) % keys;
        pairs += 1;
        let mut found = None;
        engine.read(&key(slot), &mut |value| {
            found = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes).wrapping_sub(0x1234_5678));
        })?;
        newest = newest.max(found);
        // Puts after the last report may be there as well: newer is not wrong.
        if found.is_none_or(|found| found < last) {
            wrong += 1;
        } else if let Some(found) = found {
            fill_value(found, &mut expected);
            if engine.get(&key(slot))?.as_deref() != Some(expected.as_slice()) {
                return Err(format!("the engine is wrong: key {slot} has a value that nobody wrote").into());
            }
        }
    }
    if made > 0 && contains(&*engine, keys)? {
        return Err("the engine is wrong: it holds a key that nobody put".into());
    }
    let recovered = newest.map_or(0, |newest| newest + 1);
    let lost = durable.saturating_sub(recovered);
    if lost > 0 {
        return Err(format!("the engine is wrong: {lost} changes that were reported durable are lost").into());
    }
    Ok((wrong as f64 * 100.0 / (pairs.max(1)) as f64, lost as f64))
}
