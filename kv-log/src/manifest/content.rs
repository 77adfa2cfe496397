//! The manifest: the list of the segments that make up the store. The catalog replaces it as a
//! whole, atomically and durably. So recovery notices a missing segment, and a file that the
//! manifest does not name is an orphan.
//!
//! On disk it is a segment of kind `Manifest` (see the format description of `kv-wal-format`). It
//! holds puts and a seal. The put with an empty key is about the store. Each segment has one with
//! its id as the key. Archived segments and points have one each, too (`archive.rs`).

use kv_core::fs::{Dir, DirExt};
use kv_core::{Error, Lsn, Result, SegmentId};
use kv_wal_format::{
    Encoder, HeaderError, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind,
    Stop, encoded_len,
};
use std::collections::BTreeMap;
use std::path::Path;

use super::archive::{self, Archive};
use crate::directory;
use crate::segments::SEGMENTS_MAX;

/// Segment id that the manifest's own records are bound to.
const MANIFEST_ID: u64 = 0;

/// Lengths of the values of the store's record and of a segment's record, bytes.
const STORE_VALUE_LEN: usize = 48;
const ENTRY_VALUE_LEN: usize = 10;

/// The key of the record that names the checkpoint, and the length of its value, bytes.
const CHECKPOINT_KEY: &[u8] = b"checkpoint";
const CHECKPOINT_VALUE_LEN: usize = 16;

/// Length of the longest manifest, bytes. It has an entry for each slot.
const LEN_MAX: usize = SEGMENT_HEADER_LEN
    + record_len(CHECKPOINT_KEY.len(), CHECKPOINT_VALUE_LEN)
    + record_len(0, STORE_VALUE_LEN)
    + SEGMENTS_MAX * record_len(8, ENTRY_VALUE_LEN)
    + archive::LEN_MAX
    + record_len(0, Seal::BODY_LEN);

/// Base LSN of the manifest, and the LSN of all its records: none is a change of the store.
const BASE_LSN: u64 = 0;

pub(super) const fn record_len(key_len: usize, value_len: usize) -> usize {
    encoded_len(BASE_LSN, BASE_LSN, key_len, value_len)
}

/// Segment ids reserved ahead by each manifest.
const IDS_RESERVED: u64 = 1 << 16;

/// LSNs reserved ahead by each manifest.
const LSNS_RESERVED: u64 = 1 << 32;

/// The content of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The id in the header of every file of the store.
    pub(crate) store_id: u32,
    /// The first id that is not reserved. No segment ever had it or a higher one.
    pub(crate) ids_end: SegmentId,
    /// Changes may have LSNs up to this one. After a crash, new changes have higher ones.
    pub(crate) lsn_ceiling: Lsn,
    /// Changes up to this one were durable. Compaction may have dropped their records since.
    pub(crate) durable_lsn: Lsn,
    /// The number that the last opening for writing drew. The objects in shared memory that it left
    /// hold the same number. 0 if there was none.
    pub(crate) nonce: u64,
    pub(crate) segments: BTreeMap<SegmentId, Entry>,
    /// Segments that only past states need.
    pub(crate) archive: Archive,
    /// The newest checkpoint.
    pub(crate) checkpoint: Option<CheckpointName>,
}

/// The manifest's entry for the newest checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointName {
    /// The number in its file name, and in its header.
    pub(crate) id: SegmentId,
    /// A random number that the checkpoint holds as well. If a user puts back an older manifest
    /// alone, it may give the ids of a newer checkpoint to other segments.
    pub(crate) nonce: u64,
}

/// The manifest's entry for one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: SegmentKind,
    /// Whether it was sealed and synced. `durable_len` is then its whole length.
    pub(crate) sealed: bool,
    /// At least this many bytes from the start were synced.
    pub(crate) durable_len: u64,
}

impl Manifest {
    /// Of a store without any change.
    pub(crate) fn empty(store_id: u32) -> Self {
        Manifest {
            store_id,
            ids_end: SegmentId::new(1),
            lsn_ceiling: Lsn::ZERO,
            durable_lsn: Lsn::ZERO,
            nonce: 0,
            segments: BTreeMap::new(),
            archive: Archive::default(),
            checkpoint: None,
        }
    }

    /// Whether this id is that of a segment of the store, or of an archived one.
    pub(crate) fn names(&self, id: SegmentId) -> bool {
        self.segments.contains_key(&id) || self.archive.segments.contains_key(&id)
    }

    /// Reserves LSNs beyond `last`, when fewer than half of the usual number are left.
    pub(crate) fn reserve_lsns(&mut self, last: Lsn) {
        if self.lsn_ceiling.get() < last.get().saturating_add(LSNS_RESERVED / 2) {
            self.lsn_ceiling = Lsn::new(last.get().saturating_add(LSNS_RESERVED));
        }
    }

