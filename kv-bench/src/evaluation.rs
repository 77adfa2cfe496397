//! Runs the experiments one after the other, and writes what they measured.

use crate::args::Compare;
use crate::dataset::Shape;
use crate::experiments::{kill, mixed, over_commands, persistence, recovery, speed};
use crate::failure::Failure;
use crate::report::{self, Section};
use crate::results::{Header, Results};
use crate::scratch::{Scratch, create_dir, write};
use crate::worker::{Measured, Task};
use crate::workload::Mix;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// What the experiments share.
pub(crate) struct Evaluation<'a> {
    pub(crate) options: &'a Compare,
    pub(crate) results: Results,
    pub(crate) sections: Vec<Section>,
    pub(crate) scratch: Scratch,
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
    let scratch = Scratch::new(options.dir.as_ref().unwrap_or(&options.out))?;
    let header = Header::new(options.seed, options.quick, options.repetitions(), scratch.path());
    let mut evaluation = Evaluation {
        options,
        results: Results::new(header),
        sections: Vec::new(),
        scratch,
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
    scratch.close()?;
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

    /// Carries out a task as often as the options ask for.
    pub(crate) fn measure_often(&mut self, task: &Task) -> Result<Vec<Measured>, Failure> {
        (0..self.options.repetitions()).map(|_| self.scratch.measure(task.clone())).collect()
    }
}
