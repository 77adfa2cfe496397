//! `CONTROL`: the root of the store, replaced atomically.

use super::defect::{Broken, Defect};
use super::format::{CONTROL, Cursor, checksum};
use kv_core::fs::{Dir, DirExt};
use kv_core::{Error, Result};

const MAGIC: u64 = u64::from_le_bytes(*b"pagedCTL");
const VERSION: u32 = 1;
pub(crate) const LEN: u64 = 72;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) store_id: u32,
    /// 0 while the store is being created: it has no files then.
    pub(crate) generation: u64,
    /// The highest LSN that may have been given out.
    pub(crate) ceiling: u64,
    /// The number of the opening that wrote this: that of its first generation.
    pub(crate) opening: u64,
    /// Set by an orderly close.
    pub(crate) end: Option<End>,
}

/// The proof of where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) len: u64,
    pub(crate) chain: u64,
}

impl Control {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.store_id.to_le_bytes());
        let end = self.end.unwrap_or(End { len: 0, chain: 0 });
        let is_closed = u64::from(self.end.is_some());
        for number in [self.generation, self.ceiling, self.opening, is_closed, end.len, end.chain] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(checksum(MAGIC, &bytes).to_le_bytes());
        bytes
    }

    /// The store's root; the caller has seen that there is one.
    pub(crate) fn read(dir: &dyn Dir, broken: Broken) -> Result<Self> {
        let bytes = dir.read_file(CONTROL, 1 << 16)?;
        let path = dir.path_of(CONTROL);
        let damaged = || Error::corruption(&path, 0, "the checksum does not fit");
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
        let fits = bytes.len() as u64 == LEN && checksum(MAGIC, body) == u64::from_le_bytes(*sum);
        if !fits && !broken.is(Defect::ControlNotChecked) {
            return Err(damaged());
        }
        let (version, control) = decode(body).ok_or_else(damaged)?;
        if version > VERSION {
            return Err(Error::UnsupportedVersion { path, found: version, supported: VERSION });
        }
        Ok(control)
    }
}

fn decode(body: &[u8]) -> Option<(u32, Control)> {
    let mut rest = Cursor(body);
    (rest.u64()? == MAGIC).then_some(())?;
    let (version, store_id) = (rest.u32()?, rest.u32()?);
    let (generation, ceiling, opening) = (rest.u64()?, rest.u64()?, rest.u64()?);
    let is_closed = rest.u64()? == 1;
    let end = End { len: rest.u64()?, chain: rest.u64()? };
    Some((version, Control { store_id, generation, ceiling, opening, end: is_closed.then_some(end) }))
}
