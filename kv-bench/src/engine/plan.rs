//! The experiments of `kv-bench engine`: which subject carries out which task. Plain data.

use super::names;
use super::recovery_plan;
use crate::args::TargetOptions;
use crate::experiment::{Case, Experiment};
use crate::failure::Failure;
use crate::load::Shape;
use crate::subjects::{Policy, SubjectName};
use crate::tasks::beyond::Beyond;
use crate::tasks::ceiling::Ceiling;
use crate::tasks::dump::{BareDump, Dump};
use crate::tasks::empty::Empty;
use crate::tasks::fill_latency::FillLatency;
use crate::tasks::latency::Latency;
use crate::tasks::memory::Memory;
use crate::tasks::open_load::OpenLoad;
use crate::tasks::speed::{Phases, Speed};
use crate::tasks::synced::{BareSynced, Synced};
use crate::tasks::utilization::{Utilization, record_len};

/// Length of all keys, bytes.
const KEY_LEN: usize = 24;
/// Memory to warm for each byte of data: for the store, its cached files, and overwrites.
const WARM_PER_DATA: u64 = 4;

/// Most reads of a phase of the experiments on speed.
const OPERATIONS_MAX: u64 = 2_000_000;
/// Operations for each key of a small store.
const OPERATIONS_PER_SMALL_KEY: u64 = 50;
/// Most operations of a phase on a small store, and under open load.
const SMALL_OPERATIONS_MAX: u64 = 1_000_000;

type Cases = Result<Vec<Case>, Failure>;

/// Every experiment with every subject that is compiled in.
pub(super) fn experiments(options: &TargetOptions) -> Result<Vec<Experiment>, Failure> {
    let keys = options.keys();
    let shape = |value_len| Shape { key_len: KEY_LEN, value_len, seed: options.run.seed };
    let experiment = |name: String, value_len: usize, keys: u64, cases: Cases| {
        let (shape, parameters) = (shape(value_len), [("keys", keys.into())]);
        let warm_bytes = WARM_PER_DATA * keys * shape.pair_len();
        let experiment = Experiment::new(name, shape, &parameters, options.repetitions(), cases?);
        Ok(Experiment { warm_bytes, ..experiment })
    };
    let puts = (keys / 500).max(40);
    let quick = options.run.quick;
    let mut experiments = Vec::new();
    for (value_len, threads) in names::SPEEDS {
        let cases = speed(shape(value_len), keys, threads);
        experiments.push(experiment(names::speed(value_len, threads), value_len, keys, cases));
    }
    for keys in names::SIZES.map(|share| keys / share) {
        for value_len in names::VALUE_LENS {
            let shape = shape(value_len);
            if keys < options.keys() {
                let cases = small(shape, keys);
                experiments.push(experiment(names::small(value_len, keys), value_len, keys, cases));
            }
            let cases = memory(shape, keys, quick, keys == options.keys());
            experiments.push(experiment(names::memory(value_len, keys), value_len, keys, cases));
        }
    }
    for load in names::LOADS {
        let cases = open_load(shape(100), keys, load);
        experiments.push(experiment(names::open_load(load), 100, keys, cases));
    }
    experiments.extend([
        experiment(names::EMPTY.into(), 100, 0, Case::new(names::LOG, &Empty {}).map(|case| vec![case])),
        experiment(names::FILL_LATENCY.into(), 100, keys, fill_latency(shape(100), keys)),
        experiment(names::LATENCY.into(), 100, keys, latency(shape(100), keys)),
        experiment(names::CEILING.into(), 100, keys, ceiling(shape(100), keys, quick)),
        experiment(names::SYNCED.into(), 100, puts, synced(shape(100), puts)),
        experiment(names::DUMP.into(), 4096, keys / 16, dump(shape(4096), keys / 16)),
        experiment(names::UTILIZATION.into(), 100, keys, utilization(shape(100), keys)),
        experiment(names::LARGE.into(), 100, 10 * keys, large(shape(100), 10 * keys)),
    ]);
    for (name, value_len, keys, cases) in recovery_plan::all(keys, options.kills(), shape) {
        experiments.push(experiment(name, value_len, keys, cases));
    }
    for value_len in names::VALUE_LENS {
        let cases = beyond(shape(value_len), keys);
        experiments.push(experiment(names::beyond(value_len), value_len, keys, cases));
    }
    experiments.into_iter().collect()
}