    /// Reserves ids from `next` on, when fewer than half of the usual number are left.
    pub(crate) fn reserve_ids(&mut self, next: SegmentId) {
        if self.ids_end.get() < next.get().saturating_add(IDS_RESERVED / 2) {
            self.ids_end = SegmentId::new(next.get().saturating_add(IDS_RESERVED));
        }
    }

    /// Length of the longest manifest that names `segments` segments, and no past state, bytes.
    pub(crate) fn len_max_with(segments: usize) -> usize {
        LEN_MAX - archive::LEN_MAX - SEGMENTS_MAX.saturating_sub(segments) * record_len(8, ENTRY_VALUE_LEN)
    }

    /// Length of this manifest, bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        let checkpoint = record_len(CHECKPOINT_KEY.len(), CHECKPOINT_VALUE_LEN);
        let most = Self::len_max_with(self.segments.len()) + self.archive.encoded_len();
        most - if self.checkpoint.is_some() { 0 } else { checkpoint }
    }

    /// Replaces the manifest of `dir`, atomically and durably.
    pub(crate) fn store(&self, dir: &dyn Dir) -> Result<()> {
        dir.write_file_atomically(directory::MANIFEST, &self.encode())
    }

    /// Reads the manifest of `dir`.
    pub(crate) fn load(dir: &dyn Dir) -> Result<Self> {
        let bytes = dir.read_file(directory::MANIFEST, LEN_MAX as u64)?;
        Self::decode(&bytes, &dir.path_of(directory::MANIFEST))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let header = SegmentHeader {
            kind: SegmentKind::Manifest,
            segment_id: MANIFEST_ID,
            base_lsn: BASE_LSN,
            store_id: self.store_id,
        };
        let mut bytes = header.encode().to_vec();
        let encoder = Encoder::new(header.origin());
        let mut append = |record: Record<'_>| {
            encoder.append(&record, &mut bytes).expect("manifest records are a few bytes long");
        };
        let Archive { first_lsn, first_unix_ms, .. } = self.archive;
        let reserved = [self.ids_end.get(), self.lsn_ceiling.get(), self.durable_lsn.get()];
        let numbers = [reserved.as_slice(), &[first_lsn.get(), first_unix_ms, self.nonce]].concat();
        let value: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        append(Record::put(BASE_LSN, b"", &value));
        for (id, entry) in &self.segments {
            let mut value = vec![entry.kind.to_byte(), u8::from(entry.sealed)];
            value.extend_from_slice(&entry.durable_len.to_le_bytes());
            append(Record::put(BASE_LSN, &id.get().to_le_bytes(), &value));
        }
        self.archive.encode(BASE_LSN, &mut append);
        if let Some(CheckpointName { id, nonce }) = self.checkpoint {
            let value = [id.get(), nonce].map(u64::to_le_bytes);
            append(Record::put(BASE_LSN, CHECKPOINT_KEY, value.as_flattened()));
        }
        let seal = Seal { records: self.records(), max_lsn: 0 }.encode_body();
        append(Record::seal(BASE_LSN, &seal));
        bytes
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let damaged = |offset: usize, fault: &str| Error::corruption(path, offset as u64, fault);
        let (header, mut scanner) = Scanner::open(bytes).map_err(|error| header_error(path, error))?;
        if (header.kind, header.segment_id) != (SegmentKind::Manifest, MANIFEST_ID) {
            let SegmentHeader { kind, segment_id, .. } = header;
            let fault = format!("this is not a manifest: its header is of {kind} segment {segment_id}");
            return Err(damaged(0, &fault));
        }
        let mut manifest = None;
        let mut seal = None;
        for (range, record) in scanner.by_ref() {
            let offset = range.start;
            match (record.kind, &mut manifest) {
                (RecordKind::Put, manifest @ None) => {
                    *manifest = Some(
                        decode_store(&record, header.store_id)
                            .ok_or_else(|| damaged(offset, "the first entry is not the one of the store"))?,
                    );
                }
                (RecordKind::Put, Some(manifest @ Manifest { checkpoint: None, .. }))
                    if record.key == CHECKPOINT_KEY =>
                {
                    let name = decode_checkpoint(&record);
                    manifest.checkpoint =
                        Some(name.ok_or_else(|| damaged(offset, "this entry names no checkpoint"))?);
                }
                (RecordKind::Put, Some(manifest)) => {
                    let Some((id, entry)) = decode_entry(&record) else {
                        manifest
                            .archive
                            .decode(&record)
                            .ok_or_else(|| damaged(offset, "this entry names no segment and no point"))?;
                        continue;
                    };
                    if id >= manifest.ids_end || manifest.segments.insert(id, entry).is_some() {
                        let fault = "this entry names a segment twice, or one that was never made";
                        return Err(damaged(offset, fault));
                    }
                }
                (RecordKind::Seal, _) => seal = Seal::from_record(&record),
                (kind, _) => {
                    return Err(damaged(offset, &format!("this {kind} does not belong in a manifest")));
                }
            }
        }
        let entries = manifest.as_ref().map_or(0, Manifest::records);
        if let Some((offset, fault)) = fault_at_end(scanner.stop(), seal, entries, bytes.len()) {
            return Err(damaged(offset, &fault));
        }
        let manifest = manifest.ok_or_else(|| damaged(bytes.len(), "the manifest has no entries"))?;
        let is_misfit = |id: &SegmentId| *id >= manifest.ids_end || manifest.segments.contains_key(id);
        if manifest.archive.segments.keys().any(is_misfit) {
            return Err(damaged(0, "it archives a segment of the store, or one that was never made"));
        }
        Ok(manifest)
    }

    /// Number of its puts.
    fn records(&self) -> u64 {
        1 + self.segments.len() as u64 + self.archive.records() + u64::from(self.checkpoint.is_some())
    }
}

