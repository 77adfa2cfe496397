use kv_core::parts::{Leading, PastState, Timeline};
use kv_core::{Lsn, Moment, Past, RestorePlan, Result, Target, Value, Version, Window};
use kv_wal_format::Record;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Kept;
use super::opened::{Opened, open_old};
use crate::snapshot::{SNAPSHOT, kept_name};
use crate::snapshotter::Snapshotter;
use crate::table::{Cut, Entry, Table};

/// Keys with their entries.
pub(super) type State = BTreeMap<Vec<u8>, Entry>;

/// The past as it can be reached at one moment. No snapshot is written or removed while it lives.
pub(super) struct View<'a> {
    snapshotter: &'a Snapshotter,
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
        Ok(View { snapshotter, kept: files.kept(), cut, now_unix_ms, leading })
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
        let is_point = matches!(target, Target::Point(_));
        let points = if is_point { self.snapshotter.files().points()? } else { Vec::new() };
        self.timeline().moment(target, &points)
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

    /// Opens the snapshot at `lsn`.
    fn open(&self, lsn: Lsn) -> Result<Opened> {
        let name = if lsn == self.kept.newest.lsn { SNAPSHOT } else { &kept_name(lsn) };
        Opened::open(self.snapshotter.files(), name, lsn)
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
            let snapshot = self.open(lsn)?;
            // Dumps go on while it is read.
            drop(self);
            snapshot.visit(|record| drop(state.insert(record.key.to_vec(), entry_of(record))))?;
        }
        Ok(state)
    }

    pub(super) fn read_at(self, target: &Target) -> Result<Past> {
        let moment = self.moment(target)?;
        let state = self.state(moment.lsn)?;
        let pairs: HashMap<Vec<u8>, Value> =
            state.into_iter().map(|(key, entry)| (key, Value::from_owner(entry.value))).collect();
        Ok(Past { moment, engine: Arc::new(PastState::new(moment.lsn, pairs)) })
    }

    pub(super) fn plan(&self, target: &Target) -> Result<RestorePlan> {
        let moment = self.moment(target)?;
        let taken = self.kept.old.iter().chain([&self.kept.newest]).find(|taken| taken.lsn == moment.lsn);
        let (files, bytes) = taken.map_or((0, 0), |taken| (1, taken.bytes));
        Ok(RestorePlan { moment, files, bytes })
    }

    /// The versions of `key` that the moments show. Those that expire meanwhile need not count.
    pub(super) fn history(self, key: &[u8]) -> Result<Vec<Version>> {
        let mut seen = Seen::default();
        let newest = self.open(self.kept.newest.lsn)?;
        let is_in_table = self.is_in_table_only(self.cut.position.lsn);
        let View { snapshotter, kept, cut, now_unix_ms, leading } = self;
        let position = cut.position;
        if is_in_table {
            let mut found = None;
            let Ok(()) = cut.visit(|one, entry| {
                if one == key {
                    found = Some(entry.clone());
                }
                Ok::<(), std::convert::Infallible>(())
            });
            seen.add(position.lsn, now_unix_ms, found);
        } else {
            drop(cut);
        }
        // Dumps go on while the snapshots are read.
        drop(leading);
        seen.add(kept.newest.lsn, kept.newest.unix_ms, find(&newest, key)?);
        drop(newest);
        // The oldest expire first. So no gap arises before a state that was read.
        for old in kept.old.iter().rev() {
            if let Some(snapshot) = open_old(snapshotter, old.lsn)? {
                seen.add(old.lsn, old.unix_ms, find(&snapshot, key)?);
            }
        }
        Ok(seen.into_versions())
    }
}

fn entry_of(record: &Record<'_>) -> Entry {
    Entry { value: Arc::from(record.value), lsn: record.lsn }
}

/// The entry of `key` in a snapshot.
fn find(snapshot: &Opened, key: &[u8]) -> Result<Option<Entry>> {
    let mut found = None;
    snapshot.visit(|record| {
        if record.key == key {
            found = Some(entry_of(record));
        }
    })?;
    Ok(found)
}

/// The versions of a key that the moments show, the latest first: the first moment with each one.
#[derive(Default)]
struct Seen(Vec<(Lsn, u64, Option<Entry>)>);

impl Seen {
    /// Adds a moment that is older than the others, with the entry that it has.
    fn add(&mut self, lsn: Lsn, unix_ms: u64, found: Option<Entry>) {
        let version = |found: &Option<Entry>| found.as_ref().map(|entry| entry.lsn);
        self.0.pop_if(|(_, _, later)| version(later) == version(&found));
        self.0.push((lsn, unix_ms, found));
    }

    fn into_versions(mut self) -> Vec<Version> {
        // A key that is not there yet has no version.
        self.0.pop_if(|(_, _, oldest)| oldest.is_none());
        let version = |(lsn, unix_ms, found): (Lsn, u64, Option<Entry>)| {
            let lsn = found.as_ref().map_or(lsn, |entry| Lsn::new(entry.lsn));
            Version { lsn, unix_ms, value: found.map(|entry| Value::from_owner(entry.value)) }
        };
        self.0.into_iter().rev().map(version).collect()
    }
}
