use kv_core::{
    Acknowledge, Action, Dir, Env, Error, Health, Leadership, Lsn, RecoveryReport, Result, StoreLock,
};
use parking_lot::Mutex;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::background::Signals;
use crate::catalog::Catalog;
use crate::compaction::Extent;
use crate::counters::Counters;
use crate::head::{LogEnd, MARK_LEN, SEAL_LEN};
use crate::index::Index;
use crate::options::Options;
use crate::progress::Progress;
use crate::segment::{Segment, SegmentTable};
use crate::spares::Spares;

/// The parts of an open store: what callers and background workers share. Each part is a file of its
/// own; what is done with them is in `commit`, `flush`, `compaction`.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: Arc<dyn Dir>,
    pub(crate) env: Env,
    pub(crate) options: Options,
    /// Longest key that can be looked up, bytes: that of the limits, or of a key that was there
    /// before they were lowered.
    pub(crate) key_len_max: usize,
    /// The policy's answer, asked once.
    pub(crate) acknowledge: Acknowledge,
    pub(crate) end: LogEnd,
    /// The heads after this one, made ahead of need.
    pub(crate) spares: Spares,
    pub(crate) index: Index,
    pub(crate) segments: Arc<SegmentTable>,
    pub(crate) catalog: Catalog,
    pub(crate) progress: Arc<Progress>,
    pub(crate) leadership: Leadership,
    pub(crate) health: Health,
    pub(crate) counters: Arc<Counters>,
    pub(crate) signals: Signals,
    /// Held while a compaction runs: one at a time.
    pub(crate) compacting: Mutex<()>,
    pub(crate) recovery: RecoveryReport,
    /// LSNs up to this one belong to earlier openings.
    pub(crate) lsn_floor: Lsn,
    pub(crate) lock: Arc<StoreLock>,
}

impl Store {
    /// Counts what a writer has to wait for.
    pub(crate) fn stalling<R>(&self, wait: impl FnOnce() -> R) -> R {
        let start = self.env.clock.monotonic();
        let result = wait();
        self.counters.stalled(self.env.clock.monotonic().saturating_sub(start));
        result
    }

    /// Poisons the store, unless `error` is a [refusal](is_refusal).
    pub(crate) fn poison_unless_refused(&self, error: Error) -> Error {
        if is_refusal(&error) { error } else { self.health.poison(error) }
    }

    /// Makes everything durable, and notes in the manifest that nothing is missing. Whatever happens, it
    /// releases the directory.
    pub(crate) fn close(&self) -> Result<()> {
        let result = if self.options.read_only { Ok(()) } else { self.close_files() };
        let result = result.map_err(|error| self.health.poison(error));
        // If that gave up early, others may still be at work on the files. The directory is theirs
        // until they are done: a compaction, the leader of a flush, and a writer who makes a head.
        let _no_compaction = self.compacting.lock();
        let _leading = self.leadership.take_unless(|| false);
        let _no_writer = self.end.lock();
        self.health.close();
        self.lock.release();
        result
    }

    /// Whether compaction would leave out the better part of the active segment, if it was sealed.
    fn is_active_mostly_dead(&self) -> bool {
        self.end.try_settle();
        let active = Arc::clone(&self.end.lock().head.segment);
        let tombstones = active.sums.tombstone_bytes.load(Ordering::Relaxed);
        active.dead_bytes(tombstones) > active.sums.live_bytes() + tombstones + DEAD_BYTES_MIN
    }

    /// Seals the active segment, unless something that its successor takes is short: then
    /// compaction has to do without it.
    pub(crate) fn seal_if_possible(&self) -> Result<()> {
        unless_refused(self.seal_head())
    }

    fn close_files(&self) -> Result<()> {
        self.make_all_durable()?;
        // A store that is open for moments only would never be compacted otherwise.
        if self.is_active_mostly_dead() {
            self.seal_if_possible()?;
            self.make_all_durable()?;
        }
        self.compact_in_passing(Extent::DiskUpTo(self.end.head_capacity().0))?;
        let _no_compaction = self.compacting.lock();
        let (last_lsn, active) = {
            // No change comes between the last sync and the last manifest.
            let end = self.end.lock();
            self.health.check_writable()?;
            self.health.close();
            (end.last_lsn(), Arc::clone(&end.head.segment))
        };
        // Changes, and segments sealed, since the first time.
        self.flush(Action::WriteAndSync)?;
        let ended = give_back_unused_space(&active)
            .and_then(|()| self.catalog.end(&self.spares.take_all(), last_lsn.max(self.lsn_floor)));
        // Everything is durable: the next opening finds the end of the log by itself.
        unless_refused(ended)
    }
}

/// Cuts the file of the active segment to the bytes that it holds, and room for a seal.
fn give_back_unused_space(active: &Segment) -> Result<()> {
    let len = (active.end() + SEAL_LEN + MARK_LEN).next_multiple_of(UNUSED_UNIT);
    if (len as u64) < active.file.len()? { active.file.trim(len) } else { Ok(()) }
}

/// Dead bytes for which the active segment is not sealed when the store is closed.
const DEAD_BYTES_MIN: u64 = 256 << 10;

/// File systems give out space in such units, bytes.
const UNUSED_UNIT: usize = 4096;

/// Whether the disk is full, or no segment is free. Compaction may help.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(error, Error::DiskFull { .. } | Error::TooManySegments { .. })
}

/// The answer of something that may be left undone: a refusal is no failure.
fn unless_refused(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error) if is_refusal(&error) => Ok(()),
        answer => answer,
    }
}

/// The system's error codes for too many open files: of the whole system, and of the process.
const TOO_MANY_OPEN_FILES: [i32; 2] = [23, 24];

/// Whether `error` is a refusal: something is short now, nothing was changed, and later there may be
/// enough. A failed sync or rename is never one, whatever the system says.
pub(crate) fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Io { op: "sync" | "rename", .. } => false,
        Error::DiskFull { .. } | Error::TooManySegments { .. } => true,
        Error::Io { source, .. } => {
            source.kind() == ErrorKind::OutOfMemory
                || source.raw_os_error().is_some_and(|number| TOO_MANY_OPEN_FILES.contains(&number))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::Path;

    #[test]
    fn what_is_short_now_is_refused_and_what_is_wrong_is_not() {
        let io = |number| Error::io("create", Path::new("f"), io::Error::from_raw_os_error(number));
        let (eio, out_of_memory, files_of_all, files_of_process, enospc) = (5, 12, 23, 24, 28);
        for number in [out_of_memory, files_of_all, files_of_process, enospc] {
            assert!(is_refusal(&io(number)), "{number}");
            let sync = Error::sync(Path::new("f"), io::Error::from_raw_os_error(number));
            assert!(!is_refusal(&sync), "{sync}");
        }
        assert!(!is_refusal(&io(eio)) && !is_refusal(&Error::Closed));
    }
}
