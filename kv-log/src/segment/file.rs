use kv_core::{Error, File, FileExt, Fs, OpenMode, Result, SegmentId};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::directory;

/// The file of one segment: the same bytes as its image.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    path: PathBuf,
    file: Box<dyn File>,
    /// How long it may become, bytes.
    capacity: usize,
    /// What direct transfers must be aligned to; 0 while they go through the cache; or `NEVER_DIRECT`. Changed by who
    /// writes, one at a time.
    direct_align: AtomicUsize,
}

/// In place of an alignment: the system knows no direct I/O for this file.
const NEVER_DIRECT: usize = usize::MAX;

/// The way of bytes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The system's cache, where they stay to be read.
    Cache,
    /// None, where the system can: direct I/O. It is cheaper for who syncs right after.
    Direct,
}

impl SegmentFile {
    /// Creates a file of `capacity` bytes that begins with `start`. Nothing is synced.
    pub(crate) fn create(
        fs: &dyn Fs,
        dir: &Path,
        id: SegmentId,
        capacity: usize,
        start: &[u8],
        via: Via,
    ) -> Result<Self> {
        let path = dir.join(directory::segment_file_name(id));
        let file = fs.open(&path, OpenMode::CreateNew).map_err(|error| Error::io("create", &path, error))?;
        let mut created = SegmentFile { path, file, capacity, direct_align: AtomicUsize::new(0) };
        let align = created.switch(via)?.unwrap_or(1);
        created.capacity = capacity.next_multiple_of(align);
        let reserved = created.file.allocate(created.capacity as u64);
        reserved.map_err(|error| Error::io("reserve space for", &created.path, error))?;
        created.write(start, 0..start.len(), via)?;
        if created.capacity > capacity {
            created.capacity = capacity;
            created.trim(capacity)?;
        }
        Ok(created)
    }

    /// Opens the file of a segment that the manifest names.
    pub(crate) fn open(fs: &dyn Fs, dir: &Path, id: SegmentId) -> Result<Self> {
        let path = dir.join(directory::segment_file_name(id));
        match fs.open(&path, OpenMode::ReadWrite) {
            Ok(file) => Ok(SegmentFile { path, file, capacity: 0, direct_align: AtomicUsize::new(0) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::corruption(&path, 0, "the manifest names this segment, and the file is missing"))
            }
            Err(error) => Err(Error::io("open", &path, error)),
        }
    }

