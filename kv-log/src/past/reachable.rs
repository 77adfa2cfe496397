//! The past as it can be reached at one moment.

use kv_core::fs::FsExt;
use kv_core::parts::refuse_unless_empty;
use kv_core::parts::{PastState, Timeline};
use kv_core::{
    BackupReport, Env, Lsn, Moment, Past, Point, RestorePlan, Result, Rounding, Target, Value, Version,
    Window,
};
use std::path::Path;
use std::sync::Arc;

use super::backup::write_backup;
use super::restore::write_store;
use super::state::State;
use crate::manifest::{Archive, Held, PastFile, PastFiles};
use crate::progress::{OnProgress, Work, silently};

/// A restored store has about so many segments, if they are small.
const SEGMENTS: u64 = 8;

/// Segments of a restored store are at least and at most about this long, bytes.
const SEGMENT_BYTES_LEAST: u64 = 4096;
const SEGMENT_BYTES_MOST: u64 = 16 << 20;

/// The files of a store, and its window.
#[derive(Debug)]
pub(super) struct Reachable {
    env: Env,
    files: PastFiles,
    window: Window,
    /// Keeps the files of an open store.
    _held: Option<Held>,
}

/// The window of a store whose newest change has the LSN `last_lsn`.
pub(super) fn window_of(archive: &Archive, last_lsn: Lsn, now_unix_ms: u64) -> Window {
    let Archive { first_lsn, first_unix_ms, .. } = *archive;
    // The clock may have been set back.
    let last_unix_ms = now_unix_ms.max(first_unix_ms);
    Window { first_lsn, last_lsn: last_lsn.max(first_lsn), first_unix_ms, last_unix_ms }
}

/// The points of `archive` that have not expired.
pub(super) fn points_of(archive: &Archive, now_unix_ms: u64) -> Vec<Point> {
    archive.points.iter().filter(|point| !point.is_expired(now_unix_ms)).cloned().collect()
}

impl Reachable {
    /// The past in `files`, which hold every change up to `last_lsn`.
    pub(super) fn new(
        env: &Env,
        files: PastFiles,
        held: Option<Held>,
        last_lsn: Lsn,
        now_unix_ms: u64,
    ) -> Self {
        let window = window_of(&files.manifest.archive, last_lsn, now_unix_ms);
        Reachable { env: env.clone(), files, window, _held: held }
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    fn timeline(&self) -> Timeline {
        Timeline::new(self.window, self.files.marks(self.env.background))
    }

    pub(super) fn moment(&self, target: &Target) -> Result<Moment> {
        self.timeline().moment(target, &points_of(&self.files.manifest.archive, self.window.last_unix_ms))
    }

    pub(super) fn read_at(&self, target: &Target) -> Result<Past> {
        let moment = self.moment(target)?;
        let work = Work::new(self.env.background, self.files.dir.path(), 0, &silently);
        let state = State::read(&self.files, moment.lsn, &work)?;
        Ok(Past { moment, engine: Arc::new(PastState::new(moment.lsn, state)) })
    }

    pub(super) fn value_at(&self, target: &Target, key: &[u8]) -> Result<Option<Value>> {
        let lsn = self.moment(target)?.lsn;
        let needed: Vec<&PastFile> = self.files.needed_at(lsn).collect();
        let mut versions = self.files.versions(&needed, key, lsn, self.env.background)?;
        Ok(versions.pop_last().and_then(|(_, value)| value))
    }

    pub(super) fn history(&self, key: &[u8]) -> Result<Vec<Version>> {
        let (timeline, Window { first_lsn, last_lsn, .. }) = (self.timeline(), self.window);
        let all: Vec<&PastFile> = self.files.files.iter().collect();
        let mut versions = self.files.versions(&all, key, last_lsn, self.env.background)?;
        // Of the versions before the window, the last one shows in it, if it is a put.
        let inside = versions.split_off(&first_lsn.next().get());
        let first = versions.pop_last().filter(|(_, value)| value.is_some());
        let version = |(lsn, value)| {
            let lsn = Lsn::new(lsn);
            Version { lsn, unix_ms: timeline.time_of(lsn), value }
        };
        Ok(first.into_iter().chain(inside).map(version).collect())
    }

    pub(super) fn plan(&self, target: &Target) -> Result<RestorePlan> {
        let moment = self.moment(target)?;
        let (mut files, mut bytes) = (0, 0);
        for file in self.files.needed_at(moment.lsn) {
            files += 1;
            bytes += file.len;
        }
        Ok(RestorePlan { moment, files, bytes })
    }

    /// Copies the files to the directory `into`. They hold every change of the window, and no
    /// other.
    pub(super) fn backup(self, into: &Path) -> Result<BackupReport> {
        let Window { last_lsn: lsn, last_unix_ms: unix_ms, .. } = self.window;
        write_backup(&self.env, &self.files, Moment { lsn, unix_ms, rounding: Rounding::Exact }, into)
    }

    /// Writes the state of `target` to a new store.
    pub(super) fn restore(
        self,
        target: &Target,
        into: &Path,
        on_progress: &OnProgress<'_>,
    ) -> Result<Moment> {
        // Before a long work, which the new store would refuse in the end.
        refuse_unless_empty(into, &self.env.fs.list_if_exists(into)?.unwrap_or_default())?;
        let RestorePlan { moment, bytes, .. } = self.plan(target)?;
        let segment_bytes = (bytes / SEGMENTS).clamp(SEGMENT_BYTES_LEAST, SEGMENT_BYTES_MOST);
        let segment_bytes = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
        let (env, dir) = (self.env.clone(), Arc::clone(&self.files.dir));
        let work = Work::new(env.background, dir.path(), bytes, on_progress);
        let state = State::read(&self.files, moment.lsn, &work)?;
        // The new store does not need the files.
        drop(self);
        write_store(&env, into, &state, moment, segment_bytes, &work)?;
        Ok(moment)
    }
}
