//! Adoption: an opening completes the dump that a dead process did not do.
//!
//! It holds the lock of the store, and comes before ordinary recovery. It takes the unsealed log
//! segments that the manifest names, in the order of their ids. The object of a segment holds valid
//! records behind the last one of the file: adoption writes these to the file, and syncs it. So the
//! files go through the states of a dump, and ordinary recovery understands each of them:
//!
//! | a crash after | the next opening |
//! |---|---|
//! | nothing, or a part of a write | adopts the rest: the objects are still there. After a power cut, recovery keeps whole records |
//! | the sync of a segment | goes on with the next segment, or recovers from the files |
//! | the last sync | finds nothing to adopt |
//! | the removal of some objects | the same |
//!
//! A segment that ends in torn bytes gets a seal after adoption. Before that, the objects are
//! removed: the next opening would take the seal for the end of a whole segment, and go on to its
//! successors.
//!
//! Before a byte goes to a segment, the bytes of its predecessors are durable. The dead process may
//! have written them without a sync, or a sync may have failed. So adoption writes them again.
//!
//! The log has no gap: adoption ends at the first segment without a seal. It leaves out each
//! object that does not fit, and recovery goes by the files:
//!
//! | object | answer |
//! |---|---|
//! | of another opening or another boot | warning |
//! | of another store, whose directory is gone or became this one's | none |
//! | of another user or version, or unreadable | warning; an error if process safety is required |
//! | unreadable because memory or descriptors are short | the opening fails, and may be repeated |
//! | bytes differ from those of the file | warning |
//! | of a segment that is sealed in its file, or that the manifest does not name | none: the files lack none of its records |
//! | no valid control block | none: the process died before the object was in use |
//!
//! An opening for reading changes nothing. It gets the bytes that the files lack. So do the tools
//! for past states of a closed store.

use kv_core::fs::{Dir, DirExt, DirId, FileExt as _, OpenMode, SharedMemory};
use kv_core::{Env, Error, Op, Result, SegmentId};
use kv_wal_format::{SEGMENT_HEADER_LEN, Scanner, SegmentHeader, SegmentKind, Stop, StopReason};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::control::{Control, Owner, Unreadable};
use super::unwritten::{Rest, Unwritten};
use crate::directory;
use crate::manifest::{Entry, Manifest, Room};
use crate::memory::{CONTROL_LEN, Mapped};
use crate::options::{Options, ProcessSafe};
use crate::segments::{SEGMENT_BYTES_MAX, fill_sparsely};

/// The result of an adoption.
#[derive(Debug, Default)]
pub(crate) struct Adopted {
    /// Bytes of records that the files lacked.
    pub(crate) bytes: u64,
    pub(crate) warnings: Vec<String>,
    /// For an opening for reading: the bytes that the files lack.
    pub(crate) unwritten: Unwritten,
    memory: Option<Arc<dyn SharedMemory>>,
    /// The names of the store's objects.
    names: Vec<String>,
}

/// An object that fits the store.
struct Candidate {
    name: String,
    image: Mapped<u8>,
}

/// Adopts the tail of the store in `dir`, of which `manifest` was read.
///
/// # Errors
/// A file cannot be read or written. The system lacks memory or descriptors.
/// [`Error::NotProcessSafe`]: an object cannot be read, and the options require process safety.
pub(crate) fn adopt(
    env: &Env,
    dir: &dyn Dir,
    room: &Room,
    manifest: &Manifest,
    options: &Options,
) -> Result<Adopted> {
    let mut adopted = Adopted::default();
    let Some(memory) = env.fs.shared_memory() else { return Ok(adopted) };
    let objects = match Objects::list(dir, &*memory) {
        Ok(objects) => objects,
        Err(error) => {
            let error = passing_over(memory.path(), error)?;
            adopted.warnings.push(format!("cannot look into {}: {error}", memory.path().display()));
            return Ok(adopted);
        }
    };
    let mut candidates = objects.candidates(&*memory, manifest, options, &mut adopted)?;
    adopted.memory = Some(memory);
    if candidates.is_empty() {
        return Ok(adopted);
    }
    // Segments whose files hold all of their records, perhaps not durably.
    let mut whole: Vec<Segment> = Vec::new();
    for (id, entry) in &manifest.segments {
        if entry.kind != SegmentKind::Log || entry.sealed {
            continue;
        }
        let Some(mut segment) = Segment::load(dir, manifest, *id, *entry)? else { break };
        let in_file = segment.end.offset;
        if !segment.is_sealed() {
            segment.complete(candidates.remove(id).unwrap_or_default(), &mut adopted.warnings);
        }
        let is_sealed = segment.is_sealed();
        let lacking = segment.bytes.get(in_file..segment.end.offset).unwrap_or_default();
        adopted.bytes += lacking.len() as u64;
        if lacking.is_empty() {
            whole.push(segment);
        } else if options.read_only {
            let path = dir.path_of(&segment.name);
            let no_memory = |_| Error::io(Op::AllocateMemory, &path, io::ErrorKind::OutOfMemory.into());
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(lacking.len()).map_err(no_memory)?;
            bytes.extend_from_slice(lacking);
            adopted.unwritten.insert(*id, Rest { from: in_file, bytes });
        } else {
            whole.drain(..).try_for_each(|before| before.make_durable(dir, room))?;
            segment.make_durable(dir, room)?;
        }
        if !is_sealed {
            break;
        }
    }
    Ok(adopted)
}