    /// The file may grow to `capacity` bytes.
    pub(crate) fn with_capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|error| Error::io("measure", &self.path, error))
    }

    /// Reads from `offset` on until `buf` is full or the file ends; returns how many bytes.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: usize) -> Result<usize> {
        self.switch(Via::Cache)?;
        self.file.read_full_at(buf, offset as u64).map_err(|error| Error::io("read", &self.path, error))
    }

    /// Writes a range of `contents`, which are the bytes of the file from its start and begin at a page of memory.
    ///
    /// Direct I/O transfers whole blocks, as the cache does. The bytes before the range that share its first block are
    /// written once more; those after it that share its last block are not the file's yet, and become zeros.
    ///
    /// A file that takes no such transfer after all goes through the cache from then on: not every layer below a file system
    /// tells what it wants.
    pub(crate) fn write(&self, contents: &[u8], range: Range<usize>, via: Via) -> Result<()> {
        match self.write_range(contents, range.clone(), via) {
            Err(Error::Io { source, .. })
                if self.is_direct() && source.kind() == std::io::ErrorKind::InvalidInput =>
            {
                self.switch(Via::Cache)?;
                self.direct_align.store(NEVER_DIRECT, Ordering::Release);
                self.write_range(contents, range, Via::Cache)
            }
            written => written,
        }
    }

    fn write_range(&self, contents: &[u8], range: Range<usize>, via: Via) -> Result<()> {
        let Range { start, end } = range;
        let align = self.switch(via)?.filter(|align| end.next_multiple_of(*align) <= self.capacity);
        let Some(align) = align else {
            self.switch(Via::Cache)?;
            return self.write_at(contents.get(start..end).unwrap_or_default(), start);
        };
        let (start, blocks_end) = (start - start % align, end - end % align);
        self.write_at(contents.get(start..blocks_end).unwrap_or_default(), start)?;
        let rest_start = start.max(blocks_end);
        let rest = contents.get(rest_start..end).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let mut memory = vec![0; 2 * align];
        let aligned = memory.as_ptr().align_offset(align);
        let block = memory.get_mut(aligned..aligned + align).expect("there is one in twice its size");
        block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.write_at(block, rest_start)
    }

    fn write_at(&self, bytes: &[u8], offset: usize) -> Result<()> {
        self.file.write_all_at(bytes, offset as u64).map_err(|error| Error::io("write", &self.path, error))
    }

    fn is_direct(&self) -> bool {
        !matches!(self.direct_align.load(Ordering::Acquire), 0 | NEVER_DIRECT)
    }

    /// Has transfers go this way, if they do not yet and can; returns what direct ones must be aligned to.
    fn switch(&self, via: Via) -> Result<Option<usize>> {
        let to_direct = via == Via::Direct;
        let align = self.direct_align.load(Ordering::Acquire);
        if align == NEVER_DIRECT || self.is_direct() == to_direct {
            return Ok(self.is_direct().then_some(align));
        }
        let switched = self.file.set_direct_io(to_direct);
        let align = switched.map_err(|error| Error::io("set the way of access to", &self.path, error))?;
        let way = if to_direct { align.unwrap_or(NEVER_DIRECT) } else { 0 };
        self.direct_align.store(way, Ordering::Release);
        Ok(align)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::sync(&self.path, error))
    }

    /// Gives back the space reserved beyond `len`.
    pub(crate) fn trim(&self, len: usize) -> Result<()> {
        self.file.set_len(len as u64).map_err(|error| Error::io("trim", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Contents, Image};
    use kv_core::{FsExt, OsFs};
    use kv_tests::sim::SimFs;
    use proptest::prelude::*;
    use std::sync::Arc;

    const ID: SegmentId = SegmentId::new(7);
    const CAPACITY: usize = 4096;

    /// `CAPACITY` bytes, none of them zero, at a page of memory.
    fn contents() -> Contents {
        let image = Image::new(CAPACITY).unwrap();
        // SAFETY: this thread is alone, and writes nothing later.
        unsafe {
            image.fill(0, CAPACITY, |out| (1..=251).cycle().zip(out).for_each(|(byte, out)| *out = byte));
            Contents::new(Arc::new(image), CAPACITY)
        }
    }

    fn in_file(fs: &dyn Fs, dir: &Path) -> Vec<u8> {
        fs.read_file(&dir.join(directory::segment_file_name(ID))).unwrap()
    }

    proptest! {
        #[test]
        fn whichever_way_bytes_go_the_file_holds_them_and_zeros(
            capacity in 500..CAPACITY,
            created_directly: bool,
            steps in prop::collection::vec((0..900_usize, any::<bool>()), 0..12),
        ) {
            let contents = contents();
            let bytes = contents.bytes();
            let (fs, dir) = (SimFs::new(), Path::new("/"));
            let via = |direct| if direct { Via::Direct } else { Via::Cache };
            let mut end = 40;
            let file = SegmentFile::create(&fs, dir, ID, capacity, &bytes[..end], via(created_directly)).unwrap();
            for (len, direct) in steps {
                let start = end;
                end = (end + len).min(capacity);
                file.write(bytes, start..end, via(direct)).unwrap();
                let mut expected = bytes[..end].to_vec();
                expected.resize(capacity, 0);
                prop_assert_eq!(in_file(&fs, dir), expected);
                let mut read = vec![0; 10];
                file.read_at(&mut read, 30).unwrap();
                prop_assert_eq!(&read, &bytes[30..40]);
            }
        }
    }

    #[test]
    fn where_direct_io_fails_the_cache_is_used() {
        let contents = contents();
        let bytes = contents.bytes();
        // There is none; or it wants more than is said.
        for claim in [None, Some(64)] {
            let (fs, dir) = (SimFs::new(), Path::new("/"));
            fs.claim_direct_io_align(claim);
            let file = SegmentFile::create(&fs, dir, ID, 2048, &bytes[..40], Via::Direct).unwrap();
            file.write(bytes, 40..1000, Via::Direct).unwrap();
            file.write(bytes, 1000..1500, Via::Cache).unwrap();
            file.write(bytes, 1500..1700, Via::Direct).unwrap();
            let found = in_file(&fs, dir);
            assert_eq!((found.len(), &found[..1700]), (2048, &bytes[..1700]));
        }
    }

    #[test]
    fn where_direct_io_fails_in_a_file_that_was_there_the_cache_is_used() {
        let contents = contents();
        let bytes = contents.bytes();
        let (fs, dir) = (SimFs::new(), Path::new("/"));
        SegmentFile::create(&fs, dir, ID, 2048, &bytes[..1000], Via::Cache).unwrap();
        fs.claim_direct_io_align(Some(64));
        let file = SegmentFile::open(&fs, dir, ID).unwrap().with_capacity(2048);
        file.write(bytes, 1000..1500, Via::Direct).unwrap();
        file.write(bytes, 1500..1700, Via::Direct).unwrap();
        assert_eq!(in_file(&fs, dir)[..1700], bytes[..1700]);
    }

    #[test]
    fn direct_io_is_used_where_the_system_has_it() {
        let contents = contents();
        let bytes = contents.bytes();
        let dir = tempfile::tempdir_in(".").unwrap();
        let file = SegmentFile::create(&OsFs, dir.path(), ID, 8192, &bytes[..40], Via::Direct).unwrap();
        file.write(bytes, 40..4096, Via::Direct).unwrap();
        file.sync().unwrap();
        let found = in_file(&OsFs, dir.path());
        assert_eq!((found.len(), &found[..4096]), (8192, bytes));
    }
}
