//! Past states of a closed store, also of one that no longer opens.

use kv_core::fs::DirExt;
use kv_core::{
    BackupReport, Env, Error, Lsn, Moment, Past, Point, PointInTime, Reach, RestorePlan, Result, SegmentId,
    Target, Value, Version, Window,
};
use kv_wal_format::{SEGMENT_HEADER_LEN, Scanner, SegmentHeader, SegmentKind, Stop, StopReason};
use std::path::Path;
use std::sync::Arc;

use super::reachable::{Reachable, points_of};
use crate::directory;
use crate::inspect::{Survey, is_damage, is_zero};
use crate::manifest::{Entry, Manifest, PastFile, PastFiles, misfit};
use crate::progress::{OnProgress, silently};
use crate::tail::{Unwritten, unwritten};

/// The past of a closed store, read from its files. It holds the lock of a reader.
///
/// The store need not open: a target needs only its own files to be intact. If the end of the log
/// is damaged, the window ends before the damage. Changes that a killed process left in shared
/// memory take part, as in an opening for reading. They stay there.
///
/// ```
/// use kv_log::inspect::ClosedPast;
/// use kv_log::{Engine, Env, LogEngine, Options, PointInTime, Target};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let (broken, restored) = (dir.path().join("broken"), dir.path().join("restored"));
/// let store = LogEngine::open(&broken, Options::default())?;
/// let lsn = store.put(b"planet", b"earth")?;
/// store.delete(b"planet")?;
/// store.close()?;
///
/// ClosedPast::open(&Env::os(), &broken)?.restore(&Target::Lsn(lsn), &restored)?;
/// let store = LogEngine::open(&restored, Options::default())?;
/// assert_eq!(store.get(b"planet")?.as_deref(), Some(b"earth".as_slice()));
/// # Ok::<(), kv_log::Error>(())
/// ```
#[derive(Debug)]
pub struct ClosedPast {
    env: Env,
    survey: Survey,
    manifest: Manifest,
    /// The changes that a dead process left in shared memory.
    unwritten: Arc<Unwritten>,
}

/// The end of the log, as far as it can be read.
struct End {
    lsn: Lsn,
    /// The log segments without a seal that hold records.
    unsealed: Vec<PastFile>,
}

