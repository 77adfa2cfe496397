//! Resident memory at three moments: after a fill, during overwrites at full speed, and at rest
//! afterwards. The disk counts at rest.

use super::overwrites::Overwrites;
use crate::failure::Failure;
use crate::load::{Dataset, Shape};
use crate::process::probe::directory_bytes;
use crate::process::resident::{resident_bytes, settled_bytes, with_peak};
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, SubjectName};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A fill, overwrites, and rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) subject: SubjectName,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
    /// Time of the overwrites, milliseconds.
    pub(crate) overwrite_ms: u64,
    /// Time between the last overwrite and the measurement at rest, milliseconds. Only stores with
    /// files need it.
    pub(crate) rest_ms: u64,
}

/// The constants that the targets allow beside a multiple of the live data.
const AT_REST: f64 = (2 << 20) as f64;
const AT_WORK: f64 = (16 << 20) as f64;
/// The fill settles in this part of the rest.
const REST_PER_SETTLE: u64 = 5;

impl Task for Memory {
    const NAME: &'static str = "memory";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let Memory { subject, shape, keys, overwrite_ms, rest_ms } = self;
        let data = Dataset::new(shape);
        let mut measured = Measured::default();
        let live = (keys * shape.pair_len()) as f64;
        let before = resident_bytes()?;
        let rest_ms = if subject.is_durable() { rest_ms } else { 0 };
        let at_rest = |ms: u64| {
            std::thread::sleep(Duration::from_millis(ms));
            Ok::<_, Failure>(if ms > 0 { settled_bytes()? } else { resident_bytes()? } - before)
        };
        let subject = subject.under(Policy::Default).open(&run.dir)?;
        data.fill(0..keys, |_, key, value| subject.put(key, value))?;
        let filled = at_rest(rest_ms / REST_PER_SETTLE)?;
        let mut overwrites = Overwrites::new(&*subject, &data, keys, shape.seed);
        let (rate, peak) = with_peak(|| overwrites.run_for(Duration::from_millis(overwrite_ms)))?;
        measured.add("overwrite_per_s", rate);
        let overwritten = at_rest(rest_ms)?;
        let disk = directory_bytes(&run.dir)?;
        for (name, bytes, constant) in [
            ("filled", filled, AT_REST),
            ("overwritten", overwritten, AT_REST),
            ("peak", peak - before, AT_WORK),
        ] {
            measured.add(format!("{name}_bytes"), bytes);
            measured.add(format!("{name}_per_live"), bytes / live);
            measured.add(format!("{name}_less_constant_per_live"), (bytes - constant) / live);
        }
        measured.add("disk_bytes", disk);
        measured.add("disk_per_live", disk / live);
        // The ground truth takes memory, so it comes after the last measurement.
        overwrites.truth().verify(&*subject, &data)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_small_run_of_each() {
        let shape = Shape { key_len: 24, value_len: 100, seed: 1 };
        for subject in [SubjectName::Log, SubjectName::Dashmap] {
            let task = Memory { subject, shape, keys: 20_000, overwrite_ms: 50, rest_ms: 50 };
            let measured = measured(&task);
            let of = |name: &str| measured.get(name).unwrap();
            let constant = (of("peak_bytes") - of("peak_less_constant_per_live") * 20_000.0 * 124.0).round();
            assert!((constant - AT_WORK).abs() < 1.0, "{constant}");
            assert!(of("peak_bytes") >= of("filled_bytes") && of("overwrite_per_s") > 0.0);
            assert_eq!(of("disk_bytes") > 0.0, subject.is_durable());
        }
    }
}
