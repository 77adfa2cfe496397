//! The part of a tail that the files of the store lack, for openings that change nothing.

use kv_core::SegmentId;
use std::collections::BTreeMap;

/// The bytes that the files lack, by segment.
pub(crate) type Unwritten = BTreeMap<SegmentId, Rest>;

/// The bytes of a segment that its file lacks.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Where they begin, bytes from the start of the file. The file's own records end there.
    pub(crate) from: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Rest {
    /// Puts them behind the records in `file`, the bytes of the file.
    pub(crate) fn complete(&self, file: &mut Vec<u8>) {
        // A shorter file is damaged, which its reader notices.
        if file.len() >= self.from {
            file.truncate(self.from);
            file.extend_from_slice(&self.bytes);
        }
    }
}
