//! The errors that the checksums of a header detect. The checksums are linear, so an error that one
//! header shows, every header shows. A test can try every error of a kind.

use super::*;

/// The change of a small header's field `check` that hides the change of one bit: of the covered
/// bytes first, then of `check` itself.
fn syndromes() -> Vec<u16> {
    let zero = [0; small::CHECK];
    let covered = (0..small::CHECK * 8).map(|bit| {
        let mut bytes = zero;
        bytes[bit / 8] ^= 1 << (bit % 8);
        small_check(crc32c::crc32c(&bytes) ^ crc32c::crc32c(&zero))
    });
    covered.chain((0..16).map(|bit| 1 << bit)).collect()
}

#[test]
fn every_error_of_up_to_three_bits_in_a_small_header_is_detected() {
    let bits = syndromes();
    for (a, &one) in bits.iter().enumerate() {
        assert_ne!(one, 0, "bit {a}");
        for (b, &other) in bits.iter().enumerate().take(a) {
            assert_ne!(one, other, "bits {a}, {b}");
            assert!(!bits[..b].contains(&(one ^ other)), "bits {a}, {b}");
        }
    }
}

/// Whether every burst of up to `len` bits is detected: an error from the first to the last of so
/// many consecutive bits, with any bits between.
fn detects_bursts(bits: &[u16], len: usize) -> bool {
    bits.windows(len).all(|window| {
        (1..1_u32 << len).all(|error| {
            let sum = |sum, (bit, &syndrome)| if error >> bit & 1 == 1 { sum ^ syndrome } else { sum };
            window.iter().enumerate().fold(0, sum) != 0
        })
    })
}

#[test]
fn every_burst_of_up_to_13_bits_in_a_small_header_is_detected() {
    let bits = syndromes();
    assert!(detects_bursts(&bits, 13));
    // The documents claim no more.
    assert!(!detects_bursts(&bits, 14));
}

/// A burst within a whole small header (tag to `crc`), body excluded, is detected up to 32 bits by
/// `check` and `crc` together.
#[test]
fn every_burst_of_up_to_32_bits_in_a_small_header_of_a_whole_record_is_detected() {
    let zero = [0; small::CHECK];
    // 48 bits: the change of `check`, above it the change of `crc`.
    let covered = (0..small::CHECK * 8).map(|bit| {
        let mut bytes = zero;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let h = crc32c::crc32c(&bytes) ^ crc32c::crc32c(&zero);
        u64::from(h) << 16 | u64::from(small_check(h))
    });
    let bits: Vec<u64> = covered.chain((0..48).map(|bit| 1 << bit)).collect();
    // No burst passes if the syndromes of each window are linearly independent.
    for window in bits.windows(32) {
        let mut basis = [0_u64; 48];
        for &syndrome in window {
            let mut rest = syndrome;
            while rest != 0 {
                let top = rest.ilog2() as usize;
                if basis[top] == 0 {
                    basis[top] = rest;
                    break;
                }
                rest ^= basis[top];
            }
            assert_ne!(rest, 0, "a burst passes");
        }
    }
}

#[test]
fn the_forms_differ_in_four_bits() {
    assert_eq!((SMALL ^ LARGE).count_ones(), 4);
    assert_eq!(SMALL ^ LARGE, FORM_BITS);
    assert_eq!((KIND_BITS | MORE) & FORM_BITS, 0);
}
