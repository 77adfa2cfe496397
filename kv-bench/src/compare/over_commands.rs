//! Figure 3 of the study: throughput and memory over the number of commands.

use crate::args::Compare;
use crate::experiment::{Case, Experiment, Outcome, Runs};
use crate::failure::Failure;
use crate::process::Sample;
use crate::report::figure::{Figure, Kind, Series};
use crate::report::results::{Results, median};
use crate::report::section::{Section, Table};
use crate::subjects::Setup;
use crate::tasks::mixed::{Mixed, RUN_LIMIT};
use crate::units;

const SAMPLES: u64 = 20;

/// The runs are mixed ones without a clock around each command.
pub(super) fn plan(options: &Compare) -> Result<Vec<Experiment>, Failure> {
    let experiment = |read_fraction: &f64| {
        let mix = options.mix(*read_fraction, false);
        let case = |setup: Setup| {
            Case::new(setup.label(), &Mixed { setup, mix, threads: 1, samples: SAMPLES, latencies: false })
        };
        let cases = options.engines.iter().map(|engine| case(engine.standard()));
        let parameters = [
            ("read_fraction", (*read_fraction).into()),
            ("commands", mix.commands.into()),
            ("hit_rate", mix.hit_rate.into()),
            ("threads", 1.into()),
        ];
        let cases = cases.collect::<Result<_, _>>()?;
        Ok(Experiment::new("over_commands", mix.shape, &parameters, options.repetitions(), cases))
    };
    options.read_fraction.iter().map(experiment).collect()
}

pub(super) fn report(options: &Compare, outcomes: &[Outcome], results: &mut Results) -> Section {
    let (mut throughput, mut memory) = (Vec::new(), Vec::new());
    let mut table = Table::new([
        "read fraction",
        "engine",
        "commands/s, first tenth",
        "last tenth",
        "all",
        "memory at the end, MB",
        "most memory / live",
        "at rest / live",
        "disk / live",
    ]);
    for (colour, (read_fraction, outcome)) in options.read_fraction.iter().zip(outcomes).enumerate() {
        for (dash, (label, runs)) in outcome.subjects().enumerate() {
            let samples = samples(runs);
            for sample in &samples {
                let mut at = outcome.experiment.parameters.clone();
                at.insert("at_commands".to_owned(), sample.commands.into());
                for (metric, unit, value) in [
                    ("sampled_throughput_per_s", "1/s", sample.throughput_per_s),
                    ("sampled_memory_bytes", "B", sample.memory_bytes),
                ] {
                    results.add("over_commands", label, &at, metric, unit, &[value]);
                }
            }
            let of = |name: &str| runs.median(name);
            let rates: Vec<f64> = samples.iter().map(|sample| sample.throughput_per_s).collect();
            let tenth = rates.len().div_ceil(10);
            let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
            table.push([
                read_fraction.to_string(),
                label.to_owned(),
                units::number(mean(rates.get(..tenth).unwrap_or_default())),
                units::number(mean(rates.get(rates.len() - tenth..).unwrap_or_default())),
                units::number(of("throughput_per_s")),
                format!("{:.1}", of("memory_bytes") / 1e6),
                format!("{:.2}", of("peak_memory_bytes") / of("live_bytes")),
                format!("{:.2}", of("rest_memory_bytes") / of("live_bytes")),
                format!("{:.2}", of("disk_bytes") / of("live_bytes")),
            ]);
            let series = |value: fn(&Sample) -> f64| {
                let points = samples.iter().map(|sample| (sample.commands / 1e3, value(sample)));
                Series::new(&format!("{label}, reads {read_fraction}"), points).styled(colour, dash > 0)
            };
            throughput.push(series(|sample| sample.throughput_per_s / 1e6));
            memory.push(series(|sample| sample.memory_bytes / 1e6));
        }
    }
    let figure = |title: &str, y: &str, series| Figure {
        title: title.to_owned(),
        x: "thousand commands".to_owned(),
        y: y.to_owned(),
        kind: Kind::Lines,
        series,
    };
    Section {
        title: "Throughput and memory over the number of commands".to_owned(),
        method: format!(
            "One thread, {} commands on pairs of {} + {} bytes, hit rate {}. Of the other commands one in ten \
             deletes, the rest put new keys. {SAMPLES} samples a run, for each the median of {} runs in processes \
             of their own; a run ends after {} s at the latest. Throughput includes making the commands. Memory \
             is the growth of the process since before it opened the store, less the ground truth: at the end of \
             the commands, the most during them, and at rest once it has been constant for 200 ms. Each run's \
             state is verified, and again after closing and reopening.",
            units::count(options.scaled(options.commands)),
            options.key_len,
            options.value_len,
            options.hit_rate,
            options.repetitions(),
            RUN_LIMIT.as_secs(),
        ),
        table,
        figures: vec![
            figure("Throughput over the number of commands", "million commands/s", throughput),
            figure("Memory over the number of commands", "MB", memory),
        ],
    }
}

/// For each sample, the medians over the runs that reached it.
fn samples(Runs(runs): &Runs) -> Vec<Sample> {
    let longest = runs.iter().map(|run| run.samples.len()).max().unwrap_or_default();
    (0..longest)
        .map(|at| {
            let of = |value: fn(&Sample) -> f64| {
                median(&runs.iter().filter_map(|run| run.samples.get(at)).map(value).collect::<Vec<_>>())
            };
            Sample {
                commands: of(|sample| sample.commands),
                throughput_per_s: of(|sample| sample.throughput_per_s),
                memory_bytes: of(|sample| sample.memory_bytes),
            }
        })
        .collect()
}
