use crate::Failure;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) experiment: String,
    pub(crate) engine: String,
    /// `name=value`, separated by spaces.
    pub(crate) parameters: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    /// Median of the repetitions.
    pub(crate) value: f64,
    pub(crate) repetitions: usize,
    /// Largest less smallest of the repetitions.
    pub(crate) spread: f64,
}

/// Everything that one evaluation measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) version: String,
    pub(crate) machine: String,
    pub(crate) seed: u64,
    pub(crate) rows: Vec<Row>,
}

impl Results {
    pub(crate) fn new(seed: u64) -> Self {
        Results { version: env!("CARGO_PKG_VERSION").to_owned(), machine: machine(), seed, rows: Vec::new() }
    }

    /// Adds the median of `values`; none at all is no measurement.
    pub(crate) fn add(
        &mut self,
        experiment: &str,
        engine: &str,
        parameters: &str,
        metric: (&str, &str),
        values: &[f64],
    ) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let Some(value) = median(&sorted) else { return };
        let spread = sorted.last().zip(sorted.first()).map_or(0.0, |(high, low)| high - low);
        self.rows.push(Row {
            experiment: experiment.to_owned(),
            engine: engine.to_owned(),
            parameters: parameters.to_owned(),
            metric: metric.0.to_owned(),
            unit: metric.1.to_owned(),
            value,
            repetitions: values.len(),
            spread,
        });
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        Ok(std::fs::write(path, serde_json::to_string_pretty(self)?)?)
    }
}

/// The middle of sorted values; of an even number, the mean of the two in the middle.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len().is_multiple_of(2) { f64::midpoint(*sorted.get(middle - 1)?, upper) } else { upper })
}

/// Processor, cores and memory of this machine.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split(':').nth(1).unwrap_or("unknown").trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{}, {cores} cores, {} memory",
        field(&read("/proc/cpuinfo"), "model name"),
        field(&read("/proc/meminfo"), "MemTotal")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_medians_and_come_back_from_json() {
        let mut results = Results::new(5);
        results.add("e", "log", "n=1", ("m", "ms"), &[3.0, 1.0, 2.0]);
        results.add("e", "log", "n=2", ("m", "ms"), &[1.0, 2.0]);
        results.add("e", "log", "n=3", ("m", "ms"), &[]);
        assert_eq!(results.rows.len(), 2);
        assert!((results.rows[0].value - 2.0).abs() < 1e-9 && (results.rows[0].spread - 2.0).abs() < 1e-9);
        assert!((results.rows[1].value - 1.5).abs() < 1e-9);
        let dir = tempfile::tempdir().unwrap();
        results.write(&dir.path().join("r.json")).unwrap();
        let text = std::fs::read_to_string(dir.path().join("r.json")).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }
}
