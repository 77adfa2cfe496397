//! `results.json`: one flat row for each measurement, under a common header.

use super::machine::Machine;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// All measurements of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) header: Header,
    pub(crate) rows: Vec<Row>,
}

/// The machine, time and settings of the measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) version: String,
    /// The figures of an unoptimized build mean nothing.
    pub(crate) optimized: bool,
    pub(crate) machine: Machine,
    pub(crate) seed: u64,
    pub(crate) quick: bool,
    pub(crate) repetitions: usize,
    /// Milliseconds since the Unix epoch.
    pub(crate) begun_unix_time_ms: u64,
    pub(crate) duration_s: f64,
    /// Duration of each experiment.
    pub(crate) experiment_s: BTreeMap<String, f64>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) experiment: String,
    /// The subject's name: often engine and policy.
    pub(crate) engine: String,
    pub(crate) parameters: Parameters,
    pub(crate) metric: String,
    /// Empty for counts.
    pub(crate) unit: String,
    /// Median of the repetitions.
    pub(crate) value: f64,
    /// Smallest of the repetitions.
    pub(crate) min: f64,
    /// Largest of the repetitions.
    pub(crate) max: f64,
    pub(crate) repetitions: usize,
}

/// The parameters of a measurement, by name.
pub(crate) type Parameters = BTreeMap<String, Value>;

impl Header {
    /// The header of measurements that begin now, with stores in `dir`.
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

    /// Adds a row for `values`, unless there are none; returns their median.
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

    /// The same for a metric whose name ends with the unit.
    pub(crate) fn add_named(
        &mut self,
        experiment: &str,
        engine: &str,
        parameters: &Parameters,
        metric: &str,
        values: &[f64],
    ) -> f64 {
        self.add(experiment, engine, parameters, metric, unit_of(metric), values)
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
        Some("rate") => "%",
        _ => "",
    }
}

/// The middle value; of an even number of values, the mean of the middle two; NaN of none.
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
        let one = [("keys", 1.into()), ("hit_rate", 0.5.into()), ("name", "a < b".into())];
        let one = one.map(|(name, value): (&str, Value)| (name.to_owned(), value)).into();
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
    fn names_end_with_the_unit() {
        for (metric, unit) in [
            ("close_ms", "ms"),
            ("disk_bytes", "B"),
            ("get_p99_us", "us"),
            ("put_per_s", "1/s"),
            ("error_rate", "%"),
            ("syncs", ""),
        ] {
            assert_eq!(unit_of(metric), unit);
        }
    }

    #[test]
    fn medians() {
        assert!(median(&[]).is_nan());
        assert!(same(&[median(&[4.0]), median(&[9.0, 1.0]), median(&[9.0, 1.0, 2.0])], &[4.0, 5.0, 2.0]));
    }
}
