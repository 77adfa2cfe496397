//! The bytes of a checkpoint. FORMAT.md describes them.
//!
//! The file is a segment of kind `Checkpoint`, and its base LSN is the horizon. It holds puts, all
//! with that LSN, in this order, and a seal:
//!
//! | key | value |
//! |---|---|
//! | empty | [`Head`] |
//! | 2 bytes: the number of a segment | [`Covered`] |
//! | 4 bytes: the number of a shard | bytes of pairs, and entries |

use kv_core::{Background, SegmentId};
use kv_wal_format::{
    Encoder, HeaderError, Record, RecordKind, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader, SegmentKind,
};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::index::location_of;
use crate::manifest::CheckpointName;
use crate::processors::on_all_processors;
use crate::segments::{FileFacts, SEGMENTS_MAX};

/// The facts about a whole checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number that the manifest holds as well.
    pub(crate) nonce: u64,
    /// Seed of the hash function, and a number that follows from the function.
    pub(crate) seed: u64,
    pub(crate) hash_check: u64,
    /// An upper bound for the length of the longest key, bytes.
    pub(crate) longest_key: u64,
    pub(crate) shards: u64,
    /// Whether the bytes of pairs are an estimate.
    pub(crate) is_estimated: bool,
}

/// A segment that a checkpoint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Covered {
    pub(crate) id: SegmentId,
    pub(crate) kind: SegmentKind,
    /// Length of its file, bytes.
    pub(crate) len: u64,
    pub(crate) base_lsn: u64,
    pub(crate) facts: FileFacts,
}

const HEAD_WORDS: usize = 6;
const COVERED_WORDS: usize = 10;

impl Head {
    fn words(&self) -> [u64; HEAD_WORDS] {
        let Head { nonce, seed, hash_check, longest_key, shards, is_estimated } = *self;
        [nonce, seed, hash_check, longest_key, shards, u64::from(is_estimated)]
    }

    fn from_value(value: &[u8]) -> Option<Self> {
        let [nonce, seed, hash_check, longest_key, shards, is_estimated @ (0 | 1)] = words(value)? else {
            return None;
        };
        Some(Head { nonce, seed, hash_check, longest_key, shards, is_estimated: is_estimated == 1 })
    }
}

impl Covered {
    fn words(&self) -> [u64; COVERED_WORDS] {
        let FileFacts { records, change_bytes, put_bytes, live_bytes, min_put_lsn, max_lsn } = self.facts;
        let kind = u64::from(self.kind.to_byte());
        let (id, len, base_lsn) = (self.id.get(), self.len, self.base_lsn);
        [id, kind, len, base_lsn, records, change_bytes, put_bytes, live_bytes, min_put_lsn, max_lsn]
    }

    fn from_value(value: &[u8]) -> Option<Self> {
        let [id, kind, len, base_lsn, records, change_bytes, put_bytes, live_bytes, min_put_lsn, max_lsn] =
            words(value)?;
        let kind = SegmentKind::from_byte(u8::try_from(kind).ok()?)
            .filter(|kind| matches!(kind, SegmentKind::Log | SegmentKind::Compacted))?;
        let facts = FileFacts { records, change_bytes, put_bytes, live_bytes, min_put_lsn, max_lsn };
        let is_sound = live_bytes <= put_bytes && put_bytes <= change_bytes && change_bytes <= len;
        is_sound.then_some(Covered { id: SegmentId::new(id), kind, len, base_lsn, facts })
    }
}

fn words<const N: usize>(value: &[u8]) -> Option<[u64; N]> {
    let (words, []) = value.as_chunks::<8>() else { return None };
    let words: &[[u8; 8]; N] = words.try_into().ok()?;
    Some(words.map(u64::from_le_bytes))
}

/// Writes the records of a checkpoint to memory.
#[derive(Debug)]
pub(super) struct Writer {
    encoder: Encoder,
    horizon: u64,
    records: u64,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(id: SegmentId, horizon: u64, store_id: u32, head: &Head) -> Self {
        let kind = SegmentKind::Checkpoint;
        let header = SegmentHeader { kind, segment_id: id.get(), base_lsn: horizon, store_id };
        let bytes = header.encode().to_vec();
        let mut writer = Writer { encoder: Encoder::new(header.origin()), horizon, records: 0, bytes };
        writer.put(b"", head.words().map(u64::to_le_bytes).as_flattened());
        writer
    }

    pub(super) fn segment(&mut self, number: u16, covered: &Covered) {
        self.put(&number.to_le_bytes(), covered.words().map(u64::to_le_bytes).as_flattened());
    }

    /// Adds a part of a shard: the bytes of pairs, and behind them entries.
    pub(super) fn part(&mut self, shard: usize, value: &[u8]) {
        let shard = u32::try_from(shard).expect("there are at most 65,536 shards");
        self.put(&shard.to_le_bytes(), value);
    }

