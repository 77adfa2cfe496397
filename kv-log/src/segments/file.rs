use kv_core::fs::{FileExt, OpenMode};
use kv_core::{Error, Op, Result, SegmentId};
use kv_wal_format::is_zero;
use parking_lot::Mutex;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::files::{Handle, Opening, SegmentFiles};

/// The file of one segment: the same bytes as its image.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    id: SegmentId,
    path: PathBuf,
    /// Its largest length, bytes.
    capacity: usize,
    opening: Arc<Mutex<Opening>>,
    files: Arc<SegmentFiles>,
}

/// Bytes of one read, where zeros are skipped.
const PIECE_LEN: usize = 256 << 10;

/// Below this, the engine reserves only the least that it needs, bytes.
const RESERVED_MIN: usize = 4096;

/// In place of an alignment: the system has no direct I/O for this file.
const NEVER_DIRECT: usize = usize::MAX;

/// The way of bytes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The page cache, where the bytes stay for readers.
    Cache,
    /// Direct I/O, on systems that have it. It is cheaper if a sync follows.
    Direct,
}

impl SegmentFile {
    /// Creates an empty file. [`begin`](Self::begin) gives it its `capacity`.
    pub(crate) fn create(files: &Arc<SegmentFiles>, id: SegmentId, capacity: usize) -> Result<Self> {
        let file = files.open(id, OpenMode::CreateNew);
        let file = file.map_err(|error| Error::io(Op::Create, &files.path_of(id), error))?;
        Ok(SegmentFile::new(files, id, capacity, Handle::new(file)))
    }

    /// Reserves the space of a new file, and writes its first bytes. Nothing is synced.
    pub(crate) fn begin(&mut self, start: &[u8], via: Via) -> Result<()> {
        let (handle, capacity) = (self.handle()?, self.capacity);
        let align = self.switch(&handle, via)?.unwrap_or(1);
        self.capacity = capacity.next_multiple_of(align);
        let reserved = handle.file.allocate(self.capacity as u64);
        reserved.map_err(|error| Error::io(Op::Reserve, &self.path, error))?;
        self.write(start, 0..start.len(), via)?;
        if self.capacity > capacity {
            self.capacity = capacity;
            self.trim(capacity)?;
        }
        Ok(())
    }

