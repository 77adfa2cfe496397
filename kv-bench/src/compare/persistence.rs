//! The time until a change is on stable storage, and the cost of each policy.

use crate::args::Compare;
use crate::experiment::{Case, Experiment, Outcome};
use crate::failure::Failure;
use crate::report::figure::{Figure, Kind, Series};
use crate::report::results::Results;
use crate::report::section::{Section, Table};
use crate::subjects::{Policy, Setup, SubjectName};
use crate::tasks::persistence::{PART_LIMIT, Persistence};
use crate::units;

/// Most bytes of bulk puts.
const BULK_BYTES_MAX: u64 = 64 << 20;

/// Setup, single puts, bulk puts. A snapshot writes the whole table, so costly setups have fewer.
const RUNS: [(Setup, u64, u64); 8] = [
    (SubjectName::Log.under(Policy::Always), 300, 2000),
    (SubjectName::Log.under(Policy::Periodic(10)), 300, 20_000),
    (SubjectName::Log.under(Policy::MaxLogSize(1 << 20)), 300, 20_000),
    (SubjectName::Log.under(Policy::Default), 300, 20_000),
    (SubjectName::Naive.under(Policy::Always), 50, 200),
    (SubjectName::Naive.under(Policy::MaxLogSize(1 << 15)), 50, 2000),
    (SubjectName::Naive.under(Policy::MaxLogSize(1 << 20)), 50, 20_000),
    (SubjectName::Naive.under(Policy::MaxLogSize(1 << 25)), 50, 20_000),
];

fn runs(options: &Compare) -> impl Iterator<Item = (Setup, u64, u64)> {
    RUNS.into_iter().filter(|run| options.has(run.0.subject))
}

pub(super) fn plan(options: &Compare) -> Result<Vec<Experiment>, Failure> {
    let shape = options.shape();
    let experiment = |(setup, singles, bulk): (Setup, u64, u64)| {
        let singles = options.scaled(singles).max(20);
        let bulk = shape.at_most(options.scaled(bulk), BULK_BYTES_MAX);
        let case = Case::new(setup.label(), &Persistence { setup, shape, singles, bulk })?;
        let parameters = [("singles", singles.into()), ("bulk", bulk.into())];
        Ok(Experiment::new("persistence", shape, &parameters, options.repetitions(), vec![case]))
    };
    runs(options).map(experiment).collect()
}

pub(super) fn report(options: &Compare, outcomes: &[Outcome], _: &mut Results) -> Section {
    let mut table = Table::new([
        "engine",
        "put durable p50, us",
        "p99, us",
        "bulk",
        "bulk puts/s",
        "then sync, ms",
        "durable puts/s",
        "written / data",
        "disk / data",
        "syncs",
    ]);
    let mut waits = Vec::new();
    for ((setup, ..), (label, runs)) in runs(options).zip(outcomes.iter().flat_map(Outcome::subjects)) {
        let of = |name: &str| runs.median(name);
        let cell = |name: &str| units::number(of(name));
        table.push([
            label.to_owned(),
            cell("put_durable_p50_us"),
            cell("put_durable_p99_us"),
            cell("bulk_puts"),
            cell("bulk_put_per_s"),
            cell("sync_after_bulk_ms"),
            cell("bulk_durable_per_s"),
            format!("{:.2}", of("write_amplification")),
            format!("{:.2}", of("disk_bytes") / of("live_bytes")),
            cell("syncs"),
        ]);
        let bar = [(of("put_durable_p50_us"), of("put_durable_p99_us"))];
        waits.push(Series::new(label, bar).styled(setup.subject as usize, false));
    }
    Section {
        title: "Time to persist".to_owned(),
        method: format!(
            "Single puts, each followed by a wait until it is durable, whatever the policy; then, in a new store, \
             many puts under the policy and one sync. Pairs of {} + {} bytes. Written and syncs are the engine's \
             own counts for the bulk; disk is the space of its files. A snapshot writes the whole table, so some of \
             those runs have fewer puts. Each part ends after {} s at the latest. Median of {} runs; each is \
             verified, and again after closing and reopening.",
            options.key_len,
            options.value_len,
            PART_LIMIT.as_secs(),
            options.repetitions(),
        ),
        table,
        figures: vec![Figure {
            title: "Time until a single put is durable: median, and 99th percentile".to_owned(),
            x: String::new(),
            y: "microseconds".to_owned(),
            kind: Kind::Bars,
            series: waits,
        }],
    }
}
