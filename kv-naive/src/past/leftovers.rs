use kv_core::Lsn;
use kv_core::fs::Dir;
use std::io;

use super::Taken;
use crate::snapshot::kept_name;

/// Expired snapshots that could not be removed. The store tries them again more and more rarely.
#[derive(Debug)]
pub(crate) struct Leftovers {
    files: Vec<Taken>,
    /// LSNs of those that the file `POINTS` names, so that an opening does not take them for states
    /// of the window. They may be gone.
    listed: Vec<Lsn>,
    /// Removals since the last that succeeded.
    rounds: u64,
}

/// There is a trial of all files after at most so many rounds.
const PAUSE_MAX: u64 = 1024;

impl Leftovers {
    /// Of a store that was opened, whose `POINTS` names them.
    pub(crate) fn new(files: Vec<Taken>) -> Self {
        let listed = files.iter().map(|old| old.lsn).collect();
        Leftovers { files, listed, rounds: 0 }
    }

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

    /// Their LSNs.
    pub(crate) fn lsns(&self) -> Vec<Lsn> {
        self.files.iter().map(|old| old.lsn).collect()
    }

    /// Whether `POINTS` names them all.
    pub(crate) fn are_listed(&self) -> bool {
        self.files.iter().all(|old| self.listed.contains(&old.lsn))
    }

    /// Notes that `POINTS` names these now.
    pub(crate) fn set_listed(&mut self, listed: Vec<Lsn>) {
        self.listed = listed;
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
