//! Compaction: the policy names victims and a level. [`memory`] gives back what is dead in their images;
//! [`disk`] rewrites their survivors to new segments and removes them.

mod disk;
mod memory;

use kv_core::{CompactionLevel, CompactionReport, CompactionView, Result, SegmentId, SegmentStats, Usage};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::index::KeyHash;
use crate::readers::pin;
use crate::reserve::Need;
use crate::segment::{Location, SEGMENTS_MAX, Segment};
use crate::store::{Store, is_full};
use disk::Unreadable;

/// Records whose places in the index are asked for before the first is looked at: a scan knows them in advance.
const LOOK_UPS_AT_A_TIME: usize = 16;

/// A live record's old and new place.
pub(crate) struct Move {
    pub(crate) hash: KeyHash,
    pub(crate) from: Location,
    pub(crate) to: Location,
    /// Bytes of the record.
    pub(crate) len: u64,
}

/// How far a compaction goes, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Until the policy is content.
    All,
    /// Until it is content with the disk, as far as the segments up to this one go: an end that writers
    /// cannot put off.
    DiskUpTo(SegmentId),
    /// One plan at most.
    OnePlan,
    /// The disk is full, or there are too many segments: whatever gives something back, one victim
    /// at a time, until that is enough for a change with this need.
    Pressed(Need),
}

/// Under pressure a change pays for a compaction only where at least so small a part of a victim
/// comes free. Relief has to get by with less: it pays with what it deletes.
const PRESSED_SHARE_FOR_GROWTH: u64 = 16;
const PRESSED_SHARE_FOR_RELIEF: u64 = 128;

impl Store {
    /// Has `relocate` point the index at records in `new`, of at most `bytes`; it returns of how many it did.
    fn count_relocated(new: &Segment, bytes: u64, relocate: impl FnOnce() -> u64) {
        // Counted first: a change that comes right after finds something to take away. Not for each record: an atomic
        // addition waits for what was written before, which is a record's copy.
        new.sums.came_to_life(bytes);
        let moved = relocate();
        new.sums.died(bytes - moved);
    }

    /// Points the index at records' new places, which are in `new`, but for those that changed meanwhile.
    pub(crate) fn relocate_all(&self, new: &Segment, moves: impl Iterator<Item = Move>) {
        let (mut moves, mut group) = (moves.peekable(), Vec::with_capacity(LOOK_UPS_AT_A_TIME));
        while moves.peek().is_some() {
            let guard = pin();
            for one in moves.by_ref().take(LOOK_UPS_AT_A_TIME) {
                self.index.prefetch(one.hash, &guard);
                group.push(one);
            }
            Self::count_relocated(new, group.iter().map(|one| one.len).sum(), || {
                let done = group.drain(..).filter(|one| self.index.relocate(one.hash, one.from, one.to));
                done.map(|one| one.len).sum()
            });
        }
    }

    /// Compacts until the policy is content, or a compaction gives nothing back. Victims that cannot be read are left as
    /// they are, and the others compacted.
    ///
    /// # Errors
    /// What was in the way of a victim that was left; there is no room for what is to be written. All others poison
    /// the store.
    pub(crate) fn compact(&self, extent: Extent) -> Result<CompactionReport> {
        self.compact_alone(extent, &self.compacting.lock())
    }

    /// As [`Compact::compact`](kv_core::Compact::compact): with the active segment, and leftovers.
    pub(crate) fn compact_all(&self) -> Result<CompactionReport> {
        // Taken first: else the background may compact what is sealed here, and the report would not
        // count it. And the directory stays this store's until the leftovers are gone.
        let alone = self.compacting.lock();
        self.seal_if_possible()?;
        self.make_all_durable()?;
        let mut report = self.compact_alone(Extent::All, &alone)?;
        self.health.check_writable()?;
        self.catalog.remove_leftovers();
        report.leftover_files = self.catalog.leftovers().0;
        self.segments.trim();
        Ok(report)
    }

    fn compact_alone(&self, extent: Extent, _one_at_a_time: &MutexGuard<'_, ()>) -> Result<CompactionReport> {
        let _poison = self.health.poison_on_panic(self.dir.path());
        let (mut total, mut left, mut failure) = (CompactionReport::default(), Vec::new(), None);
        let mut extent = extent;
        loop {
            // Victims of the turn before, among others.
            self.segments.release_held();
            self.evict_all_that_must_go();
            if extent == Extent::All && self.signals.stopping() {
                // Writers who make garbage as fast as this cannot put off a close.
                break;
            }
            let Some((level, victims)) = self.choose_victims(extent, &left) else { break };
            self.health.check_writable()?;
            if level == CompactionLevel::Memory {
                if self.compact_in_memory(&victims) == 0 || extent == Extent::OnePlan {
                    break;
                }
                continue;
            }
            match self.compact_on_disk(&victims) {
                Ok(Ok(report)) => {
                    total.victims += report.victims;
                    total.outputs += report.outputs;
                    total.copied_bytes += report.copied_bytes;
                    total.freed_bytes += report.freed_bytes;
                    self.catalog.hold_reserve();
                    if report.freed_bytes == 0 && report.outputs >= report.victims {
                        // A policy that asks for this would ask for ever.
                        break;
                    }
                    if extent == Extent::OnePlan || self.is_relieved(extent, total.freed_bytes) {
                        break;
                    }
                }
                Ok(Err(error)) => {
                    let error = self.poison_unless_refused(error);
                    if self.health.is_poisoned() {
                        return Err(error);
                    }
                    // The failure that the caller hears of is the one that counts.
                    let tidied = self.catalog.tidy(self.end.last_lsn());
                    tidied.map_err(|error| self.poison_unless_refused(error))?;
                    if !is_full(&error) || matches!(extent, Extent::Pressed(_)) {
                        return Err(error);
                    }
                    // There is no room for the survivors of several victims at a time.
                    extent = Extent::Pressed(Need::Compaction);
                }
                Err(Unreadable { victim, error }) => {
                    self.counters.compaction_failures.fetch_add(1, Ordering::Relaxed);
                    left.push(victim);
                    failure = failure.or(Some(error));
                }
            }
        }
        failure.map_or(Ok(total), Err)
    }

