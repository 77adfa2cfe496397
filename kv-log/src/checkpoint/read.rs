//! Reading the file of a checkpoint.

use kv_core::Env;
use kv_core::fs::{Dir, FileExt, OpenMode};
use parking_lot::Mutex;

use super::format::{Fault, fault};
use crate::directory;
use crate::manifest::CheckpointName;
use crate::processors::on_all_processors;
use crate::segments::Image;

/// The largest checkpoint, bytes: more than a billion keys.
pub(crate) const LEN_MAX: u64 = 1 << 34;

/// A thread reads so many bytes at a time.
const PIECE_LEN: usize = 4 << 20;

/// The bytes of a file, in memory of huge pages.
#[derive(Debug)]
pub(super) struct Bytes {
    image: Image,
    len: usize,
}

impl Bytes {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `read` wrote these bytes, and no thread writes to them later.
        unsafe { self.image.published(0, self.len) }.unwrap_or_default()
    }
}

/// Reads the file on all processors, piece by piece.
pub(super) fn read(env: &Env, dir: &dyn Dir, name: CheckpointName) -> Result<Bytes, Fault> {
    let failed = |error: std::io::Error| fault(0, format!("it cannot be read: {error}"));
    let file = dir.open(&directory::checkpoint_file_name(name.id), OpenMode::Read).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let len = usize::try_from(len).ok().filter(|_| len <= LEN_MAX);
    let len = len.ok_or_else(|| fault(0, "it is longer than any checkpoint"))?;
    let image = Image::new(len).map_err(failed)?;
    let read = Mutex::new(Ok(0));
    let read_pieces = |bytes: &mut [u8]| {
        let pieces = Mutex::new((0..).step_by(PIECE_LEN).zip(bytes.chunks_mut(PIECE_LEN)));
        let work = || {
            loop {
                let Some((offset, piece)) = pieces.lock().next() else { return };
                let result = file.read_full_at(piece, offset);
                match (&mut *read.lock(), result) {
                    (Ok(read), Ok(more)) => *read += more,
                    (read, Err(error)) => *read = Err(error),
                    (Err(_), Ok(_)) => {}
                }
            }
        };
        on_all_processors(env.background, len.div_ceil(PIECE_LEN), work);
    };
    // SAFETY: no other thread knows this image, and each piece has one thread.
    unsafe { image.fill(0, len, read_pieces) };
    let read = read.into_inner().map_err(failed)?;
    // Of a file that was cut meanwhile, the end is missing, or reads as zeros.
    Ok(Bytes { image, len: read })
}
