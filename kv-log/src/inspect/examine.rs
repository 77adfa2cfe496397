//! Examines the files of a closed store: a table of its segments, and every damage.

use kv_core::fs::{DirExt, LOCK_FILE, OpenMode, is_system_file};
use kv_core::parts::Reserve;
use kv_core::{Background, Env, Error, Result, SegmentId};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::damage::{Damage, Lost};
use super::judge::judge;
use super::newest::{Newest, Place};
use super::pass::Pass;
use super::segment::SegmentSummary;
use super::survey::{Survey, fault_of};
use crate::checkpoint::{LEN_MAX as CHECKPOINT_LEN_MAX, parse};
use crate::directory;
use crate::manifest::{CheckpointName, Manifest};
use crate::progress::OnProgress;

/// The findings about a store's files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examination {
    /// The content of the manifest. `None` if it is damaged or missing.
    pub manifest: Option<ManifestSummary>,
    /// Every segment, in the order of ids, with those that the manifest does not name.
    pub segments: Vec<SegmentSummary>,
    /// All other files.
    pub files: Vec<OtherFile>,
    /// Every damage. Empty: the store is sound.
    pub damages: Vec<Damage>,
    /// Distinct keys that have a value; 0 unless it was asked for live bytes.
    pub keys: u64,
}

/// The content of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestSummary {
    /// The id in the header of every file of the store.
    pub store_id: u32,
    /// The segments of the store that it names.
    pub segments: u64,
    /// The segments that only past states need.
    pub archived: u64,
    /// The points.
    pub points: u64,
    /// The oldest state that can be reached.
    pub window_first_lsn: u64,
    /// The first segment id that is not reserved.
    pub ids_end: SegmentId,
    /// Changes may have LSNs up to this one.
    pub lsn_ceiling: u64,
    /// Changes up to this one were durable.
    pub durable_lsn: u64,
}

/// A file of a store's directory that is not a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OtherFile {
    /// Its path.
    pub path: PathBuf,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its purpose.
    pub role: FileRole,
}

/// The purpose of a file that is not a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRole {
    /// The manifest.
    Manifest,
    /// The newest checkpoint.
    Checkpoint,
    /// The lock.
    Lock,
    /// Space for the way out of a full disk.
    Reserve,
    /// A file that a crash left. The next opening removes or replaces it.
    Leftover,
    /// The mark of a backup.
    Backup,
    /// A file of the operating system.
    System,
    /// A file that is not the store's. The store leaves it alone.
    Stray,
}

impl FileRole {
    /// A few words.
    pub fn name(self) -> &'static str {
        match self {
            FileRole::Manifest => "manifest",
            FileRole::Checkpoint => "checkpoint",
            FileRole::Lock => "lock",
            FileRole::Reserve => "reserve",
            FileRole::Leftover => "leftover",
            FileRole::Backup => "backup mark",
            FileRole::System => "system file",
            FileRole::Stray => "stray file",
        }
    }
}

