use kv_core::{Error, File, FileExt, Fs, OpenMode, Result, SegmentId};
use std::path::{Path, PathBuf};

use crate::directory;

/// The file of one segment: the same bytes as its image.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    path: PathBuf,
    file: Box<dyn File>,
}

impl SegmentFile {
    /// Creates the file, reserves `capacity` bytes for it and writes its header. Nothing is synced.
    pub(crate) fn create(
        fs: &dyn Fs,
        dir: &Path,
        id: SegmentId,
        capacity: usize,
        header: &[u8],
    ) -> Result<Self> {
        let path = dir.join(directory::segment_file_name(id));
        let file = fs.open(&path, OpenMode::CreateNew).map_err(|error| Error::io("create", &path, error))?;
        file.allocate(capacity as u64).map_err(|error| Error::io("reserve space for", &path, error))?;
        let created = SegmentFile { path, file };
        created.write(header, 0)?;
        Ok(created)
    }

    /// Opens the file of a segment that the manifest names.
    pub(crate) fn open(fs: &dyn Fs, dir: &Path, id: SegmentId) -> Result<Self> {
        let path = dir.join(directory::segment_file_name(id));
        match fs.open(&path, OpenMode::ReadWrite) {
            Ok(file) => Ok(SegmentFile { path, file }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::corruption(&path, 0, "the manifest names this segment, and the file is missing"))
            }
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|error| Error::io("measure", &self.path, error))
    }

    /// Reads from `offset` on until `buf` is full or the file ends; returns how many bytes.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: usize) -> Result<usize> {
        self.file.read_full_at(buf, offset as u64).map_err(|error| Error::io("read", &self.path, error))
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: usize) -> Result<()> {
        self.file.write_all_at(bytes, offset as u64).map_err(|error| Error::io("write", &self.path, error))
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }

    /// Gives back the space reserved beyond `len`.
    pub(crate) fn trim(&self, len: usize) -> Result<()> {
        self.file.set_len(len as u64).map_err(|error| Error::io("trim", &self.path, error))
    }
}