/// The place and the fault at the end of a manifest of `len` bytes with so many entries, unless its
/// seal is whole and ends it.
fn fault_at_end(stop: Stop, seal: Option<Seal>, entries: u64, len: usize) -> Option<(usize, String)> {
    let Stop { offset: end, fault, reason, .. } = stop;
    match seal {
        None => Some((fault, format!("this manifest cannot be read up to its seal: {reason}"))),
        Some(Seal { records, .. }) if records != entries => {
            Some((end, format!("the seal counts {records} entries, the manifest has {entries}")))
        }
        Some(_) if end != len => Some((end, "bytes follow the seal".to_owned())),
        Some(_) => None,
    }
}

fn decode_store(record: &Record<'_>, store_id: u32) -> Option<Manifest> {
    let (numbers, []) = record.value.as_chunks::<8>() else { return None };
    let ([ids_end, lsn_ceiling, durable_lsn, first_lsn, first_unix_ms, nonce], []) =
        numbers.split_first_chunk()?
    else {
        return None;
    };
    record.key.is_empty().then_some(())?;
    Some(Manifest {
        store_id,
        ids_end: SegmentId::new(u64::from_le_bytes(*ids_end)),
        lsn_ceiling: Lsn::new(u64::from_le_bytes(*lsn_ceiling)),
        durable_lsn: Lsn::new(u64::from_le_bytes(*durable_lsn)),
        nonce: u64::from_le_bytes(*nonce),
        segments: BTreeMap::new(),
        archive: Archive::beginning(
            Lsn::new(u64::from_le_bytes(*first_lsn)),
            u64::from_le_bytes(*first_unix_ms),
        ),
        checkpoint: None,
    })
}

fn decode_checkpoint(record: &Record<'_>) -> Option<CheckpointName> {
    let ([id, nonce], []) = record.value.as_chunks::<8>() else { return None };
    Some(CheckpointName { id: SegmentId::new(u64::from_le_bytes(*id)), nonce: u64::from_le_bytes(*nonce) })
}

impl Entry {
    /// The kind of a segment that an entry may name.
    pub(super) fn segment_kind(byte: u8) -> Option<SegmentKind> {
        SegmentKind::from_byte(byte).filter(|kind| matches!(kind, SegmentKind::Log | SegmentKind::Compacted))
    }
}

fn decode_entry(record: &Record<'_>) -> Option<(SegmentId, Entry)> {
    let id = SegmentId::new(u64::from_le_bytes(record.key.try_into().ok()?));
    let [kind, sealed @ (0 | 1), durable_len @ ..] = record.value else { return None };
    let kind = Entry::segment_kind(*kind)?;
    let durable_len = u64::from_le_bytes(durable_len.try_into().ok()?);
    Some((id, Entry { kind, sealed: *sealed == 1, durable_len }))
}

/// The header of the segment `id` of this kind and store, from the `bytes` of its file at `path`.
///
/// # Errors
/// It is damaged, or of another format version; this is another segment.
pub(crate) fn header_of(
    path: &Path,
    bytes: &[u8],
    kind: SegmentKind,
    id: SegmentId,
    store_id: u32,
) -> Result<SegmentHeader> {
    let header = SegmentHeader::decode(bytes).map_err(|error| header_error(path, error))?;
    match misfit(&header, kind, id, store_id) {
        Some(fault) => Err(Error::corruption(path, 0, fault)),
        None => Ok(header),
    }
}

/// The fault of a segment's file with this intact header, unless it is that of the segment `id` of
/// this kind and store.
pub(crate) fn misfit(
    header: &SegmentHeader,
    kind: SegmentKind,
    id: SegmentId,
    store_id: u32,
) -> Option<String> {
    if (header.kind, header.segment_id) != (kind, id.get()) {
        Some(format!("this is {} segment {}, not {kind} segment {id}", header.kind, header.segment_id))
    } else if header.store_id != store_id {
        Some("this segment is of another store than the manifest".to_owned())
    } else {
        None
    }
}