/// One case for each of `subjects` that is compiled in, under its label.
fn each(
    subjects: impl IntoIterator<Item = SubjectName>,
    case: impl Fn(&'static str, SubjectName) -> Result<Case, Failure>,
) -> Cases {
    let subjects = subjects.into_iter().filter(|subject| subject.is_compiled_in());
    subjects.map(|subject| case(subject.label(), subject)).collect()
}

fn log_and(others: impl IntoIterator<Item = SubjectName>) -> impl Iterator<Item = SubjectName> {
    std::iter::once(SubjectName::Log).chain(others)
}

/// The tables run all phases, LMDB those of its row, other foreign stores the fill.
fn speed(shape: Shape, keys: u64, threads: u64) -> Cases {
    each(log_and(SubjectName::VOLATILE).chain(SubjectName::FOREIGN), |name, subject| {
        let phases = match subject {
            SubjectName::Lmdb => Phases::Reads,
            subject if SubjectName::FOREIGN.contains(&subject) => Phases::Fill,
            _ => Phases::All,
        };
        let (setup, operations) = (subject.under(Policy::Default), keys.min(OPERATIONS_MAX));
        Case::new(name, &Speed { setup, shape, keys, threads, operations, phases })
    })
}

fn large(shape: Shape, keys: u64) -> Cases {
    each([SubjectName::Log, SubjectName::Dashmap], |name, subject| {
        let (setup, operations) = (subject.under(Policy::Default), keys.min(OPERATIONS_MAX));
        Case::new(name, &Speed { setup, shape, keys, threads: 1, operations, phases: Phases::All })
    })
}

/// Each key is used often, so that the run takes long enough to be measured.
fn small(shape: Shape, keys: u64) -> Cases {
    each([SubjectName::Log, SubjectName::Dashmap], |name, subject| {
        let setup = subject.under(Policy::Default);
        let operations = (keys * OPERATIONS_PER_SMALL_KEY).min(SMALL_OPERATIONS_MAX);
        Case::new(name, &Speed { setup, shape, keys, threads: 1, operations, phases: Phases::All })
    })
}

/// The tables without a row run at the largest size only. A table's memory does not depend on the
/// time of the overwrites.
fn memory(shape: Shape, keys: u64, quick: bool, all: bool) -> Cases {
    let overwrite_ms = |subject: SubjectName| match (quick, subject.is_durable()) {
        (true, _) => 300,
        (false, false) => 1000,
        (false, true) => 10_000,
    };
    let rest_ms = if quick { 300 } else { 10_000 };
    let others = SubjectName::VOLATILE.into_iter().filter(|subject| all || *subject == SubjectName::Dashmap);
    each(log_and(others), |name, subject| {
        Case::new(name, &Memory { subject, shape, keys, overwrite_ms: overwrite_ms(subject), rest_ms })
    })
}

fn fill_latency(shape: Shape, keys: u64) -> Cases {
    let subjects = [SubjectName::Log, SubjectName::Dashmap];
    each(subjects, |name, subject| Case::new(name, &FillLatency { subject, shape, keys }))
}

fn open_load(shape: Shape, keys: u64, per_cent: u64) -> Cases {
    let (operations, load) = (keys.min(SMALL_OPERATIONS_MAX), per_cent as f64 / 100.0);
    each([SubjectName::Log, SubjectName::Dashmap], |name, subject| {
        Case::new(name, &OpenLoad { subject, shape, keys, operations, load })
    })
}

fn ceiling(shape: Shape, keys: u64, quick: bool) -> Cases {
    let overwrite_ms = if quick { 300 } else { 5000 };
    let case = |(name, live_share)| Case::new(name, &Ceiling { shape, keys, live_share, overwrite_ms });
    [(names::UNDER_CEILING, Some(0.8)), (names::WITHOUT_CEILING, None)].into_iter().map(case).collect()
}

fn latency(shape: Shape, keys: u64) -> Cases {
    let case = |(name, compaction)| Case::new(name, &Latency { shape, keys, compaction });
    [(names::LOG, true), (names::WITHOUT_COMPACTION, false)].into_iter().map(case).collect()
}

fn synced(shape: Shape, puts: u64) -> Cases {
    let bytes = record_len(shape);
    let bare = |name, prefilled| Case::new(name, &BareSynced { bytes, puts, prefilled });
    let mut cases = vec![bare(names::BARE, true)?, bare(names::BARE_RESERVED, false)?];
    for subject in log_and(SubjectName::FOREIGN).filter(|subject| subject.is_compiled_in()) {
        cases.push(Case::new(subject.label(), &Synced { subject, shape, puts, threads: 1 })?);
        let name = names::with_8_threads(subject);
        cases.push(Case::new(name, &Synced { subject, shape, puts, threads: 8 })?);
    }
    Ok(cases)
}

fn dump(shape: Shape, keys: u64) -> Cases {
    let bytes = keys * record_len(shape);
    Ok(vec![Case::new(names::LOG, &Dump { shape, keys })?, Case::new(names::BARE, &BareDump { bytes })?])
}

fn utilization(shape: Shape, keys: u64) -> Cases {
    let case = |(name, target)| Case::new(name, &Utilization { shape, keys, target });
    [(names::AT_80, 0.8), (names::AT_40, 0.4)].into_iter().map(case).collect()
}

fn beyond(shape: Shape, keys: u64) -> Cases {
    each([SubjectName::Log, SubjectName::Lmdb], |name, subject| {
        Case::new(name, &Beyond { subject, shape, keys })
    })
}

#[cfg(test)]
mod tests {
    use super::names;
    use crate::args::TargetOptions;
    use crate::args::tests::target_options;
    use crate::subjects::SubjectName;
    use crate::targets::Plan;

    fn plan(options: &TargetOptions) -> Plan {
        crate::engine::plan(options).unwrap()
    }

    #[test]
    fn every_row_is_run_for_unless_a_foreign_store_is_not_compiled_in() {
        let plan = plan(&target_options(&["engine"]));
        for row in &plan.rows {
            for metric in row.metrics() {
                let mut experiments = plan.experiments.iter();
                let experiment = experiments.find(|experiment| experiment.name == metric.experiment);
                let cases = &experiment.unwrap_or_else(|| panic!("{metric:?}")).cases;
                let mut foreign = SubjectName::FOREIGN.iter();
                let foreign = foreign.find(|foreign| metric.subject.starts_with(foreign.label()));
                let expected = foreign.is_none_or(|foreign| foreign.is_compiled_in());
                let runs = cases.iter().any(|case| case.subject == metric.subject);
                assert_eq!(runs, expected, "{metric:?}");
            }
        }
    }

    #[test]
    fn named_rows_run_only_what_they_need() {
        let narrowed = |words: &[&str]| {
            let options = target_options(words);
            plan(&options).narrowed(&options)
        };
        let named = narrowed(&["engine", "--only", "p99.9 of put under", "--only", "replay without"]);
        let found: Vec<&str> = named.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
        assert_eq!(found, [names::LATENCY, names::RECOVERY]);
        let none = narrowed(&["engine", "--only", "no such row"]);
        assert!(none.rows.is_empty() && none.experiments.is_empty());
    }
}