    /// Opens the file of a segment that the manifest names.
    pub(crate) fn open(files: &Arc<SegmentFiles>, id: SegmentId, mode: OpenMode) -> Result<Self> {
        let path = files.path_of(id);
        match files.open(id, mode) {
            Ok(file) => Ok(SegmentFile::new(files, id, 0, Handle::new(file))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::corruption(&path, 0, "the manifest names this segment, and its file is missing"))
            }
            Err(error) => Err(Error::io(Op::Open, &path, error)),
        }
    }

    /// A file that does not exist, and that no caller uses.
    pub(crate) fn unopened(files: &Arc<SegmentFiles>, id: SegmentId) -> Self {
        Self::with_handle(files, id, 0, None)
    }

    fn new(files: &Arc<SegmentFiles>, id: SegmentId, capacity: usize, handle: Arc<Handle>) -> Self {
        Self::with_handle(files, id, capacity, Some(handle))
    }

    fn with_handle(
        files: &Arc<SegmentFiles>,
        id: SegmentId,
        capacity: usize,
        handle: Option<Arc<Handle>>,
    ) -> Self {
        let path = files.path_of(id);
        let opening = Arc::new(Mutex::new(Opening { handle, stays_open: true }));
        SegmentFile { id, path, capacity, opening, files: Arc::clone(files) }
    }

    /// No writer uses it from now on. It is closed when too many files are open, and a reader opens
    /// it again.
    pub(crate) fn allow_close(&self) {
        self.opening.lock().stays_open = false;
        self.files.allow_close(&self.opening);
    }

    /// Keeps it open: it will be removed soon, and readers may still need it.
    pub(crate) fn stay_open(&self) -> Result<()> {
        let mut opening = self.opening.lock();
        self.open_if_closed(&mut opening)?;
        opening.stays_open = true;
        Ok(())
    }

    /// Closes it: it was removed, and no reader uses it. Its space is then free.
    pub(crate) fn close(&self) {
        let mut opening = self.opening.lock();
        (opening.handle, opening.stays_open) = (None, false);
    }

    fn handle(&self) -> Result<Arc<Handle>> {
        let mut opening = self.opening.lock();
        let (handle, was_closed) = self.open_if_closed(&mut opening)?;
        drop(opening);
        if was_closed {
            self.files.allow_close(&self.opening);
        }
        Ok(handle)
    }

    /// Also returns whether it was closed.
    fn open_if_closed(&self, opening: &mut Opening) -> Result<(Arc<Handle>, bool)> {
        if let Some(handle) = &opening.handle {
            return Ok((Arc::clone(handle), false));
        }
        // A closed file is only read.
        let file = self.files.open(self.id, OpenMode::Read);
        let handle = Handle::new(file.map_err(|error| Error::io(Op::Open, &self.path, error))?);
        opening.handle = Some(Arc::clone(&handle));
        Ok((handle, true))
    }

    /// Reserves space for `len` bytes, or for as many as the disk has room for. Reserves `least`
    /// bytes in any case. Returns the reserved length.
    pub(crate) fn reserve(&self, len: usize, least: usize) -> Result<usize> {
        let present = usize::try_from(self.len()?).unwrap_or(usize::MAX);
        let mut wanted = len.max(least);
        while wanted > present {
            let reserved = self.handle()?.file.allocate(wanted as u64);
            match reserved.map_err(|error| Error::io(Op::Reserve, &self.path, error)) {
                Ok(()) => {
                    self.sync()?;
                    return Ok(wanted);
                }
                Err(Error::DiskFull { .. }) if wanted > least => {
                    // The disk may have room for a part of it.
                    self.trim(present)?;
                    wanted = (present + (wanted - present) / 2).max(least);
                    if wanted - present < RESERVED_MIN {
                        wanted = least;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(present)
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
        self.handle()?.file.len().map_err(|error| Error::io(Op::Measure, &self.path, error))
    }

    /// Reads from `offset` until `buf` is full or the file ends. Returns the bytes read.
    pub(crate) fn read_at(&self, buf: &mut [u8], offset: usize) -> Result<usize> {
        let handle = self.handle()?;
        self.switch(&handle, Via::Cache)?;
        handle.file.read_full_at(buf, offset as u64).map_err(|error| Error::io(Op::Read, &self.path, error))
    }

    /// Reads the file from its start into `buf`, which holds zeros. Returns the bytes read.
    pub(crate) fn read_sparsely(&self, buf: &mut [u8]) -> Result<usize> {
        fill_sparsely(buf, |piece, offset| self.read_at(piece, offset))
    }

    /// Writes a range of `contents`, which are the bytes of the file from its start and begin at a
    /// page of memory.
    ///
    /// Direct I/O transfers whole blocks. The bytes before the range that share its first block are
    /// written again. The bytes after the range that share its last block become zeros: the file
    /// does not hold records there yet.
    ///
    /// If the file refuses such a transfer, it goes through the cache from then on: some layers
    /// below a file system do not announce their alignment.
    pub(crate) fn write(&self, contents: &[u8], range: Range<usize>, via: Via) -> Result<()> {
        let handle = self.handle()?;
        match self.write_range(&handle, contents, range.clone(), via) {
            Err(Error::Io { source, .. })
                if handle.is_direct() && source.kind() == std::io::ErrorKind::InvalidInput =>
            {
                self.switch(&handle, Via::Cache)?;
                handle.direct_align.store(NEVER_DIRECT, Ordering::Release);
                self.write_range(&handle, contents, range, Via::Cache)
            }
            written => written,
        }
    }

    fn write_range(&self, handle: &Handle, contents: &[u8], range: Range<usize>, via: Via) -> Result<()> {
        let Range { start, end } = range;
        let align = self.switch(handle, via)?.filter(|align| end.next_multiple_of(*align) <= self.capacity);
        let Some(align) = align else {
            self.switch(handle, Via::Cache)?;
            return self.write_at(handle, contents.get(start..end).unwrap_or_default(), start);
        };
        let (start, blocks_end) = (start - start % align, end - end % align);
        self.write_at(handle, contents.get(start..blocks_end).unwrap_or_default(), start)?;
        let rest_start = start.max(blocks_end);
        let rest = contents.get(rest_start..end).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let mut memory = vec![0; 2 * align];
        let aligned = memory.as_ptr().align_offset(align);
        let block = memory.get_mut(aligned..aligned + align).expect("there is one in twice its size");
        block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.write_at(handle, block, rest_start)
    }

    fn write_at(&self, handle: &Handle, bytes: &[u8], offset: usize) -> Result<()> {
        let written = handle.file.write_all_at(bytes, offset as u64);
        written.map_err(|error| Error::io(Op::Write, &self.path, error))
    }

    /// Switches to this way of transfer, if the system has it. Returns the alignment of direct
    /// transfers.
    fn switch(&self, handle: &Handle, via: Via) -> Result<Option<usize>> {
        let to_direct = via == Via::Direct;
        let align = handle.direct_align.load(Ordering::Acquire);
        if align == NEVER_DIRECT || handle.is_direct() == to_direct {
            return Ok(handle.is_direct().then_some(align));
        }
        let switched = handle.file.set_direct_io(to_direct);
        let align = switched.map_err(|error| Error::io(Op::SetAccess, &self.path, error))?;
        let way = if to_direct { align.unwrap_or(NEVER_DIRECT) } else { 0 };
        handle.direct_align.store(way, Ordering::Release);
        Ok(align)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.handle()?.file.sync_data().map_err(|error| Error::sync(&self.path, error))
    }

    /// Gives back the space beyond `len`. Returns whether there was any.
    pub(crate) fn trim(&self, len: usize) -> Result<bool> {
        let len = len as u64;
        if self.len()? <= len {
            return Ok(false);
        }
        self.handle()?.file.set_len(len).map_err(|error| Error::io(Op::Truncate, &self.path, error))?;
        Ok(true)
    }
}

impl Handle {
    fn is_direct(&self) -> bool {
        !matches!(self.direct_align.load(Ordering::Acquire), 0 | NEVER_DIRECT)
    }
}

/// Fills `buf`, which holds zeros, by calls of `read` with a piece and its offset. Returns the
/// bytes read. Zeros are not written to `buf`, so reserved space takes no memory.
pub(crate) fn fill_sparsely<E>(
    buf: &mut [u8],
    mut read: impl FnMut(&mut [u8], usize) -> Result<usize, E>,
) -> Result<usize, E> {
    let mut piece = vec![0; PIECE_LEN.min(buf.len())];
    let mut offset = 0;
    for to in buf.chunks_mut(PIECE_LEN) {
        let piece = piece.get_mut(..to.len()).unwrap_or_default();
        let read = read(piece, offset)?;
        let piece = piece.get(..read).unwrap_or_default();
        if let Some(to) = to.get_mut(..read).filter(|_| !is_zero(piece)) {
            to.copy_from_slice(piece);
        }
        offset += read;
        if read < PIECE_LEN {
            break;
        }
    }
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory;
    use crate::segments::{Contents, Image};
    use kv_core::fs::FsExt;
    use kv_core::{Fs, OsFs};
    use kv_tests::sim::SimFs;
    use proptest::prelude::*;
    use std::sync::Arc;

    const ID: SegmentId = SegmentId::new(7);
    const CAPACITY: usize = 4096;

    /// `CAPACITY` bytes other than zero, at a page of memory.
    fn contents() -> Contents {
        let image = Image::new(CAPACITY).unwrap();
        // SAFETY: only this thread uses the image, and it writes nothing later.
        unsafe {
            image.fill(0, CAPACITY, |out| (1..=251).cycle().zip(out).for_each(|(byte, out)| *out = byte));
            Contents::new(Arc::new(image), CAPACITY, 0)
        }
    }

    fn files(fs: &SimFs) -> Arc<SegmentFiles> {
        SegmentFiles::new(fs.open_dir(Path::new("/")).unwrap(), 1)
    }

    fn created(
        files: &Arc<SegmentFiles>,
        id: SegmentId,
        capacity: usize,
        start: &[u8],
        via: Via,
    ) -> SegmentFile {
        let mut file = SegmentFile::create(files, id, capacity).unwrap();
        file.begin(start, via).unwrap();
        file
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
            let file =
                created(&files(&fs), ID, capacity, &bytes[..end], via(created_directly));
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
        // There is no direct I/O, or its alignment is larger than announced.
        for claim in [None, Some(64)] {
            let (fs, dir) = (SimFs::new(), Path::new("/"));
            fs.claim_direct_io_align(claim);
            let file = created(&files(&fs), ID, 2048, &bytes[..40], Via::Direct);
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
        created(&files(&fs), ID, 2048, &bytes[..1000], Via::Cache);
        fs.claim_direct_io_align(Some(64));
        let file = SegmentFile::open(&files(&fs), ID, OpenMode::ReadWrite).unwrap().with_capacity(2048);
        file.write(bytes, 1000..1500, Via::Direct).unwrap();
        file.write(bytes, 1500..1700, Via::Direct).unwrap();
        assert_eq!(in_file(&fs, dir)[..1700], bytes[..1700]);
    }

    #[test]
    fn direct_io_is_used_where_the_system_has_it() {
        let contents = contents();
        let bytes = contents.bytes();
        let dir = tempfile::tempdir_in(".").unwrap();
        let files = SegmentFiles::new(OsFs.open_dir(dir.path()).unwrap(), 1);
        let file = created(&files, ID, 8192, &bytes[..40], Via::Direct);
        file.write(bytes, 40..4096, Via::Direct).unwrap();
        file.sync().unwrap();
        let found = in_file(&OsFs, dir.path());
        assert_eq!((found.len(), &found[..4096]), (8192, bytes));
    }

    #[test]
    fn only_so_many_are_open_and_a_reader_opens_a_closed_one() {
        let contents = contents();
        let dir = tempfile::tempdir_in(".").unwrap();
        let files = SegmentFiles::new(OsFs.open_dir(dir.path()).unwrap(), 2);
        let create = |id: u64| {
            let bytes = &contents.bytes()[..100 + usize::try_from(id).unwrap()];
            created(&files, SegmentId::new(id), 4096, bytes, Via::Cache)
        };
        let all: Vec<SegmentFile> = (1..=5).map(create).collect();
        let open = || all.iter().map(|file| file.opening.lock().handle.is_some()).collect::<Vec<_>>();
        assert_eq!(open(), [true; 5], "what is written stays open");
        all[..4].iter().for_each(SegmentFile::allow_close);
        assert_eq!(open(), [false, false, true, true, true]);
        // A user of the open file may go on.
        let third = all[2].handle().unwrap();
        for (at, file) in all.iter().enumerate() {
            let mut read = [0; 2];
            assert_eq!(file.read_at(&mut read, 99 + at).unwrap(), 2);
            assert_eq!(read, contents.bytes()[99 + at..101 + at]);
        }
        assert_eq!(third.file.len().unwrap(), 4096);
        assert_eq!(open().iter().filter(|open| **open).count(), 3);
        // Readers can still read the removed file.
        all[1].stay_open().unwrap();
        OsFs.remove_file(all[1].path()).unwrap();
        for file in [&all[2], &all[3], &all[0], &all[1]] {
            assert_eq!(file.read_at(&mut [0; 2], 0).unwrap(), 2);
        }
        assert_eq!(open(), [true, true, false, true, true]);
        OsFs.remove_file(all[2].path()).unwrap();
        let error = all[2].read_at(&mut [0; 2], 0).unwrap_err();
        assert!(matches!(&error, Error::Io { op: Op::Open, path, .. } if path == all[2].path()), "{error}");
    }
}