/// Reads every file of the store in `dir`, checks every checksum and every reference, and changes
/// nothing. It holds the lock of a reader meanwhile.
///
/// `with_live` also counts keys and live bytes. That takes memory for each key.
///
/// # Errors
/// [`Error::NotAStore`](kv_core::Error::NotAStore); [`Error::Locked`](kv_core::Error::Locked) if a
/// writer has the store open; [`Error::UnsupportedVersion`](kv_core::Error::UnsupportedVersion) if
/// all its files are of another format version; [`Error::Io`](kv_core::Error::Io) if this process
/// may not read the files. Damage is no error: see [`Examination::damages`].
///
/// ```
/// use kv_log::{Engine, Env, LogEngine, Options, inspect};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = LogEngine::open(dir.path(), Options::default())?;
/// store.put(b"planet", b"earth")?;
/// store.close()?;
///
/// let found = inspect::examine(&Env::os(), dir.path(), false, &inspect::silently)?;
/// assert!(found.damages.is_empty());
/// assert_eq!(found.segments.iter().map(|segment| segment.puts).sum::<u64>(), 1);
/// # Ok::<(), kv_log::Error>(())
/// ```
pub fn examine(env: &Env, dir: &Path, with_live: bool, on_progress: &OnProgress<'_>) -> Result<Examination> {
    let survey = Survey::open(env, dir)?;
    let mut pass = Pass::new(&survey, with_live.then(Newest::default), on_progress);
    // Without a manifest, every segment may be one of the store.
    let (named, unnamed) = survey.sources();
    let mut readings = pass.read(&named, true)?;
    readings.extend(pass.read(&unnamed, survey.manifest.is_err())?);
    readings.sort_unstable_by_key(|reading| reading.source.id);
    let findings = judge(&survey, &readings)?;
    let mut examination = Examination {
        manifest: survey.manifest.as_ref().ok().map(ManifestSummary::of),
        segments: findings.segments,
        files: other_files(&survey),
        damages: findings.damages,
        keys: 0,
    };
    examination.damages.extend(checkpoint_damage(&survey));
    for place in pass.newest.iter_mut().flat_map(Newest::places).filter(Place::is_put) {
        examination.keys += 1;
        if let Some(segment) = examination.segments.get_mut(place.segment as usize) {
            segment.live_bytes += u64::from(place.put_len);
        }
    }
    Ok(examination)
}

impl ManifestSummary {
    fn of(manifest: &Manifest) -> Self {
        ManifestSummary {
            store_id: manifest.store_id,
            segments: manifest.segments.len() as u64,
            archived: manifest.archive.segments.len() as u64,
            points: manifest.archive.points.len() as u64,
            window_first_lsn: manifest.archive.first_lsn.get(),
            ids_end: manifest.ids_end,
            lsn_ceiling: manifest.lsn_ceiling.get(),
            durable_lsn: manifest.durable_lsn.get(),
        }
    }
}

/// The checkpoint that the manifest names.
fn named_checkpoint(survey: &Survey) -> Option<CheckpointName> {
    survey.manifest.as_ref().ok().and_then(|manifest| manifest.checkpoint)
}

/// The damage of the checkpoint. No change is lost with it. A missing one is none: the store gives
/// its space back on a full disk.
fn checkpoint_damage(survey: &Survey) -> Option<Damage> {
    let manifest = survey.manifest.as_ref().ok()?;
    let name = manifest.checkpoint?;
    let file_name = directory::checkpoint_file_name(name.id);
    let (offset, fault) = match survey.dir.read_file(&file_name, CHECKPOINT_LEN_MAX) {
        Ok(bytes) => {
            let parsed = parse(&bytes, name, manifest.store_id);
            let fault = parsed.and_then(|parsed| parsed.count_entries(Background::Threads)).err()?;
            (fault.offset as u64, fault.reason)
        }
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return None,
        Err(error) => fault_of(&error),
    };
    let path = survey.dir.path_of(&file_name);
    let fault = format!("this checkpoint cannot be used, and the next open replays the whole log: {fault}");
    Some(Damage { path, offset, len: 0, fault, lost: Lost::nothing() })
}

/// The files that are not segments.
fn other_files(survey: &Survey) -> Vec<OtherFile> {
    let checkpoint = named_checkpoint(survey).map(|name| directory::checkpoint_file_name(name.id));
    let role = |name: &str| match name {
        _ if checkpoint.as_deref() == Some(name) => FileRole::Checkpoint,
        _ if directory::parse_checkpoint_file_name(name).is_some() => FileRole::Leftover,
        directory::MANIFEST => FileRole::Manifest,
        LOCK_FILE => FileRole::Lock,
        Reserve::FILE => FileRole::Reserve,
        "MANIFEST.tmp" => FileRole::Leftover,
        directory::BACKUP_MARK => FileRole::Backup,
        _ if is_system_file(name) => FileRole::System,
        _ => FileRole::Stray,
    };
    let others = survey.names.iter().filter(|name| directory::parse_segment_file_name(name).is_none());
    let describe = |name: &String| {
        let len = survey.dir.open(name, OpenMode::Read).and_then(|file| file.len());
        OtherFile { path: survey.dir.path_of(name), bytes: len.unwrap_or(0), role: role(name) }
    };
    others.map(describe).collect()
}
