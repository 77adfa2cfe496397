//! The experiments: who runs what, to fill the rows. Plain data.

use super::beyond::Beyond;
use super::dump::Dump;
use super::job::Job;
use super::latency::Latency;
use super::memory::Memory;
use super::recovery::Recovery;
use super::rows::Row;
use super::speed::{Phases, Speed};
use super::synced::{BareSynced, Synced};
use super::utilization::{Utilization, record_len};
use crate::args::EngineOptions;
use crate::dataset::Shape;
use crate::engines::{Contender, EngineName, Policy};
use crate::results::{Parameters, parameters};
use crate::subjects::SubjectName;
use crate::worker::Task;

/// Bytes of all keys.
const KEY_LEN: usize = 24;
/// Bytes of values.
pub(crate) const VALUE_LENS: [usize; 2] = [100, 500];
/// Bytes of values, and threads, of the experiments on speed.
pub(crate) const SPEEDS: [(usize, u64); 4] = [(100, 1), (100, 2), (500, 1), (500, 2)];

pub(crate) const LATENCY: &str = "latency";
pub(crate) const SYNCED: &str = "synced";
pub(crate) const DUMP: &str = "dump";
pub(crate) const RECOVERY: &str = "recovery";
pub(crate) const UTILIZATION: &str = "utilization";
pub(crate) const LARGE: &str = "ten times the keys";

pub(crate) fn beyond_name(value_len: usize) -> String {
    format!("data 4x the memory budget, {value_len} B")
}

pub(crate) fn speed_name(value_len: usize, threads: u64) -> String {
    format!("speed {value_len} B {threads} thread{}", if threads == 1 { "" } else { "s" })
}

pub(crate) fn memory_name(value_len: usize) -> String {
    format!("memory {value_len} B")
}

/// Names of contestants that are more than a subject.
pub(crate) mod contestant {
    use crate::subjects::SubjectName;

    pub(crate) const WITHOUT_COMPACTION: &str = "kv-log without compaction";
    pub(crate) const LOG_8: &str = "kv-log, 8 threads";
    pub(crate) const BARE: &str = "bare loop";
    pub(crate) const BARE_RESERVED: &str = "bare loop, space only reserved";
    pub(crate) const AT_80: &str = "kv-log at 80 %";
    pub(crate) const AT_40: &str = "kv-log at 40 %";

    pub(crate) fn with_8_threads(subject: SubjectName) -> String {
        format!("{}, 8 threads", subject.label())
    }
}

/// Runs that take turns.
#[derive(Clone, Debug)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) parameters: Parameters,
    pub(crate) contestants: Vec<Contestant>,
}

/// Who runs what.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    /// Run first, and killed when it is ready: what it leaves is what the task finds.
    pub(crate) prepare: Option<Task>,
    pub(crate) task: Task,
}

impl Contestant {
    fn new(name: impl Into<String>, job: Job) -> Self {
        Contestant { name: name.into(), prepare: None, task: Task::Engine(job) }
    }
}

/// What must be run to judge `rows`. Where the options name no rows, subjects without a row run as well.
pub(crate) fn experiments(options: &EngineOptions, rows: &[Row]) -> Vec<Experiment> {
    let mut experiments = all(options);
    let metrics: Vec<_> = rows.iter().flat_map(Row::metrics).collect();
    experiments.retain_mut(|experiment| {
        let asked = |name: &str| {
            metrics.iter().any(|metric| metric.experiment == experiment.name && metric.contestant == name)
        };
        if !options.only.is_empty() {
            experiment.contestants.retain(|contestant| asked(&contestant.name));
        }
        !experiment.contestants.is_empty()
    });
    experiments
}

/// Every experiment with every contestant that is compiled in.
fn all(options: &EngineOptions) -> Vec<Experiment> {
    let keys = options.keys();
    let shape = |value_len| Shape { key_len: KEY_LEN, value_len, seed: options.seed };
    let experiment = |name: String, value_len: usize, keys: u64, contestants| Experiment {
        name,
        parameters: parameters(&[
            ("keys", keys.into()),
            ("key_len", KEY_LEN.into()),
            ("value_len", value_len.into()),
        ]),
        contestants,
    };
    let mut experiments = Vec::new();
    for (value_len, threads) in SPEEDS {
        let contestants = speed(shape(value_len), keys, threads);
        experiments.push(experiment(speed_name(value_len, threads), value_len, keys, contestants));
    }
    for value_len in VALUE_LENS {
        let subjects = [&[SubjectName::Log], &SubjectName::VOLATILE[..]].concat();
        let contestant = |subject: SubjectName| {
            Contestant::new(subject.label(), Job::Memory(Memory { subject, shape: shape(value_len), keys }))
        };
        let contestants = subjects.into_iter().map(contestant).collect();
        experiments.push(experiment(memory_name(value_len), value_len, keys, contestants));
    }
    let latency = |name: &str, compaction| {
        Contestant::new(name, Job::Latency(Latency { shape: shape(100), keys, compaction }))
    };
    let contestants =
        vec![latency(SubjectName::Log.label(), true), latency(contestant::WITHOUT_COMPACTION, false)];
    experiments.push(experiment(LATENCY.to_owned(), 100, keys, contestants));
    let puts = (keys / 500).max(40);
    experiments.push(experiment(SYNCED.to_owned(), 100, puts, synced(shape(100), puts)));
    let dump = Dump { shape: shape(4096), keys: keys / 16 };
    let contestants = vec![
        Contestant::new(SubjectName::Log.label(), Job::Dump(dump)),
        Contestant::new(contestant::BARE, Job::BareDump(dump.keys * record_len(dump.shape))),
    ];
    experiments.push(experiment(DUMP.to_owned(), 4096, dump.keys, contestants));
    experiments.push(experiment(RECOVERY.to_owned(), 100, keys, recovery(shape(100), keys)));
    let utilization = |name: &str, target| {
        Contestant::new(name, Job::Utilization(Utilization { shape: shape(100), keys, target }))
    };
    let contestants = vec![utilization(contestant::AT_80, 0.8), utilization(contestant::AT_40, 0.4)];
    experiments.push(experiment(UTILIZATION.to_owned(), 100, keys, contestants));
    let large = |subject: SubjectName| {
        let (shape, keys) = (shape(100), 10 * keys);
        let job = Speed { subject, shape, keys, threads: 1, phases: Phases::All };
        Contestant::new(subject.label(), Job::Speed(job))
    };
    let contestants = vec![large(SubjectName::Log), large(SubjectName::Dashmap)];
    experiments.push(experiment(LARGE.to_owned(), 100, 10 * keys, contestants));
    for value_len in VALUE_LENS {
        let contestants = [SubjectName::Log, SubjectName::Lmdb]
            .into_iter()
            .filter(|subject| subject.is_compiled_in())
            .map(|subject| {
                let job = Beyond { subject, shape: shape(value_len), keys };
                Contestant::new(subject.label(), Job::Beyond(job))
            })
            .collect();
        experiments.push(experiment(beyond_name(value_len), value_len, keys, contestants));
    }
    experiments
}

