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
//! | any | this store, or of none | newer than the store's newest | damage: the manifest is too old |
//! | any | this store, with this id | older, or none | orphan |
//! | reserved | none, or this store with another id | older, or none | orphan |
//! | reserved | another store | any | another owner's |
//! | beyond | none, another store, or another id | older, or none | another owner's |

use kv_core::fs::{Dir, DirExt};
use kv_core::{Error, Lsn, Result, SegmentId};
use kv_wal_format::{Mark, Origin as RecordOrigin, Record, SEGMENT_HEADER_LEN, Scanner, Seal, SegmentHeader};

use crate::directory;
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
pub(super) fn examine_all(dir: &dyn Dir, manifest: &Manifest, last_lsn: Lsn) -> Result<Unnamed> {
    let known = Known { store_id: manifest.store_id, ids_end: manifest.ids_end, last_lsn };
    let mut unnamed = Unnamed::default();
    for id in dir.names()?.iter().filter_map(|name| directory::parse_segment_file_name(name)) {
        if !manifest.segments.contains_key(&id) {
            match examine(dir, id, known)? {
                Finding::Orphan => unnamed.orphans.push(id),
                Finding::Foreign | Finding::NewerChanges => drop(unnamed.foreign.insert(id)),
            }
        }
    }
    Ok(unnamed)
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
    let origin = match header {
        Ok(header) if header.store_id != known.store_id => Origin::OtherStore,
        Ok(header) if header.segment_id == id.get() => Origin::Own,
        Ok(_) => Origin::OwnOther,
        Err(_) => Origin::Unknown,
    };
    let newest = match header {
        Ok(header) if header.segment_id == id.get() => newest_change(header.origin(), &bytes, |_| None),
        // The LSNs of small records are unknown without the header. Marks and seals state theirs.
        _ => newest_change(RecordOrigin { segment_id: id.get(), base_lsn: 0 }, &bytes, stated_lsn),
    };
    let finding = judge(origin, is_reserved, newest > known.last_lsn.get());
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
