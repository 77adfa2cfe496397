//! Unnamed segment files: the manifest does not name them. Such a file is an orphan that a crash
//! left, a file of another owner, or holds changes that an older manifest does not know.
//!
//! A manifest reserves segment ids ahead, as it reserves LSNs: a file with an id beyond them is not
//! this store's. Until a manifest that names it is durable, a log segment holds no change, and a
//! compacted segment holds only changes of segments that the manifest names. So no crash leaves a
//! file with a newer change than the named segments hold. Such a file is left when a user restores
//! an older manifest, and to remove the file would lose its changes.
//!
//! If the segment header is damaged, the LSNs of small records are unknown. The marks and the seal
//! of the file then tell its newest change, or one that is older.
//!
//! | the name's id | the header is of | newest change in the file | finding |
//! |---|---|---|---|
//! | any | another store | any | another owner's |
//! | any | another format version | older, or none | another owner's |
//! | any | this store, another format version, or none | newer than the store's newest | damage: the manifest is too old |
//! | any | this store, with this id | older, or none | orphan |
//! | reserved | none, or this store with another id | older, or none | orphan |
//! | beyond | none, or this store with another id | older, or none | another owner's |

use kv_core::fs::{Dir, DirExt, FileExt, OpenMode};
use kv_core::{Error, Lsn, Result, SegmentId};
use kv_wal_format::{
    HeaderError, Mark, Origin as RecordOrigin, Record, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader,
};

use crate::directory::{self, BACKUP_MARK};
use crate::manifest::{Manifest, Unnamed};
use crate::segments::SEGMENT_BYTES_MAX;

/// The owner of a file that the manifest does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// The store's: it can be removed.
    Orphan,
    /// Another owner's: it stays as it is, and its id is not used.
    Foreign,
    /// The store's, with changes that the manifest does not know.
    NewerChanges,
}

/// The origin of a file, as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// This store, with the id that the name says.
    Own,
    /// This store, with another id: old bytes of the disk, or a renamed file.
    OwnOther,
    OtherStore,
    /// There is no header.
    Unknown,
}

/// The table above.
fn judge(origin: Origin, is_reserved: bool, is_newer: bool) -> Finding {
    match (origin, is_reserved, is_newer) {
        (Origin::OtherStore, _, _) | (Origin::OwnOther | Origin::Unknown, false, false) => Finding::Foreign,
        (Origin::Own | Origin::OwnOther | Origin::Unknown, _, true) => Finding::NewerChanges,
        (Origin::Own, _, false) | (Origin::OwnOther | Origin::Unknown, true, false) => Finding::Orphan,
    }
}

/// The facts about the store that a finding needs.
#[derive(Clone, Copy, Debug)]
struct Known {
    store_id: u32,
    /// The first id that was not reserved.
    ids_end: SegmentId,
    /// The newest change that the named segments hold, or that is known to have been durable.
    last_lsn: Lsn,
}

/// Judges every file with a segment name in `dir` that `manifest` does not name. The newest
/// recovered change has the LSN `last_lsn`.
///
/// # Errors
/// A file cannot be read. A file holds changes that the manifest does not know: see the table.
pub(crate) fn examine_all(dir: &dyn Dir, manifest: &Manifest, last_lsn: Lsn) -> Result<Unnamed> {
    let known = Known { store_id: manifest.store_id, ids_end: manifest.ids_end, last_lsn };
    let mut unnamed = Unnamed::default();
    let names = dir.names()?;
    if names.iter().any(|name| name == BACKUP_MARK) {
        // A later backup that did not finish has left them. The manifest is that of the earlier
        // one.
        return Ok(unnamed);
    }
    let newest = manifest.checkpoint.map(|name| name.id);
    for id in names.iter().filter_map(|name| directory::parse_checkpoint_file_name(name)) {
        if Some(id) != newest && is_own_checkpoint(dir, id, known) {
            unnamed.checkpoints.push(id);
        }
    }
    for id in names.iter().filter_map(|name| directory::parse_segment_file_name(name)) {
        if !manifest.names(id) {
            match examine(dir, id, known)? {
                Finding::Orphan => unnamed.orphans.push(id),
                Finding::Foreign | Finding::NewerChanges => drop(unnamed.foreign.insert(id)),
            }
        }
    }
    Ok(unnamed)
}

/// Whether the file of the checkpoint `id` is this store's. Without a header, the reserved id
/// tells.
fn is_own_checkpoint(dir: &dyn Dir, id: SegmentId, known: Known) -> bool {
    let mut start = [0; SEGMENT_HEADER_LEN];
    let file = dir.open(&directory::checkpoint_file_name(id), OpenMode::Read);
    let read = file.and_then(|file| file.read_full_at(&mut start, 0));
    let is_reserved = id < known.ids_end && id.get() > 0;
    is_reserved
        && match read.map(|read| SegmentHeader::decode(start.get(..read).unwrap_or_default())) {
            Ok(Ok(header)) => header.store_id == known.store_id,
            Ok(Err(HeaderError::UnsupportedVersion { .. })) | Err(_) => false,
            Ok(Err(_)) => true,
        }
}

