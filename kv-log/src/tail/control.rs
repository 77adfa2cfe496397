//! The control block of an object: whose bytes follow.
//!
//! The specification is in the format description of `kv-wal-format`, section *Shared memory*.

use kv_core::fs::DirId;
use kv_core::{Env, SegmentId};
use kv_wal_format::body_checksum;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::memory::CONTROL_LEN;

/// The first bytes of a control block.
const MAGIC: [u8; 8] = *b"KVLGTAIL";
const VERSION: u32 = 1;

/// All names of objects begin with it.
pub(super) const NAME_PREFIX: &str = "kv-log-";

/// Where the checksum lies: at the end.
const CHECKSUM_AT: usize = CONTROL_LEN - 4;
/// Where the path begins.
const PATH_AT: usize = 76;
/// Longest path that a control block holds, bytes. A longer one is left out.
const PATH_LEN_MAX: usize = CHECKSUM_AT - PATH_AT;

/// The store and the opening that an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) store_id: u32,
    /// The number that the opening drew. The manifest holds it, too.
    pub(super) nonce: u64,
    /// The directory of the store. A copy of the store has another one.
    pub(super) dir: DirId,
    /// The boot in which the object was made. An opening in another boot ignores it.
    pub(super) boot_id: u128,
    /// The absolute path of the directory at that time; empty if unknown.
    pub(super) path: PathBuf,
}

/// The content of a control block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) owner: Owner,
    pub(super) segment_id: SegmentId,
    /// Length of the image that follows, bytes.
    pub(super) image_len: u64,
}

/// Why a control block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// There is none, or the process died while it was written. No record follows then.
    NoControl,
    /// Another release has written it.
    Version(u32),
}

impl Owner {
    /// The names of the store's objects begin with it.
    pub(super) fn name_prefix(dir: DirId) -> String {
        format!("{NAME_PREFIX}{:x}-{:x}-", dir.device, dir.inode)
    }
}

impl Control {
    pub(super) fn encode(&self) -> [u8; CONTROL_LEN] {
        let Owner { store_id, nonce, dir, boot_id, path } = &self.owner;
        let path =
            Some(path.as_os_str().as_bytes()).filter(|path| path.len() <= PATH_LEN_MAX).unwrap_or_default();
        let path_len = u32::try_from(path.len()).unwrap_or(0);
        let parts: [&[u8]; 11] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &store_id.to_le_bytes(),
            &nonce.to_le_bytes(),
            &dir.device.to_le_bytes(),
            &dir.inode.to_le_bytes(),
            &boot_id.to_le_bytes(),
            &self.segment_id.get().to_le_bytes(),
            &self.image_len.to_le_bytes(),
            &path_len.to_le_bytes(),
            path,
        ];
        let mut block = [0; CONTROL_LEN];
        block.iter_mut().zip(parts.concat()).for_each(|(to, byte)| *to = byte);
        if let Some((content, checksum)) = block.split_at_mut_checked(CHECKSUM_AT) {
            checksum.copy_from_slice(&body_checksum(b"", content).to_le_bytes());
        }
        block
    }

    /// Reads the control block of `object`. An object that is too short has none: its process died
    /// before it gave it a length.
    pub(super) fn read(object: &File) -> io::Result<Result<Self, Unreadable>> {
        let mut block = [0; CONTROL_LEN];
        match object.read_exact_at(&mut block, 0) {
            Ok(()) => Ok(Self::decode(&block)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Unreadable::NoControl)),
            Err(error) => Err(error),
        }
    }

    fn decode(block: &[u8; CONTROL_LEN]) -> Result<Self, Unreadable> {
        let mut fields = Fields(block);
        let (magic, version) = (fields.take::<8>(), u32::from_le_bytes(fields.take()));
        if magic != MAGIC {
            return Err(Unreadable::NoControl);
        }
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        let (content, checksum) = block.split_at_checked(CHECKSUM_AT).ok_or(Unreadable::NoControl)?;
        if checksum != body_checksum(b"", content).to_le_bytes() {
            return Err(Unreadable::NoControl);
        }
        let store_id = u32::from_le_bytes(fields.take());
        let nonce = u64::from_le_bytes(fields.take());
        let device = u64::from_le_bytes(fields.take());
        let inode = u64::from_le_bytes(fields.take());
        let boot_id = u128::from_le_bytes(fields.take());
        let segment_id = SegmentId::new(u64::from_le_bytes(fields.take()));
        let image_len = u64::from_le_bytes(fields.take());
        let path_len = usize::try_from(u32::from_le_bytes(fields.take())).unwrap_or(usize::MAX);
        let path =
            content.get(PATH_AT..).and_then(|rest| rest.get(..path_len)).ok_or(Unreadable::NoControl)?;
        let (dir, path) = (DirId { device, inode }, Path::new(OsStr::from_bytes(path)).to_path_buf());
        Ok(Control { owner: Owner { store_id, nonce, dir, boot_id, path }, segment_id, image_len })
    }
}

