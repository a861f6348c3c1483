//! Hand-made options, byte by byte.

use super::*;

const TIMESTAMPS: Timestamps = Timestamps {
    tsval: 0x1122_3344,
    tsecr: 0x5566_7788,
};

fn encode(options: &Options) -> Vec<u8> {
    let mut buf = vec![0xEE; options.encoded_len()];
    options.encode(&mut buf).unwrap();
    buf
}

fn sack(blocks: &[(u32, u32)]) -> SackBlocks {
    let mut list = SackBlocks::new();
    for &(left, right) in blocks {
        let (left, right) = (SeqNumber::new(left), SeqNumber::new(right));
        assert!(list.push(SackBlock { left, right }));
    }
    list
}

/// The layouts that are sent, with their bytes.
fn layouts() -> Vec<(&'static str, Options, Vec<u8>)> {
    let none = Options::default();
    let extension = Extension {
        version: 1,
        features: 1,
        ack_delay_ms: 25,
        token: None,
    };
    let clocks = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    let block = |n: u8| [0, 0, 0, n, 0, 0, 0, n + 1];
    vec![
        ("none", none, vec![]),
        (
            "MSS",
            Options {
                mss: Some(1220),
                ..none
            },
            vec![2, 4, 0x04, 0xC4],
        ),
        (
            "timestamps",
            Options {
                timestamps: Some(TIMESTAMPS),
                ..none
            },
            [&[1, 1, 8, 10][..], &clocks].concat(),
        ),
        (
            "window scale",
            Options {
                window_scale: Some(7),
                ..none
            },
            vec![1, 3, 3, 7],
        ),
        (
            "SACK permitted",
            Options {
                sack_permitted: true,
                ..none
            },
            vec![1, 1, 4, 2],
        ),
        (
            "one SACK block",
            Options {
                sack_blocks: sack(&[(1, 2)]),
                ..none
            },
            [&[1, 1, 5, 10][..], &block(1)].concat(),
        ),
        (
            "four SACK blocks",
            Options {
                sack_blocks: sack(&[(1, 2), (3, 4), (5, 6), (7, 8)]),
                ..none
            },
            [
                &[1, 1, 5, 34][..],
                &block(1),
                &block(3),
                &block(5),
                &block(7),
            ]
            .concat(),
        ),
        (
            "timestamps and three SACK blocks",
            Options {
                timestamps: Some(TIMESTAMPS),
                sack_blocks: sack(&[(5, 6), (1, 2), (3, 4)]),
                ..none
            },
            [
                &[1, 1, 8, 10][..],
                &clocks,
                &[1, 1, 5, 26],
                &block(5),
                &block(1),
                &block(3),
            ]
            .concat(),
        ),
        (
            "extension",
            Options {
                extension: Some(extension),
                ..none
            },
            vec![254, 8, b'R', b'U', 1, 0, 1, 25],
        ),
    ]
}

#[test]
fn layouts_are_fixed_to_the_byte() {
    for (name, options, bytes) in layouts() {
        assert_eq!(encode(&options), bytes, "{name}");
        assert_eq!(options.encoded_len() % 4, 0, "{name}");
        assert_eq!(Options::decode(&bytes), Ok(options), "{name}");
    }
}

