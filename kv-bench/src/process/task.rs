//! The input and the output of a child process.

use crate::failure::Failure;
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A measurement that a child process can carry out.
pub(crate) trait Task: Serialize + DeserializeOwned {
    /// The name by which the parent asks for it.
    const NAME: &'static str;

    /// Carries it out, with files in the run's directory. A task that waits to be killed does not
    /// return.
    fn measure(self, run: &Run) -> Result<Measured, Failure>;
}

/// One run of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The task's name.
    pub(crate) task: String,
    /// The task's fields.
    pub(crate) input: Value,
    /// An existing directory for the run's files.
    pub(crate) dir: PathBuf,
    /// The number of the repetition, from 0.
    pub(crate) repetition: u64,
    /// Bytes of memory that the child takes and returns before it measures.
    pub(crate) warm_bytes: u64,
}

impl Run {
    /// Another task with this run's directory.
    pub(crate) fn with<T: Task>(&self, task: &T) -> Result<Self, Failure> {
        Ok(Run {
            task: T::NAME.to_owned(),
            input: serde_json::to_value(task)?,
            warm_bytes: 0,
            ..self.clone()
        })
    }
}

/// The results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Values by name; the name ends with the unit.
    pub(crate) values: BTreeMap<String, f64>,
    /// Samples along the run.
    pub(crate) samples: Vec<Sample>,
}

/// One moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Commands done so far.
    pub(crate) commands: f64,
    /// Commands a second since the last sample.
    pub(crate) throughput_per_s: f64,
    /// Memory that the subject added to the process.
    pub(crate) memory_bytes: f64,
}

impl Measured {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64) {
        self.values.insert(name.into(), value);
    }

    /// Adds quantiles of a histogram of nanoseconds, as `<operation>_<quantile>_us`. An empty
    /// histogram adds none.
    pub(crate) fn add_quantiles(
        &mut self,
        operation: &str,
        histogram: &Histogram<u64>,
        quantiles: &[(&str, f64)],
    ) {
        for (name, quantile) in quantiles.iter().filter(|_| !histogram.is_empty()) {
            let ns = histogram.value_at_quantile(*quantile);
            self.add(format!("{operation}_{name}_us"), ns as f64 / 1e3);
        }
    }

    /// Adds the median, the tail and the longest of a histogram of nanoseconds, as
    /// [`add_quantiles`](Self::add_quantiles).
    pub(crate) fn add_tail(&mut self, operation: &str, histogram: &Histogram<u64>) {
        let tail = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999), ("max", 1.0)];
        self.add_quantiles(operation, histogram, &tail);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}