impl ClosedPast {
    /// Of the store in `dir`.
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Locked`] if a writer has the store open;
    /// [`Error::Corruption`] if the manifest is damaged; an I/O error of a file, or of shared
    /// memory.
    pub fn open(env: &Env, dir: &Path) -> Result<Self> {
        let survey = Survey::open(env, dir)?;
        let manifest = survey.manifest.clone()?;
        let unwritten = Arc::new(unwritten(env, &survey.dir, &manifest)?);
        Ok(ClosedPast { env: env.clone(), survey, manifest, unwritten })
    }

    /// As [`restore`](PointInTime::restore), and tells the progress: of the bytes that it reads,
    /// and then of those that it writes.
    ///
    /// # Errors
    /// As `restore`; an [`Error::Io`] of the kind `Interrupted` if `on_progress` ends the work.
    /// Then nothing is left in the directory.
    pub fn restore_observed(
        &self,
        target: &Target,
        into: &Path,
        on_progress: &OnProgress<'_>,
    ) -> Result<Moment> {
        self.reachable()?.restore(target, into, on_progress)
    }

    /// The value of `key` in a past state. `None` if the state has no such key. The answer is that
    /// of [`read_at`](PointInTime::read_at), which collects the values of all keys.
    ///
    /// # Errors
    /// As `read_at`.
    pub fn value_at(&self, target: &Target, key: &[u8]) -> Result<Option<Value>> {
        self.reachable()?.value_at(target, key)
    }

    fn reachable(&self) -> Result<Reachable> {
        let Manifest { archive, segments, .. } = &self.manifest;
        let End { lsn, unsealed } = self.end()?;
        let mut files = archive.past_files();
        let sealed = segments.iter().filter(|(_, entry)| entry.sealed);
        files.extend(sealed.map(|(id, entry)| PastFile::sealed(*id, *entry)));
        files.extend(unsealed);
        let dir = Arc::clone(&self.survey.dir);
        let unwritten = Arc::clone(&self.unwritten);
        let files = PastFiles { dir, manifest: self.manifest.clone(), files, unwritten };
        // The lock of a reader keeps the files.
        Ok(Reachable::new(&self.env, files, None, lsn, self.env.clock.unix_time_ms()))
    }

    /// Looks for the end of the log in the newest sealed segment, and in those that have no seal.
    fn end(&self) -> Result<End> {
        let mut end = End { lsn: self.newest_sealed()?, unsealed: Vec::new() };
        let (mut bytes, mut is_whole) = (Vec::new(), true);
        for (id, entry) in self.manifest.segments.iter().filter(|(_, entry)| !entry.sealed) {
            let path = self.survey.dir.path_of(&directory::segment_file_name(*id));
            self.survey.read(*id, u64::MAX, &mut bytes)?;
            if let Some(rest) = self.unwritten.get(id) {
                rest.complete(&mut bytes);
            }
            let Some(header) = self.header_of(*id, *entry, &bytes) else {
                let is_spare = is_zero(bytes.get(SEGMENT_HEADER_LEN..).unwrap_or_default());
                if is_spare && entry.durable_len <= SEGMENT_HEADER_LEN as u64 {
                    continue;
                }
                let fault = "the header is damaged, so the end of the log cannot be read";
                return Err(Error::corruption(&path, 0, fault));
            };
            let stop = scan(&header, &bytes);
            end.lsn = end.lsn.max(self.newest_change(&header, &stop));
            let (len, is_sealed) = (stop.offset as u64, stop.reason == StopReason::Sealed);
            if len > SEGMENT_HEADER_LEN as u64 {
                let file = PastFile { id: *id, kind: SegmentKind::Log, len, is_sealed, replaced_lsn: None };
                end.unsealed.push(file);
            }
            is_whole = len >= entry.durable_len;
            if !is_whole || !is_sealed {
                // Changes may be lost here, so later ones are beyond reach.
                break;
            }
        }
        if is_whole {
            end.lsn = end.lsn.max(self.manifest.durable_lsn);
        }
        Ok(end)
    }

    /// The newest change of the newest sealed segment. A flush syncs several segments, and a
    /// manifest that is stored meanwhile names the first ones as sealed, with the durable LSN from
    /// before the flush.
    fn newest_sealed(&self) -> Result<Lsn> {
        let mut sealed = self.manifest.segments.iter().rev();
        let Some((id, entry)) = sealed.find(|(_, entry)| entry.sealed && entry.kind == SegmentKind::Log)
        else {
            return Ok(Lsn::ZERO);
        };
        let mut bytes = Vec::new();
        match self.survey.read(*id, entry.durable_len, &mut bytes) {
            Ok(_) => {}
            // A target that needs this file fails there.
            Err(error) if is_damage(&error) => return Ok(Lsn::ZERO),
            Err(error) => return Err(error),
        }
        let header = self.header_of(*id, *entry, &bytes);
        Ok(header.map_or(Lsn::ZERO, |header| self.newest_change(&header, &scan(&header, &bytes))))
    }

    /// The newest change up to this end of a segment. A mark or a seal has the LSN of the newest
    /// change before it, so the highest LSN is that of a change. Without a record, it is the newest
    /// change before the segment. The base LSN of a segment that an opening began is that of none.
    fn newest_change(&self, header: &SegmentHeader, stop: &Stop) -> Lsn {
        let before = Lsn::new(header.base_lsn).min(self.manifest.durable_lsn);
        before.max(Lsn::new(stop.last_lsn))
    }

    /// The header in the bytes of a segment. `None` if it is damaged, or of another segment.
    fn header_of(&self, id: SegmentId, entry: Entry, bytes: &[u8]) -> Option<SegmentHeader> {
        let header = SegmentHeader::decode(bytes).ok()?;
        misfit(&header, entry.kind, id, self.manifest.store_id).is_none().then_some(header)
    }
}

/// The end of the records in the bytes of a segment.
fn scan(header: &SegmentHeader, bytes: &[u8]) -> Stop {
    Scanner::new(header.origin(), bytes, SEGMENT_HEADER_LEN).stop()
}

impl PointInTime for ClosedPast {
    fn window(&self) -> Result<Window> {
        Ok(self.reachable()?.window())
    }

    fn reach(&self) -> Result<Reach> {
        Ok(Reach::EveryLsn)
    }

    fn points(&self) -> Result<Vec<Point>> {
        Ok(points_of(&self.manifest.archive, self.env.clock.unix_time_ms()))
    }

    fn pin(&self, _name: &str, _target: &Target, _expires_unix_ms: Option<u64>) -> Result<Point> {
        Err(Error::ReadOnly)
    }

    fn unpin(&self, _name: &str) -> Result<bool> {
        Err(Error::ReadOnly)
    }

    fn read_at(&self, target: &Target) -> Result<Past> {
        self.reachable()?.read_at(target)
    }

    fn history(&self, key: &[u8]) -> Result<Vec<Version>> {
        self.reachable()?.history(key)
    }

    fn plan(&self, target: &Target) -> Result<RestorePlan> {
        self.reachable()?.plan(target)
    }

    fn backup(&self, into: &Path) -> Result<BackupReport> {
        self.reachable()?.backup(into)
    }

    fn restore(&self, target: &Target, into: &Path) -> Result<Moment> {
        self.restore_observed(target, into, &silently)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::Options;
    use crate::recovery::open;
    use crate::store::Store;
    use kv_core::{Background, Manual, ManualClock};
    use kv_tests::sim::{PowerCut, SimFs};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    const DIR: &str = "/store";

    fn env(disk: &SimFs) -> Env {
        let clock = Arc::new(ManualClock::new(0));
        Env { fs: Arc::new(disk.clone()), clock, background: Background::Inline }
    }

    fn open_store(disk: &SimFs) -> Store {
        let options = Options { segment_bytes: 2048, persistence: Arc::new(Manual), ..Options::default() };
        open(Path::new(DIR), &env(disk), options).unwrap()
    }

    /// Puts these keys, and makes the spares as early as the worker would.
    fn put(store: &Store, keys: std::ops::Range<u32>) {
        for key in keys {
            store.committer.put(&key.to_be_bytes(), &[7; 100]).unwrap();
            store.log.spares.make(&store.log.end).unwrap();
        }
    }

    /// A flush syncs one sealed segment after the other, and another thread stores a manifest
    /// meanwhile. So the manifest names a sealed segment whose changes are above its durable LSN.
    #[test]
    fn changes_that_half_a_flush_made_durable_are_in_the_window() {
        let disk = SimFs::new();
        let store = Arc::new(open_store(&disk));
        put(&store, 0..50);
        let (syncs, cut) = (AtomicU32::new(0), Arc::new(Mutex::new(None)));
        let (of_disk, of_store, of_cut) = (disk.clone(), Arc::downgrade(&store), Arc::clone(&cut));
        disk.slow_syncs(move || {
            // Before the sync of the third sealed segment.
            if syncs.fetch_add(1, Ordering::SeqCst) == 2 {
                put(&of_store.upgrade().unwrap(), 50..70);
                *of_cut.lock().unwrap() = Some(of_disk.power_cut(PowerCut::LOSE_ALL));
            }
        });
        store.flusher.flush_sealed().unwrap();
        let disk = cut.lock().unwrap().take().unwrap();
        let past = ClosedPast::open(&env(&disk), Path::new(DIR)).unwrap();
        let last = past.window().unwrap().last_lsn;
        assert_eq!(past.read_at(&Target::Lsn(last)).unwrap().engine.stats().keys, last.get());
        drop(past);
        let opened = open_store(&disk).recovery.report.last_lsn;
        assert!(opened > Lsn::ZERO && last == opened, "{last} {opened}");
    }
}
