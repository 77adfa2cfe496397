//! Dumps: when the policy asks for one, how records reach the file, and when the engine compacts
//! the file.

use super::Defect;
use super::log;
use super::place::FILE;
use super::state::{Shared, State, live_bytes};
use kv_core::fs::{DirExt, FileExt};
use kv_core::{Action, Error, Op, Result, Scale};
use std::io::{self, ErrorKind};

/// The engine compacts a file that is longer than this, bytes, and twice as long as its data.
const TINY_FILE_LEN: u64 = 2048;
const FILE_LEN: u64 = 16 << 20;

impl Shared {
    /// Writes the unwritten records and, if `action` says so, syncs. A failure poisons.
    pub(super) fn dump(&self, state: &mut State, action: Action) -> Result<()> {
        let goes_on = |error: &Error| match error {
            Error::DiskFull { .. } => self.has(Defect::FullDiskIgnored) || self.has(Defect::FullDiskTakesLsn),
            error => self.has(Defect::FewDescriptorsIgnored) && error.is_out_of_files(),
        };
        match self.try_dump(state, action) {
            Err(Error::DiskFull { op, path, source })
                if self.has(Defect::FileTooLargeIsIo) && source.kind() == ErrorKind::FileTooLarge =>
            {
                Err(self.health.poison(Error::Io { op, path, source }))
            }
            Err(error) if goes_on(&error) || self.has(Defect::Retries) => Err(error),
            result => result.map_err(|error| self.health.poison(error)),
        }
    }

    /// Dumps the pending changes, and compacts: a file of one record is a closed one.
    pub(super) fn dump_for_good(&self, state: &mut State) -> Result<()> {
        if state.pending.records > 0 {
            self.dump(state, Action::WriteAndSync)?;
        }
        self.compact(state).map_err(|error| self.health.poison(error))
    }

    fn try_dump(&self, state: &mut State, action: Action) -> Result<()> {
        let path = self.place.dir.path_of(FILE);
        if self.has(Defect::DurableBeforeWrite) {
            state.durable = state.content.last;
        }
        let is_written = state.unwritten.is_empty();
        if !is_written {
            // Grow the reserve first: then a disk that fills up refuses the records, and not the
            // way out.
            let whole = log::file_len(&state.content.map, &state.content.past);
            self.place.hold_reserve(whole);
            match self.write(state).map_err(|error| Error::io(Op::Write, &path, error)) {
                // Without the window, a new file is shorter.
                Err(Error::DiskFull { .. }) if self.place.reserve.is_some() && self.give_up_past(state) => {
                    return self.compact(state);
                }
                // The data did not grow, so a new file fits into the reserve.
                Err(Error::DiskFull { .. }) if self.place.reserve.is_some() && whole <= state.dumped_len => {
                    return self.compact(state);
                }
                written => written?,
            }
            state.dumped_len = whole;
            state.dumps += 1;
            state.bytes_written += state.unwritten.len() as u64;
            state.len += state.unwritten.len() as u64;
            state.unwritten.clear();
        }
        if action == Action::WriteAndSync || !self.has(Defect::WriteIsNoDump) {
            state.dumped = self.place.env.clock.monotonic();
        }
        if action != Action::WriteAndSync {
            self.written(state);
            return Ok(());
        }
        let is_swallowed =
            self.has(Defect::SwallowsSyncError) || is_written && self.has(Defect::FailureAfterWriteIgnored);
        if !self.has(Defect::NoFileSync) {
            let synced = state.file.sync_data().map_err(|error| Error::sync(&path, error));
            if !is_swallowed {
                synced?;
            }
        }
        state.syncs += 1;
        // In a removed directory nothing is durable.
        self.place.check_lock()?;
        state.durable = state.content.last;
        self.count_anew(state);
        self.compact_if_worth_it(state)
    }

    fn write(&self, state: &State) -> io::Result<()> {
        if self.has(Defect::ShortWriteIgnored) {
            return state.file.write_at(&state.unwritten, state.len).map(drop);
        }
        match state.file.write_all_at(&state.unwritten, state.len) {
            Err(error) if self.has(Defect::TrustsAllocation) && error.kind() == ErrorKind::StorageFull => {
                Ok(())
            }
            written => written,
        }
    }

    fn compact_if_worth_it(&self, state: &mut State) -> Result<()> {
        let longest = match self.options.scale {
            Scale::Tiny => TINY_FILE_LEN,
            Scale::Normal => FILE_LEN,
        };
        if self.has(Defect::NeverCompacts)
            || state.len <= longest
            || state.len <= 2 * (live_bytes(&state.content.map) + state.content.past.bytes())
        {
            return Ok(());
        }
        self.compact(state)
    }

    /// Replaces the file by one with a single record: the whole map.
    pub(super) fn compact(&self, state: &mut State) -> Result<()> {
        let whole = std::mem::take(&mut state.content.map);
        if self.has(Defect::CompactionLosesKey) || self.has(Defect::CheckpointLosesKey) {
            state.content.map = whole.clone();
            state.content.map.pop_last();
        } else if self.has(Defect::CompactionResurrects) || self.has(Defect::CheckpointResurrects) {
            state.content.map = state.opened.clone();
            state.content.map.extend(whole.clone());
        } else if self.has(Defect::CompactionReverts) {
            let was = |key: &Vec<u8>| state.opened.get(key).cloned();
            state.content.map = whole
                .iter()
                .map(|(key, now)| (key.clone(), was(key).unwrap_or_else(|| now.clone())))
                .collect();
        } else {
            state.content.map.clone_from(&whole);
        }
        state.content.durable = state.durable;
        let replaced = self.place.replace(&state.content);
        state.content.map = whole;
        let (file, len) = replaced?;
        let old = std::mem::replace(&mut state.file, file.into());
        if self.has(Defect::LeaksHandles) {
            std::mem::forget(old);
        }
        state.len = len;
        state.dumps = if self.has(Defect::DumpsResetByCompaction) { 0 } else { state.dumps + 1 };
        state.syncs += 1;
        state.bytes_written += len;
        (state.dumped_len, state.durable) = (state.len, state.content.last);
        state.unwritten.clear();
        self.count_anew(state);
        if self.has(Defect::UnlinksAgain) {
            state.leftovers.push(format!("old.{}", state.leftovers.len()));
        }
        Ok(())
    }

    pub(super) fn remove_leftovers(&self, state: &mut State) {
        let is_refused = |error: io::Error| error.kind() == ErrorKind::PermissionDenied;
        state.leftovers.retain(|name| self.place.dir.remove_file(name).is_err_and(is_refused));
    }
}
