//! Latency of single puts while a store is filled.

use crate::failure::Failure;
use crate::load::{Dataset, Shape, Truth};
use crate::process::probe::{histogram, nanoseconds};
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, SubjectName};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// One thread puts new keys, with a clock around each put.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FillLatency {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

impl Task for FillLatency {
    const NAME: &'static str = "fill latency";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let FillLatency { subject, shape, keys } = self;
        let data = Dataset::new(shape);
        let subject = subject.under(Policy::Default).open(&run.dir)?;
        let mut puts = histogram();
        data.fill(0..keys, |_, key, value| {
            let start = Instant::now();
            subject.put(key, value)?;
            puts.saturating_record(nanoseconds(start));
            Ok::<_, Failure>(())
        })?;
        let mut measured = Measured::default();
        measured.add_tail("put", &puts);
        measured.add("put_max_ms", puts.max() as f64 / 1e6);
        Truth::filled(keys).verify(&*subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        for subject in [SubjectName::Log, SubjectName::Dashmap] {
            let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
            let measured = measured(&FillLatency { subject, shape, keys: 2000 });
            let of = |name: &str| measured.get(name).unwrap();
            assert!(of("put_p50_us") <= of("put_p999_us") && of("put_p9999_us") <= of("put_max_us"));
            assert!((of("put_max_us") - of("put_max_ms") * 1e3).abs() <= of("put_max_us") / 100.0);
        }
    }
}
