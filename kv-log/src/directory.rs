//! The names of a store's files, the classification of a directory by its names, and the content of
//! a segment's file.

use kv_core::fs::{Dir, DirExt, FileExt, LOCK_FILE, OpenMode, is_system_file};
use kv_core::parts::Reserve;
use kv_core::{Error, Op, Result, SegmentId};

use crate::segments::SEGMENT_BYTES_MAX;

/// The name of the manifest.
pub(crate) const MANIFEST: &str = "MANIFEST";
const MANIFEST_TEMPORARY: &str = "MANIFEST.tmp";
/// The name of the file that marks the directory of an unfinished repair.
pub(crate) const REPAIR_MARK: &str = "REPAIR";
/// The name of the file that marks a backup.
pub(crate) const BACKUP_MARK: &str = "BACKUP";
/// The name of the file that marks the directory of an unfinished restore.
pub(crate) const RESTORE_MARK: &str = "RESTORE";
const SEGMENT_SUFFIX: &str = ".segment";
const CHECKPOINT_SUFFIX: &str = ".checkpoint";

/// `0000000000000042.segment`: the id in 16 hexadecimal digits, so that names sort like ids.
pub(crate) fn segment_file_name(id: SegmentId) -> String {
    file_name(id, SEGMENT_SUFFIX)
}

/// The id in a segment's file name; `None` for any other name.
pub(crate) fn parse_segment_file_name(name: &str) -> Option<SegmentId> {
    parse_file_name(name, SEGMENT_SUFFIX)
}

/// `0000000000000042.checkpoint`: as the name of a segment.
pub(crate) fn checkpoint_file_name(id: SegmentId) -> String {
    file_name(id, CHECKPOINT_SUFFIX)
}

/// The id in a checkpoint's file name; `None` for any other name.
pub(crate) fn parse_checkpoint_file_name(name: &str) -> Option<SegmentId> {
    parse_file_name(name, CHECKPOINT_SUFFIX)
}

fn file_name(id: SegmentId, suffix: &str) -> String {
    format!("{:016x}{suffix}", id.get())
}

fn parse_file_name(name: &str, suffix: &str) -> Option<SegmentId> {
    let id = SegmentId::new(u64::from_str_radix(name.strip_suffix(suffix)?, 16).ok()?);
    (file_name(id, suffix) == name).then_some(id)
}

/// Reads the file of a segment into `bytes`, at most `len_max` bytes of it. Returns the length of
/// the file.
///
/// # Errors
/// The file is missing or cannot be read.
pub(crate) fn read_segment(dir: &dyn Dir, id: SegmentId, len_max: u64, bytes: &mut Vec<u8>) -> Result<u64> {
    let name = segment_file_name(id);
    let path = dir.path_of(&name);
    let file = dir.open(&name, OpenMode::Read).map_err(|error| Error::io(Op::Open, &path, error))?;
    let file_len = file.len().map_err(|error| Error::io(Op::Measure, &path, error))?;
    let len = file_len.min(len_max).min(SEGMENT_BYTES_MAX as u64);
    bytes.resize(usize::try_from(len).unwrap_or(SEGMENT_BYTES_MAX), 0);
    let read = file.read_full_at(bytes, 0).map_err(|error| Error::io(Op::Read, &path, error))?;
    bytes.truncate(read);
    Ok(file_len)
}

/// The kind of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A store.
    Store,
    /// Nothing, or the files of a creation that a crash ended. A store can be created here.
    Empty,
    /// Segments without their manifest.
    ManifestMissing,
    /// A directory of another owner. It holds this file.
    Foreign(String),
}

/// Classifies a directory. A store always has its manifest. Files that operating systems leave do
/// not count.
pub(crate) fn classify(names: &[String]) -> Content {
    if names.iter().any(|name| name == MANIFEST) {
        return Content::Store;
    }
    if let Some(mark) =
        names.iter().find(|name| [REPAIR_MARK, RESTORE_MARK, BACKUP_MARK].contains(&name.as_str()))
    {
        return Content::Foreign(mark.clone());
    }
    if names.iter().any(|name| parse_segment_file_name(name).is_some()) {
        return Content::ManifestMissing;
    }
    let is_foreign = |name: &&String| {
        ![LOCK_FILE, Reserve::FILE, MANIFEST_TEMPORARY].contains(&name.as_str()) && !is_system_file(name)
    };
    match names.iter().find(|name| *name == KV_NAIVE).or_else(|| names.iter().find(is_foreign)) {
        Some(name) => Content::Foreign(name.clone()),
        None => Content::Empty,
    }
}

/// The file that marks a store of kv-naive.
const KV_NAIVE: &str = "NAIVE";

/// Describes a foreign file by its name.
pub(crate) fn describe_foreign(name: &str) -> String {
    match name {
        REPAIR_MARK => format!(
            "it holds {name}, the mark of a repair that did not finish; remove this directory, and repair again"
        ),
        RESTORE_MARK => format!(
            "it holds {name}, the mark of a restore that did not finish; remove this directory, and restore again"
        ),
        BACKUP_MARK => format!(
            "it holds {name}, the mark of a backup; open it for reading only, restore it to another directory, or, \
             without a manifest, back up again"
        ),
        KV_NAIVE => format!("it holds {name}, a file of a kv-naive store; open it with kv-naive"),
        _ => format!("it holds {name}, which is not a file of a kv-log store; choose another directory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_one_to_one() {
        for id in [0, 1, 0xabc, u64::MAX] {
            let id = SegmentId::new(id);
            assert_eq!(parse_segment_file_name(&segment_file_name(id)), Some(id));
            assert_eq!(parse_checkpoint_file_name(&checkpoint_file_name(id)), Some(id));
            assert_eq!(parse_segment_file_name(&checkpoint_file_name(id)), None);
        }
        for name in
            ["", ".segment", "1.segment", "00000000000000AB.segment", "+000000000000001.segment", "MANIFEST"]
        {
            assert_eq!(parse_segment_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn every_kind_of_directory_is_told_apart() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let segment = segment_file_name(SegmentId::new(1));
        assert_eq!(classify(&names(&[])), Content::Empty);
        assert_eq!(classify(&names(&["LOCK", "MANIFEST.tmp", "RESERVE"])), Content::Empty);
        assert_eq!(classify(&names(&["lost+found", ".DS_Store", ".gitkeep"])), Content::Empty);
        assert_eq!(classify(&names(&["lost+found", "letter"])), Content::Foreign("letter".to_owned()));
        assert_eq!(classify(&names(&["LOCK", "MANIFEST", "x"])), Content::Store);
        assert_eq!(classify(&names(&["LOCK", &segment])), Content::ManifestMissing);
        let unfinished = Content::Foreign(REPAIR_MARK.to_owned());
        assert_eq!(classify(&names(&[&segment, "LOCK", "REPAIR"])), unfinished);
        assert_eq!(classify(&names(&["LOCK", "MANIFEST", "REPAIR"])), Content::Store);
        let unfinished = Content::Foreign(RESTORE_MARK.to_owned());
        assert_eq!(classify(&names(&[&segment, "LOCK", "RESTORE"])), unfinished);
        assert_eq!(classify(&names(&[&segment, "BACKUP"])), Content::Foreign(BACKUP_MARK.to_owned()));
        assert_eq!(classify(&names(&["LOCK", "SNAPSHOT"])), Content::Foreign("SNAPSHOT".to_owned()));
        assert_eq!(classify(&names(&["a", "NAIVE"])), Content::Foreign("NAIVE".to_owned()));
    }
}
