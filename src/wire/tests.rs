//! Properties of the whole codec, and the examples of `docs/PROTOCOL.md` held against the code.

use proptest::prelude::*;

use super::*;

/// Options of any shape, as long as their values survive the wire.
fn options() -> impl Strategy<Value = Options> {
    let timestamps = any::<(u32, u32)>().prop_map(|(tsval, tsecr)| Timestamps { tsval, tsecr });
    let extension = any::<(u8, u16, u8, Option<[u8; 8]>)>().prop_map(
        |(version, features, ack_delay_ms, token)| Extension {
            version,
            features,
            ack_delay_ms,
            token,
        },
    );
    let sack_blocks = prop::collection::vec(any::<(u32, u32)>(), 0..=4).prop_map(|edges| {
        let mut blocks = SackBlocks::new();
        for (left, right) in edges {
            let (left, right) = (SeqNumber::new(left), SeqNumber::new(right));
            blocks.push(SackBlock { left, right });
        }
        blocks
    });
    (
        any::<Option<u16>>(),
        prop::option::of(0..=MAX_WINDOW_SCALE),
        any::<bool>(),
        prop_oneof![Just(SackBlocks::EMPTY), sack_blocks],
        prop::option::of(timestamps),
        prop::option::of(extension),
    )
        .prop_map(
            |(mss, window_scale, sack_permitted, sack_blocks, timestamps, extension)| Options {
                mss,
                window_scale,
                sack_permitted,
                sack_blocks,
                timestamps,
                extension,
            },
        )
}

fn header() -> impl Strategy<Value = Header> {
    (any::<(u16, u16, u32, u32, u8, u16)>(), options()).prop_map(|(fields, options)| {
        let (src_port, dst_port, seq, ack, flags, window) = fields;
        Header {
            src_port,
            dst_port,
            seq: SeqNumber::new(seq),
            ack: SeqNumber::new(ack),
            flags: Flags::from_bits(flags),
            window,
            options,
        }
    })
}

fn integrity() -> impl Strategy<Value = Integrity> {
    prop_oneof![Just(Integrity::Sum), Just(Integrity::Crc32c)]
}

/// Encodes and seals a segment.
fn encode(header: &Header, payload: &[u8], integrity: Integrity) -> Vec<u8> {
    let mut segment = vec![0; header.encoded_len()];
    assert_eq!(header.encode(&mut segment), Some(segment.len()));
    segment.extend_from_slice(payload);
    seal(&mut segment, integrity);
    segment
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(
        header in header(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        integrity in integrity(),
    ) {
        if header.options.encoded_len() > MAX_OPTIONS_LEN {
            prop_assert_eq!(header.encode(&mut [0; 200]), None);
            return Ok(());
        }
        let bytes = encode(&header, &payload, integrity);
        let segment = Segment::decode(&bytes).unwrap();
        prop_assert_eq!(segment.header, header);
        prop_assert_eq!(segment.payload, &payload);
        prop_assert!(segment.verify(integrity));
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_decode(&bytes);
    }

    /// Random bytes seldom have a good data offset; these always do.
    #[test]
    fn arbitrary_options_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 60..100),
        options in prop::collection::vec(
            prop_oneof![Just(0_u8), 0_u8..12, Just(254), Just(b'R'), Just(b'U'), any::<u8>()],
            40,
        ),
        words in 5_u8..=15,
    ) {
        bytes[12] = words << 4;
        bytes[20..60].copy_from_slice(&options);
        fuzz_decode(&bytes);
    }

    #[test]
    fn every_cut_of_a_segment_is_survived(header in header(), payload: [u8; 8]) {
        prop_assume!(header.options.encoded_len() <= MAX_OPTIONS_LEN);
        let bytes = encode(&header, &payload, Integrity::Crc32c);
        for len in 0..bytes.len() {
            let cut = Segment::decode(&bytes[..len]);
            prop_assert_eq!(cut.is_ok(), len >= header.encoded_len(), "{} bytes", len);
            prop_assert!(!cut.is_ok_and(|cut| cut.verify(Integrity::Crc32c)), "{} bytes", len);
        }
    }
}

