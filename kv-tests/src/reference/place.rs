//! The directory of a store, and the one file in it.

use super::Defect;
use super::log::{self, Content, Map};
use super::past::Past;
use super::stored;
use kv_core::fs::{Dir, DirExt, File, FileExt, OpenMode};
use kv_core::parts::{Reserve, StoreLock};
use kv_core::{Env, Error, Op, Result};
use std::sync::Arc;
use std::time::Duration;

/// The name of the file, and its name while it is incomplete.
pub(super) const FILE: &str = "REFERENCE";
/// The name of the file that marks a backup.
pub(super) const BACKUP: &str = "BACKUP";
pub(super) const TEMPORARY: &str = "REFERENCE.tmp";
/// Bytes of the reserve beyond the length of the file: each of the two may begin one more block,
/// and so may the list of a file's blocks.
const RESERVE_SLACK: u64 = 12 << 10;

/// How many files [`Defect::SideFiles`] keeps beside the one.
const SIDE_FILES: usize = 3;

fn side_file(number: usize) -> String {
    format!("{TEMPORARY}.{number}")
}

/// The place of a store.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: Arc<dyn Dir>,
    pub(super) env: Env,
    pub(super) defect: Option<Defect>,
    /// Held until close.
    pub(super) lock: StoreLock,
    /// As long as the file that would replace the present one. A reader has none.
    pub(super) reserve: Option<Reserve>,
}

impl Place {
    pub(super) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub(super) fn recover(&self) -> Result<Content> {
        let mut content = self.decode(FILE)?;
        if self.has(Defect::SideFiles) {
            for number in 0..SIDE_FILES {
                content.map.extend(self.decode(&side_file(number))?.map);
            }
        }
        Ok(content)
    }

    fn decode(&self, name: &str) -> Result<Content> {
        let bytes = self.dir.read_file(name, u64::MAX)?;
        log::decode(&bytes, self.defect)
            .map_err(|damage| Error::corruption(&self.dir.path_of(name), damage.offset as u64, damage.detail))
    }

    /// With a defect, writes most keys to other files, and returns the rest.
    fn spread(&self, content: &Content) -> Result<Map> {
        let mut maps: Vec<Map> = vec![Map::new(); SIDE_FILES + 1];
        for (number, (key, value)) in content.map.iter().enumerate() {
            if let Some(map) = maps.get_mut(number % (SIDE_FILES + 1)) {
                map.insert(key.clone(), value.clone());
            }
        }
        let rest = maps.pop().unwrap_or_default();
        for (number, map) in maps.iter().enumerate() {
            self.dir.write_file_atomically(&side_file(number), &log::file(1, 1, 1, map, &Past::default()))?;
        }
        Ok(rest)
    }

    /// Checks that the directory and the lock still belong to this store.
    pub(super) fn check_lock(&self) -> Result<()> {
        let unchecked = [Defect::IgnoresLostLock, Defect::LocksByName];
        if unchecked.iter().any(|defect| self.has(*defect)) { Ok(()) } else { self.lock.check() }
    }

    /// Holds space for replacing a file of this length.
    pub(super) fn hold_reserve(&self, len: u64) {
        if let Some(reserve) = &self.reserve {
            reserve.hold(len + RESERVE_SLACK);
        }
    }

    /// Replaces the file by one that holds `content` in one record; returns it with its length. On
    /// a full disk the space comes from the reserve.
    pub(super) fn replace(&self, content: &Content) -> Result<(Box<dyn File>, u64)> {
        self.check_lock()?;
        let forgets = self.has(Defect::EmptyStoreForgetsLsn) && content.map.is_empty();
        let last = if forgets { 0 } else { content.last };
        let spread = self.has(Defect::SideFiles).then(|| self.spread(content)).transpose()?;
        let map = stored::map(self.defect, spread.as_ref().unwrap_or(&content.map));
        let bytes = log::file(content.epoch, last, content.durable, &map, &content.past);
        let old_len = if self.has(Defect::NeverShrinks) { self.file_len() } else { 0 };
        if self.has(Defect::KeepsOldFiles) {
            self.keep_old_file(&bytes);
        }
        let careless = [
            Defect::NoDirectorySync,
            Defect::RenameBeforeSync,
            Defect::FollowsPath,
            Defect::StrayTemporaries,
        ];
        match &self.reserve {
            _ if careless.iter().any(|defect| self.has(*defect)) => {
                self.replace_carelessly(content, &bytes)?;
            }
            _ if self.has(Defect::WritesInPlace) => self.write_in_place(&bytes)?,
            Some(reserve) => reserve.write_file_atomically(FILE, &bytes)?,
            None => self.dir.write_file_atomically(FILE, &bytes)?,
        }
        self.hold_reserve(bytes.len() as u64);
        let file = self.open_file(OpenMode::ReadWrite)?;
        if old_len > bytes.len() as u64 {
            let _ = file.set_len(old_len);
        }
        Ok((file, bytes.len() as u64))
    }

    /// The length of the file; 0 if there is none.
    fn file_len(&self) -> u64 {
        self.open_file(OpenMode::Read).ok().and_then(|file| file.len().ok()).unwrap_or_default()
    }

    pub(super) fn open_file(&self, mode: OpenMode) -> Result<Box<dyn File>> {
        self.dir.open(FILE, mode).map_err(|error| Error::io(Op::Open, &self.dir.path_of(FILE), error))
    }

    fn keep_old_file(&self, bytes: &[u8]) {
        let name = format!("{TEMPORARY}.{}", self.dir.list().map_or(0, |names| names.len()));
        let _ = self.dir.open(&name, OpenMode::CreateNew).map(|file| file.write_all_at(bytes, 0));
    }

    fn write_in_place(&self, bytes: &[u8]) -> Result<()> {
        let io = |error| Error::io("replace", &self.dir.path_of(FILE), error);
        let file = self.open_file(OpenMode::CreateOrTruncate)?;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all_at(first, 0).map_err(io)?;
        std::thread::sleep(Duration::from_millis(10));
        file.write_all_at(second, first.len() as u64).map_err(io)?;
        file.sync_all().map_err(io)?;
        self.dir.sync().map_err(io)
    }

    fn replace_carelessly(&self, content: &Content, bytes: &[u8]) -> Result<()> {
        let path = self.dir.path_of(FILE);
        let io = |error| Error::io("replace", &path, error);
        let dir = if self.has(Defect::FollowsPath) {
            self.env.fs.open_dir(self.dir.path()).map_err(io)?
        } else {
            Arc::clone(&self.dir)
        };
        let temporary = if self.has(Defect::StrayTemporaries) {
            format!("{TEMPORARY}.{}", content.epoch)
        } else {
            TEMPORARY.to_owned()
        };
        let file = dir.open(&temporary, OpenMode::CreateOrTruncate).map_err(io)?;
        file.write_all_at(bytes, 0).map_err(io)?;
        if !self.has(Defect::RenameBeforeSync) {
            file.sync_all().map_err(io)?;
        }
        dir.rename(&temporary, FILE).map_err(io)?;
        if !self.has(Defect::NoDirectorySync) {
            dir.sync().map_err(io)?;
        }
        Ok(())
    }
}
