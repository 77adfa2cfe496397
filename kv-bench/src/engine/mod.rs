//! `kv-bench engine`: the log engine held against volatile tables, stores of others, and itself.
//!
//! | file | holds |
//! |---|---|
//! | `rows.rs` | the rows: what is held against what, and the target |
//! | `plan.rs` | the experiments that fill them |
//! | `job.rs` | what a child process can measure, one file each: `speed.rs`, `memory.rs`, `latency.rs`, `synced.rs`, `dump.rs`, `recovery.rs`, `utilization.rs`, `beyond.rs` |
//! | `access.rs`, `truth.rs` | which keys are touched; what a store must hold after that |
//! | `judge.rs` | ratios and verdicts |
//!
//! Every run is a process of its own. Contestants of an experiment take turns, in an order that turns with
//! each repetition, so that a slow moment of the machine does not meet the same one always.

mod access;
mod beyond;
mod dump;
pub(crate) mod job;
mod judge;
mod latency;
mod memory;
mod plan;
mod recovery;
mod rows;
mod speed;
mod synced;
mod truth;
mod utilization;

use crate::args::EngineOptions;
use crate::child;
use crate::failure::Failure;
use crate::report::{self, Section, Table};
use crate::results::{Header, Results, median};
use crate::scratch::{Scratch, create_dir, write};
use crate::units;
use crate::worker::{Measured, Run};
use indicatif::{ProgressBar, ProgressStyle};
use judge::{Judged, Series, Verdict};
use plan::{Contestant, Experiment};
use rows::Metric;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What `engine.json` holds: the rows of `results.json`, and the targets.
#[derive(Debug, Serialize)]
struct EngineResults<'a> {
    targets: &'a [Judged],
    #[serde(flatten)]
    results: &'a Results,
}

/// Whether the options ask for any row there is.
pub(crate) fn has_row(options: &EngineOptions) -> bool {
    rows::rows().iter().any(|row| options.asks_for(&row.name))
}

/// Measures, prints the table, writes `engine.json`.
pub(crate) fn run(options: &EngineOptions) -> Result<(), Failure> {
    let start = Instant::now();
    let mut rows = rows::rows();
    rows.retain(|row| options.asks_for(&row.name));
    let experiments = plan::experiments(options, &rows);
    create_dir(&options.out)?;
    let mut scratch = Scratch::new(options.dir.as_ref().unwrap_or(&options.out))?;
    let header = Header::new(options.seed, options.quick, options.repetitions(), scratch.path());
    let mut results = Results::new(header);
    let mut series = Series::new();
    let runs: usize = experiments.iter().map(|experiment| experiment.contestants.len()).sum();
    let bar = progress_bar((runs * options.repetitions()) as u64);
    for experiment in &experiments {
        let begin = Instant::now();
        measure(experiment, options.repetitions(), &mut scratch, &bar, &mut results, &mut series)?;
        results.header.experiment_s.insert(experiment.name.clone(), begin.elapsed().as_secs_f64());
    }
    bar.finish_and_clear();
    scratch.close()?;
    results.header.duration_s = start.elapsed().as_secs_f64();
    let judged: Vec<Judged> = rows.iter().map(|row| judge::judge(row, &series)).collect();
    let json = serde_json::to_string_pretty(&EngineResults { targets: &judged, results: &results })? + "\n";
    write(&options.out.join("engine.json"), &json)?;
    print!("{}", report::text(&results, &sections(&judged, &experiments, &series)));
    println!(
        "{}\nEvery run was verified against a ground truth. {:.0} s in all; every figure in {}/engine.json",
        summary(&judged),
        results.header.duration_s,
        options.out.display()
    );
    Ok(())
}

/// Shown on a terminal only.
fn progress_bar(runs: u64) -> ProgressBar {
    let bar = ProgressBar::new(runs);
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {bar:24} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}

/// Lets the contestants of an experiment take turns.
fn measure(
    experiment: &Experiment,
    repetitions: usize,
    scratch: &mut Scratch,
    bar: &ProgressBar,
    results: &mut Results,
    series: &mut Series,
) -> Result<(), Failure> {
    let contestants = &experiment.contestants;
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); contestants.len()];
    for repetition in 0..repetitions {
        for turn in 0..contestants.len() {
            let at = (turn + repetition) % contestants.len();
            let (Some(contestant), Some(measured)) = (contestants.get(at), measured.get_mut(at)) else {
                continue;
            };
            bar.set_message(format!("{}: {}", experiment.name, contestant.name));
            measured.push(measure_once(contestant, scratch)?);
            bar.inc(1);
        }
    }
    for (contestant, runs) in contestants.iter().zip(&measured) {
        results.add_all(&experiment.name, &contestant.name, &experiment.parameters, runs);
        for name in runs.first().iter().flat_map(|run| run.values.keys()) {
            let values = runs.iter().filter_map(|run| run.get(name)).collect();
            series.insert(Metric::new(&experiment.name, &contestant.name, name), values);
        }
    }
    Ok(())
}

fn measure_once(contestant: &Contestant, scratch: &mut Scratch) -> Result<Measured, Failure> {
    let Some(prepare) = &contestant.prepare else {
        return scratch.measure(contestant.task.clone());
    };
    let dir = scratch.fresh_dir();
    child::kill_when_ready(&Run { dir: dir.clone(), task: prepare.clone() })?;
    let measured = child::measure(&Run { dir: dir.clone(), task: contestant.task.clone() })?;
    Scratch::remove(&dir)?;
    Ok(measured)
}

/// The table of targets, and one of all medians.
fn sections(judged: &[Judged], experiments: &[Experiment], series: &Series) -> Vec<Section> {
    let section = |title: &str, table| Section {
        title: title.to_owned(),
        method: String::new(),
        table,
        figures: Vec::new(),
    };
    let mut targets = Table::new(["what", "target", "kv-log", "against", "value", "spread", "verdict"]);
    for judged in judged {
        targets.push(judged.cells());
    }
    let mut sections = vec![section("Targets", targets)];
    for experiment in experiments {
        let mut metrics: Vec<&str> = Vec::new();
        for metric in series.keys().filter(|metric| metric.experiment == experiment.name) {
            if !metrics.contains(&metric.name.as_str()) {
                metrics.push(&metric.name);
            }
        }
        let mut table = Table::new(std::iter::once("medians").chain(metrics.iter().copied()));
        for Contestant { name, .. } in &experiment.contestants {
            let cell = |metric: &&str| {
                let values = series.get(&Metric::new(&experiment.name, name, metric));
                values.map_or("–".to_owned(), |values| units::number(median(values)))
            };
            table.push(std::iter::once(name.clone()).chain(metrics.iter().map(cell)));
        }
        sections.push(section(&experiment.name, table));
    }
    sections
}

/// `3 pass, 1 miss, 2 not measured`.
fn summary(judged: &[Judged]) -> String {
    let count = |is: fn(&Verdict) -> bool| judged.iter().filter(|judged| is(&judged.verdict)).count();
    format!(
        "{} pass, {} miss, {} not measured",
        count(|verdict| *verdict == Verdict::Pass),
        count(|verdict| *verdict == Verdict::Miss),
        count(|verdict| matches!(verdict, Verdict::NotMeasured(_))),
    )
}