/// The error for a bad segment header.
pub(crate) fn header_error(path: &Path, error: HeaderError) -> Error {
    match error {
        HeaderError::UnsupportedVersion { found, supported } => Error::UnsupportedVersion {
            path: path.to_path_buf(),
            found: found.into(),
            supported: supported.into(),
        },
        other => Error::corruption(path, 0, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::Archived;
    use super::*;
    use kv_core::Point;

    fn sample() -> Manifest {
        Manifest {
            store_id: 11,
            ids_end: SegmentId::new(9),
            lsn_ceiling: Lsn::new(77),
            durable_lsn: Lsn::new(66),
            nonce: 0x0123_4567_89ab_cdef,
            segments: BTreeMap::from([
                (SegmentId::new(3), Entry { kind: SegmentKind::Compacted, sealed: true, durable_len: 4096 }),
                (SegmentId::new(8), Entry { kind: SegmentKind::Log, sealed: false, durable_len: 40 }),
            ]),
            archive: Archive {
                segments: BTreeMap::from([(
                    SegmentId::new(2),
                    Archived {
                        kind: SegmentKind::Log,
                        len: 4096,
                        replaced_lsn: Lsn::new(55),
                        replaced_unix_ms: 9,
                    },
                )]),
                points: vec![
                    Point { name: "a".to_owned(), lsn: Lsn::new(51), unix_ms: 7, expires_unix_ms: None },
                    Point { name: "bb".to_owned(), lsn: Lsn::new(52), unix_ms: 8, expires_unix_ms: Some(99) },
                ],
                ..Archive::beginning(Lsn::new(50), 6)
            },
            checkpoint: Some(CheckpointName { id: SegmentId::new(5), nonce: 0x0102_0304_0506_0708 }),
        }
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let unnamed = Manifest { checkpoint: None, ..sample() };
        for manifest in [Manifest::empty(7), unnamed, sample()] {
            let bytes = manifest.encode();
            assert_eq!(Manifest::decode(&bytes, Path::new("m")).unwrap(), manifest);
            assert_eq!(bytes.len(), manifest.encoded_len());
        }
        let named = Manifest { archive: Archive::default(), ..sample() };
        assert_eq!(named.encode().len(), Manifest::len_max_with(2));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = sample().encode();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = Manifest::decode(&damaged, Path::new("m")).unwrap_err();
            assert!(
                matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }),
                "bit {bit}: {error}"
            );
        }
        for cut in 0..whole.len() {
            Manifest::decode(&whole[..cut], Path::new("m")).unwrap_err();
        }
        let longer = [whole.as_slice(), &[0; 8]].concat();
        Manifest::decode(&longer, Path::new("m")).unwrap_err();
    }

    #[test]
    fn another_version_is_named_as_such() {
        // A build of format version 1 has written it.
        let older = include_bytes!("../../../kv-wal-format/testdata/v1_manifest_empty.seg");
        let error = Manifest::decode(older, Path::new("m")).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 1, supported: 2, .. }), "{error}");
        let mut newer = sample().encode();
        newer[8] = 3;
        let error = Manifest::decode(&newer, Path::new("m")).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 2, .. }), "{error}");
    }

    #[test]
    fn ids_are_reserved_before_they_run_out() {
        let mut manifest = Manifest::empty(7);
        let mut reserved = |next| {
            manifest.reserve_ids(SegmentId::new(next));
            manifest.ids_end.get()
        };
        assert_eq!(reserved(1), 1 + IDS_RESERVED);
        assert_eq!(reserved(1 + IDS_RESERVED / 2), 1 + IDS_RESERVED);
        assert_eq!(reserved(2 + IDS_RESERVED / 2), 2 + IDS_RESERVED / 2 + IDS_RESERVED);
        assert_eq!(reserved(u64::MAX), u64::MAX);
    }

    #[test]
    fn lsns_are_reserved_before_they_run_out() {
        let mut manifest = Manifest::empty(7);
        manifest.reserve_lsns(Lsn::ZERO);
        assert_eq!(manifest.lsn_ceiling.get(), LSNS_RESERVED);
        manifest.reserve_lsns(Lsn::new(LSNS_RESERVED / 2));
        assert_eq!(manifest.lsn_ceiling.get(), LSNS_RESERVED);
        manifest.reserve_lsns(Lsn::new(LSNS_RESERVED / 2 + 1));
        assert_eq!(manifest.lsn_ceiling.get(), LSNS_RESERVED / 2 + 1 + LSNS_RESERVED);
    }
}
