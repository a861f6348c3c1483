//! The integrity check of a segment: which one, storing it, verifying it.
//!
//! Two checks exist. The Internet checksum (RFC 1071) stands in the checksum field and covers the
//! whole segment without a pseudo-header: a NAT rewrites addresses, and the UDP checksum below
//! covers them. CRC-32C (see `crc`) takes the checksum field and the urgent pointer together. Which
//! one a segment carries was agreed in the handshake; nothing in the segment itself tells.

use super::HEADER_LEN;
use super::crc::{crc32c, crc32c_of_parts, crc32c_with_field_zero};

/// Where the checksum field begins; the urgent pointer follows it at once.
const CHECKSUM: usize = 16;

/// Which check a segment carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// The Internet checksum, in the checksum field. All segments with SYN, and plain TCP.
    Sum,
    /// CRC-32C, in the checksum field and the urgent pointer.
    Crc32c,
}

/// Computes the check over the whole of `segment` (header, options, payload) and stores it.
///
/// What stood in its place before does not matter. With [`Integrity::Sum`] the urgent pointer is an
/// ordinary field and stays as it is; `Header::encode` leaves it zero. A slice too short for a
/// header is left alone.
pub fn seal(segment: &mut [u8], integrity: Integrity) {
    if segment.len() < HEADER_LEN {
        return;
    }
    match integrity {
        Integrity::Sum => {
            store(segment, [0; 2]);
            let check = !ones_complement_sum(segment);
            store(segment, check.to_be_bytes());
        }
        Integrity::Crc32c => {
            store(segment, [0; 4]);
            let check = crc32c(segment);
            store(segment, check.to_be_bytes());
        }
    }
}

/// Computes the CRC-32C over `head` and the `payload` that follows it elsewhere, in order, and stores it in
/// `head`. What stood in its place before does not matter. A slice too short for a header is left alone.
pub fn seal_parts<'a>(head: &mut [u8], payload: impl Iterator<Item = &'a [u8]>) {
    if head.len() < HEADER_LEN {
        return;
    }
    store(head, [0; 4]);
    let check = crc32c_of_parts(head, payload);
    store(head, check.to_be_bytes());
}

/// Writes the integrity field: the checksum alone or, with four bytes, the urgent pointer too.
fn store<const N: usize>(segment: &mut [u8], bytes: [u8; N]) {
    if let Some(field) = segment
        .get_mut(CHECKSUM..)
        .and_then(<[u8]>::first_chunk_mut)
    {
        *field = bytes;
    }
}

/// Tells whether the check `integrity` holds over the whole of `segment`. Too short is `false`.
pub(super) fn holds(segment: &[u8], integrity: Integrity) -> bool {
    let Some((header, rest)) = segment.split_first_chunk::<HEADER_LEN>() else {
        return false;
    };
    match integrity {
        // RFC 1071 §1: with the checksum in place the sum is all ones.
        Integrity::Sum => ones_complement_sum(segment) == u16::MAX,
        Integrity::Crc32c => {
            let [.., c0, c1, u0, u1] = *header;
            crc32c_with_field_zero(header, rest) == u32::from_be_bytes([c0, c1, u0, u1])
        }
    }
}

/// Bytes that one step of the summing loop takes.
const STEP: usize = 64;

