//! The loss after kill -9, under each policy.

use crate::args::Compare;
use crate::experiment::{Case, Experiment, Outcome};
use crate::failure::Failure;
use crate::report::figure::{Figure, Kind, Series};
use crate::report::results::Results;
use crate::report::section::{Section, Table};
use crate::subjects::{Policy, Setup, SubjectName};
use crate::tasks::kill::{Kill, PACE_PER_MS, REPORT_EVERY};
use crate::units;

const SETUPS: [Setup; 7] = [
    SubjectName::Log.under(Policy::Always),
    SubjectName::Log.under(Policy::Periodic(10)),
    SubjectName::Log.under(Policy::MaxLogSize(1 << 20)),
    SubjectName::Log.under(Policy::Default),
    SubjectName::Naive.under(Policy::MaxLogSize(1 << 15)),
    SubjectName::Naive.under(Policy::MaxLogSize(1 << 20)),
    SubjectName::Naive.under(Policy::MaxLogSize(1 << 25)),
];

fn setups(options: &Compare) -> impl Iterator<Item = Setup> {
    SETUPS.into_iter().filter(|setup| options.has(setup.subject))
}

/// Earliest and latest moment of a kill, milliseconds after the start.
fn moments_ms(options: &Compare) -> (u64, u64) {
    if options.run.quick { (150, 300) } else { (500, 1000) }
}

pub(super) fn plan(options: &Compare) -> Result<Vec<Experiment>, Failure> {
    let shape = options.shape();
    let (after_ms_min, after_ms_max) = moments_ms(options);
    let case = |setup: Setup| Case::new(setup.label(), &Kill { setup, shape, after_ms_min, after_ms_max });
    let parameters = [
        ("killed_after_ms_min", after_ms_min.into()),
        ("killed_after_ms_max", after_ms_max.into()),
        ("pace_per_ms", PACE_PER_MS.into()),
    ];
    let cases = setups(options).map(case).collect::<Result<_, _>>()?;
    Ok(vec![Experiment::new("kill", shape, &parameters, options.repetitions(), cases)])
}

pub(super) fn report(options: &Compare, outcomes: &[Outcome], _: &mut Results) -> Section {
    let mut table = Table::new([
        "engine",
        "kills",
        "commands made",
        "error rate, %",
        "least, %",
        "most, %",
        "changes lost",
        "durable ones lost",
    ]);
    let mut bars = Vec::new();
    for (setup, (label, runs)) in setups(options).zip(outcomes.iter().flat_map(Outcome::subjects)) {
        let rates = runs.values("error_rate");
        let rate = runs.median("error_rate");
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        table.push([
            label.to_owned(),
            rates.len().to_string(),
            units::number(runs.median("commands_made")),
            format!("{rate:.2}"),
            format!("{least:.2}"),
            format!("{most:.2}"),
            units::number(runs.median("changes_lost")),
            units::number(runs.values("durable_changes_lost").iter().sum()),
        ]);
        bars.push(Series::new(label, [(rate, most)]).styled(setup.subject as usize, false));
    }
    let (shortest_ms, longest_ms) = moments_ms(options);
    Section {
        title: "Loss after kill -9".to_owned(),
        method: format!(
            "A process puts new keys, and deletes with one command in ten, pairs of {} + {} bytes, at most \
             {PACE_PER_MS} commands a ms. At least every {REPORT_EVERY} commands it reports how many it has made \
             and how many are durable. It is killed (SIGKILL) at a random moment, {shortest_ms} to {longest_ms} ms \
             after its start. Error rate: (wrong + missing) / all pairs that its acknowledged commands make. The \
             recovered state must be the state after a prefix of the commands that holds everything reported \
             durable, else the evaluation fails. This is not a power cut: the system keeps running, and the data \
             in its cache survive.",
            options.key_len, options.value_len
        ),
        table,
        figures: vec![Figure {
            title: "Pairs wrong or missing after kill -9: median, and most".to_owned(),
            x: String::new(),
            y: "% of all pairs".to_owned(),
            kind: Kind::Bars,
            series: bars,
        }],
    }
}
