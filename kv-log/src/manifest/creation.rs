//! The catalog's side of new segments: their files get ids, and the manifest names them.

use kv_core::fs::DirExt;
use kv_core::{Error, Lsn, Op, Result};
use kv_wal_format::{Origin, SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::catalog::{Catalog, Stored};
use super::content::Entry;
use super::maker::Plan;
use super::reserve::Need;
use crate::segments::Segment;

impl Catalog {
    /// New, blank log segments, in the order in which the log uses them. Their files and their
    /// names in the manifest are durable on return. Several segments share the syncs of the
    /// directory and the manifest.
    ///
    /// After a power cut between any two steps there is: nothing; orphan files; or blank segments
    /// that the manifest names. Opening goes on in the first blank segment if the log has no active
    /// one, and removes the rest.
    pub(crate) fn create_log_segments(
        &self,
        count: usize,
        capacity: usize,
        need: Need,
        last_lsn: Lsn,
    ) -> Result<Vec<Arc<Segment>>> {
        if need == Need::Growth {
            let file_bytes = self.segment_file_bytes() + (count * capacity) as u64;
            self.room.hold_for_growth(self.shares(file_bytes, capacity))?;
        }
        self.change(|stored| {
            let mut next = stored.manifest.clone();
            let mut created: Vec<Arc<Segment>> = Vec::with_capacity(count);
            let files = (0..count).try_for_each(|_| {
                let segment = self.create_log_segment(capacity, need, last_lsn, stored)?;
                let durable_len = SEGMENT_HEADER_LEN as u64;
                let entry = Entry { kind: SegmentKind::Log, sealed: false, durable_len };
                next.segments.insert(segment.id, entry);
                created.push(segment);
                Ok(())
            });
            // The files must be there before the manifest says so.
            // All are written before the first sync, which does most of the work of the others.
            let result = files
                .and_then(|()| created.iter().try_for_each(|segment| self.maker.sync(segment)))
                .and_then(|()| self.context.dir.sync_durably())
                .and_then(|()| self.store(stored, next, last_lsn));
            if let Err(error) = result {
                for segment in &created {
                    self.discard_unless_named(segment, &error);
                    self.maker.return_slot(segment);
                }
                return Err(error);
            }
            let mut segments = self.segments.lock();
            for segment in &created {
                self.maker.install(segment);
                segments.insert(segment.id, Arc::clone(segment));
            }
            Ok(created)
        })
    }

    fn create_log_segment(
        &self,
        capacity: usize,
        need: Need,
        last_lsn: Lsn,
        stored: &mut Stored,
    ) -> Result<Arc<Segment>> {
        let created = self.context.env.clock.monotonic();
        under_free_name(|| {
            let header = SegmentHeader {
                kind: SegmentKind::Log,
                segment_id: self.take_id(stored, last_lsn)?.get(),
                base_lsn: last_lsn.get(),
                store_id: stored.manifest.store_id,
            };
            let plan = Plan { header, capacity, end: SEGMENT_HEADER_LEN, created, need };
            self.maker.make(plan, self.current_shares(), |_| ())
        })
    }

    /// A segment without a file. It stands for the active one of a store that is only read.
    pub(crate) fn placeholder(&self) -> Result<Arc<Segment>> {
        self.maker.placeholder()
    }

    /// The header of a segment that [`exchange`](Self::exchange) will name.
    fn compacted_header(&self, min_lsn: u64, last_lsn: Lsn) -> Result<SegmentHeader> {
        self.change(|stored| {
            let segment_id = self.take_id(stored, last_lsn)?.get();
            let store_id = stored.manifest.store_id;
            Ok(SegmentHeader { kind: SegmentKind::Compacted, segment_id, base_lsn: min_lsn, store_id })
        })
    }

    /// Creates the output of a compaction with `len` bytes. `fill_rest` gets the context of the
    /// record headers, and writes the bytes behind the segment header. The oldest record has the
    /// LSN `min_lsn`, and the records date from `created`. The file is synced. Neither the
    /// directory's entry is synced, nor does the manifest name it.
    pub(crate) fn create_output(
        &self,
        min_lsn: u64,
        last_lsn: Lsn,
        len: usize,
        created: Duration,
        fill_rest: impl Fn(Origin, &mut [u8]),
    ) -> Result<Arc<Segment>> {
        under_free_name(|| {
            let header = self.compacted_header(min_lsn, last_lsn)?;
            let plan = Plan { header, capacity: len, end: len, created, need: Need::Compaction };
            let made =
                self.maker.make(plan, self.current_shares(), |rest| fill_rest(header.origin(), rest))?;
            self.maker.sync(&made).inspect_err(|_| {
                self.discard_segment(&made);
                self.maker.return_slot(&made);
            })?;
            Ok(made)
        })
    }
}

/// Carries out `create`, which creates a file under the name of the next id. Repeats it while a
/// file of another owner has that name.
pub(super) fn under_free_name<T>(mut create: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match create() {
            Err(Error::Io { op: Op::Create, source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
            answer => return answer,
        }
    }
}
