use kv_core::fs::Dir;
use std::io;

use super::Taken;
use crate::snapshot::kept_name;

/// Snapshots that expired, and that could not be removed. They are tried again more and more
/// rarely.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    files: Vec<Taken>,
    /// Removals since the last that succeeded.
    rounds: u64,
}

/// There is a trial of all files after at most so many rounds.
const PAUSE_MAX: u64 = 1024;

impl Leftovers {
    /// Removes the files of `expired`, and tries earlier ones again if it is time. Returns whether
    /// any went.
    pub(crate) fn remove(&mut self, dir: &dyn Dir, mut expired: Vec<Taken>) -> bool {
        self.rounds += 1;
        if self.rounds.is_power_of_two() || self.rounds.is_multiple_of(PAUSE_MAX) {
            expired.append(&mut self.files);
        }
        let tried = expired.len();
        expired.retain(|old| {
            let removed = dir.remove_file(&kept_name(old.lsn));
            removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        let is_any_gone = expired.len() < tried;
        if is_any_gone {
            self.rounds = 0;
        }
        self.files.append(&mut expired);
        is_any_gone
    }

    /// How many files there are.
    pub(crate) fn count(&self) -> u64 {
        self.files.len() as u64
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|old| old.bytes).sum()
    }
}
