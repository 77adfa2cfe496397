use kv_core::fs::DirExt;
use kv_core::parts::{Leading, PastState, Timeline};
use kv_core::{Error, Lsn, Moment, Past, RestorePlan, Result, Target, Value, Version, Window};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Kept;
use crate::files::Files;
use crate::snapshot::{self, SNAPSHOT, kept_name};
use crate::snapshotter::Snapshotter;
use crate::table::{Cut, Entry, Table};

/// Keys with their entries.
pub(super) type State = BTreeMap<Vec<u8>, Entry>;

/// The past as it can be reached at one moment. No snapshot is written or removed while it lives.
pub(super) struct View<'a> {
    files: &'a Files,
    kept: Kept,
    /// The newest state. It ends before the thread gives up its lead.
    cut: Cut<'a>,
    now_unix_ms: u64,
    leading: Leading<'a>,
}

impl<'a> View<'a> {
    /// Of the store with this snapshotter and table.
    pub(super) fn of(snapshotter: &'a Snapshotter, table: &'a Table) -> Result<Self> {
        let leading = snapshotter.lead()?;
        let files = snapshotter.files();
        let cut = table.begin_cut();
        // After the cut: its changes were made by then.
        let now_unix_ms = files.now_unix_ms();
        Ok(View { files, kept: files.kept(), cut, now_unix_ms, leading })
    }

    pub(super) fn window(&self) -> Window {
        self.kept.window(self.cut.position.lsn, self.now_unix_ms)
    }

    /// The LSNs and times of the states that can be reached.
    pub(super) fn moments(&self) -> Vec<(Lsn, u64)> {
        let (mut moments, newest) = (self.kept.moments(), self.cut.position.lsn);
        if newest > self.kept.newest.lsn {
            moments.push((newest, self.window().last_unix_ms));
        }
        moments
    }

    fn timeline(&self) -> Timeline {
        Timeline::of_moments(self.window(), self.moments())
    }

    pub(super) fn moment(&self, target: &Target) -> Result<Moment> {
        self.timeline().moment(target, &self.kept.points_at(self.now_unix_ms))
    }

    /// Whether only the table has the state at `lsn`.
    fn is_in_table_only(&self, lsn: Lsn) -> bool {
        lsn == self.cut.position.lsn && lsn > self.kept.newest.lsn
    }

    /// The cut, if only that has the state at `lsn`. And the lead.
    pub(super) fn into_cut(self, lsn: Lsn) -> (Option<Cut<'a>>, Leading<'a>) {
        let is_needed = self.is_in_table_only(lsn);
        let View { cut, leading, .. } = self;
        (is_needed.then_some(cut), leading)
    }

    /// The name of the snapshot at `lsn`.
    fn name(&self, lsn: Lsn) -> String {
        if lsn == self.kept.newest.lsn { SNAPSHOT.to_owned() } else { kept_name(lsn) }
    }

    /// Reads the snapshot at `lsn`.
    fn read(&self, lsn: Lsn, mut visit: impl FnMut(&[u8], Entry)) -> Result<()> {
        let (dir, name) = (self.files.dir(), self.name(lsn));
        let loaded = snapshot::read(&**dir, &name, |record| {
            visit(record.key, Entry { value: Arc::from(record.value), lsn: record.lsn });
            true
        })?;
        if (loaded.lsn, loaded.store_id) != (lsn, self.files.store_id()) {
            let fault = format!("this is not the snapshot of LSN {lsn} of this store");
            return Err(Error::corruption(&dir.path_of(&name), 0, fault));
        }
        Ok(())
    }

    /// The state at `lsn`, that of a moment.
    pub(super) fn state(self, lsn: Lsn) -> Result<State> {
        let mut state = State::new();
        if self.is_in_table_only(lsn) {
            let Ok(()) = self.cut.visit(|key, entry| {
                state.insert(key.to_vec(), entry.clone());
                Ok::<(), std::convert::Infallible>(())
            });
        } else {
            self.read(lsn, |key, entry| drop(state.insert(key.to_vec(), entry)))?;
        }
        Ok(state)
    }

    pub(super) fn read_at(self, target: &Target) -> Result<Past> {
        let moment = self.moment(target)?;
        let state = self.state(moment.lsn)?;
        let pairs = state.into_iter().map(|(key, entry)| (key, Value::from_owner(entry.value))).collect();
        Ok(Past { moment, engine: Arc::new(PastState::new(moment.lsn, pairs)) })
    }

    pub(super) fn plan(&self, target: &Target) -> Result<RestorePlan> {
        let moment = self.moment(target)?;
        let taken = self.kept.old.iter().chain([&self.kept.newest]).find(|taken| taken.lsn == moment.lsn);
        let (files, bytes) = taken.map_or((0, 0), |taken| (1, taken.bytes));
        Ok(RestorePlan { moment, files, bytes })
    }

    /// The versions of `key` that the moments show.
    pub(super) fn history(self, key: &[u8]) -> Result<Vec<Version>> {
        let mut versions: Vec<Version> = Vec::new();
        let mut before: Option<u64> = None;
        let mut see = |(lsn, unix_ms), found: Option<Entry>| {
            let now = found.as_ref().map(|entry| entry.lsn);
            if now == before {
                return;
            }
            before = now;
            let value = found.map(|entry| Value::from_owner(entry.value));
            versions.push(Version { lsn: now.map_or(lsn, Lsn::new), unix_ms, value });
        };
        for (lsn, unix_ms) in self.kept.moments() {
            let mut found = None;
            self.read(lsn, |one, entry| {
                if one == key {
                    found = Some(entry);
                }
            })?;
            see((lsn, unix_ms), found);
        }
        let newest = (self.cut.position.lsn, self.now_unix_ms);
        if self.is_in_table_only(newest.0) {
            let mut found = None;
            let Ok(()) = self.cut.visit(|one, entry| {
                if one == key {
                    found = Some(entry.clone());
                }
                Ok::<(), std::convert::Infallible>(())
            });
            see(newest, found);
        }
        Ok(versions)
    }
}