    /// Compacts what is due while the store is opened or closed. A lack of room is no failure of
    /// that.
    pub(crate) fn compact_in_passing(&self, extent: Extent) -> Result<()> {
        match self.compact(extent) {
            Err(error) if self.health.is_poisoned() => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a compaction under pressure has freed enough for the change that it is for.
    fn is_relieved(&self, extent: Extent, freed: u64) -> bool {
        match extent {
            Extent::Pressed(Need::Relief | Need::LastRelief) => {
                freed >= self.catalog.tombstone_segment_bytes()
            }
            _ => false,
        }
    }

    /// The victims that the policy names, as far as they may be compacted at all, and are none of
    /// those `except`ed.
    fn choose_victims(
        &self,
        extent: Extent,
        except: &[SegmentId],
    ) -> Option<(CompactionLevel, Vec<Arc<Segment>>)> {
        let segments = self.catalog.segments();
        let (mut views, memory, disk) = self.view(&segments);
        views.retain(|view| !except.contains(&view.id));
        let share = match extent {
            Extent::Pressed(Need::Growth) => Some(PRESSED_SHARE_FOR_GROWTH),
            Extent::Pressed(_) => Some(PRESSED_SHARE_FOR_RELIEF),
            Extent::DiskUpTo(last) => {
                views.retain(|view| view.id <= last);
                None
            }
            Extent::All | Extent::OnePlan => None,
        };
        if let Some(share) = share {
            views.retain(|view| view.dead_bytes >= view.disk_bytes / share);
        }
        let view = CompactionView {
            segments: &views,
            segment_bytes: self.options.segment_bytes as u64,
            memory: Usage { used: memory, limit: self.options.memory_budget },
            disk: Usage { used: disk, limit: share.map(|_| disk) },
            slots: Usage { used: segments.len() as u64, limit: Some(SEGMENTS_MAX as u64) },
        };
        let plan = self.options.compaction.plan(&view)?;
        if plan.level == CompactionLevel::Memory && !matches!(extent, Extent::All | Extent::OnePlan) {
            return None;
        }
        let named =
            |id: &SegmentId| segments.iter().find(|segment| segment.id == *id && segment.is_durable());
        let mut victims: Vec<Arc<Segment>> = plan.victims.iter().filter_map(named).cloned().collect();
        self.keep_what_can_be_loaded(&mut victims);
        victims.sort_unstable_by_key(|victim| victim.id);
        victims.dedup_by_key(|victim| victim.id);
        (!victims.is_empty()).then_some((plan.level, victims))
    }

    /// The sealed and synced segments as a policy sees them, and the bytes of all in memory and on disk.
    fn view(&self, segments: &[Arc<Segment>]) -> (Vec<SegmentStats>, u64, u64) {
        let now = self.env.clock.monotonic();
        let (mut memory, mut disk) = (0, 0);
        let mut views = Vec::with_capacity(segments.len());
        let oldest =
            segments.iter().min_by_key(|segment| segment.oldest_dead_put()).map(|segment| segment.id);
        let oldest_but_one = oldest_dead_put(segments, oldest.as_slice());
        let oldest_of_all = oldest_dead_put(segments, &[]);
        for segment in segments {
            let memory_bytes = segment.memory_bytes() as u64;
            memory += memory_bytes;
            disk += segment.file_len() as u64;
            if segment.is_durable() {
                let is_oldest = oldest == Some(segment.id);
                let oldest_elsewhere = if is_oldest { oldest_but_one } else { oldest_of_all };
                let needed = oldest_elsewhere < segment.max_lsn();
                let tombstone_bytes =
                    if needed { segment.sums.tombstone_bytes.load(Ordering::Relaxed) } else { 0 };
                views.push(SegmentStats {
                    id: segment.id,
                    live_bytes: segment.sums.live_bytes(),
                    tombstone_bytes,
                    dead_bytes: segment.dead_bytes(tombstone_bytes),
                    memory_bytes,
                    disk_bytes: segment.file_len() as u64,
                    age: now.saturating_sub(segment.created),
                });
            }
        }
        (views, memory, disk)
    }
}

/// The oldest dead put in the file of any segment but these: a tombstone older than that hides nothing.
fn oldest_dead_put(segments: &[Arc<Segment>], except: &[SegmentId]) -> u64 {
    let others = segments.iter().filter(|segment| !except.contains(&segment.id));
    others.map(|segment| segment.oldest_dead_put()).min().unwrap_or(u64::MAX)
}
