//! The identity file: it marks a directory as a store of this engine, and reserves LSNs.
//!
//! A store is created in two steps, each atomic and durable: an empty snapshot, then the identity. On disk
//! after a power cut in between: a snapshot of an empty table without identity, which the next open takes
//! for what it is. A store always has both files.

use kv_core::{Error, Fs, FsExt, LOCK_FILE, Lsn, Result};
use kv_wal_format::{HeaderError, SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use std::path::Path;

pub(crate) const IDENTITY: &str = "NAIVE";
pub(crate) const SNAPSHOT: &str = "SNAPSHOT";
const TEMPORARIES: [&str; 2] = ["NAIVE.tmp", "SNAPSHOT.tmp"];

/// LSNs reserved ahead.
const LSNS_RESERVED: u64 = 1 << 32;

/// What a directory is, judged by its names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Store,
    /// Nothing, or what a crash left of a creation.
    Empty,
    /// A snapshot without identity: what a crash left of a creation, if it is empty.
    SnapshotOnly,
    /// An identity without its snapshot.
    SnapshotMissing,
    /// Somebody else's: it holds this file.
    Foreign(String),
}

pub(crate) fn classify(names: &[String]) -> Content {
    let has = |name: &str| names.iter().any(|one| one == name);
    match (has(IDENTITY), has(SNAPSHOT)) {
        (true, true) => return Content::Store,
        (true, false) => return Content::SnapshotMissing,
        (false, true) => return Content::SnapshotOnly,
        (false, false) => {}
    }
    let ours = |name: &str| name == LOCK_FILE || TEMPORARIES.contains(&name);
    match names.iter().find(|name| !ours(name)) {
        Some(name) => Content::Foreign(name.clone()),
        None => Content::Empty,
    }
}

/// Writes the identity with this LSN ceiling, atomically and durably.
pub(crate) fn store(fs: &dyn Fs, dir: &Path, lsn_ceiling: Lsn) -> Result<()> {
    let header = SegmentHeader { kind: SegmentKind::Identity, segment_id: 0, base_lsn: lsn_ceiling.get() };
    fs.write_file_atomically(dir, IDENTITY, &header.encode())
}

/// Reads the LSN ceiling.
pub(crate) fn load(fs: &dyn Fs, dir: &Path) -> Result<Lsn> {
    let path = dir.join(IDENTITY);
    let bytes = fs.read_file(&path)?;
    let header = SegmentHeader::decode(&bytes).map_err(|error| header_error(&path, error))?;
    if header.kind != SegmentKind::Identity || header.segment_id != 0 || bytes.len() != SEGMENT_HEADER_LEN {
        return Err(Error::corruption(&path, 0, "this is not an identity file"));
    }
    Ok(Lsn::new(header.base_lsn))
}

/// The ceiling to store when LSNs up to `last` were given out.
pub(crate) fn ceiling_above(last: Lsn) -> Lsn {
    Lsn::new(last.get() + LSNS_RESERVED)
}

/// The LSN from which on a new ceiling is due.
pub(crate) fn raise_at(ceiling: Lsn) -> u64 {
    ceiling.get().saturating_sub(LSNS_RESERVED / 2)
}

/// What a bad segment header means for the user.
pub(crate) fn header_error(path: &Path, error: HeaderError) -> Error {
    match error {
        HeaderError::UnsupportedVersion { found, supported } => Error::UnsupportedVersion {
            path: path.to_path_buf(),
            found: found.into(),
            supported: supported.into(),
        },
        other => Error::corruption(path, 0, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::OsFs;

    #[test]
    fn the_ceiling_comes_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        store(&OsFs, dir.path(), Lsn::new(77)).unwrap();
        assert_eq!(load(&OsFs, dir.path()).unwrap(), Lsn::new(77));
        let whole = OsFs.read_file(&dir.path().join(IDENTITY)).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            OsFs.write_file_atomically(dir.path(), IDENTITY, &damaged).unwrap();
            let error = load(&OsFs, dir.path()).unwrap_err();
            assert!(matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }), "{error}");
        }
    }

    #[test]
    fn every_kind_of_directory_is_told_apart() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(classify(&names(&["LOCK", "NAIVE.tmp", "SNAPSHOT.tmp"])), Content::Empty);
        assert_eq!(classify(&names(&["LOCK", "NAIVE", "SNAPSHOT"])), Content::Store);
        assert_eq!(classify(&names(&["NAIVE"])), Content::SnapshotMissing);
        assert_eq!(classify(&names(&["SNAPSHOT"])), Content::SnapshotOnly);
        assert_eq!(classify(&names(&["LOCK", "MANIFEST"])), Content::Foreign("MANIFEST".to_owned()));
    }
}
