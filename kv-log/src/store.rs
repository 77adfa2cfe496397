use crossbeam_utils::CachePadded;
use kv_core::{Acknowledge, DirLock, Env, Health, Leadership, Lsn, RecoveryReport, Result};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;

use crate::background::Signals;
use crate::catalog::Catalog;
use crate::commit::Head;
use crate::counters::Counters;
use crate::index::Index;
use crate::options::Options;
use crate::progress::Progress;
use crate::segment::SegmentTable;
use crate::spares::Spares;

/// The parts of an open store: what callers and background workers share. Each part is a file of its
/// own; what is done with them is in `commit`, `flush`, `compaction`.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) env: Env,
    pub(crate) options: Options,
    /// The policy's answer, asked once.
    pub(crate) acknowledge: Acknowledge,
    /// The commit lock. On cache lines of its own, as all that every change writes is: others read what lies beside it.
    pub(crate) head: CachePadded<Mutex<Head>>,
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
    pub(crate) lock: Mutex<Option<Box<dyn DirLock>>>,
}

impl Store {
    /// Counts what a writer has to wait for.
    pub(crate) fn stalling<R>(&self, wait: impl FnOnce() -> R) -> R {
        let start = self.env.clock.monotonic();
        let result = wait();
        self.counters.stalled(self.env.clock.monotonic().saturating_sub(start));
        result
    }

    /// Makes everything durable, notes in the manifest that nothing is missing, and lets the directory
    /// go, whatever happens.
    pub(crate) fn close(&self) -> Result<()> {
        let result = self.close_files();
        // If that gave up early, somebody may still be writing: the directory is theirs until they are done.
        let _leading = self.leadership.take_unless(|| false);
        // The same goes for a writer who makes a head, and with it a manifest.
        let _no_writer = self.head.lock();
        self.health.close();
        *self.lock.lock() = None;
        result
    }

    fn close_files(&self) -> Result<()> {
        let _no_compaction = self.compacting.lock();
        self.make_all_durable()?;
        let last_lsn = {
            // No change comes between the last sync and the last manifest.
            let head = self.head.lock();
            self.health.check_writable()?;
            self.health.close();
            head.last_lsn()
        };
        self.make_durable(self.progress.last_lsn())?;
        self.catalog.end(last_lsn.max(self.lsn_floor))
    }
}