/// Returns the ones' complement sum of `bytes` as big-endian 16-bit words, an odd last byte padded
/// with zero on its right (RFC 1071 §1).
fn ones_complement_sum(bytes: &[u8]) -> u16 {
    // RFC 1071 §2 (B), (C): byte order and the place where carries are folded do not change the
    // result, so the loop adds native 32-bit words into 64-bit lanes, which the compiler turns into
    // vector instructions. A lane takes 2^32 words before it could overflow; a datagram has 2^14.
    let (steps, tail) = bytes.as_chunks::<STEP>();
    let mut lanes = [0_u64; STEP / 4];
    for step in steps {
        for (lane, word) in lanes.iter_mut().zip(step.as_chunks::<4>().0) {
            *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    let mut sum = lanes.into_iter().fold(0, u64::wrapping_add);
    let (words, last) = tail.as_chunks::<4>();
    for word in words {
        sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
    }
    let last = match *last {
        [] => [0; 4],
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c, ..] => [a, b, c, 0],
    };
    let sum = sum.wrapping_add(u64::from(u32::from_ne_bytes(last)));
    u16::from_be(fold(sum))
}

/// Adds the four 16-bit words of `sum` with end-around carry.
const fn fold(sum: u64) -> u16 {
    // At most 2^33 - 2, then 2^17 - 1, then 2^16: each addition is far below the width.
    let sum = (sum >> 32).wrapping_add(sum & 0xFFFF_FFFF);
    let sum = (sum >> 32).wrapping_add(sum & 0xFFFF_FFFF);
    let sum = (sum >> 16).wrapping_add(sum & 0xFFFF);
    let sum = (sum >> 16).wrapping_add(sum & 0xFFFF);
    // What is left fits.
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 §3: the sum of these eight bytes is ddf2.
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(ones_complement_sum(&bytes), 0xDDF2);
    }

    #[test]
    fn sums_of_special_inputs() {
        let cases: [(&str, &[u8], u16); 6] = [
            ("nothing", &[], 0),
            ("zeros stay zero", &[0; 70], 0),
            ("all ones stay all ones", &[0xFF; 70], 0xFFFF),
            ("an odd byte is a high byte", &[0x12], 0x1200),
            ("three bytes", &[0x12, 0x34, 0x56], 0x6834),
            ("the carry comes round", &[0xFF, 0xFF, 0x00, 0x02], 0x0002),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(ones_complement_sum(bytes), expected, "{name}");
        }
    }

    #[test]
    fn folding_the_largest_sum_is_exact() {
        assert_eq!(fold(u64::MAX), 0xFFFF);
        assert_eq!(fold(0xFFFF_FFFF_FFFF_0000), 0xFFFF);
        assert_eq!(fold(0x1_0000), 1);
        assert_eq!(fold(0xFFFE_0001_FFFF), 0xFFFF);
    }

    #[test]
    fn slices_shorter_than_a_header_are_left_alone() {
        for len in 0..HEADER_LEN {
            for integrity in [Integrity::Sum, Integrity::Crc32c] {
                let mut bytes = vec![7; len];
                seal(&mut bytes, integrity);
                assert_eq!(bytes, vec![7; len]);
                assert!(!holds(&bytes, integrity));
            }
        }
    }

    #[test]
    fn swapped_words_pass_the_sum_and_fail_the_crc() {
        let mut segment: Vec<u8> = (0..200).collect();
        seal(&mut segment, Integrity::Sum);
        swap_words(&mut segment, 50, 120);
        assert!(holds(&segment, Integrity::Sum));

        seal(&mut segment, Integrity::Crc32c);
        swap_words(&mut segment, 50, 120);
        assert!(!holds(&segment, Integrity::Crc32c));
    }

    fn swap_words(segment: &mut [u8], a: usize, b: usize) {
        segment.swap(a, b);
        segment.swap(a + 1, b + 1);
    }

    #[test]
    fn sealing_again_changes_the_check_and_nothing_else() {
        let mut segment: Vec<u8> = (0..100).collect();
        segment[18..20].fill(0);
        seal(&mut segment, Integrity::Sum);
        let with_sum = segment.clone();
        seal(&mut segment, Integrity::Crc32c);
        assert!(holds(&segment, Integrity::Crc32c));
        assert!(!holds(&segment, Integrity::Sum));
        segment[18..20].fill(0);
        seal(&mut segment, Integrity::Sum);
        assert_eq!(segment, with_sum);
    }

    #[test]
    fn the_urgent_pointer_is_summed_like_any_other_field() {
        let mut segment = [0x55; 40];
        seal(&mut segment, Integrity::Sum);
        assert_eq!(segment[18..20], [0x55, 0x55]);
        assert!(holds(&segment, Integrity::Sum));
    }

    /// The definition of RFC 1071 §1, word by word.
    fn sum_by_words(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|word| match *word {
            [high, low] => u16::from_be_bytes([high, low]),
            [high] => u16::from_be_bytes([high, 0]),
            _ => unreachable!(),
        });
        words.fold(0_u16, |sum, word| {
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    fn segment() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), HEADER_LEN..1500)
    }

    fn integrity() -> impl Strategy<Value = Integrity> {
        prop_oneof![Just(Integrity::Sum), Just(Integrity::Crc32c)]
    }

    proptest! {
        #[test]
        fn the_wide_sum_is_the_sum_of_words(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(ones_complement_sum(&bytes), sum_by_words(&bytes));
        }

        #[test]
        fn what_was_sealed_holds(mut segment in segment(), integrity in integrity()) {
            let before = segment.clone();
            seal(&mut segment, integrity);
            prop_assert!(holds(&segment, integrity));
            prop_assert_eq!(&segment[..CHECKSUM], &before[..CHECKSUM]);
            prop_assert_eq!(&segment[HEADER_LEN..], &before[HEADER_LEN..]);
        }

        #[test]
        fn every_flipped_bit_is_found(
            mut segment in prop::collection::vec(any::<u8>(), HEADER_LEN..120),
            integrity in integrity(),
        ) {
            seal(&mut segment, integrity);
            for bit in 0..segment.len() * 8 {
                segment[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!holds(&segment, integrity), "bit {} of {:?}", bit, integrity);
                segment[bit / 8] ^= 1 << (bit % 8);
            }
        }

        #[test]
        fn the_crc_finds_every_pair_of_swapped_words(
            mut segment in segment(),
            a: prop::sample::Index,
            b: prop::sample::Index,
        ) {
            seal(&mut segment, Integrity::Crc32c);
            let words = segment.len() / 2;
            let (a, b) = (2 * a.index(words), 2 * b.index(words));
            prop_assume!(segment[a..a + 2] != segment[b..b + 2]);
            swap_words(&mut segment, a, b);
            prop_assert!(!holds(&segment, Integrity::Crc32c));
        }
    }
}
