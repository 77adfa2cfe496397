//! The named workloads of the study, write-intensive and read-intensive, with latencies.

use crate::args::Compare;
use crate::experiment::{Case, Experiment, Outcome, Runs};
use crate::failure::Failure;
use crate::process::probe::nanoseconds;
use crate::report::figure::{Figure, Kind, Series};
use crate::report::results::Results;
use crate::report::section::{Section, Table};
use crate::subjects::{Policy, Setup, SubjectName};
use crate::tasks::mixed::{Mixed, QUANTILES, RUN_LIMIT};
use crate::units;
use std::time::Instant;

/// Name and read fraction, as in the study.
const WORKLOADS: [(&str, f64); 2] = [("write-intensive", 0.05), ("read-intensive", 0.8)];
/// Whether some keys are hot, and the number of threads.
const CLIENTS: [(bool, u64); 3] = [(false, 1), (true, 1), (false, 2)];

/// Each workload with each kind of clients: name, read fraction, hot keys, threads.
fn workloads() -> impl Iterator<Item = (&'static str, f64, bool, u64)> {
    WORKLOADS.into_iter().flat_map(|(name, read_fraction)| {
        CLIENTS.into_iter().map(move |(hot, threads)| (name, read_fraction, hot, threads))
    })
}

pub(super) fn plan(options: &Compare) -> Result<Vec<Experiment>, Failure> {
    let mut setups: Vec<Setup> = options.engines.iter().map(|engine| engine.standard()).collect();
    if options.has(SubjectName::Naive) {
        // The policy of the log engine, beside that of the study.
        setups.push(SubjectName::Naive.under(Policy::Default));
    }
    let experiment = |(workload, read_fraction, hot, threads): (&str, f64, bool, u64)| {
        let mix = options.mix(read_fraction, hot);
        let case = |setup: &Setup| {
            let task = Mixed { setup: *setup, mix, threads, samples: 1, latencies: true };
            Case::new(setup.label(), &task)
        };
        let parameters = [
            ("workload", workload.into()),
            ("commands", mix.commands.into()),
            ("read_fraction", read_fraction.into()),
            ("hit_rate", mix.hit_rate.into()),
            ("hot_fraction", mix.hot_fraction.into()),
            ("hot_rate", mix.hot_rate.into()),
            ("threads", threads.into()),
        ];
        let cases = setups.iter().map(case).collect::<Result<_, _>>()?;
        Ok(Experiment::new("mixed", mix.shape, &parameters, options.repetitions(), cases))
    };
    workloads().map(experiment).collect()
}

pub(super) fn report(options: &Compare, outcomes: &[Outcome], _: &mut Results) -> Section {
    let columns = ["workload", "hot keys", "threads", "engine", "commands/s"];
    let latencies = ["get p50", "get p99", "get p99.9", "put p50", "put p99", "put p99.9", "put max"];
    let mut table = Table::new(columns.iter().chain(&latencies).copied());
    let mut figures = Vec::new();
    for ((workload, read_fraction, hot, threads), outcome) in workloads().zip(outcomes) {
        let hot_keys = format!("{} / {}", options.hot_fraction, options.hot_rate);
        let hot_keys = if hot { hot_keys } else { "none".to_owned() };
        for (label, runs) in outcome.subjects() {
            let cell = |name: &str| units::number(runs.median(name));
            let mut row = vec![workload.into(), hot_keys.clone(), threads.to_string(), label.to_owned()];
            row.push(cell("throughput_per_s"));
            row.extend(latencies.iter().map(|name| cell(&format!("{}_us", name.replace(' ', "_")))));
            table.push(row);
        }
        // One figure a workload, of its most frequent command.
        if !hot && threads == 1 {
            let kind = if read_fraction < 0.5 { "put" } else { "get" };
            figures.push(Figure {
                title: format!("Latency of a {kind}, {workload}, one thread"),
                x: "percentile".to_owned(),
                y: "microseconds".to_owned(),
                kind: Kind::Percentiles(QUANTILES.map(|(name, _)| name.to_owned()).to_vec()),
                series: outcome.subjects().map(|(label, runs)| latency_curve(kind, label, runs)).collect(),
            });
        }
    }
    Section {
        title: "Mixed workloads".to_owned(),
        method: format!(
            "{} commands on pairs of {} + {} bytes; reads {} of the write-intensive commands and {} of the \
             read-intensive ones, hit rate {}; of the rest one in ten deletes, the others put new keys. Hot keys: \
             share of keys / share of hitting reads. Latencies in microseconds, the clock's own {} ns included. \
             Median of {} runs in processes of their own; each run ends after {} s at the latest; its state is \
             verified, and again after closing and reopening.",
            units::count(options.scaled(options.commands)),
            options.key_len,
            options.value_len,
            WORKLOADS[0].1,
            WORKLOADS[1].1,
            options.hit_rate,
            clock_ns(),
            options.repetitions(),
            RUN_LIMIT.as_secs()
        ),
        table,
        figures,
    }
}

fn latency_curve(kind: &str, label: &str, runs: &Runs) -> Series {
    let points = QUANTILES
        .iter()
        .enumerate()
        .map(|(at, (name, _))| (at as f64, runs.median(&format!("{kind}_{name}_us"))));
    Series::new(label, points)
}

/// Nanoseconds of one reading of the clock.
fn clock_ns() -> u64 {
    let start = Instant::now();
    for _ in 0..10_000 {
        std::hint::black_box(Instant::now());
    }
    nanoseconds(start) / 10_000
}
