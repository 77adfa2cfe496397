//! Follows the changes of a store as they reach its files, also while a writer has it open.
//!
//! A follower takes no lock and writes nothing. It looks at the manifest again and again, and opens
//! the next log segments that it names, the spares included. So it reads a segment to its seal,
//! even if compaction removes the file meanwhile. The disk space of such a file comes free once the
//! follower has read it. A record that is written in part is not there yet: the follower waits in
//! front of it.

use kv_core::fs::{Dir, DirExt, File, FileExt, FsExt, OpenMode};
use kv_core::{Env, Error, Lsn, Op, Result, SegmentId};
use kv_wal_format::{Origin, Record, SEGMENT_HEADER_LEN, Scanner, SegmentKind, StopReason};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::survey::fault_of;
use crate::directory;
use crate::manifest::{Entry, Manifest, header_of};
use crate::segments::SEGMENT_BYTES_MAX;

/// The first read, and those behind records that were there, bytes.
const PIECE_MIN: usize = 16 << 10;
const PIECE: usize = 1 << 20;

/// So many segments are open at most: the one that is read, and those behind it.
const AHEAD_MAX: usize = 16;
/// With fewer, the follower looks for more once it has read a segment.
const AHEAD_MIN: usize = 8;

/// What a follower tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Followed<'a> {
    /// The next change. Changes come in the order of their LSNs.
    Change(Record<'a>),
    /// No log segment that can be read holds these LSNs: compaction has removed the segment, it is
    /// damaged, or an opening after a crash has skipped the LSNs.
    Gap {
        /// The first LSN that is missing.
        first: Lsn,
        /// The last one.
        last: Lsn,
    },
    /// The rest of this segment cannot be read. The follower goes on with the next one.
    Damage {
        /// The file.
        path: PathBuf,
        /// The first unreadable byte, from the start of the file.
        offset: u64,
        /// The fault.
        detail: String,
    },
}

/// Follows the changes of a store.
///
/// ```
/// use kv_core::{Engine, Env};
/// use kv_log::inspect::{Followed, Follower};
/// use kv_log::{LogEngine, Options};
/// use std::ops::ControlFlow;
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = LogEngine::open(dir.path(), Options::default())?;
/// let mut follower = Follower::open(&Env::os(), dir.path(), None)?;
/// store.put(b"planet", b"earth")?;
/// store.sync()?;
///
/// let mut keys = Vec::new();
/// follower.poll(&mut |followed| {
///     if let Followed::Change(record) = followed {
///         keys.push(record.key.to_vec());
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(keys, [b"planet"]);
/// # Ok::<(), kv_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Follower {
    dir: Arc<dyn Dir>,
    store_id: u32,
    /// The next log segments that are not read to their seals.
    ahead: BTreeMap<SegmentId, Ahead>,
    /// No segment up to this one is read again.
    read_to: SegmentId,
    /// The LSN of the newest change that was told or left out. `None` before the first one, if all
    /// that is left is wanted.
    last: Option<Lsn>,
    /// Changes before this LSN are left out.
    from: Lsn,
    bytes: Vec<u8>,
}

/// A log segment that is not read to its seal.
#[derive(Debug)]
struct Ahead {
    file: Box<dyn File>,
    /// From its header, or the reason why the header cannot be read.
    origin: std::result::Result<Origin, String>,
    /// The records before this offset were read.
    at: u64,
    /// Whether the writer has no more to write.
    is_final: bool,
}

/// How the reading of a segment ended.
enum End {
    Sealed,
    /// Why the next record cannot be read yet, or at all.
    Waits(StopReason),
    /// Nothing behind the header can be read, for this reason.
    Unreadable(String),
    Stopped,
}

impl Follower {
    /// Follows the store in `dir` from the change with the LSN `from` on. With `None`, it begins
    /// with the next change that reaches the files.
    ///
    /// # Errors
    /// There is no store of this format version; the manifest is damaged; the system refuses.
    pub fn open(env: &Env, dir: &Path, from: Option<Lsn>) -> Result<Self> {
        let dir = match env.fs.open_dir_if_exists(dir)? {
            Some(handle) if handle.names()?.iter().any(|name| name == directory::MANIFEST) => handle,
            _ => {
                let detail = "there is no kv-log store here; correct the path".to_owned();
                return Err(Error::NotAStore { path: dir.to_path_buf(), detail });
            }
        };
        let manifest = Manifest::load(&*dir)?;
        let mut follower = Follower {
            dir,
            store_id: manifest.store_id,
            ahead: BTreeMap::new(),
            read_to: SegmentId::new(0),
            last: None,
            from: from.unwrap_or(Lsn::ZERO),
            bytes: Vec::new(),
        };
        if from.is_none() {
            follower.last = Some(manifest.durable_lsn);
            let sealed = manifest.segments.iter().filter(|(_, entry)| is_log(entry) && entry.sealed);
            follower.read_to = sealed.map(|(id, _)| *id).max().unwrap_or(follower.read_to);
            follower.poll(&mut |_| ControlFlow::Continue(()))?;
        }
        Ok(follower)
    }