    pub(super) fn seal(&mut self) {
        let seal = Seal { records: self.records, max_lsn: self.horizon }.encode_body();
        self.append(&Record::seal(self.horizon, &seal));
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.append(&Record::put(self.horizon, key, value));
    }

    fn append(&mut self, record: &Record<'_>) {
        self.encoder.append(record, &mut self.bytes).expect("parts are within the limits of a record");
    }

    /// The bytes that were not taken yet.
    pub(super) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// The content of a checkpoint.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) horizon: u64,
    pub(crate) head: Head,
    pub(crate) segments: Vec<Covered>,
    pub(crate) parts: Vec<Part<'a>>,
}

/// Some entries of one shard.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// Where it begins in the file.
    at: usize,
    pub(crate) shard: usize,
    /// Bytes of the pairs of the shard, or a part of them.
    pub(crate) pair_bytes: u64,
    pub(crate) entries: &'a [[u8; 8]],
}

impl Parsed<'_> {
    /// The number of entries for each covered segment, counted on all processors.
    ///
    /// # Errors
    /// An entry lies outside these segments.
    pub(crate) fn count_entries(&self, background: Background) -> Result<Vec<u64>, Fault> {
        let none = vec![0; self.segments.len()];
        let (next, total) = (AtomicUsize::new(0), Mutex::new(Ok(none.clone())));
        let work = || {
            let mut counts = none.clone();
            while let Some(part) = self.parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !part.count_entries(&self.segments, &mut counts) {
                    *total.lock() = Err(fault(part.at, NO_PART));
                    return;
                }
            }
            if let Ok(total) = &mut *total.lock() {
                total.iter_mut().zip(&counts).for_each(|(total, count)| *total += count);
            }
        };
        on_all_processors(background, self.parts.len(), work);
        total.into_inner()
    }
}

impl Part<'_> {
    /// Adds the entries for each of `segments` to `counts`. Returns whether each entry lies within
    /// one of them.
    fn count_entries(&self, segments: &[Covered], counts: &mut [u64]) -> bool {
        self.entries.iter().all(|bytes| {
            let Some(location) = location_of(*bytes) else { return false };
            let number = usize::from(location.slot());
            let (Some(segment), Some(count)) = (segments.get(number), counts.get_mut(number)) else {
                return false;
            };
            *count += 1;
            (SEGMENT_HEADER_LEN as u64..segment.len).contains(&(location.offset() as u64))
        })
    }
}

/// The fault of a part that holds anything but entries of the index.
const NO_PART: &str = "this entry is no part of the index";

/// The reason why a checkpoint cannot be used, and the offset of the damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) offset: usize,
    pub(crate) reason: String,
}

pub(super) fn fault(offset: usize, reason: impl Into<String>) -> Fault {
    Fault { offset, reason: reason.into() }
}

/// Reads the checkpoint `name` of the store `store_id`, and checks all that the file itself can
/// tell. [`Parsed::count_entries`] checks the places of its entries.
///
/// # Errors
/// The file is damaged, or of another checkpoint.
pub(crate) fn parse(bytes: &[u8], name: CheckpointName, store_id: u32) -> Result<Parsed<'_>, Fault> {
    let (header, mut scanner) = Scanner::open(bytes).map_err(|error| match error {
        HeaderError::UnsupportedVersion { found, .. } => {
            fault(0, format!("it is of format version {found}, which this release does not read"))
        }
        error => fault(0, error.to_string()),
    })?;
    if (header.kind, header.segment_id) != (SegmentKind::Checkpoint, name.id.get()) {
        return Err(fault(0, "its header is of another file"));
    }
    if header.store_id != store_id {
        return Err(fault(0, "it is of another store"));
    }
    let (mut head, mut segments, mut parts) = (None, Vec::new(), Vec::new());
    let mut seal = None;
    for (range, record) in scanner.by_ref() {
        let at = range.start;
        match (record.kind, record.key, &head) {
            (RecordKind::Put, [], None) => {
                let found = Head::from_value(record.value).filter(|head| head.nonce == name.nonce);
                head = Some(found.ok_or_else(|| fault(at, "it is not the one that the manifest names"))?);
            }
            (RecordKind::Put, [a, b], Some(_)) => {
                let is_next = usize::from(u16::from_le_bytes([*a, *b])) == segments.len();
                let fits = is_next && parts.is_empty() && segments.len() < SEGMENTS_MAX;
                let covered = Covered::from_value(record.value).filter(|_| fits);
                segments.push(covered.ok_or_else(|| fault(at, "this entry describes no segment"))?);
            }
            (RecordKind::Put, [a, b, c, d], Some(head)) => {
                let shard = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                let is_next = parts.last().is_none_or(|last: &Part<'_>| last.shard <= shard);
                let fits = is_next && (shard as u64) < head.shards;
                let part = part(at, shard, record.value).filter(|_| fits);
                parts.push(part.ok_or_else(|| fault(at, NO_PART))?);
            }
            (RecordKind::Seal, ..) => seal = Seal::from_record(&record),
            (kind, ..) => return Err(fault(at, format!("this {kind} does not belong in a checkpoint"))),
        }
    }
    let stop = scanner.stop();
    let records = 1 + segments.len() as u64 + parts.len() as u64;
    if seal != Some(Seal { records, max_lsn: header.base_lsn }) || stop.offset != bytes.len() {
        return Err(fault(stop.fault, format!("it cannot be read up to its seal: {}", stop.reason)));
    }
    let head = head.ok_or_else(|| fault(SEGMENT_HEADER_LEN, "it has no entries"))?;
    Ok(Parsed { horizon: header.base_lsn, head, segments, parts })
}

