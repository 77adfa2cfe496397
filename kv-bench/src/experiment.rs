//! An experiment: several subjects do the same work. And its outcome.

use crate::failure::Failure;
use crate::load::Shape;
use crate::process::{Measured, Task};
use crate::report::results::{Parameters, Results, median};
use serde_json::Value;

/// Cases that take turns.
#[derive(Clone, Debug)]
pub(crate) struct Experiment {
    /// The experiment's name in the results.
    pub(crate) name: String,
    pub(crate) parameters: Parameters,
    pub(crate) cases: Vec<Case>,
    pub(crate) repetitions: usize,
    /// Bytes of memory that each run warms before it measures.
    pub(crate) warm_bytes: u64,
    /// The measured values that count, each with its name in the results. Empty: all, as they are.
    pub(crate) metrics: &'static [(&'static str, &'static str)],
}

impl Experiment {
    /// An experiment on cold memory, of which all values count. Its parameters are these, and the
    /// lengths of `shape`.
    pub(crate) fn new(
        name: impl Into<String>,
        shape: Shape,
        of: &[(&str, Value)],
        repetitions: usize,
        cases: Vec<Case>,
    ) -> Self {
        let lengths = [("key_len", shape.key_len.into()), ("value_len", shape.value_len.into())];
        let parameters = of.iter().chain(&lengths);
        let parameters = parameters.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Experiment { name: name.into(), parameters, cases, repetitions, warm_bytes: 0, metrics: &[] }
    }
}

/// One subject and its task.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The subject's name in the results.
    pub(crate) subject: String,
    /// The task's name.
    pub(crate) task: &'static str,
    /// The task's fields.
    pub(crate) input: Value,
}

impl Case {
    pub(crate) fn new<T: Task>(subject: impl Into<String>, task: &T) -> Result<Self, Failure> {
        Ok(Case { subject: subject.into(), task: T::NAME, input: serde_json::to_value(task)? })
    }
}

/// An experiment with the results of its runs.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) experiment: Experiment,
    /// For each case, its repetitions.
    pub(crate) runs: Vec<Runs>,
}

impl Outcome {
    /// Each case's subject, with its runs.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = (&str, &Runs)> {
        self.experiment.cases.iter().map(|case| case.subject.as_str()).zip(&self.runs)
    }

    /// Adds a row for each value to the results.
    pub(crate) fn record(&self, results: &mut Results) {
        for (subject, runs) in self.subjects() {
            let Experiment { name, parameters, .. } = &self.experiment;
            for metric in runs.names() {
                results.add_named(name, subject, parameters, metric, &runs.values(metric));
            }
        }
    }
}

/// The repetitions of a case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(pub(crate) Vec<Measured>);

impl Runs {
    /// The names of the values.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.first().into_iter().flat_map(|run| run.values.keys().map(String::as_str))
    }

    /// The values of a name, one a repetition.
    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.0.iter().filter_map(|run| run.get(name)).collect()
    }

    pub(crate) fn median(&self, name: &str) -> f64 {
        median(&self.values(name))
    }
}
