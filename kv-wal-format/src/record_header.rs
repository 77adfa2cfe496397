//! The header before every record's key and value, in its two forms.

use crate::checksum::HeaderSeed;
use crate::error::Corruption;
use crate::kind::RecordKind;
use crate::layout::{
    self, LARGE_HEADER_LEN, SMALL_HEADER_LEN, SMALL_KEY_LEN_MAX, SMALL_LSN_DELTA_MAX, SMALL_VALUE_LEN_MAX,
};
use crate::record::check_shape;
use crate::segment_header::Origin;

/// Offsets of the fields of a small header. FORMAT.md has the same table, and a test compares the
/// two.
mod small {
    pub(super) const TAG: usize = 0;
    pub(super) const KEY_LEN: usize = 1;
    pub(super) const VALUE_LEN: usize = 2;
    pub(super) const LSN_DELTA: usize = 4;
    pub(super) const CHECK: usize = 8;
    pub(super) const CRC: usize = 10;
    const _: () = assert!(CRC + size_of::<u32>() == super::SMALL_HEADER_LEN);
}

/// Offsets of the fields of a large header. FORMAT.md has the same table, and a test compares the
/// two.
mod large {
    pub(super) const TAG: usize = 0;
    pub(super) const KEY_LEN: usize = 1;
    pub(super) const VALUE_LEN: usize = 3;
    pub(super) const LSN: usize = 7;
    pub(super) const CHECK: usize = 15;
    pub(super) const CRC: usize = 19;
    const _: () = assert!(CRC + size_of::<u32>() == super::LARGE_HEADER_LEN);
}

/// Both forms have their lengths in the bytes that a small header has.
const _: () = assert!(large::LSN <= SMALL_HEADER_LEN);

// The parts of a tag. The forms differ in four bits, so no damage to fewer bits makes one form look
// like the other.
const KIND_BITS: u8 = 0b0000_0111;
const MORE: u8 = 0b0000_1000;
const FORM_BITS: u8 = 0b1111_0000;
const SMALL: u8 = 0b0000_0000;
const LARGE: u8 = 0b1111_0000;

/// The kind, the flag and the lengths of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordInfo {
    /// The kind of the record.
    pub kind: RecordKind,
    /// MORE: the next record belongs to the same batch.
    pub more: bool,
    /// Length of the header in bytes. The key starts there.
    pub header_len: usize,
    /// Length of the key in bytes.
    pub key_len: usize,
    /// Length of the value in bytes.
    pub value_len: usize,
}

impl RecordInfo {
    /// Bytes that the record takes in a segment. Lengths beyond the address space saturate.
    #[inline]
    pub const fn encoded_len(&self) -> usize {
        self.header_len.saturating_add(self.key_len).saturating_add(self.value_len)
    }

    /// Key and value in `buf`, which starts with the header. `None` when `buf` ends inside the
    /// record.
    #[inline]
    pub(crate) fn body<'a>(&self, buf: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        buf.get(self.header_len..self.encoded_len())?.split_at_checked(self.key_len)
    }
}

/// A whole header: its fields, without its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: RecordKind,
    pub(crate) more: bool,
    pub(crate) lsn: u64,
    pub(crate) key_len: u16,
    pub(crate) value_len: u32,
}

/// A decoded header whose `check` matches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) info: RecordInfo,
    pub(crate) lsn: u64,
    /// What the checksum of key and value must be.
    pub(crate) body_crc: u32,
}

/// Why a header cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// The bytes end inside it.
    Torn,
    Corrupt(Corruption),
}

impl From<Corruption> for NoHeader {
    fn from(corruption: Corruption) -> Self {
        Self::Corrupt(corruption)
    }
}

/// The distance of `lsn` from the base LSN, if a small header can hold it and these lengths.
#[inline]
const fn small_delta(base_lsn: u64, lsn: u64, key_len: usize, value_len: usize) -> Option<u64> {
    let fits = key_len <= SMALL_KEY_LEN_MAX && value_len <= SMALL_VALUE_LEN_MAX;
    match lsn.checked_sub(base_lsn) {
        Some(delta) if fits && delta <= SMALL_LSN_DELTA_MAX => Some(delta),
        _ => None,
    }
}

/// Length in bytes of the smallest header that holds this LSN and these lengths.
#[inline]
const fn header_len(base_lsn: u64, lsn: u64, key_len: usize, value_len: usize) -> usize {
    match small_delta(base_lsn, lsn, key_len, value_len) {
        Some(_) => SMALL_HEADER_LEN,
        None => LARGE_HEADER_LEN,
    }
}