fn part(at: usize, shard: usize, value: &[u8]) -> Option<Part<'_>> {
    let (pair_bytes, entries) = value.split_first_chunk::<8>()?;
    let (entries, []) = entries.as_chunks::<8>() else { return None };
    Some(Part { at, shard, pair_bytes: u64::from_le_bytes(*pair_bytes), entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segments::Location;

    const NAME: CheckpointName = CheckpointName { id: SegmentId::new(9), nonce: 77 };

    fn head() -> Head {
        Head { nonce: 77, seed: 1, hash_check: 2, longest_key: 3, shards: 4, is_estimated: true }
    }

    fn covered(id: u64) -> Covered {
        let facts = FileFacts {
            records: 3,
            change_bytes: 90,
            put_bytes: 80,
            live_bytes: 70,
            min_put_lsn: 5,
            max_lsn: 12,
        };
        Covered { id: SegmentId::new(id), kind: SegmentKind::Log, len: 200, base_lsn: 4, facts }
    }

    fn part_value(locations: &[(u16, usize)]) -> Vec<u8> {
        let mut value = 1000_u64.to_le_bytes().to_vec();
        for (slot, offset) in locations {
            value.extend((0xabcd << Location::BITS | Location::new(*slot, *offset).bits()).to_le_bytes());
        }
        value
    }

    fn sample(locations: &[(u16, usize)]) -> Vec<u8> {
        let mut writer = Writer::new(NAME.id, 12, 5, &head());
        writer.segment(0, &covered(3));
        writer.segment(1, &covered(6));
        writer.part(3, &part_value(locations));
        writer.seal();
        std::mem::take(writer.bytes())
    }

    #[test]
    fn comes_back_as_it_was_written() {
        let bytes = sample(&[(0, 40), (1, 199)]);
        let parsed = parse(&bytes, NAME, 5).unwrap();
        assert_eq!((parsed.horizon, parsed.head), (12, head()));
        assert_eq!(parsed.segments, [covered(3), covered(6)]);
        let [Part { shard: 3, pair_bytes: 1000, entries, .. }] = &parsed.parts[..] else {
            panic!("{parsed:?}")
        };
        let places = entries.iter().map(|bytes| location_of(*bytes).unwrap());
        assert_eq!(places.collect::<Vec<_>>(), [Location::new(0, 40), Location::new(1, 199)]);
        for background in [Background::Inline, Background::Threads] {
            assert_eq!(parsed.count_entries(background).unwrap(), [1, 1]);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = sample(&[(0, 40), (1, 199)]);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&damaged, NAME, 5).is_err(), "bit {bit}");
        }
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut], NAME, 5).is_err(), "cut to {cut}");
        }
        assert!(parse(&[whole.as_slice(), &[0; 8]].concat(), NAME, 5).is_err());
    }

    #[test]
    fn another_checkpoint_and_another_store_are_told_apart() {
        let bytes = sample(&[]);
        for (name, store_id) in [
            (CheckpointName { nonce: 78, ..NAME }, 5),
            (CheckpointName { id: SegmentId::new(8), ..NAME }, 5),
            (NAME, 6),
        ] {
            assert!(parse(&bytes, name, store_id).is_err(), "{name:?} {store_id}");
        }
    }

    #[test]
    fn parts_that_are_not_in_the_order_of_shards_are_refused() {
        for (shards, is_sound) in [([0, 0, 2], true), ([0, 1, 0], false)] {
            let mut writer = Writer::new(NAME.id, 12, 5, &head());
            writer.segment(0, &covered(1));
            for shard in shards {
                writer.part(shard, &part_value(&[(0, 40)]));
            }
            writer.seal();
            assert_eq!(parse(writer.bytes(), NAME, 5).is_ok(), is_sound, "{shards:?}");
        }
    }

    #[test]
    fn entries_outside_the_covered_segments_are_refused() {
        for locations in [[(2, 40)], [(0, 39)], [(1, 200)]] {
            let bytes = sample(&locations);
            let parsed = parse(&bytes, NAME, 5).unwrap();
            for background in [Background::Inline, Background::Threads] {
                let fault = parsed.count_entries(background).unwrap_err();
                assert!(fault.reason.contains(NO_PART), "{fault:?}");
                assert!(parsed.parts.iter().any(|part| part.at == fault.offset));
            }
        }
    }
}
