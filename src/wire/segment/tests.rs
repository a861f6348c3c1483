//! Hand-made segments, byte by byte.

use super::*;
use crate::wire::{SackBlock, Timestamps, seal};

/// A header whose every field differs from every other.
fn header() -> Header {
    Header {
        src_port: 0x0102,
        dst_port: 0x0304,
        seq: SeqNumber::new(0x0506_0708),
        ack: SeqNumber::new(0x090A_0B0C),
        flags: Flags::PSH | Flags::ACK,
        window: 0x0D0E,
        options: Options::default(),
    }
}

const PLAIN: [u8; 20] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x50, 0x18, 13, 14, 0, 0, 0, 0,
];

#[test]
fn fields_stand_where_rfc_9293_puts_them() {
    let mut buf = [0xEE; 21];
    assert_eq!(header().encode(&mut buf), Some(20));
    assert_eq!(buf[..20], PLAIN);
    assert_eq!(buf[20], 0xEE, "nothing is written behind the header");

    let segment = Segment::decode(&PLAIN).unwrap();
    assert_eq!(segment.header, header());
    assert!(segment.payload.is_empty());
}

#[test]
fn payload_is_what_follows_the_options() {
    let mut datagram = PLAIN.to_vec();
    datagram[12] = 0x80;
    datagram.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    datagram.extend(b"payload");
    let segment = Segment::decode(&datagram).unwrap();
    assert_eq!(segment.payload, b"payload");
    assert_eq!(
        segment.header.options.timestamps,
        Some(Timestamps { tsval: 1, tsecr: 2 })
    );
}

#[test]
fn reserved_bits_are_ignored_and_never_sent() {
    let mut datagram = PLAIN;
    datagram[12] |= 0x0F;
    let segment = Segment::decode(&datagram).unwrap();
    assert_eq!(segment.header, header());
    let mut buf = [0; 20];
    segment.header.encode(&mut buf);
    assert_eq!(buf, PLAIN);
}

#[test]
fn urgent_data_is_ordinary_payload() {
    let mut datagram = PLAIN.to_vec();
    datagram[13] |= 0x20;
    datagram[19] = 3;
    datagram.extend(b"urgent");
    for integrity in [Integrity::Sum, Integrity::Crc32c] {
        seal(&mut datagram, integrity);
        let segment = Segment::decode(&datagram).unwrap();
        assert!(segment.verify(integrity));
        assert!(segment.header.flags.contains(Flags::URG));
        assert_eq!(segment.payload, b"urgent");
        assert_eq!(segment.sequence_len(), 6);
    }
}

#[test]
fn malformed_datagrams_are_refused() {
    let with_offset = |offset: u8, len: usize| {
        let mut datagram = PLAIN.to_vec();
        datagram[12] = offset << 4;
        datagram.resize(len, 0);
        datagram
    };
    let cases = [
        ("empty", vec![], DecodeError::TooShort),
        (
            "one byte less than a header",
            PLAIN[..19].to_vec(),
            DecodeError::TooShort,
        ),
        ("offset 0", with_offset(0, 60), DecodeError::BadDataOffset),
        (
            "offset within the fixed header",
            with_offset(4, 60),
            DecodeError::BadDataOffset,
        ),
        (
            "offset behind the end",
            with_offset(6, 23),
            DecodeError::BadDataOffset,
        ),
        (
            "largest offset behind the end",
            with_offset(15, 59),
            DecodeError::BadDataOffset,
        ),
    ];
    for (name, datagram, error) in cases {
        assert_eq!(Segment::decode(&datagram), Err(error), "{name}");
    }
    // The neighbours on the good side; zeros behind the header are the end of the list.
    assert!(Segment::decode(&with_offset(6, 24)).is_ok());
    assert!(Segment::decode(&with_offset(15, 60)).is_ok());
}

#[test]
fn encoding_needs_room_for_header_and_options() {
    let mut header = header();
    header.options.timestamps = Some(Timestamps::default());
    assert_eq!(header.encoded_len(), 32);
    let mut buf = [0; 32];
    assert_eq!(header.encode(&mut buf), Some(32));
    for len in 0..32 {
        assert_eq!(header.encode(&mut buf[..len]), None, "{len}");
    }
}

#[test]
fn forty_bytes_of_options_are_the_limit() {
    let mut header = header();
    header.options.timestamps = Some(Timestamps::default());
    let mut buf = [0; 100];
    for blocks in 1..=3 {
        assert!(header.options.sack_blocks.push(SackBlock::default()));
        assert_eq!(header.encode(&mut buf), Some(36 + 8 * blocks));
    }
    assert_eq!(buf[12], 0xF0);
    assert!(header.options.sack_blocks.push(SackBlock::default()));
    assert_eq!(header.encode(&mut buf), None);
}

#[test]
fn sequence_len_counts_syn_and_fin() {
    let cases = [
        (Flags::ACK, 0, 0),
        (Flags::ACK, 5, 5),
        (Flags::SYN, 0, 1),
        (Flags::SYN, 5, 6),
        (Flags::FIN | Flags::ACK, 5, 6),
        (Flags::SYN | Flags::FIN, 0, 2),
    ];
    for (flags, payload, expected) in cases {
        let mut datagram = PLAIN.to_vec();
        datagram[13] = flags.bits();
        datagram.resize(20 + payload, 0);
        let segment = Segment::decode(&datagram).unwrap();
        assert_eq!(
            segment.sequence_len(),
            expected,
            "{flags} with {payload} bytes"
        );
    }
}

#[test]
fn the_check_that_holds_is_found() {
    let mut datagram = PLAIN.to_vec();
    datagram.extend(b"some payload");
    for integrity in [Integrity::Sum, Integrity::Crc32c] {
        seal(&mut datagram, integrity);
        assert_eq!(
            Segment::decode(&datagram).unwrap().integrity(),
            Some(integrity)
        );
    }
    datagram[25] ^= 1;
    assert_eq!(Segment::decode(&datagram).unwrap().integrity(), None);
}

#[test]
fn peeking_needs_only_the_front() {
    assert_eq!(peek_ports(&PLAIN[..3]), None);
    assert_eq!(peek_ports(&PLAIN[..4]), Some((0x0102, 0x0304)));
    assert_eq!(peek_seq(&PLAIN[..7]), None);
    assert_eq!(peek_seq(&PLAIN[..8]), Some(SeqNumber::new(0x0506_0708)));
}
