//! The rows of a command, and the experiments that measure them. Plain data.

use super::row::Row;
use crate::args::TargetOptions;
use crate::experiment::Experiment;

/// A command's rows and experiments.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The command's name, which is also that of its results.
    pub(crate) command: &'static str,
    /// In the order of the table.
    pub(crate) rows: Vec<Row>,
    pub(crate) experiments: Vec<Experiment>,
}

impl Plan {
    /// The rows that the options name, and the cases that they need. If the options name none,
    /// subjects without a row run too.
    pub(crate) fn narrowed(mut self, options: &TargetOptions) -> Self {
        self.rows.retain(|row| options.asks_for(&row.name));
        let metrics: Vec<_> = self.rows.iter().flat_map(Row::metrics).collect();
        self.experiments.retain_mut(|experiment| {
            let needed = |subject: &str| {
                metrics.iter().any(|metric| metric.experiment == experiment.name && metric.subject == subject)
            };
            if !options.only.is_empty() {
                experiment.cases.retain(|case| needed(&case.subject));
            }
            !experiment.cases.is_empty()
        });
        self
    }
}
