//! The next open after a kill.

use crate::dataset::Shape;
use crate::engines::Contender;
use crate::experiments::recovery;
use crate::failure::Failure;
use crate::worker::Measured;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What one run does: opens what `FillUntilKilled` left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) contender: Contender,
    pub(crate) shape: Shape,
    pub(crate) keys: u64,
}

/// Records a second that are as good as a gigabyte a second.
const RECORDS_PER_S: f64 = 2e6;
const BYTES_PER_S: f64 = 1e9;

pub(crate) fn measure(dir: &Path, job: Recovery) -> Result<Measured, Failure> {
    let mut measured = recovery::measure(dir, job.contender, job.shape, job.keys)?;
    let of = |name: &str| measured.get(name).unwrap_or(f64::NAN);
    let seconds = of("recovery_ms") / 1e3;
    let (records, bytes) = (of("recovered_records") / seconds, of("recovered_bytes") / seconds);
    measured.add("recovered_records_per_s", records);
    measured.add("recovered_bytes_per_s", bytes);
    measured.add("recovery_pace", (records / RECORDS_PER_S).max(bytes / BYTES_PER_S));
    Ok(measured)
}
