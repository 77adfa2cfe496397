//! The tail: the changes since the opening, in shared memory that outlives the process.
//!
//! ```text
//! header   MAGIC u64, opening u64, boot id u128, checksum u64
//! record   length of payload u64, LSN u64, checksum u64, payload of a log record
//! ```
//!
//! The rest of the object is zeros. Its name tells the store and the directory. Each opening draws
//! a number, which `CONTROL` holds as well: the tail of another opening is stale. The next opening
//! replays the tail behind the log. Its first generation holds the changes, and then the tail goes.
//!
//! The object has a fixed length. A change that does not fit is handed to the operating system
//! instead, with all changes before it.

use super::control::Control;
use super::defect::{Broken, Defect};
use super::format::{Cursor, checksum};
use super::wal::{self, Replay};
use kv_core::fs::{Dir, SharedMemory};
use kv_core::{Env, Scale};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const MAGIC: u64 = u64::from_le_bytes(*b"pagedTAI");
const HEADER_LEN: usize = 40;
const RECORD_HEAD: usize = 24;

/// The tails of a store's directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    memory: Arc<dyn SharedMemory>,
    name: String,
    broken: Broken,
}

/// The tail of an open store.
#[derive(Debug)]
pub(crate) struct Tail {
    place: Place,
    object: File,
    len: u64,
    /// The end of the records.
    end: u64,
}

/// The changes of a tail that the files lacked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Adopted {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) last_lsn: u64,
}

impl Place {
    /// The place for the tail of a store. `None`: the machine has no shared memory.
    pub(crate) fn of(env: &Env, dir: &dyn Dir, control: &Control, broken: Broken) -> Option<Self> {
        let (memory, id) = (env.fs.shared_memory()?, dir.id().ok()?);
        let directory = if broken.is(Defect::ForeignTailAdopted) { 0 } else { id.inode };
        let name = format!("paged-{:08x}-{:x}-{directory:x}", control.store_id, id.device);
        Some(Place { memory, name, broken })
    }

    /// Replays the changes behind `last_lsn` of the tail of `control`'s opening.
    pub(crate) fn adopt(&self, control: &Control, last_lsn: u64, replay: &mut Replay<'_>) -> Adopted {
        let broken = self.broken;
        let mut adopted = Adopted { last_lsn, ..Adopted::default() };
        let bytes = self.memory.open(&self.name).and_then(|object| read_all(&object));
        let Ok(bytes) = bytes else { return adopted };
        let opening = if broken.is(Defect::StaleTailAdopted) {
            bytes.get(8..).and_then(|number| Cursor(number).u64()).unwrap_or_default()
        } else {
            control.opening
        };
        let header = self.header(opening);
        let (Ok(header), Some((found, mut rest))) = (header, bytes.split_first_chunk::<HEADER_LEN>()) else {
            return adopted;
        };
        if *found != *header || broken.is(Defect::TailIgnored) {
            return adopted;
        }
        let mut before = 0;
        while let Some((head, behind)) = rest.split_first_chunk::<RECORD_HEAD>() {
            let mut numbers = Cursor(head);
            let (Some(len), Some(lsn), Some(sum)) = (numbers.u64(), numbers.u64(), numbers.u64()) else {
                break;
            };
            let payload = usize::try_from(len).ok().and_then(|len| behind.get(..len));
            let Some(payload) = payload.filter(|payload| !payload.is_empty()) else { break };
            rest = behind.get(payload.len()..).unwrap_or_default();
            let is_whole = record_sum(opening, lsn, payload) == sum || broken.is(Defect::TailSumsIgnored);
            if !is_whole && broken.is(Defect::AdoptsPastTornRecord) {
                continue;
            }
            if !is_whole || lsn <= before || (lsn > last_lsn && !wal::replay_record(payload, broken, replay))
            {
                break;
            }
            before = lsn;
            if lsn > last_lsn {
                adopted.records += 1;
                adopted.bytes += payload.len() as u64;
                adopted.last_lsn = lsn;
            }
        }
        adopted
    }

    /// Begins the tail of `control`'s opening, in place of any other one.
    pub(crate) fn begin(self, control: &Control, scale: Scale) -> io::Result<Tail> {
        self.remove();
        let len = if scale == Scale::Tiny { 4 << 10 } else { 1 << 20 };
        let header = self.header(control.opening)?;
        let object = self.memory.create(&self.name, len)?;
        object.write_all_at(&header, 0)?;
        Ok(Tail { place: self, object, len, end: HEADER_LEN as u64 })
    }

    pub(crate) fn remove(&self) {
        let _ = self.memory.remove(&self.name);
    }

    fn header(&self, opening: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(opening.to_le_bytes());
        bytes.extend(self.memory.boot_id()?.to_le_bytes());
        bytes.extend(checksum(MAGIC, &bytes).to_le_bytes());
        Ok(bytes)
    }
}

impl Tail {
    /// Stores a change. Returns whether it fits.
    pub(crate) fn push(&mut self, opening: u64, lsn: u64, payload: &[u8]) -> bool {
        let mut record = Vec::new();
        for number in [payload.len() as u64, lsn, record_sum(opening, lsn, payload)] {
            record.extend(number.to_le_bytes());
        }
        record.extend(payload);
        let end = self.end + record.len() as u64;
        let is_stored = end <= self.len && self.object.write_all_at(&record, self.end).is_ok();
        if is_stored {
            self.end = end;
        }
        is_stored || self.place.broken.is(Defect::FullTailIgnored)
    }

    /// Removes the tail: the files hold every change.
    pub(crate) fn close(&self) {
        if !self.place.broken.is(Defect::CloseLeavesTail) {
            self.place.remove();
        }
    }
}

fn record_sum(opening: u64, lsn: u64, payload: &[u8]) -> u64 {
    checksum(checksum(opening, &lsn.to_le_bytes()), payload)
}

fn read_all(object: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(object.metadata()?.len()).unwrap_or_default()];
    object.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
