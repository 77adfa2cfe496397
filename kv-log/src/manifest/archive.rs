//! The archive: segments that compaction has replaced, and that past states still need.
//!
//! Compaction replaces a segment at an LSN. Every record that a state from this LSN on shows lies
//! in the outputs, or in other segments. So the archived segment is needed while the window begins
//! before this LSN, or while a point does.
//!
//! Segments expire in the order of these LSNs, and those with the same LSN expire together. So a
//! tombstone never goes before a put that it hides: compaction drops the tombstone only when no
//! segment of the store holds the put.

use kv_core::{Lsn, Point, Result, RetentionPolicy, RetentionView, SegmentId, Superseded};
use kv_wal_format::{Record, RecordKind, SegmentKind};
use std::collections::BTreeMap;

use super::content::{Entry, record_len};
use crate::segments::SEGMENT_BYTES_MAX;

/// The most archived segments. One more, and the oldest ones expire.
pub(super) const ARCHIVED_MAX: usize = 8192;

/// Lengths of the value of an archived segment and of a point, bytes.
const ARCHIVED_VALUE_LEN: usize = 26;
const POINT_VALUE_LEN: usize = 24;

/// The beginning of a point's key. No segment has the id 0.
const POINT_KEY: [u8; 8] = [0; 8];

/// Length of the longest archive in a manifest, bytes.
pub(super) const LEN_MAX: usize = ARCHIVED_MAX * record_len(8, ARCHIVED_VALUE_LEN)
    + Point::COUNT_MAX * record_len(POINT_KEY.len() + Point::NAME_LEN_MAX, POINT_VALUE_LEN);

/// The past of a store, as far as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Archive {
    /// The oldest state that can be reached.
    pub(crate) first_lsn: Lsn,
    /// Its changes had been made by then, milliseconds since the Unix epoch.
    pub(crate) first_unix_ms: u64,
    pub(crate) segments: BTreeMap<SegmentId, Archived>,
    /// In the order of their names.
    pub(crate) points: Vec<Point>,
}

/// A segment that compaction has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Archived {
    pub(crate) kind: SegmentKind,
    /// Bytes of its file.
    pub(crate) len: u64,
    /// States from this LSN on do not need it.
    pub(crate) replaced_lsn: Lsn,
    /// The changes up to that LSN had been made by then, milliseconds since the Unix epoch.
    pub(crate) replaced_unix_ms: u64,
}

impl Archived {
    /// The entry that the manifest had for it.
    pub(crate) fn entry(&self) -> Entry {
        Entry { kind: self.kind, sealed: true, durable_len: self.len }
    }
}

impl Archive {
    /// Of a store whose oldest state is the one at `lsn`.
    pub(crate) fn beginning(lsn: Lsn, unix_ms: u64) -> Self {
        Archive { first_lsn: lsn, first_unix_ms: unix_ms, ..Archive::default() }
    }

