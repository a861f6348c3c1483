//! The entry of the `segment` fuzz target: what must hold for any bytes at all.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "to panic is how a property fails, and this is never compiled into a user's build"
)]

use super::{HEADER_LEN, Integrity, MAX_OPTIONS_LEN, Segment, peek_ports, peek_seq, seal};

/// Decodes `data` as a datagram and asserts the properties of the codec.
///
/// # Panics
///
/// Panics if a property does not hold.
pub fn fuzz_decode(data: &[u8]) {
    assert_eq!(peek_ports(data).is_some(), data.len() >= 4);
    assert_eq!(peek_seq(data).is_some(), data.len() >= 8);
    let Ok(segment) = Segment::decode(data) else {
        return;
    };
    let header = segment.header;
    assert!(data.ends_with(segment.payload));
    assert_eq!(peek_ports(data), Some((header.src_port, header.dst_port)));
    assert_eq!(peek_seq(data), Some(header.seq));
    assert!(segment.sequence_len() as usize >= segment.payload.len());
    if let Some(integrity) = segment.integrity() {
        assert!(segment.verify(integrity));
    }

    // Whatever was decoded can be sent on, unless the aligned layout takes more room.
    let mut copy = vec![0; HEADER_LEN + MAX_OPTIONS_LEN + segment.payload.len()];
    let Some(header_len) = header.encode(&mut copy) else {
        assert!(header.options.encoded_len() > MAX_OPTIONS_LEN, "{header:?}");
        return;
    };
    assert_eq!(header_len, header.encoded_len());
    copy.truncate(header_len + segment.payload.len());
    copy[header_len..].copy_from_slice(segment.payload);
    for integrity in [Integrity::Sum, Integrity::Crc32c] {
        copy[18..HEADER_LEN].fill(0);
        seal(&mut copy, integrity);
        assert_round_trip(&copy, &segment, integrity);

        // One flipped bit, drawn from the input, is found by both checks.
        let bit = header.seq.get() as usize % (copy.len() * 8);
        copy[bit / 8] ^= 1 << (bit % 8);
        if let Ok(damaged) = Segment::decode(&copy) {
            assert!(
                !damaged.verify(integrity),
                "bit {bit} flipped unseen by {integrity:?}"
            );
        }
        copy[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Asserts that `encoded` holds `original` and carries `integrity`.
fn assert_round_trip(encoded: &[u8], original: &Segment<'_>, integrity: Integrity) {
    let decoded = Segment::decode(encoded);
    assert!(decoded.is_ok(), "{decoded:?} from {original:?}");
    if let Ok(decoded) = decoded {
        assert_eq!(decoded.header, original.header);
        assert_eq!(decoded.payload, original.payload);
        assert!(decoded.verify(integrity));
    }
}