/// Fields of fixed width, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes. Zeros if they are not there.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }
}

/// A number for an opening of the store in `dir`, other than that of the opening before. In inline
/// mode it follows from that one.
pub(crate) fn draw_nonce(env: &Env, dir: &Path, before: u64) -> u64 {
    other_than(before, env.draw((dir, before)))
}

/// `drawn`, or another number if that is `before`, or 0, which no opening has.
fn other_than(before: u64, drawn: u64) -> u64 {
    if drawn == before || drawn == 0 { before.wrapping_add(1).max(1) } else { drawn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Background;

    fn sample() -> Control {
        let owner = Owner {
            store_id: 0x0102_0304,
            nonce: 0x1112_1314_1516_1718,
            dir: DirId { device: 0x21, inode: 0x31 },
            boot_id: 0x41,
            path: PathBuf::from("/data/store"),
        };
        Control { owner, segment_id: SegmentId::new(7), image_len: 0x8000 }
    }

    #[test]
    fn fields_lie_where_the_format_says() {
        let block = sample().encode();
        let at = |from: usize, len: usize| &block[from..from + len];
        assert_eq!(at(0, 8), b"KVLGTAIL");
        assert_eq!(at(8, 4), [1, 0, 0, 0]);
        assert_eq!(at(12, 4), [4, 3, 2, 1]);
        assert_eq!(at(16, 8), [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        assert_eq!((block[24], block[32], block[40], block[56]), (0x21, 0x31, 0x41, 7));
        assert_eq!((at(64, 8), at(72, 4)), (&[0, 0x80, 0, 0, 0, 0, 0, 0][..], &[11, 0, 0, 0][..]));
        assert_eq!(at(76, 12), b"/data/store\0");
        assert_eq!(at(4092, 4), body_checksum(b"", &block[..4092]).to_le_bytes());
    }

    #[test]
    fn a_block_comes_back_and_every_flipped_bit_is_noticed() {
        let block = sample().encode();
        assert_eq!(Control::decode(&block), Ok(sample()));
        for bit in 0..CONTROL_LEN * 8 {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Control::decode(&damaged).is_err(), "bit {bit}");
        }
        let mut newer = block;
        newer[8] = 2;
        assert_eq!(Control::decode(&newer), Err(Unreadable::Version(2)));
        assert_eq!(Control::decode(&[0; CONTROL_LEN]), Err(Unreadable::NoControl));
    }

    #[test]
    fn a_path_that_is_too_long_is_left_out() {
        let mut long = sample();
        long.owner.path = PathBuf::from("x".repeat(PATH_LEN_MAX));
        assert_eq!(Control::decode(&long.encode()).unwrap(), long);
        long.owner.path.push("y");
        assert_eq!(Control::decode(&long.encode()).unwrap().owner.path, PathBuf::new());
    }

    #[test]
    fn no_opening_has_the_number_of_the_one_before_or_0() {
        let most = u64::MAX;
        for (before, drawn, number) in
            [(5, 7, 7), (7, 7, 8), (5, 0, 6), (0, 0, 1), (most, most, 1), (most, 0, 1)]
        {
            assert_eq!(other_than(before, drawn), number, "{before} {drawn}");
        }
        for background in [Background::Inline, Background::Threads] {
            let env = Env { background, ..Env::os() };
            let mut before = 0;
            for _ in 0..100 {
                let nonce = draw_nonce(&env, Path::new("/store"), before);
                assert!(nonce != before && nonce != 0);
                before = nonce;
            }
        }
    }
}
