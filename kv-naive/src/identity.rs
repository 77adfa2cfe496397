//! The identity file `NAIVE`: it marks a directory as a store of this engine, and holds the LSN
//! ceiling. The store gives out LSNs up to the ceiling only. After a crash it goes on above the
//! ceiling, so it uses no LSN twice.
//!
//! The file is a segment header of kind `Identity`, whose `base_lsn` is the ceiling. The store
//! replaces it through `NAIVE.tmp`:
//!
//! | after | `NAIVE` | `NAIVE.tmp` |
//! |---|---|---|
//! | create, write | the previous one | any part of it |
//! | sync of the file | the previous one | absent, or whole |
//! | rename | the previous one, or the new one | absent, or whole |
//! | sync of the directory | the new one | absent |
//!
//! The store gives out LSNs up to the new ceiling only after the last step. A close refuses
//! changes, writes the last snapshot, and then lowers the ceiling to the last LSN. Creation writes
//! an empty `SNAPSHOT` first and `NAIVE` last. [`directory`](crate::directory) recognises the files
//! that a crash leaves in between.

use kv_core::fs::{Dir, DirExt};
use kv_core::parts::Reserve;
use kv_core::{Error, Lsn, Result};
use kv_wal_format::{HeaderError, SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
use std::path::Path;

/// The file's name.
pub(crate) const IDENTITY: &str = "NAIVE";
/// Its length, bytes.
pub(crate) const FILE_LEN: u64 = SEGMENT_HEADER_LEN as u64;

/// LSNs reserved ahead.
const LSNS_RESERVED: u64 = 1 << 32;

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// In the header of the snapshot, too.
    pub(crate) store_id: u32,
    pub(crate) lsn_ceiling: Lsn,
}

/// Writes the identity, atomically and durably, on a full disk with space from the reserve.
pub(crate) fn write(reserve: &Reserve, identity: Identity) -> Result<()> {
    reserve.write_file_atomically(IDENTITY, &encode(identity))
}

/// The content of the file.
pub(crate) fn encode(identity: Identity) -> [u8; SEGMENT_HEADER_LEN] {
    let Identity { store_id, lsn_ceiling } = identity;
    let base_lsn = lsn_ceiling.get();
    SegmentHeader { kind: SegmentKind::Identity, segment_id: 0, base_lsn, store_id }.encode()
}

/// Reads the identity.
pub(crate) fn read(dir: &dyn Dir) -> Result<Identity> {
    let path = dir.path_of(IDENTITY);
    let bytes = dir.read_file(IDENTITY, FILE_LEN)?;
    let header = SegmentHeader::decode(&bytes).map_err(|error| header_error(&path, error))?;
    if header.kind != SegmentKind::Identity || header.segment_id != 0 || bytes.len() != SEGMENT_HEADER_LEN {
        let SegmentHeader { kind, segment_id, .. } = header;
        let fault = format!("this is not an identity: its header is of {kind} segment {segment_id}");
        return Err(Error::corruption(&path, 0, fault));
    }
    Ok(Identity { store_id: header.store_id, lsn_ceiling: Lsn::new(header.base_lsn) })
}

/// The ceiling to write when LSNs up to `last` were given out.
pub(crate) fn ceiling_above(last: Lsn) -> Lsn {
    Lsn::new(last.get().saturating_add(LSNS_RESERVED))
}

/// The LSN from which on a new ceiling is due: half of the reserve is left to changes under way.
pub(crate) fn raise_at(ceiling: Lsn) -> Lsn {
    Lsn::new(ceiling.get().saturating_sub(LSNS_RESERVED / 2))
}

/// Whether a store with this ceiling was closed with a newer snapshot than that of `lsn`. The close
/// made the ceiling the LSN of its snapshot. An open store has far more LSNs left, and so has one
/// that crashed.
pub(crate) fn is_closed_above(lsn: Lsn, ceiling: Lsn) -> bool {
    ceiling > lsn && ceiling.get() - lsn.get() < LSNS_RESERVED / 4
}

/// The error for a bad header.
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
    use kv_core::fs::{Fs, FsExt, OsFs};

    #[test]
    fn the_ceiling_comes_back_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { store_id: 5, lsn_ceiling: Lsn::new(77) };
        let handle = OsFs.open_dir(dir.path()).unwrap();
        write(&Reserve::open(OsFs.open_dir(dir.path()).unwrap()), identity).unwrap();
        assert_eq!(read(&*handle).unwrap(), identity);
        let whole = OsFs.read_file(&dir.path().join(IDENTITY)).unwrap();
        assert_eq!(whole.len() as u64, FILE_LEN);
        let refused = |bytes: &[u8]| {
            handle.write_file_atomically(IDENTITY, bytes).unwrap();
            let error = read(&*handle).unwrap_err();
            assert!(matches!(error, Error::Corruption { .. } | Error::UnsupportedVersion { .. }), "{error}");
        };
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            refused(&damaged);
        }
        for cut in 0..whole.len() {
            refused(&whole[..cut]);
        }
        refused(&[whole.as_slice(), &[0]].concat());
    }

    #[test]
    fn a_new_ceiling_is_due_long_before_the_old_one_is_reached() {
        let ceiling = ceiling_above(Lsn::new(10));
        assert_eq!(ceiling, Lsn::new(10 + (1 << 32)));
        assert_eq!(raise_at(ceiling), Lsn::new(10 + (1 << 31)));
    }

    #[test]
    fn a_snapshot_older_than_the_close_is_noticed() {
        let closed_above = |lsn, ceiling: Lsn| is_closed_above(Lsn::new(lsn), ceiling);
        assert!(!closed_above(10, Lsn::new(10)));
        assert!(closed_above(9, Lsn::new(10)));
        // A crash at once, and one just before a new ceiling was due.
        assert!(!closed_above(10, ceiling_above(Lsn::new(10))));
        assert!(!closed_above(10 + (1 << 31), ceiling_above(Lsn::new(10))));
    }
}
