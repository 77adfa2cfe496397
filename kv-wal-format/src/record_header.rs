//! The 24-byte header before every record's key and value.

use crate::error::Corruption;
use crate::kind::RecordKind;
use crate::layout::{self, KEY_LEN_MAX, RECORD_HEADER_LEN, VALUE_LEN_MAX, encoded_len};
use crate::record::check_shape;

// Offsets of the fields. FORMAT.md has the same table, and a test compares the two.
const KIND: usize = 0;
const FLAGS: usize = 1;
const KEY_LEN: usize = 2;
const VALUE_LEN: usize = 4;
const LSN: usize = 8;
const BODY_CRC: usize = 16;
pub(crate) const HEADER_CRC: usize = 20;
const _: () = assert!(HEADER_CRC + size_of::<u32>() == RECORD_HEADER_LEN);

const _: () = assert!(KEY_LEN_MAX == u16::MAX as usize);
const _: () = assert!(VALUE_LEN_MAX == u32::MAX as usize);

const FLAG_MORE: u8 = 1;

/// The fields of a record header, without key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordInfo {
    /// The kind of the record.
    pub kind: RecordKind,
    /// MORE: the next record belongs to the same batch.
    pub more: bool,
    /// Log sequence number.
    pub lsn: u64,
    /// Length of the key in bytes.
    pub key_len: usize,
    /// Length of the value in bytes.
    pub value_len: usize,
    /// Bytes that the record takes in a segment, padding included.
    pub encoded_len: usize,
}

/// The fields of a header, unchecked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) key_len: u16,
    pub(crate) value_len: u32,
    pub(crate) lsn: u64,
    pub(crate) body_crc: u32,
}

impl RawHeader {
    #[inline]
    pub(crate) fn new(
        kind: RecordKind,
        more: bool,
        key_len: u16,
        value_len: u32,
        lsn: u64,
        body_crc: u32,
    ) -> Self {
        let flags = if more { FLAG_MORE } else { 0 };
        Self { kind: kind.to_byte(), flags, key_len, value_len, lsn, body_crc }
    }

    #[inline]
    pub(crate) fn from_bytes(bytes: &[u8; RECORD_HEADER_LEN]) -> Self {
        Self {
            kind: u8::from_le_bytes(layout::read::<KIND, _, _>(bytes)),
            flags: u8::from_le_bytes(layout::read::<FLAGS, _, _>(bytes)),
            key_len: u16::from_le_bytes(layout::read::<KEY_LEN, _, _>(bytes)),
            value_len: u32::from_le_bytes(layout::read::<VALUE_LEN, _, _>(bytes)),
            lsn: u64::from_le_bytes(layout::read::<LSN, _, _>(bytes)),
            body_crc: u32::from_le_bytes(layout::read::<BODY_CRC, _, _>(bytes)),
        }
    }

    /// The bytes, with zero in place of the header checksum; see [`write_checksum`].
    #[inline]
    pub(crate) fn to_bytes(self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        layout::write::<KIND, _, _>(&mut bytes, self.kind.to_le_bytes());
        layout::write::<FLAGS, _, _>(&mut bytes, self.flags.to_le_bytes());
        layout::write::<KEY_LEN, _, _>(&mut bytes, self.key_len.to_le_bytes());
        layout::write::<VALUE_LEN, _, _>(&mut bytes, self.value_len.to_le_bytes());
        layout::write::<LSN, _, _>(&mut bytes, self.lsn.to_le_bytes());
        layout::write::<BODY_CRC, _, _>(&mut bytes, self.body_crc.to_le_bytes());
        bytes
    }

    /// The fields, if the kind is known. It does not check flags and shape.
    #[inline]
    pub(crate) fn info(&self) -> Result<RecordInfo, Corruption> {
        let kind = RecordKind::from_byte(self.kind).ok_or(Corruption::UnknownKind(self.kind))?;
        let (key_len, value_len) = (usize::from(self.key_len), self.value_len as usize);
        Ok(RecordInfo {
            kind,
            more: self.flags & FLAG_MORE != 0,
            lsn: self.lsn,
            key_len,
            value_len,
            encoded_len: encoded_len(key_len, value_len),
        })
    }

    /// The fields, if this version of the format allows them.
    #[inline]
    pub(crate) fn check(&self) -> Result<RecordInfo, Corruption> {
        let info = self.info()?;
        if self.flags & !FLAG_MORE != 0 {
            return Err(Corruption::UnknownFlags(self.flags));
        }
        check_shape(info.kind, info.more, info.key_len, info.value_len).map_err(Corruption::Shape)?;
        Ok(info)
    }
}

#[inline]
pub(crate) fn read_checksum(bytes: &[u8; RECORD_HEADER_LEN]) -> u32 {
    u32::from_le_bytes(layout::read::<HEADER_CRC, _, _>(bytes))
}

#[inline]
pub(crate) fn write_checksum(bytes: &mut [u8; RECORD_HEADER_LEN], checksum: u32) {
    layout::write::<HEADER_CRC, _, _>(bytes, checksum.to_le_bytes());
}

/// The parts of a record after its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) padding: &'a [u8],
}

impl RecordInfo {
    /// The body in `buf`, which starts with the header. `None` when `buf` ends inside the record.
    #[inline]
    pub(crate) fn body<'a>(&self, buf: &'a [u8]) -> Option<Body<'a>> {
        let body = buf.get(RECORD_HEADER_LEN..self.encoded_len)?;
        let (key, rest) = body.split_at_checked(self.key_len)?;
        let (value, padding) = rest.split_at_checked(self.value_len)?;
        Some(Body { key, value, padding })
    }
}