/// The bytes of the tail that the files of the closed store in `dir` lack. Changes nothing.
///
/// # Errors
/// As for [`adopt`].
pub(crate) fn unwritten(env: &Env, dir: &Arc<dyn Dir>, manifest: &Manifest) -> Result<Unwritten> {
    let options = Options { read_only: true, ..Options::default() };
    Ok(adopt(env, &**dir, &Room::new(dir, true), manifest, &options)?.unwritten)
}

impl Adopted {
    /// Removes the objects: the files hold all of it.
    ///
    /// # Errors
    /// As the system answers.
    pub(crate) fn give_up(&self) -> Result<()> {
        let Some(memory) = &self.memory else { return Ok(()) };
        for name in &self.names {
            match memory.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io(Op::Remove, &memory.path().join(name), error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The objects of the store's directory.
struct Objects {
    dir: DirId,
    boot_id: u128,
    names: Vec<String>,
}

impl Objects {
    fn list(dir: &dyn Dir, memory: &dyn SharedMemory) -> io::Result<Self> {
        let (dir, boot_id, mut names) = (dir.id()?, memory.boot_id()?, memory.list()?);
        let prefix = Owner::name_prefix(dir);
        names.retain(|name| name.starts_with(&prefix));
        Ok(Objects { dir, boot_id, names })
    }

    /// The objects that fit the store, by segment. Notes those that do not.
    fn candidates(
        &self,
        memory: &dyn SharedMemory,
        manifest: &Manifest,
        options: &Options,
        adopted: &mut Adopted,
    ) -> Result<BTreeMap<SegmentId, Vec<Candidate>>> {
        let mut candidates: BTreeMap<SegmentId, Vec<Candidate>> = BTreeMap::new();
        for name in &self.names {
            let path = memory.path().join(name);
            match read(memory, name) {
                Ok(Object::Nothing) => adopted.names.push(name.clone()),
                Ok(Object::Image(control, image)) => {
                    adopted.names.push(name.clone());
                    if self.is_of_other_store(&control.owner, manifest) {
                        continue;
                    }
                    if let Some(of) = self.earlier(&control.owner, manifest) {
                        adopted.warnings.push(format!("{} is ignored: it is of {of}", path.display()));
                    } else {
                        let candidate = Candidate { name: name.clone(), image };
                        candidates.entry(control.segment_id).or_default().push(candidate);
                    }
                }
                Err(error) if options.process_safe == ProcessSafe::Required => {
                    return Err(Error::NotProcessSafe { path, detail: error.to_string() });
                }
                Err(error) => {
                    let error = passing_over(&path, error)?;
                    adopted.warnings.push(format!("{} is ignored: {error}", path.display()));
                }
            }
        }
        Ok(candidates)
    }

    /// Whether `owner` is a store that is gone: its directory had the same inode, or this one. Such
    /// an object says nothing about this store.
    fn is_of_other_store(&self, owner: &Owner, manifest: &Manifest) -> bool {
        owner.boot_id == self.boot_id && (owner.dir != self.dir || owner.store_id != manifest.store_id)
    }

    /// Says of which earlier time an object of this store is. `None`: it is of its last opening.
    fn earlier(&self, owner: &Owner, manifest: &Manifest) -> Option<&'static str> {
        if owner.boot_id != self.boot_id {
            Some("an earlier boot of the machine")
        } else if owner.nonce != manifest.nonce {
            Some("an earlier opening of the store")
        } else {
            None
        }
    }
}

/// The text of an error that an opening may pass over.
///
/// # Errors
/// The system lacks memory or descriptors, or fails to read. The next opening may succeed, so the
/// changes must not be passed over.
fn passing_over(path: &Path, source: io::Error) -> Result<String> {
    let text = source.to_string();
    let failed = Errno::from_io_error(&source) == Some(Errno::IO);
    let error = Error::io(Op::Read, path, source);
    if failed || error.is_refusal() { Err(error) } else { Ok(text) }
}

/// The content of an object.
enum Object {
    Image(Control, Mapped<u8>),
    /// It was never in use.
    Nothing,
}

fn read(memory: &dyn SharedMemory, name: &str) -> io::Result<Object> {
    let object = memory.open(name)?;
    let control = match Control::read(&object)? {
        Ok(control) => control,
        Err(Unreadable::NoControl) => return Ok(Object::Nothing),
        Err(Unreadable::Version(version)) => {
            return Err(io::Error::other(format!(
                "it has version {version}, which this release cannot read"
            )));
        }
    };
    let len = usize::try_from(control.image_len).ok().filter(|len| *len <= SEGMENT_BYTES_MAX);
    let len = len.ok_or_else(|| io::Error::other("it is longer than any segment"))?;
    let mut image = Mapped::sparse(len)?;
    fill_sparsely(&mut image, |piece, offset| {
        object.read_exact_at(piece, (CONTROL_LEN + offset) as u64).map(|()| piece.len())
    })?;
    Ok(Object::Image(control, image))
}

/// An unsealed log segment of the manifest.
struct Segment {
    name: String,
    header: SegmentHeader,
    /// The bytes of its file, or of the object that holds more records.
    bytes: Box<dyn Deref<Target = [u8]>>,
    /// Where its records end.
    end: Stop,
    /// Bytes from the start that are known to be durable.
    known_len: usize,
}

impl Segment {
    /// Reads the file. `None`: it is missing or damaged, which recovery judges.
    fn load(dir: &dyn Dir, manifest: &Manifest, id: SegmentId, entry: Entry) -> Result<Option<Self>> {
        let name = directory::segment_file_name(id);
        let bytes = match dir.read_file(&name, SEGMENT_BYTES_MAX as u64) {
            Ok(bytes) => bytes,
            Err(Error::Corruption { .. }) => return Ok(None),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Ok(header) = SegmentHeader::decode(&bytes) else { return Ok(None) };
        let end = scan(&header, &bytes);
        let known_len = usize::try_from(entry.durable_len).unwrap_or(usize::MAX);
        let is_own = header.segment_id == id.get() && header.store_id == manifest.store_id;
        let is_whole = end.reason == StopReason::Sealed || end.fault >= known_len;
        let bytes = Box::new(bytes);
        Ok((is_own && is_whole).then_some(Segment { name, header, bytes, end, known_len }))
    }

    fn is_sealed(&self) -> bool {
        self.end.reason == StopReason::Sealed
    }

    /// Takes the records that the file lacks from the object that holds most of them.
    fn complete(&mut self, candidates: Vec<Candidate>, warnings: &mut Vec<String>) {
        let in_file = self.end.offset;
        for Candidate { name, image } in candidates {
            if self.bytes.get(..in_file).is_some_and(|held| image.starts_with(held)) {
                let end = scan(&self.header, &image);
                if self.end.offset < end.offset {
                    (self.end, self.bytes) = (end, Box::new(image));
                }
            } else {
                warnings.push(format!("{name} is ignored: its bytes differ from those of {}", self.name));
            }
        }
    }

    /// Writes the bytes that are not known to be durable, and syncs the file.
    fn make_durable(&self, dir: &dyn Dir, room: &Room) -> Result<()> {
        let path = dir.path_of(&self.name);
        let bytes = self.bytes.get(self.known_len..self.end.offset).unwrap_or_default();
        let file = dir.open(&self.name, OpenMode::ReadWrite);
        let file = file.map_err(|error| Error::io(Op::Open, &path, error))?;
        room.write(bytes.len(), || {
            let written = file.write_all_at(bytes, self.known_len as u64);
            written.map_err(|error| Error::io(Op::Write, &path, error))
        })?;
        file.sync_data().map_err(|error| Error::sync(&path, error))
    }
}

fn scan(header: &SegmentHeader, bytes: &[u8]) -> Stop {
    Scanner::new(header.origin(), bytes, SEGMENT_HEADER_LEN).stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_may_pass_is_not_passed_over() {
        for (errno, stays) in [
            (Errno::IO, false),
            (Errno::MFILE, false),
            (Errno::NFILE, false),
            (Errno::NOMEM, false),
            (Errno::ACCESS, true),
            (Errno::NOENT, true),
        ] {
            assert_eq!(passing_over(Path::new("object"), errno.into()).is_ok(), stays, "{errno}");
        }
        assert!(passing_over(Path::new("object"), io::Error::other("another version")).is_ok());
    }
}
