//! The time of the next open after a kill, over the data size.

use crate::args::Compare;
use crate::experiment::{Case, Experiment, Outcome};
use crate::failure::Failure;
use crate::report::figure::{Figure, Kind, Series};
use crate::report::results::Results;
use crate::report::section::{Section, Table};
use crate::subjects::Setup;
use crate::tasks::recovery::Recovery;
use crate::units;

/// Most keys of the largest store.
const KEYS: u64 = 200_000;
/// Most bytes of the largest store.
const STORE_BYTES_MAX: u64 = 128 << 20;
/// The values that the report keeps.
const METRICS: [(&str, &str); 4] = [
    ("disk_bytes", "disk_bytes"),
    ("recovery_ms", "recovery_ms"),
    ("recovered_records", "recovered_records"),
    ("recovered_bytes", "recovered_bytes"),
];

fn setups(options: &Compare) -> impl Iterator<Item = Setup> {
    options.engines.iter().map(|engine| engine.standard())
}

/// The sizes of the stores, in keys.
fn sizes(options: &Compare) -> [u64; 4] {
    let keys_max = options.shape().at_most(options.scaled(KEYS), STORE_BYTES_MAX);
    [8, 4, 2, 1].map(|part| keys_max.div_ceil(part))
}

pub(super) fn plan(options: &Compare) -> Result<Vec<Experiment>, Failure> {
    let shape = options.shape();
    let experiment = |keys: u64| {
        let cases = setups(options)
            .map(|setup| Case::new(setup.label(), &Recovery { setup, shape, keys, checkpoints: true }));
        let parameters = [("keys", keys.into())];
        let cases = cases.collect::<Result<_, _>>()?;
        Ok(Experiment {
            metrics: &METRICS,
            ..Experiment::new("recovery", shape, &parameters, options.repetitions(), cases)
        })
    };
    sizes(options).into_iter().map(experiment).collect()
}

pub(super) fn report(options: &Compare, outcomes: &[Outcome], _: &mut Results) -> Section {
    let columns = ["engine", "keys", "data, MB", "recovery, ms", "MB/s", "disk, MB", "records replayed"];
    let mut table = Table::new(columns);
    let mut curves = Vec::new();
    for (at, setup) in setups(options).enumerate() {
        let label = setup.label();
        let mut points = Vec::new();
        for (keys, outcome) in sizes(options).into_iter().zip(outcomes) {
            let Some(runs) = outcome.runs.get(at) else { continue };
            let data_mb = (keys * options.shape().pair_len()) as f64 / 1e6;
            let recovery_ms = runs.median("recovery_ms");
            points.push((data_mb, recovery_ms));
            table.push([
                label.clone(),
                units::count(keys),
                units::number(data_mb),
                units::number(recovery_ms),
                units::number(data_mb / recovery_ms * 1e3),
                units::number(runs.median("disk_bytes") / 1e6),
                units::number(runs.median("recovered_records")),
            ]);
        }
        curves.push(Series::new(&label, points).styled(setup.subject as usize, false));
    }
    Section {
        title: "Recovery after a kill".to_owned(),
        method: format!(
            "Puts of new keys, pairs of {} + {} bytes, and a sync; then the process is killed (SIGKILL). Time of the \
             next open, with the files in the system's cache; median of {} kills. After each open, every key and \
             value is verified.",
            options.key_len,
            options.value_len,
            options.repetitions()
        ),
        table,
        figures: vec![Figure {
            title: "Recovery time over data size".to_owned(),
            x: "MB of keys and values".to_owned(),
            y: "ms".to_owned(),
            kind: Kind::Lines,
            series: curves,
        }],
    }
}