    /// Calls `visit` with what has reached the files since the last call. If it answers `Break`,
    /// the follower stops, and is of no more use.
    ///
    /// # Errors
    /// The store is gone; its manifest or a segment cannot be read.
    pub fn poll(&mut self, visit: &mut dyn FnMut(Followed<'_>) -> ControlFlow<()>) -> Result<()> {
        self.look_ahead()?;
        while let Some((id, mut next)) = self.ahead.pop_first() {
            let damage = match self.read(id, &mut next, visit) {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::Sealed) => None,
                Ok(End::Unreadable(detail)) => Some(detail),
                Ok(End::Waits(_)) if !next.is_final => {
                    self.ahead.insert(id, next);
                    return Ok(());
                }
                // A spare that an opening has removed never had a record.
                Ok(End::Waits(StopReason::End)) if next.at == SEGMENT_HEADER_LEN as u64 => None,
                Ok(End::Waits(reason)) => Some(reason.to_string()),
                Err(error) => {
                    self.ahead.insert(id, next);
                    return Err(error);
                }
            };
            self.read_to = id;
            if let Some(detail) = damage {
                let path = self.dir.path_of(&directory::segment_file_name(id));
                if visit(Followed::Damage { path, offset: next.at, detail }).is_break() {
                    return Ok(());
                }
            }
            // Soon: its successors may be sealed and compacted meanwhile.
            if self.ahead.len() < AHEAD_MIN {
                self.look_ahead()?;
            }
        }
        Ok(())
    }

    /// Opens the next log segments that the manifest names.
    fn look_ahead(&mut self) -> Result<()> {
        let manifest = Manifest::load(&*self.dir)?;
        if manifest.store_id != self.store_id {
            let detail = "another store is in its place now; follow that one anew".to_owned();
            return Err(Error::NotAStore { path: self.dir.path().to_path_buf(), detail });
        }
        let archived = manifest.archive.segments.iter().map(|(id, archived)| (*id, archived.entry()));
        let mut named: BTreeMap<SegmentId, Entry> = archived.collect();
        named.extend(manifest.segments.iter().map(|(id, entry)| (*id, *entry)));
        named.retain(|id, entry| is_log(entry) && *id > self.read_to);
        for (id, ahead) in &mut self.ahead {
            ahead.is_final = named.remove(id).is_none_or(|entry| entry.sealed);
        }
        for (id, entry) in named {
            if self.ahead.len() == AHEAD_MAX {
                break;
            }
            let name = directory::segment_file_name(id);
            let path = self.dir.path_of(&name);
            let file = match self.dir.open(&name, OpenMode::Read) {
                // It was compacted.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| Error::io(Op::Open, &path, error))?,
            };
            let mut header = [0; SEGMENT_HEADER_LEN];
            file.read_full_at(&mut header, 0).map_err(|error| Error::io(Op::Read, &path, error))?;
            let header = header_of(&path, &header, entry.kind, id, self.store_id);
            let origin = header.map(|header| header.origin()).map_err(|error| fault_of(&error).1);
            let at = if origin.is_ok() { SEGMENT_HEADER_LEN as u64 } else { 0 };
            self.ahead.insert(id, Ahead { file, origin, at, is_final: entry.sealed });
        }
        Ok(())
    }

    /// Reads a segment as far as it is written.
    fn read(
        &mut self,
        id: SegmentId,
        next: &mut Ahead,
        visit: &mut dyn FnMut(Followed<'_>) -> ControlFlow<()>,
    ) -> Result<End> {
        let origin = match &next.origin {
            Ok(origin) => *origin,
            Err(detail) => return Ok(End::Unreadable(detail.clone())),
        };
        let mut len = PIECE_MIN;
        loop {
            self.bytes.resize(len, 0);
            let read = next.file.read_full_at(&mut self.bytes, next.at).map_err(|error| {
                Error::io(Op::Read, &self.dir.path_of(&directory::segment_file_name(id)), error)
            })?;
            let mut scanner = Scanner::new(origin, self.bytes.get(..read).unwrap_or_default(), 0);
            for (_, record) in scanner.by_ref().filter(|(_, record)| record.kind.is_change()) {
                if tell(record, self.from, &mut self.last, visit).is_break() {
                    return Ok(End::Stopped);
                }
            }
            let stop = scanner.stop();
            next.at += stop.offset as u64;
            len = match stop.reason {
                StopReason::Sealed => return Ok(End::Sealed),
                _ if stop.offset > 0 => PIECE,
                // The record, or the batch, is longer than the piece.
                StopReason::Torn if read == len && len < SEGMENT_BYTES_MAX => 4 * len,
                reason => return Ok(End::Waits(reason)),
            };
        }
    }
}

/// Gives a change, and the gap before it, to `visit`.
fn tell(
    record: Record<'_>,
    from: Lsn,
    last: &mut Option<Lsn>,
    visit: &mut dyn FnMut(Followed<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let lsn = Lsn::new(record.lsn);
    // Before the first change: without `from`, nothing is missed.
    let first = last.map_or(from, |last| Lsn::new(last.get() + 1)).max(from).max(Lsn::new(1));
    let is_gap = lsn > first && (last.is_some() || from > Lsn::ZERO);
    *last = Some(lsn.max(last.unwrap_or_default()));
    if lsn < from {
        return ControlFlow::Continue(());
    }
    if is_gap {
        visit(Followed::Gap { first, last: Lsn::new(lsn.get() - 1) })?;
    }
    visit(Followed::Change(record))
}

fn is_log(entry: &Entry) -> bool {
    entry.kind == SegmentKind::Log
}
