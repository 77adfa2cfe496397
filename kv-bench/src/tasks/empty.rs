//! An open, empty store: its memory and its files.

use crate::failure::Failure;
use crate::process::probe::directory_bytes;
use crate::process::resident::{resident_bytes, settled_bytes};
use crate::process::{Measured, Run, Task};
use crate::subjects::{Policy, SubjectName};
use serde::{Deserialize, Serialize};

/// Opens the log engine and waits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Empty {}

impl Task for Empty {
    const NAME: &'static str = "empty";

    fn measure(self, run: &Run) -> Result<Measured, Failure> {
        let before = resident_bytes()?;
        let subject = SubjectName::Log.under(Policy::Default).open(&run.dir)?;
        let grown = settled_bytes()? - before;
        let disk = directory_bytes(&run.dir)?;
        if subject.count()? != 0 {
            return Err(Failure::Wrong("a new store holds keys".to_owned()));
        }
        let mut measured = Measured::default();
        measured.add("memory_mib", grown / f64::from(1 << 20));
        measured.add("disk_kib", disk / f64::from(1 << 10));
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::measured;
    use super::*;

    #[test]
    fn a_run() {
        let measured = measured(&Empty {});
        assert!(measured.get("memory_mib").is_some() && measured.get("disk_kib").unwrap() > 0.0);
    }
}
