//! CRC-32C over a segment: the check that replaces the sum once both sides offered it.
//!
//! The polynomial, the reflection, the initial value and the final inversion are those of RFC 9260,
//! appendix A, and RFC 3720 §12.1. The four bytes `checksum || urgent pointer` hold the result
//! big-endian, and count as zero while it is computed. What the sum misses and this finds: swapped
//! 16-bit words, and every error of two or three bits in a datagram of any size.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

use super::HEADER_LEN;

/// Returns the CRC-32C of `bytes` as they stand.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// Returns the CRC-32C of a segment of header `header` and everything after it in `rest`, with the
/// integrity field taken as zero. Only the header is copied.
pub(super) fn crc32c_with_field_zero(header: &[u8; HEADER_LEN], rest: &[u8]) -> u32 {
    let mut head = *header;
    let [.., c0, c1, u0, u1] = &mut head;
    (*c0, *c1, *u0, *u1) = (0, 0, 0, 0);
    // The digest keeps its state on the stack; the instruction set was detected once per process.
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&head);
    digest.update(rest);
    low_half(digest.finalize())
}

/// Returns the CRC-32C of `head` and everything after it in `rest`, in order.
pub(super) fn crc32c_of_parts<'a>(head: &[u8], rest: impl Iterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(head);
    rest.for_each(|part| digest.update(part));
    low_half(digest.finalize())
}

/// Narrows the digest's result, which is 64 bits wide for every algorithm.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a CRC-32 lies in the low 32 bits"
)]
const fn low_half(crc: u64) -> u32 {
    crc as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn check_values_of_the_rfcs() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        // RFC 3720 §B.4 prints the bytes as iSCSI sends them, least significant first.
        let cases: [(&str, &[u8], [u8; 4]); 4] = [
            ("32 bytes of zeroes", &[0; 32], [0xAA, 0x36, 0x91, 0x8A]),
            ("32 bytes of ones", &[0xFF; 32], [0x43, 0xAB, 0xA8, 0x62]),
            (
                "32 bytes of incrementing 00..1f",
                &ascending,
                [0x4E, 0x79, 0xDD, 0x46],
            ),
            (
                "32 bytes of decrementing 1f..00",
                &descending,
                [0x5C, 0xDB, 0x3F, 0x11],
            ),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(crc32c(bytes).to_le_bytes(), expected, "{name}");
        }
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    /// The definition, bit by bit (RFC 9260, appendix A, reflected).
    fn crc32c_bitwise(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            }
        }
        !crc
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(crc32c(&bytes), crc32c_bitwise(&bytes));
        }

        #[test]
        fn the_field_counts_as_zero(
            header: [u8; HEADER_LEN],
            rest in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let mut whole = header.to_vec();
            whole[16..20].fill(0);
            whole.extend_from_slice(&rest);
            prop_assert_eq!(crc32c_with_field_zero(&header, &rest), crc32c_bitwise(&whole));
        }
    }
}