/// Bytes that a record with this LSN and these lengths takes in a segment with this base LSN.
///
/// The header is small when key, value, and the distance of the LSN from the base LSN are.
/// [`encoded_len_max`](crate::encoded_len_max) is the length with a large header. Lengths beyond
/// the address space saturate, to a length that no buffer has.
///
/// ```
/// use kv_wal_format::{encoded_len, encoded_len_max};
///
/// assert_eq!(encoded_len(100, 101, 3, 5), 14 + 8);
/// assert_eq!(encoded_len(100, 99, 3, 5), 23 + 8);
/// assert_eq!(encoded_len_max(3, 5), 23 + 8);
/// ```
#[inline]
pub const fn encoded_len(base_lsn: u64, lsn: u64, key_len: usize, value_len: usize) -> usize {
    header_len(base_lsn, lsn, key_len, value_len).saturating_add(key_len).saturating_add(value_len)
}

/// The context of the headers of one segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers {
    seed: HeaderSeed,
    pub(crate) base_lsn: u64,
}

impl Headers {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { seed: HeaderSeed::new(origin.segment_id), base_lsn: origin.base_lsn }
    }

    /// Writes a header in the smallest form that holds it to the start of `out`, and returns the
    /// rest of `out`. `None` when `out` is too short. `body_crc` is the checksum of key and value.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "`small_delta` has checked the numbers")]
    pub(crate) fn write<'a>(
        &self,
        header: &Header,
        body_crc: u32,
        out: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let Header { kind, more, lsn, key_len, value_len } = *header;
        let tag = kind.to_byte() | if more { MORE } else { 0 };
        if let Some(delta) = small_delta(self.base_lsn, lsn, usize::from(key_len), value_len as usize) {
            let (bytes, rest) = out.split_first_chunk_mut::<SMALL_HEADER_LEN>()?;
            layout::write::<{ small::TAG }, _, _>(bytes, [tag | SMALL]);
            layout::write::<{ small::KEY_LEN }, _, _>(bytes, [key_len as u8]);
            layout::write::<{ small::VALUE_LEN }, _, _>(bytes, (value_len as u16).to_le_bytes());
            layout::write::<{ small::LSN_DELTA }, _, _>(bytes, (delta as u32).to_le_bytes());
            let h = self.small_checksum(bytes);
            layout::write::<{ small::CHECK }, _, _>(bytes, small_check(h).to_le_bytes());
            layout::write::<{ small::CRC }, _, _>(bytes, (h ^ body_crc).to_le_bytes());
            Some(rest)
        } else {
            let (bytes, rest) = out.split_first_chunk_mut::<LARGE_HEADER_LEN>()?;
            layout::write::<{ large::TAG }, _, _>(bytes, [tag | LARGE]);
            layout::write::<{ large::KEY_LEN }, _, _>(bytes, key_len.to_le_bytes());
            layout::write::<{ large::VALUE_LEN }, _, _>(bytes, value_len.to_le_bytes());
            layout::write::<{ large::LSN }, _, _>(bytes, lsn.to_le_bytes());
            let h = self.large_checksum(bytes);
            layout::write::<{ large::CHECK }, _, _>(bytes, h.to_le_bytes());
            layout::write::<{ large::CRC }, _, _>(bytes, (h ^ body_crc).to_le_bytes());
            Some(rest)
        }
    }

    #[inline]
    fn small_checksum(&self, header: &[u8; SMALL_HEADER_LEN]) -> u32 {
        let covered: [u8; small::CHECK] = layout::read::<0, _, _>(header);
        self.seed.checksum(&covered)
    }

    #[inline]
    fn large_checksum(&self, header: &[u8; LARGE_HEADER_LEN]) -> u32 {
        let covered: [u8; large::CHECK] = layout::read::<0, _, _>(header);
        self.seed.checksum(&covered)
    }

    /// Decodes and checks the header at the start of `buf`, whose first byte is not zero.
    #[inline]
    pub(crate) fn check(&self, buf: &[u8]) -> Result<Checked, NoHeader> {
        let start = buf.first_chunk::<SMALL_HEADER_LEN>().ok_or(NoHeader::Torn)?;
        let [tag] = layout::read::<{ small::TAG }, _, _>(start);
        let body_crc = match tag & FORM_BITS {
            SMALL => {
                let h = self.small_checksum(start);
                if u16::from_le_bytes(layout::read::<{ small::CHECK }, _, _>(start)) != small_check(h) {
                    return Err(Corruption::HeaderChecksum.into());
                }
                u32::from_le_bytes(layout::read::<{ small::CRC }, _, _>(start)) ^ h
            }
            LARGE => {
                let whole = buf.first_chunk::<LARGE_HEADER_LEN>().ok_or(NoHeader::Torn)?;
                let h = self.large_checksum(whole);
                if u32::from_le_bytes(layout::read::<{ large::CHECK }, _, _>(whole)) != h {
                    return Err(Corruption::HeaderChecksum.into());
                }
                u32::from_le_bytes(layout::read::<{ large::CRC }, _, _>(whole)) ^ h
            }
            _ => return Err(Corruption::UnknownForm(tag).into()),
        };
        let info = info(start).ok_or(Corruption::UnknownKind(tag & KIND_BITS))?;
        check_shape(info.kind, info.more, info.key_len, info.value_len).map_err(Corruption::Shape)?;
        let lsn = self.lsn(buf).ok_or(Corruption::LsnOverflow)?;
        let fits_small = small_delta(self.base_lsn, lsn, info.key_len, info.value_len).is_some();
        if info.header_len == LARGE_HEADER_LEN && fits_small {
            return Err(Corruption::NeedlesslyLarge.into());
        }
        Ok(Checked { info, lsn, body_crc })
    }

    /// The LSN in the header at the start of `buf`, unchecked. `None` when `buf` is shorter than
    /// the header, or the LSN does not fit 64 bits.
    #[inline]
    pub(crate) fn lsn(&self, buf: &[u8]) -> Option<u64> {
        lsn(self.base_lsn, buf)
    }

    /// The checksum of key and value, from the header at the start of `encoded`. It does not look
    /// at `check`. `None` when `encoded` is shorter than the header.
    #[inline]
    pub(crate) fn body_crc(&self, info: &RecordInfo, encoded: &[u8]) -> Option<u32> {
        Some(if info.header_len == SMALL_HEADER_LEN {
            let header = encoded.first_chunk()?;
            self.small_checksum(header) ^ u32::from_le_bytes(layout::read::<{ small::CRC }, _, _>(header))
        } else {
            let header = encoded.first_chunk()?;
            self.large_checksum(header) ^ u32::from_le_bytes(layout::read::<{ large::CRC }, _, _>(header))
        })
    }
}