/// Volatile tables go all the way, LMDB as far as its row does, other peers fill.
fn speed(shape: Shape, keys: u64, threads: u64) -> Vec<Contestant> {
    let tables = [SubjectName::Log].into_iter().chain(SubjectName::VOLATILE);
    let with = |phases| move |subject: SubjectName| (subject, phases);
    let peers = SubjectName::PEERS
        .into_iter()
        .map(|peer| (peer, if peer == SubjectName::Lmdb { Phases::Reads } else { Phases::Fill }));
    tables
        .map(with(Phases::All))
        .chain(peers)
        .filter(|(subject, _)| subject.is_compiled_in())
        .map(|(subject, phases)| {
            let job = Speed { subject, shape, keys, threads, phases };
            Contestant::new(subject.label(), Job::Speed(job))
        })
        .collect()
}

fn synced(shape: Shape, puts: u64) -> Vec<Contestant> {
    let bare = |name: &str, prefilled| {
        Contestant::new(name, Job::BareSynced(BareSynced { bytes: record_len(shape), puts, prefilled }))
    };
    let put = |name: String, subject, threads| {
        Contestant::new(name, Job::Synced(Synced { subject, shape, puts, threads }))
    };
    let mut contestants = vec![bare(contestant::BARE, true), bare(contestant::BARE_RESERVED, false)];
    let peers = SubjectName::PEERS.into_iter().filter(|peer| peer.is_compiled_in());
    for subject in std::iter::once(SubjectName::Log).chain(peers) {
        contestants.push(put(subject.label().to_owned(), subject, 1));
        contestants.push(put(contestant::with_8_threads(subject), subject, 8));
    }
    contestants
}

/// The naive engine snapshots when it is told to: its recovery reads one snapshot, however it was written.
fn recovery(shape: Shape, keys: u64) -> Vec<Contestant> {
    [
        (SubjectName::Log, EngineName::Log, Policy::Default),
        (SubjectName::Naive, EngineName::Naive, Policy::Manual),
    ]
    .map(|(subject, engine, policy)| {
        let contender = Contender::new(engine, policy);
        Contestant {
            name: subject.label().to_owned(),
            prepare: Some(Task::FillUntilKilled { contender, shape, keys }),
            task: Task::Engine(Job::Recovery(Recovery { contender, shape, keys })),
        }
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use crate::engine::rows::rows;
    use clap::Parser;

    fn options(words: &[&str]) -> EngineOptions {
        let words = ["kv-bench", "engine"].iter().chain(words);
        match Args::try_parse_from(words).unwrap().command {
            Command::Engine(options) => options,
            _ => panic!("the engine was asked for"),
        }
    }

    #[test]
    fn every_row_is_run_for_unless_a_peer_is_not_compiled_in() {
        let experiments = experiments(&options(&[]), &rows());
        for row in rows() {
            for metric in row.metrics() {
                let experiment = experiments.iter().find(|experiment| experiment.name == metric.experiment);
                let contestants = &experiment.unwrap_or_else(|| panic!("{metric:?}")).contestants;
                let peer = SubjectName::PEERS.iter().find(|peer| metric.contestant.starts_with(peer.label()));
                let expected = peer.is_none_or(|peer| peer.is_compiled_in());
                let runs = contestants.iter().any(|contestant| contestant.name == metric.contestant);
                assert_eq!(runs, expected, "{metric:?}");
            }
        }
    }

    #[test]
    fn only_what_a_row_needs_is_run_when_rows_are_named() {
        let options = options(&["--only", "p99.9 of put", "--only", "recovery"]);
        let mut rows = rows();
        rows.retain(|row| options.asks_for(&row.name));
        let experiments = experiments(&options, &rows);
        let names: Vec<&str> = experiments.iter().map(|experiment| experiment.name.as_str()).collect();
        assert_eq!(names, [LATENCY, RECOVERY]);
        let none = super::experiments(&self::options(&["--only", "x"]), &[]);
        assert!(none.is_empty());
    }
}
