use crate::oracle::History;
use crate::sim::{OpKind, OpRecord, PowerCut, SimFs};
use std::borrow::Cow;

/// An end without a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The number of changes to the disk before it, counted from the crash before.
    pub(crate) after: u64,
    pub(crate) left: Left,
}

/// The disk content that a crash leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All written bytes: the process died, the machine did not.
    Written,
    /// The bytes that a power cut leaves.
    Power(PowerCut),
    /// All bytes, but the last write of a file reached the medium only up to this byte.
    Torn { bytes: u64, rest: Rest },
}

/// The bytes on the medium behind the torn end of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The file ends there.
    Cut,
    /// The file has its new length, with zeros in it.
    Zeros,
    /// Other bytes that the medium once held.
    Stale,
}

impl Left {
    pub(crate) fn image(self, disk: &SimFs) -> SimFs {
        match self {
            Left::Written => disk.process_death(),
            Left::Power(cut) => disk.power_cut(cut),
            Left::Torn { bytes, rest } => torn(disk, bytes, rest),
        }
    }
}

/// The history as the judge of the disk after `crashes` needs it: if each of them was the death of
/// a process, all handed over changes survive.
pub(crate) fn left_by<'a>(crashes: &[Crash], history: &'a History) -> Cow<'a, History> {
    if crashes.iter().all(|crash| crash.left == Left::Written) {
        Cow::Owned(history.after_death())
    } else {
        Cow::Borrowed(history)
    }
}

/// The disk with its last write torn after `bytes` bytes. Bytes equal to those on the medium cannot
/// be torn, so the tear moves behind an equal start.
fn torn(disk: &SimFs, bytes: u64, rest: Rest) -> SimFs {
    let image = disk.power_cut(PowerCut::KEEP_ALL);
    let Some(write) = last_write(disk) else { return image };
    let Some(mut content) = content_of(&image, &write) else { return image };
    let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let bytes = bytes.max(unchanged_by(disk, &write));
    let (from, to) = (at(write.offset + bytes), at(write.offset + write.len));
    match rest {
        Rest::Cut => content.truncate(from),
        Rest::Zeros => content.iter_mut().take(to).skip(from).for_each(|byte| *byte = 0),
        Rest::Stale => {
            // Bytes from elsewhere in the same file: they look most like valid data.
            let stale: Vec<u8> = content.iter().copied().cycle().skip(64).take(to - from).collect();
            content.iter_mut().take(to).skip(from).zip(stale).for_each(|(byte, old)| *byte = old);
        }
    }
    image.damage(&write.path, Some(content));
    image
}

fn content_of(disk: &SimFs, write: &OpRecord) -> Option<Vec<u8>> {
    disk.files().into_iter().find(|(path, _)| *path == write.path).map(|(_, content)| content)
}

/// The length of the equal start of a write: the bytes that the medium already held. Direct I/O
/// writes whole sectors, so it repeats such bytes.
pub(crate) fn unchanged_by(disk: &SimFs, write: &OpRecord) -> u64 {
    let [after, before] =
        [PowerCut::KEEP_ALL, PowerCut::LOSE_ALL].map(|cut| content_of(&disk.power_cut(cut), write));
    let start = usize::try_from(write.offset).unwrap_or(usize::MAX);
    let of = |content: Option<Vec<u8>>| content.unwrap_or_default().into_iter().skip(start);
    let same = of(after).zip(of(before)).take_while(|(after, before)| after == before).count() as u64;
    same.min(write.len)
}

/// The bytes of a write, as the file has them now.
pub(crate) fn bytes_of(disk: &SimFs, write: &OpRecord) -> Vec<u8> {
    let [start, len] = [write.offset, write.len].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    content_of(&disk.process_death(), write).unwrap_or_default().into_iter().skip(start).take(len).collect()
}

/// The last operation of the disk, if it was a write.
pub(crate) fn last_write(disk: &SimFs) -> Option<OpRecord> {
    disk.ops().pop().filter(|op| op.kind == OpKind::Write)
}