/// The field `check` of a small header, from the header checksum.
///
/// These bits detect every error of up to three bits and every burst of up to 13. The low and the
/// high 16 bits detect one less, and their sum less still.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the middle bits are wanted")]
fn small_check(h: u32) -> u16 {
    (h >> 8) as u16
}

/// Kind, flag and lengths of the header whose first bytes these are, unchecked. `None` when the
/// kind is unknown.
///
/// A tag of neither form reads as one of a large header: the caller knows that the form is valid.
#[inline]
pub(crate) fn info(start: &[u8; SMALL_HEADER_LEN]) -> Option<RecordInfo> {
    let [tag] = layout::read::<{ small::TAG }, _, _>(start);
    let kind = RecordKind::from_byte(tag & KIND_BITS)?;
    let more = tag & MORE != 0;
    Some(if tag & LARGE == 0 {
        let [key_len] = layout::read::<{ small::KEY_LEN }, _, _>(start);
        let value_len = u16::from_le_bytes(layout::read::<{ small::VALUE_LEN }, _, _>(start));
        let (key_len, value_len) = (usize::from(key_len), usize::from(value_len));
        RecordInfo { kind, more, header_len: SMALL_HEADER_LEN, key_len, value_len }
    } else {
        let key_len = u16::from_le_bytes(layout::read::<{ large::KEY_LEN }, _, _>(start));
        let value_len = u32::from_le_bytes(layout::read::<{ large::VALUE_LEN }, _, _>(start));
        let (key_len, value_len) = (usize::from(key_len), value_len as usize);
        RecordInfo { kind, more, header_len: LARGE_HEADER_LEN, key_len, value_len }
    })
}

/// As [`Headers::lsn`], for a segment with this base LSN.
#[inline]
pub(crate) fn lsn(base_lsn: u64, buf: &[u8]) -> Option<u64> {
    let start = buf.first_chunk::<SMALL_HEADER_LEN>()?;
    let [tag] = layout::read::<{ small::TAG }, _, _>(start);
    if tag & LARGE == 0 {
        let delta = u32::from_le_bytes(layout::read::<{ small::LSN_DELTA }, _, _>(start));
        base_lsn.checked_add(u64::from(delta))
    } else {
        let header = buf.first_chunk::<LARGE_HEADER_LEN>()?;
        Some(u64::from_le_bytes(layout::read::<{ large::LSN }, _, _>(header)))
    }
}

#[cfg(test)]
mod tests;
