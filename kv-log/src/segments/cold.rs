//! Reads of a segment without an image: from its file, with every record checked.

use kv_core::{Error, Op, Result};
use kv_wal_format::{Decoder, Record, Step, parse_trusted, peek};
use std::borrow::Cow;
use std::sync::Arc;

use super::{Image, Segment};

/// A record that was read from a file. It is valid, unless the reader asked for a damaged one.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The record, and perhaps bytes behind it.
    bytes: Vec<u8>,
    base_lsn: u64,
}

impl Fetched {
    pub(crate) fn record(&self) -> Record<'_> {
        parse_trusted(self.base_lsn, &self.bytes).expect("it was parsed before")
    }
}

/// The bytes of a segment up to its end. They stay in memory while this lives.
#[derive(Debug)]
pub(crate) struct Contents {
    image: Arc<Image>,
    end: usize,
    base_lsn: u64,
}

impl Contents {
    /// The bytes of `image` before `end`, of a segment with this base LSN.
    ///
    /// # Safety
    /// They are written and published to the caller, and do not change while this lives.
    pub(crate) unsafe fn new(image: Arc<Image>, end: usize, base_lsn: u64) -> Self {
        Contents { image, end, base_lsn }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: promised to `new`.
        unsafe { self.image.published(0, self.end) }.unwrap_or_default()
    }

    /// The memory of the bytes.
    pub(crate) fn into_image(self) -> Arc<Image> {
        self.image
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.image.capacity()
    }

    /// The record at `offset`, which a walk from the first record has reached, and its length in
    /// bytes.
    pub(crate) fn record_at(&self, offset: usize) -> (Record<'_>, usize) {
        let rest = self.bytes().get(offset..).unwrap_or_default();
        let record = parse_trusted(self.base_lsn, rest).zip(peek(rest));
        let (record, info) = record.expect("a walk goes from record to record");
        (record, info.encoded_len())
    }
}

/// The least bytes of one read. Fewer bytes are not faster.
const FETCH_MIN: usize = 256;
/// The most bytes of a read before the record's length is known.
const FETCH_MAX: usize = 4096;

impl Segment {
    /// Its bytes. `None` if it is cold.
    pub(crate) fn resident_contents(&self) -> Option<Contents> {
        // The end is loaded before the image, because the end of the active segment moves.
        let end = self.end();
        // SAFETY: the bytes before the end were written before the end was set, and never change.
        Some(unsafe { Contents::new(self.share_image()?, end, self.base_lsn) })
    }

    /// Its bytes up to the end of the record at `offset`. `None` if it is cold. The caller found
    /// that record in the index and is pinned. It may keep the answer for longer.
    pub(crate) fn contents_through(&self, offset: usize) -> Option<Contents> {
        let image = self.share_image()?;
        // SAFETY: `offset` comes from the index, so a published record starts there.
        let info = unsafe { image.info_at(offset) };
        let end = offset + info.expect("the index points at a published record").encoded_len();
        // SAFETY: an image is filled from front to back, so the bytes before a published record are
        // final.
        Some(unsafe { Contents::new(image, end, self.base_lsn) })
    }

    /// Its bytes: from its file if it is cold.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub(crate) fn contents(&self) -> Result<Contents> {
        if let Some(contents) = self.resident_contents() {
            return Ok(contents);
        }
        let (path, end) = (self.file.path(), self.end());
        let image = Image::new(end).map_err(|error| Error::io(Op::AllocateMemory, path, error))?;
        // SAFETY: no other thread knows this image yet.
        let read = unsafe { image.fill(0, end, |bytes| self.file.read_at(bytes, 0)) }?;
        if read < end {
            let fault = format!("the file ends here, and was {end} bytes long");
            return Err(Error::corruption(path, read as u64, fault));
        }
        // SAFETY: this thread wrote it, and no thread writes to it later.
        Ok(unsafe { Contents::new(Arc::new(image), end, self.base_lsn) })
    }

    /// Reads the damaged record at `offset` of the file, if it is one of `key`. Its header, which
    /// holds the lengths, must be intact, and its key must equal `key`. Its value may be damaged.
    ///
    /// # Errors
    /// The file cannot be read.
    #[cold]
    pub(super) fn fetch_damaged(&self, offset: usize, key: &[u8]) -> Result<Option<Fetched>> {
        let mut bytes = vec![0; FETCH_MIN];
        let read = self.file.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        let header = Decoder::new(self.origin()).check_header(&bytes);
        let Some(len) = header.map(|info| info.encoded_len()).filter(|len| *len <= self.end()) else {
            return Ok(None);
        };
        bytes.resize(len, 0);
        let read = self.file.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        let base_lsn = self.base_lsn;
        let is_of_key = parse_trusted(base_lsn, &bytes).is_some_and(|record| record.key == key);
        Ok(is_of_key.then_some(Fetched { bytes, base_lsn }))
    }

    /// Reads the record at `offset` of the file, most often with one system call.
    ///
    /// # Errors
    /// The file cannot be read, or no valid record starts there.
    pub(super) fn fetch(&self, offset: usize) -> Result<Fetched> {
        let usual = self.mean_record_len() + self.mean_record_len() / 4;
        let mut bytes = vec![0; usual.clamp(FETCH_MIN, FETCH_MAX)];
        let read = self.file.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        let decoder = Decoder::new(self.origin());
        loop {
            let known = bytes.len();
            let (found, fault) = match decoder.step(&bytes) {
                Step::Record { .. } => return Ok(Fetched { bytes, base_lsn: self.base_lsn }),
                Step::Torn => (decoder.check_header(&bytes), Cow::from("the file ends within it")),
                Step::End => (None, "the file ends here, or holds zeros".into()),
                Step::Corrupt(corruption) => (None, corruption.to_string().into()),
            };
            if let Some(len) =
                found.map(|info| info.encoded_len()).filter(|len| known < *len && *len <= self.end())
            {
                bytes.resize(len, 0);
                let rest = bytes.get_mut(known..).unwrap_or_default();
                let read = self.file.read_at(rest, offset + known)?;
                bytes.truncate(known + read);
                if read > 0 {
                    continue;
                }
            }
            let fault = format!("a record was here, and cannot be read any more: {fault}");
            return Err(Error::corruption(self.file.path(), offset as u64, fault));
        }
    }
}
