//! The experiments of `kv-bench moments`. Plain data.

use super::names;
use crate::args::TargetOptions;
use crate::experiment::{Case, Experiment};
use crate::failure::Failure;
use crate::load::Shape;
use crate::process::Task;
use crate::tasks::backup::Backup;
use crate::tasks::read_at::ReadAt;
use crate::tasks::repair::Repair;
use crate::tasks::restore::Restore;
use crate::tasks::retention::Retention;
use crate::tasks::verify::Verify;

/// Length of all keys, bytes.
const KEY_LEN: usize = 24;
/// Memory to warm for each byte of data: for the store and the cached files.
const WARM_PER_DATA: u64 = 4;
/// The window of the overwrites.
const WINDOW_S: u64 = 3600;
/// Large stores have so many times the keys that the options name: 1 GB by default.
pub(super) const LARGE: u64 = 2;

/// Every experiment.
pub(super) fn experiments(options: &TargetOptions) -> Result<Vec<Experiment>, Failure> {
    let keys = options.keys();
    let shape = |value_len| Shape { key_len: KEY_LEN, value_len, seed: options.run.seed };
    let experiment = |name: &str, shape: Shape, keys: u64, cases: Vec<Case>| {
        let parameters = [("keys", keys.into())];
        let experiment = Experiment::new(name, shape, &parameters, options.repetitions(), cases);
        Experiment { warm_bytes: WARM_PER_DATA * keys * shape.pair_len(), ..experiment }
    };
    let (short, long, more) = (shape(100), shape(500), LARGE * keys);
    let kept = |name, window_s| Case::new(name, &Retention { shape: short, keys, window_s });
    let kept = vec![kept(names::WITH_WINDOW, Some(WINDOW_S))?, kept(names::LOG, None)?];
    Ok(vec![
        experiment(names::RETENTION, short, keys, kept),
        experiment(names::RESTORE, long, keys, log(&Restore { shape: long, keys })?),
        experiment(names::READ_AT, short, keys, log(&ReadAt { shape: short, keys })?),
        experiment(names::BACKUP, long, keys, log(&Backup { shape: long, keys })?),
        experiment(names::VERIFY, long, more, log(&Verify { shape: long, keys: more })?),
        experiment(names::REPAIR, long, more, log(&Repair { shape: long, keys: more })?),
    ])
}

/// The log engine alone. The others have no past states.
fn log(task: &impl Task) -> Result<Vec<Case>, Failure> {
    Ok(vec![Case::new(names::LOG, task)?])
}

#[cfg(test)]
mod tests {
    use crate::args::tests::target_options;

    #[test]
    fn every_row_is_run_for() {
        let plan = crate::moments::plan(&target_options(&["moments"])).unwrap();
        for metric in plan.rows.iter().flat_map(|row| row.metrics()) {
            let mut experiments = plan.experiments.iter();
            let is_run = experiments.any(|experiment| {
                experiment.name == metric.experiment
                    && experiment.cases.iter().any(|case| case.subject == metric.subject)
            });
            assert!(is_run, "{metric:?}");
        }
    }
}