    /// Bytes of the archived files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.values().map(|archived| archived.len).sum()
    }

    /// Drops the points that have expired, and the segments that neither the policy nor a point
    /// keeps. Returns those, with the bytes of their files.
    ///
    /// A manifest has room for [`ARCHIVED_MAX`] of them. Beyond that the oldest go, and the points
    /// that need them.
    pub(crate) fn expire(
        &mut self,
        policy: &dyn RetentionPolicy,
        now_unix_ms: u64,
        is_disk_full: bool,
    ) -> Vec<(SegmentId, u64)> {
        self.points.retain(|point| !point.is_expired(now_unix_ms));
        // Those that were replaced since the window began there, without a change in between.
        let mut gone = self.take_replaced(self.first_lsn);
        if self.segments.is_empty() {
            return gone;
        }
        let mut superseded: Vec<Superseded> = self
            .segments
            .values()
            .map(|one| Superseded { lsn: one.replaced_lsn, unix_ms: one.replaced_unix_ms, bytes: one.len })
            .collect();
        superseded.sort_unstable_by_key(|one| (one.lsn, one.unix_ms));
        let goes = if is_disk_full && policy.yields_to_full_disk() {
            superseded.len()
        } else {
            policy.expired(&RetentionView { superseded: &superseded, now_unix_ms })
        };
        // A state at a point's LSN needs every segment that was replaced later.
        let held = self.points.iter().map(|point| point.lsn).min().unwrap_or(Lsn::new(u64::MAX));
        let expired = superseded.iter().take(goes).take_while(|one| one.lsn <= held).count();
        let goes = expired.max(superseded.len().saturating_sub(ARCHIVED_MAX));
        let Some(last) = superseded.iter().take(goes).next_back().copied() else { return gone };
        self.first_lsn = last.lsn;
        self.first_unix_ms = last.unix_ms;
        self.points.retain(|point| point.lsn >= self.first_lsn);
        gone.extend(self.take_replaced(self.first_lsn));
        gone
    }

    /// Removes the segments that states from `lsn` on do not need. Returns them, with the bytes of
    /// their files.
    fn take_replaced(&mut self, lsn: Lsn) -> Vec<(SegmentId, u64)> {
        let gone = self.segments.extract_if(.., |_, one| one.replaced_lsn <= lsn);
        gone.map(|(id, one)| (id, one.len)).collect()
    }

    /// Adds a point whose state is in the window.
    pub(crate) fn pin(&mut self, point: Point) -> Result<()> {
        point.check_new(&self.points)?;
        self.points.push(point);
        self.points.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(())
    }

    /// Removes a point, and says whether it was there.
    pub(crate) fn unpin(&mut self, name: &str) -> bool {
        let before = self.points.len();
        self.points.retain(|point| point.name != name);
        self.points.len() < before
    }

    /// Calls `append` with each record of the archive in a manifest.
    pub(super) fn encode(&self, base_lsn: u64, mut append: impl FnMut(Record<'_>)) {
        for (id, one) in &self.segments {
            let mut value = vec![one.kind.to_byte(), 1];
            let numbers = [one.len, one.replaced_lsn.get(), one.replaced_unix_ms];
            value.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
            append(Record::put(base_lsn, &id.get().to_le_bytes(), &value));
        }
        for Point { name, lsn, unix_ms, expires_unix_ms } in &self.points {
            let key = [&POINT_KEY, name.as_bytes()].concat();
            let numbers = [lsn.get(), *unix_ms, expires_unix_ms.unwrap_or(u64::MAX)];
            append(Record::put(base_lsn, &key, numbers.map(u64::to_le_bytes).as_flattened()));
        }
    }

    /// Number of records that [`encode`](Self::encode) appends.
    pub(super) fn records(&self) -> u64 {
        (self.segments.len() + self.points.len()) as u64
    }

    /// Bytes of those records.
    pub(super) fn encoded_len(&self) -> usize {
        let name_len = |point: &Point| record_len(POINT_KEY.len() + point.name.len(), POINT_VALUE_LEN);
        self.segments.len() * record_len(8, ARCHIVED_VALUE_LEN)
            + self.points.iter().map(name_len).sum::<usize>()
    }

    /// Adds what a record of a manifest says. `None`: it is no record of an archive, or a second
    /// one.
    pub(super) fn decode(&mut self, record: &Record<'_>) -> Option<()> {
        if record.kind != RecordKind::Put {
            return None;
        }
        if let Some(name) = record.key.strip_prefix(&POINT_KEY) {
            let ([lsn, unix_ms, expires], []) = record.value.as_chunks::<8>() else { return None };
            let name = str::from_utf8(name).ok()?.to_owned();
            let expires_unix_ms = Some(u64::from_le_bytes(*expires)).filter(|time| *time < u64::MAX);
            let (lsn, unix_ms) = (Lsn::new(u64::from_le_bytes(*lsn)), u64::from_le_bytes(*unix_ms));
            let point = Point { name, lsn, unix_ms, expires_unix_ms };
            point.check_new(&self.points).ok()?;
            self.points.push(point);
            return Some(());
        }
        let id = SegmentId::new(u64::from_le_bytes(record.key.try_into().ok()?));
        let [kind, 1, numbers @ ..] = record.value else { return None };
        let ([len, replaced_lsn, replaced_unix_ms], []) = numbers.as_chunks::<8>() else { return None };
        let archived = Archived {
            kind: Entry::segment_kind(*kind)?,
            len: Some(u64::from_le_bytes(*len)).filter(|len| *len <= SEGMENT_BYTES_MAX as u64)?,
            replaced_lsn: Lsn::new(u64::from_le_bytes(*replaced_lsn)),
            replaced_unix_ms: u64::from_le_bytes(*replaced_unix_ms),
        };
        self.segments.insert(id, archived).is_none().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{KeepNothing, KeepPast};

    fn archive() -> Archive {
        let archived = |lsn, unix_ms| Archived {
            kind: SegmentKind::Log,
            len: 100,
            replaced_lsn: Lsn::new(lsn),
            replaced_unix_ms: unix_ms,
        };
        // Replaced in another order than created. Two of them were replaced together.
        let segments =
            [(1, archived(30, 3)), (2, archived(10, 1)), (3, archived(30, 3)), (4, archived(20, 2))];
        let segments = segments.map(|(id, archived)| (SegmentId::new(id), archived)).into();
        Archive { segments, ..Archive::beginning(Lsn::new(5), 0) }
    }

    fn point(lsn: u64, expires_unix_ms: Option<u64>) -> Point {
        Point { name: "p".to_owned(), lsn: Lsn::new(lsn), unix_ms: 0, expires_unix_ms }
    }

    /// The ids that go, and the beginning of the window then.
    fn expire(
        archive: &mut Archive,
        policy: &dyn RetentionPolicy,
        now: u64,
        full: bool,
    ) -> (Vec<u64>, u64, u64) {
        let gone = archive.expire(policy, now, full);
        let ids = gone.iter().map(|(id, _)| id.get()).collect();
        (ids, archive.first_lsn.get(), archive.first_unix_ms)
    }

    #[test]
    fn segments_expire_in_the_order_in_which_they_were_replaced() {
        let bytes = |max| KeepPast::all().bytes_max(max);
        for (policy, gone) in [
            (KeepPast::all(), (vec![], 5, 0)),
            (bytes(399), (vec![2], 10, 1)),
            (bytes(200), (vec![2, 4], 20, 2)),
            (bytes(199), (vec![1, 2, 3, 4], 30, 3)),
        ] {
            let mut archive = archive();
            assert_eq!(expire(&mut archive, &policy, 9, false), gone);
            assert_eq!(archive.segments.len() + gone.0.len(), 4);
            assert!(archive.segments.values().all(|one| one.replaced_lsn > archive.first_lsn));
        }
    }

    #[test]
    fn what_is_replaced_where_the_window_begins_goes_at_once() {
        let mut archive = archive();
        archive.first_lsn = Lsn::new(20);
        archive.points.push(point(20, None));
        assert_eq!(expire(&mut archive, &KeepPast::all(), 9, false), (vec![2, 4], 20, 0));
        assert!(archive.segments.keys().map(|id| id.get()).eq([1, 3]));
    }

    #[test]
    fn a_point_holds_what_was_replaced_after_it_until_it_expires() {
        for (lsn, gone) in [(9, (vec![], 5, 0)), (10, (vec![2], 10, 1)), (29, (vec![2, 4], 20, 2))] {
            let mut archive = archive();
            archive.points.push(point(lsn, Some(50)));
            assert_eq!(expire(&mut archive, &KeepNothing, 49, false), gone, "point at {lsn}");
            assert_eq!(expire(&mut archive, &KeepNothing, 49, true).0, [0; 0]);
            assert_eq!(expire(&mut archive, &KeepNothing, 50, false).1, 30);
            assert_eq!((archive.points.len(), archive.segments.len()), (0, 0));
        }
    }

    #[test]
    fn a_full_manifest_gives_up_the_oldest_segments_and_the_points_that_need_them() {
        let newest = Lsn::new(ARCHIVED_MAX as u64 + 2);
        let archived = |lsn| Archived {
            kind: SegmentKind::Log,
            len: 1,
            replaced_lsn: Lsn::new(lsn),
            replaced_unix_ms: lsn,
        };
        let segments = (1..=newest.get()).map(|lsn| (SegmentId::new(lsn), archived(lsn))).collect();
        let mut archive = Archive { segments, ..Archive::default() };
        archive.points = vec![point(1, None), point(2, None)];
        assert_eq!(expire(&mut archive, &KeepPast::all(), 0, false), (vec![1, 2], 2, 2));
        assert_eq!(archive.points, [point(2, None)]);
        assert_eq!(archive.segments.len(), ARCHIVED_MAX);
        assert!(archive.encoded_len() <= LEN_MAX);
        assert_eq!(expire(&mut archive, &KeepPast::all(), 0, false).0, [0; 0]);
    }

    #[test]
    fn an_archived_segment_longer_than_any_segment_is_refused() {
        for (len, is_known) in [(SEGMENT_BYTES_MAX as u64, true), (SEGMENT_BYTES_MAX as u64 + 1, false)] {
            let mut archive = archive();
            archive.segments.retain(|id, one| {
                one.len = len;
                id.get() == 1
            });
            let (mut decoded, mut found) = (Archive::default(), None);
            archive.encode(1, |record| found = decoded.decode(&record));
            assert_eq!(found.is_some(), is_known, "{len} bytes");
        }
    }

    #[test]
    fn a_full_disk_takes_the_window_unless_it_has_to_stay() {
        assert_eq!(expire(&mut archive(), &KeepPast::all(), 9, true).0, [1, 2, 3, 4]);
        assert_eq!(expire(&mut archive(), &KeepPast::all().stays_on_full_disk(), 9, true).0, [0; 0]);
    }
}