const PROTOCOL: &str = include_str!("../../docs/PROTOCOL.md");

const CLIENT: (u16, SeqNumber) = (51_000, SeqNumber::new(0x1A2B_3C4D));
const SERVER: (u16, SeqNumber) = (1, SeqNumber::new(0x5E6F_7081));

/// The worked examples of the specification, made by the code.
fn worked_examples() -> Vec<(&'static str, Vec<u8>)> {
    let extension = Extension {
        features: FEATURE_CRC32C,
        ack_delay_ms: 25,
        ..Extension::default()
    };
    let timestamps = |tsval, tsecr| Some(Timestamps { tsval, tsecr });
    let offer = Options {
        mss: Some(65_487),
        window_scale: Some(9),
        sack_permitted: true,
        extension: Some(extension),
        ..Options::default()
    };
    let from_client = Header {
        src_port: CLIENT.0,
        dst_port: SERVER.0,
        ..Header::default()
    };
    let from_server = Header {
        src_port: SERVER.0,
        dst_port: CLIENT.0,
        ..Header::default()
    };
    let syn = Header {
        seq: CLIENT.1,
        flags: Flags::SYN | Flags::ECE | Flags::CWR,
        window: u16::MAX,
        options: Options {
            timestamps: timestamps(1_000, 0),
            ..offer
        },
        ..from_client
    };
    let syn_ack = Header {
        seq: SERVER.1,
        ack: CLIENT.1 + 1,
        flags: Flags::SYN | Flags::ACK | Flags::ECE,
        window: u16::MAX,
        options: Options {
            timestamps: timestamps(700_000, 1_000),
            ..offer
        },
        ..from_server
    };
    let data = Header {
        seq: CLIENT.1 + 1,
        ack: SERVER.1 + 1,
        flags: Flags::PSH | Flags::ACK,
        window: 32_768,
        options: Options {
            timestamps: timestamps(1_040, 700_000),
            ..Options::default()
        },
        ..from_client
    };
    let reset = Header {
        seq: SERVER.1 + 1,
        flags: Flags::RST,
        ..from_server
    };
    vec![
        ("syn", encode(&syn, b"", Integrity::Sum)),
        ("syn-ack", encode(&syn_ack, b"", Integrity::Sum)),
        ("data", encode(&data, b"hello", Integrity::Crc32c)),
        ("reset", encode(&reset, b"", Integrity::Crc32c)),
    ]
}

/// Returns the bytes of every code block marked `hex NAME`; a `#` begins a comment.
fn hex_blocks(document: &str) -> Vec<(&str, Vec<u8>)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("```hex ") else {
            continue;
        };
        let hex = lines.by_ref().take_while(|line| *line != "```");
        let bytes = hex
            .flat_map(|line| {
                line.split('#')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
            })
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        blocks.push((name, bytes));
    }
    blocks
}

#[test]
fn the_specification_shows_what_the_code_sends() {
    let (shown, sent) = (hex_blocks(PROTOCOL), worked_examples());
    assert_eq!(shown.len(), sent.len());
    for (shown, sent) in shown.iter().zip(&sent) {
        assert_eq!(
            shown, sent,
            "docs/PROTOCOL.md must show {}: {:02x?}",
            sent.0, sent.1
        );
    }
}

#[test]
fn the_examples_decode_and_hold_their_check() {
    for (name, bytes) in hex_blocks(PROTOCOL) {
        let segment = Segment::decode(&bytes).unwrap();
        let has_syn = segment.header.flags.contains(Flags::SYN);
        let expected = if has_syn {
            Integrity::Sum
        } else {
            Integrity::Crc32c
        };
        assert_eq!(segment.integrity(), Some(expected), "{name}");
        fuzz_decode(&bytes);
    }
}
