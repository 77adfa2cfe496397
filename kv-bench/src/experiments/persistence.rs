//! How long until a change is on stable storage, and what each policy costs.

use crate::dataset::{Dataset, KEY_LEN_MAX, Shape};
use crate::engines::{Contender, EngineName, Policy};
use crate::evaluation::Evaluation;
use crate::failure::Failure;
use crate::figure::{Figure, Kind, Series};
use crate::report::{Section, Table};
use crate::results::{median, parameters};
use crate::units;
use crate::verify::verify;
use crate::worker::{Measured, Task, directory_bytes, milliseconds};
use kv_core::EngineExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Each part of a run ends after this time with what it has done.
const PART_LIMIT: Duration = Duration::from_secs(2);

/// Most bytes of bulk puts.
const BULK_BYTES_MAX: u64 = 64 << 20;

/// Contender, single puts, bulk puts: as many as its costs allow. A snapshot writes the whole table.
const RUNS: [(Contender, u64, u64); 8] = [
    (Contender::new(EngineName::Log, Policy::Always), 300, 2000),
    (Contender::new(EngineName::Log, Policy::Periodic(10)), 300, 20_000),
    (Contender::new(EngineName::Log, Policy::MaxLogSize(1 << 20)), 300, 20_000),
    (Contender::new(EngineName::Log, Policy::Default), 300, 20_000),
    (Contender::new(EngineName::Naive, Policy::Always), 50, 200),
    (Contender::new(EngineName::Naive, Policy::MaxLogSize(1 << 15)), 50, 2000),
    (Contender::new(EngineName::Naive, Policy::MaxLogSize(1 << 20)), 50, 20_000),
    (Contender::new(EngineName::Naive, Policy::MaxLogSize(1 << 25)), 50, 20_000),
];

/// Plans and reports.
pub(crate) fn run(evaluation: &mut Evaluation<'_>) -> Result<(), Failure> {
    let options = evaluation.options;
    let shape = evaluation.shape();
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
    for (contender, singles, bulk) in RUNS.into_iter().filter(|run| options.has(run.0.engine)) {
        let singles = options.scaled(singles).max(20);
        let bulk = shape.at_most(options.scaled(bulk), BULK_BYTES_MAX);
        let runs = evaluation.measure_often(&Task::Persist { contender, shape, singles, bulk })?;
        let label = contender.label();
        let parameters = parameters(&[
            ("singles", singles.into()),
            ("bulk", bulk.into()),
            ("key_len", shape.key_len.into()),
            ("value_len", shape.value_len.into()),
        ]);
        evaluation.results.add_all("persistence", &label, &parameters, &runs);
        let of = |name: &str| median(&runs.iter().filter_map(|run| run.get(name)).collect::<Vec<_>>());
        table.push([
            label.clone(),
            units::number(of("put_durable_p50_us")),
            units::number(of("put_durable_p99_us")),
            units::number(of("bulk_puts")),
            units::number(of("bulk_put_per_s")),
            units::number(of("sync_after_bulk_ms")),
            units::number(of("bulk_durable_per_s")),
            format!("{:.2}", of("write_amplification")),
            format!("{:.2}", of("disk_bytes") / of("live_bytes")),
            units::number(of("syncs")),
        ]);
        waits.push(
            Series::new(&label, [(of("put_durable_p50_us"), of("put_durable_p99_us"))])
                .styled(contender.engine.place(), false),
        );
    }
    evaluation.sections.push(Section {
        title: "Time to persist".to_owned(),
        method: format!(
            "Single puts, each followed by a wait until it is durable (the caller insists, whatever the policy); then, \
             in a new store, many puts under the policy and one sync. Pairs of {} + {} bytes. Written and syncs are \
             the engine's own counts for the bulk; disk is what its files take. Snapshots write the whole table, so \
             some of those runs have fewer puts. Each part ends after {} s at the latest. Median of {} runs; each is \
             verified, and again after closing and reopening.",
            shape.key_len,
            shape.value_len,
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
    });
    Ok(())
}

pub(crate) fn measure(
    dir: &Path,
    contender: Contender,
    shape: Shape,
    singles: u64,
    bulk: u64,
) -> Result<Measured, Failure> {
    let mut measured = Measured::default();
    single_puts(&dir.join("singles"), contender, shape, singles, &mut measured)?;
    bulk_puts(&dir.join("bulk"), contender, shape, bulk, &mut measured)?;
    Ok(measured)
}

fn single_puts(
    dir: &Path,
    contender: Contender,
    shape: Shape,
    count: u64,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let data = Dataset::new(shape);
    let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
    let engine = contender.open(dir)?;
    let begin = Instant::now();
    let mut latencies = Vec::new();
    while (latencies.len() as u64) < count && begin.elapsed() < PART_LIMIT {
        let index = latencies.len() as u64;
        data.value(index, index, &mut value);
        let start = Instant::now();
        engine.put_durable(data.key(index, &mut key), &value)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    verify(&*engine, &data, (0..latencies.len() as u64).map(|index| (index, index)))?;
    engine.close()?;
    latencies.sort_by(f64::total_cmp);
    for (name, hundredth) in [("p50", 50), ("p90", 90), ("p99", 99), ("max", 100)] {
        let at = (latencies.len() * hundredth).div_ceil(100).saturating_sub(1);
        if let Some(latency) = latencies.get(at) {
            measured.add(format!("put_durable_{name}_us"), *latency);
        }
    }
    Ok(())
}

fn bulk_puts(
    dir: &Path,
    contender: Contender,
    shape: Shape,
    count: u64,
    measured: &mut Measured,
) -> Result<(), Failure> {
    let data = Dataset::new(shape);
    let (mut key, mut value) = ([0; KEY_LEN_MAX], Vec::new());
    let engine = contender.open(dir)?;
    let start = Instant::now();
    let mut puts = 0;
    while puts < count && start.elapsed() < PART_LIMIT {
        data.value(puts, puts, &mut value);
        engine.put(data.key(puts, &mut key), &value)?;
        puts += 1;
    }
    let put_seconds = start.elapsed().as_secs_f64();
    let sync = Instant::now();
    engine.sync()?;
    measured.add("sync_after_bulk_ms", milliseconds(sync));
    let live = (puts * shape.pair_len()) as f64;
    measured.add("bulk_puts", puts as f64);
    measured.add("bulk_put_per_s", puts as f64 / put_seconds);
    measured.add("bulk_durable_per_s", puts as f64 / start.elapsed().as_secs_f64());
    let stats = engine.stats();
    measured.add("syncs", stats.syncs as f64);
    measured.add("dumps", stats.dumps as f64);
    measured.add("bytes_written_bytes", stats.bytes_written as f64);
    measured.add("write_amplification", stats.bytes_written as f64 / live);
    measured.add("live_bytes", live);
    let all = || (0..puts).map(|index| (index, index));
    verify(&*engine, &data, all())?;
    engine.close()?;
    drop(engine);
    measured.add("disk_bytes", directory_bytes(dir)?);
    verify(&*contender.open(dir)?, &data, all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        for (contender, ..) in RUNS {
            let dir = tempfile::tempdir().unwrap();
            let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
            let measured = measure(dir.path(), contender, shape, 3, 30).unwrap();
            assert!((measured.get("bulk_puts").unwrap() - 30.0).abs() < 1e-9);
            assert!(measured.get("write_amplification").unwrap() >= 1.0, "{contender:?} {measured:?}");
        }
    }
}
