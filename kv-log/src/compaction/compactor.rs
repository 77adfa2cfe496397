//! The compactor: it asks the policy for victims, and has them compacted until the extent is
//! reached.

use kv_core::{CompactionLevel, CompactionReport, Result, SegmentId};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::choice::{Candidates, Extent};
use super::disk::{DiskCompactor, Unreadable};
use super::memory::MemoryCompactor;
use crate::context::Context;
use crate::eviction::Evictor;
use crate::flush::Flusher;
use crate::index::Index;
use crate::log::Log;
use crate::manifest::{Catalog, Need};
use crate::refusal::is_full;
use crate::segments::{Segment, SegmentTable};

/// Compacts segments in memory and on disk. One thread at a time.
#[derive(Debug)]
pub(crate) struct Compactor {
    context: Arc<Context>,
    catalog: Arc<Catalog>,
    segments: Arc<SegmentTable>,
    evictor: Arc<Evictor>,
    log: Arc<Log>,
    flusher: Arc<Flusher>,
    memory: MemoryCompactor,
    disk: DiskCompactor,
    /// Held while a compaction runs. The first lock in the order of locks.
    running: Mutex<()>,
}

impl Compactor {
    pub(crate) fn new(
        context: Arc<Context>,
        index: &Arc<Index>,
        segments: Arc<SegmentTable>,
        catalog: Arc<Catalog>,
        evictor: Arc<Evictor>,
        log: Arc<Log>,
        flusher: Arc<Flusher>,
    ) -> Self {
        let memory = MemoryCompactor::new(&context, index, &segments, &catalog);
        let disk = DiskCompactor::new(&context, index, &segments, &catalog, &log, &flusher);
        Compactor {
            context,
            catalog,
            segments,
            evictor,
            log,
            flusher,
            memory,
            disk,
            running: Mutex::default(),
        }
    }

    /// Compacts as far as the extent says, or until a compaction frees nothing. Unreadable victims
    /// stay as they are, and the others are compacted.
    ///
    /// # Errors
    /// The error of an unreadable victim. There is no room for the outputs. All other errors poison
    /// the store.
    pub(crate) fn compact(&self, extent: Extent) -> Result<CompactionReport> {
        self.compact_alone(extent, &self.exclude())
    }

    /// Waits until no compaction runs. Until the answer is dropped, none begins.
    pub(crate) fn exclude(&self) -> MutexGuard<'_, ()> {
        self.running.lock()
    }

    /// As [`Compact::compact`](kv_core::Compact::compact): with the active segment, and leftovers.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        // Taken before the seal: otherwise the background worker might compact the sealed segment,
        // and the report would not count it. The lock also keeps the directory this store's until
        // the leftovers are gone.
        let alone = self.exclude();
        self.log.seal_if_possible()?;
        self.flusher.make_all_durable()?;
        let mut report = self.compact_alone(Extent::All, &alone)?;
        self.context.health.check_writable()?;
        self.catalog.remove_leftovers();
        report.leftover_files = self.catalog.leftovers().0;
        self.segments.clear_pool();
        Ok(report)
    }

    /// Compacts as part of another call: an open, a close, or a change in inline mode. Only a
    /// failure that poisons is an error.
    pub(crate) fn compact_in_passing(&self, extent: Extent) -> Result<()> {
        match self.compact(extent) {
            Err(error) if self.context.health.is_poisoned() => Err(error),
            _ => Ok(()),
        }
    }

    fn compact_alone(&self, extent: Extent, _alone: &MutexGuard<'_, ()>) -> Result<CompactionReport> {
        let _poison = self.context.health.poison_on_panic(self.context.path());
        let (mut total, mut unreadable, mut failure) = (CompactionReport::default(), Vec::new(), None);
        let mut extent = extent;
        loop {
            // Frees the images of earlier victims.
            self.segments.release_limbo();
            self.evictor.evict_to_limit();
            if extent == Extent::All && self.context.signals.pacing.is_stopping() {
                // Writers that make garbage fast enough would delay a close forever.
                break;
            }
            let Some((level, victims)) = self.choose_victims(extent, &unreadable) else { break };
            self.context.health.check_writable()?;
            if level == CompactionLevel::Memory {
                if self.memory.compact(&victims) == 0 || extent == Extent::OnePlan {
                    break;
                }
                continue;
            }
            match self.disk.compact(&victims) {
                Ok(Ok(report)) => {
                    total.victims += report.victims;
                    total.outputs += report.outputs;
                    total.copied_bytes += report.copied_bytes;
                    total.freed_bytes += report.freed_bytes;
                    self.catalog.hold_reserve();
                    if report.freed_bytes == 0 && report.outputs >= report.victims {
                        // The policy would name the same victims forever.
                        break;
                    }
                    if extent == Extent::OnePlan || self.is_relieved(extent, total.freed_bytes) {
                        break;
                    }
                }
                Ok(Err(error)) => {
                    let error = self.context.poison_unless_refused(error);
                    if self.context.health.is_poisoned() {
                        return Err(error);
                    }
                    // A failure that poisons comes before the refusal that the caller would get.
                    let tidied = self.catalog.tidy(self.log.end.last_lsn());
                    tidied.map_err(|error| self.context.poison_unless_refused(error))?;
                    if !is_full(&error) || matches!(extent, Extent::Pressed(_)) {
                        return Err(error);
                    }
                    // There is no room for the survivors of several victims at a time.
                    extent = Extent::Pressed(Need::Compaction);
                }
                Err(Unreadable { victim, error }) => {
                    self.context.counters.compaction_failures.fetch_add(1, Ordering::Relaxed);
                    unreadable.push(victim);
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(total), Err)
    }

    /// Whether a compaction under pressure has freed enough for its change.
    fn is_relieved(&self, extent: Extent, freed: u64) -> bool {
        match extent {
            Extent::Pressed(Need::Relief | Need::LastRelief) => {
                freed >= self.catalog.tombstone_segment_bytes()
            }
            _ => false,
        }
    }

    /// The victims that the policy names, in the order of their ids. They are as many as memory has
    /// room for.
    fn choose_victims(
        &self,
        extent: Extent,
        except: &[SegmentId],
    ) -> Option<(CompactionLevel, Vec<Arc<Segment>>)> {
        let options = &self.context.options;
        let segments = self.catalog.segments();
        let candidates = Candidates::new(&segments, self.context.env.clock.monotonic());
        let (level, ids) = candidates.choose(
            &*options.compaction,
            extent,
            except,
            options.segment_bytes as u64,
            options.memory_budget,
        )?;
        let named = |id: &SegmentId| segments.iter().find(|segment| segment.id == *id);
        let mut victims: Vec<Arc<Segment>> = ids.iter().filter_map(named).cloned().collect();
        self.evictor.keep_loadable(&mut victims);
        victims.sort_unstable_by_key(|victim| victim.id);
        Some((level, victims))
    }
}