#[test]
fn foreign_layouts_are_understood() {
    let none = Options::default();
    let timestamps = Options {
        timestamps: Some(TIMESTAMPS),
        ..none
    };
    let mss = Options {
        mss: Some(0x0102),
        ..none
    };
    let clocks = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    let cases: [(&str, Vec<u8>, Options); 14] = [
        (
            "timestamps first",
            [&[8, 10][..], &clocks, &[1, 1]].concat(),
            timestamps,
        ),
        (
            "timestamps ended",
            [&[8, 10][..], &clocks, &[0, 0]].concat(),
            timestamps,
        ),
        ("padding only", vec![1; 40], none),
        (
            "end of list hides what follows",
            vec![0, 2, 4, 1, 2, 0, 0, 0],
            none,
        ),
        (
            "end of list hides rubbish",
            vec![2, 4, 1, 2, 0, 8, 0, 255],
            mss,
        ),
        (
            "unknown kind is skipped",
            vec![30, 4, 9, 9, 2, 4, 1, 2],
            mss,
        ),
        ("unknown kind without body", vec![77, 2, 2, 4, 1, 2], mss),
        ("last one of two counts", vec![2, 4, 9, 9, 2, 4, 1, 2], mss),
        ("MSS of wrong length", vec![2, 3, 9, 2, 4, 1, 2], mss),
        (
            "SACK permitted of wrong length",
            vec![4, 3, 0, 2, 4, 1, 2],
            mss,
        ),
        ("window scale of wrong length", vec![3, 2, 2, 4, 1, 2], mss),
        (
            "timestamps of wrong length",
            vec![8, 4, 0, 0, 2, 4, 1, 2],
            mss,
        ),
        ("SACK without a block", vec![5, 2, 2, 4, 1, 2], mss),
        (
            "SACK with half a block",
            vec![5, 6, 0, 0, 0, 1, 2, 4, 1, 2],
            mss,
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(Options::decode(&bytes), Ok(expected), "{name}");
    }
}

#[test]
fn illegal_lengths_are_refused() {
    let cases: [(&str, &[u8]); 9] = [
        ("zero", &[2, 0, 1, 2]),
        ("one", &[2, 1, 1, 2]),
        ("zero of an unknown kind", &[77, 0, 1, 1]),
        ("one byte too long", &[2, 5, 1, 2]),
        ("255", &[77, 255, 0, 0]),
        ("length byte missing", &[1, 1, 1, 2]),
        (
            "timestamps that begin where they do usually and run out",
            &[1, 1, 8, 10, 1, 2, 3, 4],
        ),
        (
            "usual timestamps, then no length byte",
            &[1, 1, 8, 10, 1, 1, 1, 1, 2, 2, 2, 2, 3],
        ),
        ("fault behind good options", &[2, 4, 1, 2, 3, 3, 7, 4]),
    ];
    for (name, bytes) in cases {
        assert_eq!(
            Options::decode(bytes),
            Err(DecodeError::BadOptionLength),
            "{name}"
        );
    }
}

#[test]
fn window_scale_above_14_is_14() {
    for (shift, expected) in [(0, 0), (13, 13), (14, 14), (15, 14), (255, 14)] {
        let decoded = Options::decode(&[3, 3, shift, 0]).unwrap();
        assert_eq!(decoded.window_scale, Some(expected), "decoded {shift}");
        let options = Options {
            window_scale: Some(shift),
            ..Options::default()
        };
        assert_eq!(encode(&options), [1, 3, 3, expected], "encoded {shift}");
    }
}

#[test]
fn extension_is_read_as_far_as_it_is_known() {
    let known = Extension {
        version: 1,
        features: 1,
        ack_delay_ms: 25,
        token: None,
    };
    let token = Some(*b"12345678");
    let cases: [(&str, &[u8], Option<Extension>); 8] = [
        ("as sent", b"\xFE\x08RU\x01\x00\x01\x19", Some(known)),
        (
            "later version, more features",
            b"\xFE\x08RU\x09\xFF\xFF\x19",
            Some(Extension {
                version: 9,
                features: 0xFFFF,
                ..known
            }),
        ),
        (
            "token",
            b"\xFE\x10RU\x01\x00\x01\x1912345678",
            Some(Extension { token, ..known }),
        ),
        (
            "half a token",
            b"\xFE\x0CRU\x01\x00\x01\x191234",
            Some(known),
        ),
        (
            "longer body",
            b"\xFE\x12RU\x01\x00\x01\x1912345678xx",
            Some(Extension { token, ..known }),
        ),
        ("too short", b"\xFE\x07RU\x01\x00\x01", None),
        ("identifier cut off", b"\xFE\x03R", None),
        (
            "another experiment",
            b"\xFE\x08\xF9\x89\x01\x00\x01\x19",
            None,
        ),
    ];
    for (name, bytes, expected) in cases {
        let options = Options::decode(bytes).unwrap();
        assert_eq!(
            options,
            Options {
                extension: expected,
                ..Options::default()
            },
            "{name}"
        );
    }
    let unknown_bits = Extension {
        features: 0xFFFE,
        ..known
    };
    assert!(known.offers(FEATURE_CRC32C) && !unknown_bits.offers(FEATURE_CRC32C));
}

#[test]
fn another_experiment_does_not_hide_ours() {
    let bytes = b"\xFE\x08RU\x01\x00\x01\x19\xFE\x06\xF9\x89ab";
    let extension = Options::decode(bytes).unwrap().extension;
    assert_eq!(extension.map(|e| e.ack_delay_ms), Some(25));
}

#[test]
fn a_fifth_sack_block_is_not_taken() {
    let mut blocks = sack(&[(1, 2), (3, 4), (5, 6), (7, 8)]);
    let before = blocks;
    assert!(!blocks.push(SackBlock::default()));
    assert_eq!(blocks, before);
    assert_eq!(blocks.len(), SackBlocks::MAX);
    assert_eq!(
        blocks
            .iter()
            .map(|block| block.left.get())
            .collect::<Vec<_>>(),
        [1, 3, 5, 7]
    );
    assert!(SackBlocks::EMPTY.is_empty() && SackBlocks::EMPTY.as_slice().is_empty());
}

#[test]
fn everything_that_a_syn_carries_fits() {
    let extension = Extension {
        version: 1,
        features: 1,
        ack_delay_ms: 25,
        token: Some(*b"12345678"),
    };
    let options = Options {
        mss: Some(65_495),
        window_scale: Some(14),
        sack_permitted: true,
        timestamps: Some(TIMESTAMPS),
        extension: Some(extension),
        ..Options::default()
    };
    let mut expected = vec![2, 4, 0xFF, 0xD7, 4, 2, 8, 10];
    expected.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88]);
    expected.extend([1, 3, 3, 14, 254, 16, b'R', b'U', 1, 0, 1, 25]);
    expected.extend(b"12345678");
    assert_eq!(encode(&options), expected);
    assert_eq!(Options::decode(&expected), Ok(options));
    assert!(expected.len() <= MAX_OPTIONS_LEN);
}
