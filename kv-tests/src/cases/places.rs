//! Places in a file, for damage and torn writes.

use crate::Context;
use fastrand::Rng;

/// Every place in a file that can tell something. Of a long run of equal bytes, such as reserved
/// space, these are its ends and a sample. A larger effort takes more of it.
pub(super) fn telling_places(context: &Context, bytes: &[u8]) -> Vec<usize> {
    /// Bytes at either end of a run that all count.
    const END_LEN: usize = 64;
    let stride = usize::try_from(101 / context.scaled(1)).unwrap_or(1).max(1);
    let (mut places, mut start) = (Vec::new(), 0);
    for run in bytes.chunk_by(|one, next| one == next) {
        let end = start + run.len();
        places.extend(
            (start..end).filter(|at| {
                at - start < END_LEN || end - at <= END_LEN || (at - start).is_multiple_of(stride)
            }),
        );
        start = end;
    }
    places
}

/// Places in a file: its beginning and end, the ends of blocks, the ends of its data where zeros
/// follow, and `count` random places.
pub(super) fn places(bytes: &[u8], rng: &mut Rng, count: usize) -> Vec<usize> {
    let len = bytes.len();
    let mut places = vec![0, 1, 4, 8, 12, 16, 24, 31, 32, 63, 64, 511, 512, 4095, 4096];
    places.extend((1..=20).map(|back| len.wrapping_sub(back)));
    let mut zeros = 0;
    for (at, byte) in bytes.iter().enumerate() {
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        if zeros == 24 {
            // The bytes before these zeros.
            places.extend((24..40).step_by(3).map(|back| (at + 1).wrapping_sub(back)));
        }
    }
    places.retain(|at| *at < len);
    places.sort_unstable();
    places.dedup();
    // A file of many records has many ends: a sample of them.
    while places.len() > 60 {
        places.remove(rng.usize(..places.len()));
    }
    places.extend((0..count).filter(|_| len > 0).map(|_| rng.usize(..len)));
    places
}
