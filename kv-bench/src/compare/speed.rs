//! Speed in memory: puts and gets of the engines against a table that never persists. The log
//! engine writes to disk meanwhile.

use crate::args::Compare;
use crate::experiment::{Case, Experiment, Outcome};
use crate::failure::Failure;
use crate::load::Shape;
use crate::report::results::Results;
use crate::report::section::{Section, Table};
use crate::subjects::{Policy, SubjectName};
use crate::tasks::speed::{Phases, Speed};
use crate::units;

/// Lengths of values, bytes, and numbers of threads.
const SHAPES: [(usize, u64); 4] = [(100, 1), (100, 2), (500, 1), (500, 2)];
/// Names of the task's values in the results.
const METRICS: [(&str, &str); 4] = [
    ("fill_per_s", "put_per_s"),
    ("read_uniform_per_s", "read_per_s"),
    ("get_uniform_per_s", "get_per_s"),
    ("stall_ms", "put_stall_ms"),
];
const OPERATIONS: [&str; 3] = ["put", "read", "get"];

fn keys(options: &Compare) -> u64 {
    options.scaled(300_000)
}

/// Single runs scatter and the ratios matter, so two repetitions more than elsewhere.
fn repetitions(options: &Compare) -> usize {
    options.repetitions() + if options.run.quick { 0 } else { 2 }
}

pub(super) fn plan(options: &Compare) -> Result<Vec<Experiment>, Failure> {
    let setups = [SubjectName::Log.standard(), SubjectName::Naive.under(Policy::Manual)];
    let setups: Vec<_> = setups.into_iter().filter(|setup| options.has(setup.subject)).collect();
    let bare = SubjectName::Dashmap.standard();
    let experiment = |(value_len, threads)| {
        let keys = keys(options);
        let shape = Shape { value_len, ..options.shape() };
        let case = |subject, setup| {
            let phases = Phases::UniformReads;
            Case::new(subject, &Speed { setup, shape, keys, threads, operations: keys, phases })
        };
        let mut cases =
            setups.iter().map(|setup| case(setup.label(), *setup)).collect::<Result<Vec<_>, _>>()?;
        cases.push(case("bare dashmap".to_owned(), bare)?);
        let parameters = [("keys", keys.into()), ("threads", threads.into())];
        Ok(Experiment {
            metrics: &METRICS,
            ..Experiment::new("speed", shape, &parameters, repetitions(options), cases)
        })
    };
    SHAPES.into_iter().map(experiment).collect()
}

pub(super) fn report(options: &Compare, outcomes: &[Outcome], results: &mut Results) -> Section {
    let compares = options.has(SubjectName::Log);
    let labels: Vec<&str> =
        outcomes.iter().take(1).flat_map(Outcome::subjects).map(|(label, _)| label).collect();
    let mut header = ["operation", "values", "threads"].map(str::to_owned).to_vec();
    header.extend(labels.iter().map(|label| format!("{label}, 1/s")));
    if compares {
        header.extend(labels.iter().skip(1).map(|label| format!("log / {label}")));
    }
    let mut table = Table::new(header);
    for ((value_len, threads), outcome) in SHAPES.into_iter().zip(outcomes) {
        for operation in OPERATIONS {
            let rates: Vec<(&str, f64)> = outcome
                .subjects()
                .map(|(label, runs)| (label, runs.median(&format!("{operation}_per_s"))))
                .collect();
            let mut row = vec![operation.to_owned(), format!("{value_len} B"), threads.to_string()];
            row.extend(rates.iter().map(|(_, rate)| units::number(*rate)));
            if let (true, [(_, log), others @ ..]) = (compares, rates.as_slice()) {
                for (label, rate) in others {
                    // A ratio of medians: a slow moment of the machine spoils one run, not the
                    // ratio.
                    let ratio = log / rate;
                    let metric = format!("{operation}_ratio_to_{label}");
                    let parameters = &outcome.experiment.parameters;
                    results.add("speed", "log", parameters, &metric, "x", &[ratio]);
                    row.push(format!("{ratio:.2}x"));
                }
            }
            table.push(row);
        }
    }
    Section {
        title: "Speed in memory".to_owned(),
        method: format!(
            "{} puts of new keys of {} bytes, then as many reads and gets of uniform keys. The reader looks at a \
             byte of every cache line. `read` borrows the value, `get` returns one that the caller can keep. The \
             log writes to disk during the puts, and delays them when too much is unwritten (put_stall_ms); the \
             gets begin when it has written everything. The other subjects never write. Threads share the keys. \
             Median of {} runs in processes of their own, in turning order.",
            units::count(keys(options)),
            options.key_len,
            repetitions(options)
        ),
        table,
        figures: Vec::new(),
    }
}
