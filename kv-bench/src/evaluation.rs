//! Runs the experiments one after the other, and writes what they measured.

use crate::args::Compare;
use crate::child;
use crate::dataset::Shape;
use crate::experiments::{kill, mixed, over_commands, persistence, recovery, speed};
use crate::failure::Failure;
use crate::report::{self, Section};
use crate::results::Results;
use crate::worker::{Measured, Run, Task};
use crate::workload::Mix;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the experiments share.
pub(crate) struct Evaluation<'a> {
    pub(crate) options: &'a Compare,
    pub(crate) results: Results,
    pub(crate) sections: Vec<Section>,
    scratch: tempfile::TempDir,
    runs: u64,
    bar: ProgressBar,
}

type Experiment = fn(&mut Evaluation<'_>) -> Result<(), Failure>;

const EXPERIMENTS: [(&str, Experiment); 6] = [
    ("speed in memory", speed::run),
    ("throughput and memory over commands", over_commands::run),
    ("mixed workloads", mixed::run),
    ("time to persist", persistence::run),
    ("recovery", recovery::run),
    ("kill -9", kill::run),
];

/// Carries out the comparison: measures, prints the tables, writes `results.json` and `report.html`.
pub(crate) fn compare(options: &Compare) -> Result<(), Failure> {
    let start = Instant::now();
    create_dir(&options.out)?;
    let scratch_parent = options.dir.as_ref().unwrap_or(&options.out);
    create_dir(scratch_parent)?;
    let scratch = tempfile::TempDir::with_prefix_in("scratch-", scratch_parent)
        .map_err(Failure::io(format!("create a directory in {}", scratch_parent.display())))?;
    let mut evaluation = Evaluation {
        options,
        results: Results::new(options, scratch.path()),
        sections: Vec::new(),
        scratch,
        runs: 0,
        bar: progress_bar(),
    };
    for (name, experiment) in EXPERIMENTS {
        evaluation.bar.set_message(name);
        let begin = Instant::now();
        experiment(&mut evaluation)?;
        evaluation.results.header.experiment_s.insert(name.to_owned(), begin.elapsed().as_secs_f64());
        evaluation.bar.inc(1);
    }
    evaluation.bar.finish_and_clear();
    let Evaluation { mut results, sections, scratch, .. } = evaluation;
    let path = scratch.path().to_path_buf();
    scratch.close().map_err(Failure::io(format!("remove {}", path.display())))?;
    results.header.duration_s = start.elapsed().as_secs_f64();
    write(&options.out.join("results.json"), &results.to_json()?)?;
    write(&options.out.join("report.html"), &report::html(&results, &sections)?)?;
    print!("{}", report::text(&results, &sections));
    println!(
        "Every run was verified against a ground truth. {:.0} s in all; figures in {out}/report.html, every row in {out}/results.json",
        results.header.duration_s,
        out = options.out.display()
    );
    Ok(())
}

/// Shown on a terminal only.
fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new(EXPERIMENTS.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

impl Evaluation<'_> {
    /// Pairs as the options ask for them.
    pub(crate) fn shape(&self) -> Shape {
        Shape { key_len: self.options.key_len, value_len: self.options.value_len, seed: self.options.seed }
    }

    /// A workload as the options ask for it, with hot keys or without.
    pub(crate) fn mix(&self, read_fraction: f64, hot: bool) -> Mix {
        let options = self.options;
        let (hot_fraction, hot_rate) =
            if hot { (options.hot_fraction, options.hot_rate) } else { (0.0, 0.0) };
        Mix {
            shape: self.shape(),
            commands: options.scaled(options.commands),
            read_fraction,
            hit_rate: options.hit_rate,
            hot_fraction,
            hot_rate,
        }
    }

    /// A directory that does not exist yet; it goes with the evaluation.
    pub(crate) fn fresh_dir(&mut self) -> PathBuf {
        self.runs += 1;
        self.scratch.path().join(self.runs.to_string())
    }

    /// Removes a directory before the evaluation ends: the disk shall not fill.
    pub(crate) fn remove(dir: &Path) -> Result<(), Failure> {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::io(format!("remove {}", dir.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// Carries out a task once, in a process and a directory of its own.
    pub(crate) fn measure(&mut self, task: Task) -> Result<Measured, Failure> {
        let run = Run { dir: self.fresh_dir(), task };
        std::fs::create_dir(&run.dir).map_err(Failure::io(format!("create {}", run.dir.display())))?;
        let measured = child::measure(&run)?;
        Self::remove(&run.dir)?;
        Ok(measured)
    }

    /// The same as often as the options ask for.
    pub(crate) fn measure_often(&mut self, task: &Task) -> Result<Vec<Measured>, Failure> {
        (0..self.options.repetitions()).map(|_| self.measure(task.clone())).collect()
    }
}

fn create_dir(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).map_err(Failure::io(format!("create {}", dir.display())))
}

fn write(path: &Path, content: &str) -> Result<(), Failure> {
    std::fs::write(path, content).map_err(Failure::io(format!("write {}", path.display())))
}
