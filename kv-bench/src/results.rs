//! `results.json`: one flat row a measurement, and what they all have in common.

use crate::failure::Failure;
use crate::machine::Machine;
use crate::worker::Measured;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Everything that one evaluation measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) header: Header,
    pub(crate) rows: Vec<Row>,
}

/// How, where and when it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: String,
    /// Unoptimized builds measure nothing of interest.
    pub(crate) optimized: bool,
    pub(crate) machine: Machine,
    pub(crate) seed: u64,
    pub(crate) quick: bool,
    pub(crate) repetitions: usize,
    /// Milliseconds since the Unix epoch.
    pub(crate) begun_unix_time_ms: u64,
    pub(crate) duration_s: f64,
    /// Of each experiment.
    pub(crate) experiment_s: BTreeMap<String, f64>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) experiment: String,
    /// Engine and policy.
    pub(crate) engine: String,
    pub(crate) parameters: Parameters,
    pub(crate) metric: String,
    /// Empty for counts.
    pub(crate) unit: String,
    /// Median of the repetitions.
    pub(crate) value: f64,
    /// Smallest of them.
    pub(crate) min: f64,
    /// Largest of them.
    pub(crate) max: f64,
    pub(crate) repetitions: usize,
}

/// What a measurement depends on, by name.
pub(crate) type Parameters = BTreeMap<String, Value>;

/// Parameters from names and values.
pub(crate) fn parameters(of: &[(&str, Value)]) -> Parameters {
    of.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

impl Header {
    /// Of measurements that begin now, with stores in `dir`.
    pub(crate) fn new(seed: u64, quick: bool, repetitions: usize, dir: &Path) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Header {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            optimized: !cfg!(debug_assertions),
            machine: Machine::this(dir),
            seed,
            quick,
            repetitions,
            begun_unix_time_ms: u64::try_from(now.as_millis()).unwrap_or_default(),
            duration_s: 0.0,
            experiment_s: BTreeMap::new(),
        }
    }
}

impl Results {
    pub(crate) fn new(header: Header) -> Self {
        Results { header, rows: Vec::new() }
    }

    /// Adds a row for `values`, and returns their median. No values, no row.
    pub(crate) fn add(
        &mut self,
        experiment: &str,
        engine: &str,
        parameters: &Parameters,
        metric: &str,
        unit: &str,
        values: &[f64],
    ) -> f64 {
        let value = median(values);
        if value.is_finite() {
            self.rows.push(Row {
                experiment: experiment.to_owned(),
                engine: engine.to_owned(),
                parameters: parameters.clone(),
                metric: metric.to_owned(),
                unit: unit.to_owned(),
                value,
                min: values.iter().copied().fold(f64::INFINITY, f64::min),
                max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                repetitions: values.len(),
            });
        }
        value
    }

    /// Adds a row for each value that runs measured; the unit is what its name ends with.
    pub(crate) fn add_all(
        &mut self,
        experiment: &str,
        engine: &str,
        parameters: &Parameters,
        runs: &[Measured],
    ) {
        for metric in runs.first().iter().flat_map(|run| run.values.keys()) {
            let values: Vec<f64> = runs.iter().filter_map(|run| run.get(metric)).collect();
            self.add(experiment, engine, parameters, metric, unit_of(metric), &values);
        }
    }

    pub(crate) fn to_json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

fn unit_of(metric: &str) -> &'static str {
    match metric.rsplit('_').next() {
        Some("us") => "us",
        Some("ms") => "ms",
        Some("bytes") => "B",
        Some("s") => "1/s",
        _ => "",
    }
}

/// The middle of the values; of an even number, the mean of the two in the middle; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Results with a few rows.
    pub(crate) fn sample() -> Results {
        let mut results = Results::new(Header::new(1, false, 3, Path::new("/")));
        let one = parameters(&[("keys", 1.into()), ("hit_rate", 0.5.into()), ("name", "a < b".into())]);
        results.add("recovery", "log", &one, "recovery_ms", "ms", &[3.0, 1.0, 2.0]);
        results.add("recovery", "naive", &one, "recovery_ms", "ms", &[1.0, 2.0]);
        results.add("recovery", "none", &one, "recovery_ms", "ms", &[]);
        results
    }

    fn same(values: &[f64], expected: &[f64]) -> bool {
        values.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-9)
    }

    #[test]
    fn rows_hold_medians_and_come_back_from_json() {
        let results = sample();
        assert_eq!(results.rows.len(), 2);
        let row = &results.rows[0];
        assert!(same(&[row.value, row.min, row.max], &[2.0, 1.0, 3.0]));
        assert!(same(&[results.rows[1].value], &[1.5]));
        let json = results.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Results>(&json).unwrap(), results);
        let plain: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(plain["rows"][0]["parameters"]["keys"], 1);
        assert_eq!(plain["header"]["seed"], 1);
        assert!(plain["header"]["machine"]["cores"].as_u64().unwrap() > 0);
    }

    #[test]
    fn all_values_of_runs_become_rows_with_units() {
        let mut results = sample();
        let mut run = Measured::default();
        for name in ["get_p99_us", "close_ms", "disk_bytes", "put_per_s", "syncs"] {
            run.add(name, 1.0);
        }
        results.rows.clear();
        results.add_all("e", "log", &Parameters::new(), &[run.clone(), run]);
        let units: Vec<_> = results.rows.iter().map(|row| (row.metric.as_str(), row.unit.as_str())).collect();
        let expected = [
            ("close_ms", "ms"),
            ("disk_bytes", "B"),
            ("get_p99_us", "us"),
            ("put_per_s", "1/s"),
            ("syncs", ""),
        ];
        assert_eq!(units, expected);
        assert!(results.rows.iter().all(|row| row.repetitions == 2));
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert!(same(&[median(&[4.0]), median(&[9.0, 1.0]), median(&[9.0, 1.0, 2.0])], &[4.0, 5.0, 2.0]));
    }
}