/// Judges the file of the segment `id`.
fn examine(dir: &dyn Dir, id: SegmentId, known: Known) -> Result<Finding> {
    let name = directory::segment_file_name(id);
    let is_reserved = id < known.ids_end && id.get() > 0;
    // A longer file is not a segment, and is not read.
    let bytes = match dir.read_file(&name, SEGMENT_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(Error::Corruption { .. }) => return Ok(Finding::Foreign),
        Err(error) => return Err(error),
    };
    let header = SegmentHeader::decode(&bytes);
    let newest = match header {
        Ok(header) if header.segment_id == id.get() => newest_change(header.origin(), &bytes, |_| None),
        // The LSNs of small records are unknown without the header. Marks and seals state theirs.
        _ => newest_change(RecordOrigin { segment_id: id.get(), base_lsn: 0 }, &bytes, stated_lsn),
    };
    let is_newer = newest > known.last_lsn.get();
    let origin = match header {
        Ok(header) if header.store_id != known.store_id => Origin::OtherStore,
        Ok(header) if header.segment_id == id.get() => Origin::Own,
        Ok(_) => Origin::OwnOther,
        // Another release has written it, so it is no leftover of this store.
        Err(HeaderError::UnsupportedVersion { .. }) if !is_newer => Origin::OtherStore,
        Err(_) => Origin::Unknown,
    };
    let finding = judge(origin, is_reserved, is_newer);
    if finding == Finding::NewerChanges {
        let last = known.last_lsn;
        let detail = format!(
            "it holds changes up to LSN {newest}, and the manifest knows only changes up to LSN {last}: the manifest \
             is older than the store. Put the newest manifest back. Or, to open the store as of LSN {last}, move \
             this file out of the directory, and keep it"
        );
        return Err(Error::Corruption { path: dir.path_of(&name), offset: 0, detail });
    }
    Ok(finding)
}

/// Highest LSN of the changes in `bytes`, and of those that `stated` finds in other records. 0 if
/// there are none.
fn newest_change(origin: RecordOrigin, bytes: &[u8], stated: impl Fn(&Record<'_>) -> Option<u64>) -> u64 {
    let scanner = Scanner::new(origin, bytes, SEGMENT_HEADER_LEN.min(bytes.len()));
    let lsns = scanner.filter_map(
        |(_, record)| {
            if record.kind.is_change() { Some(record.lsn) } else { stated(&record) }
        },
    );
    lsns.max().unwrap_or(0)
}

/// The LSN of a change that a mark or a seal states.
fn stated_lsn(record: &Record<'_>) -> Option<u64> {
    let mark = Mark::from_record(record).map(|mark| mark.durable_lsn);
    mark.or_else(|| Seal::from_record(record).map(|seal| seal.max_lsn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Fs;
    use kv_tests::sim::SimFs;
    use kv_wal_format::{Encoder, SegmentKind};
    use std::path::Path;

    fn known() -> Known {
        Known { store_id: 5, ids_end: SegmentId::new(100), last_lsn: Lsn::new(50) }
    }

    /// What is found about a file with the name of segment 7 and these bytes.
    fn finding(bytes: &[u8]) -> Result<Finding> {
        let disk = SimFs::new();
        let dir = disk.open_dir(Path::new("/")).unwrap();
        let id = SegmentId::new(7);
        dir.write_file_atomically(&directory::segment_file_name(id), bytes).unwrap();
        examine(&*dir, id, known())
    }

    #[test]
    fn a_segment_of_another_format_version_is_not_removed() {
        let older = include_bytes!("../../../kv-wal-format/testdata/v1_log_sealed.seg");
        assert_eq!(finding(older).unwrap(), Finding::Foreign);
    }

    #[test]
    fn without_a_header_marks_and_seals_tell_the_newest_change() {
        let header = SegmentHeader { kind: SegmentKind::Log, segment_id: 7, base_lsn: 40, store_id: 5 };
        let file = |lsn: u64, last: &Record<'_>| {
            let (encoder, mut bytes) = (Encoder::new(header.origin()), header.encode().to_vec());
            encoder.append(&Record::put(lsn, b"k", b"v"), &mut bytes).unwrap();
            encoder.append(last, &mut bytes).unwrap();
            bytes
        };
        let damaged = |mut bytes: Vec<u8>| {
            bytes[20] ^= 1;
            bytes
        };
        let mark = |lsn| Mark { durable_lsn: lsn, unix_time_ms: 0 }.encode_body();
        let seal = |lsn| Seal { records: 1, max_lsn: lsn }.encode_body();
        for (lsn, is_newer) in [(50, false), (51, true)] {
            let (mark, seal) = (mark(lsn), seal(lsn));
            for last in [Record::mark(lsn, &mark), Record::seal(lsn, &seal)] {
                for bytes in [file(lsn, &last), damaged(file(lsn, &last))] {
                    assert_eq!(finding(&bytes).is_err(), is_newer, "{last:?}");
                }
            }
        }
    }

    #[test]
    fn every_combination_is_decided_as_the_table_says() {
        use Finding::{Foreign, NewerChanges, Orphan};
        use Origin::{OtherStore, Own, OwnOther, Unknown};
        for (origin, is_reserved, is_newer, finding) in [
            (Own, false, false, Orphan),
            (Own, true, false, Orphan),
            (Own, false, true, NewerChanges),
            (Own, true, true, NewerChanges),
            (OwnOther, false, false, Foreign),
            (OwnOther, true, false, Orphan),
            (OwnOther, false, true, NewerChanges),
            (OwnOther, true, true, NewerChanges),
            (OtherStore, false, false, Foreign),
            (OtherStore, true, false, Foreign),
            (OtherStore, false, true, Foreign),
            (OtherStore, true, true, Foreign),
            (Unknown, false, false, Foreign),
            (Unknown, true, false, Orphan),
            (Unknown, false, true, NewerChanges),
            (Unknown, true, true, NewerChanges),
        ] {
            assert_eq!(judge(origin, is_reserved, is_newer), finding, "{origin:?} {is_reserved} {is_newer}");
        }
    }
}
