use std::io;

use proptest::prelude::*;

use super::super::error::Farewell;
use super::*;

fn examples() -> Vec<Frame> {
    let attributes = Attributes {
        mode: 0o755,
        mtime_secs: -1,
        mtime_nanos: 999_999_999,
    };
    let digest = Digest::new([7; 32]);
    let offer = FileOffer {
        id: 3,
        attempt: 1,
        attempts: 6,
        size: 10,
        attributes,
        tag: [9; 16],
        digest: None,
        path: b"a/\xff".to_vec(),
    };
    let known = FileOffer {
        digest: Some(digest),
        ..offer.clone()
    };
    let block = u64::try_from(BLOCK_LEN).unwrap();
    let mut frames = vec![
        Frame::File(offer),
        Frame::File(known),
        Frame::Link {
            id: 5,
            attributes,
            target: b"../b".to_vec(),
            path: b"a/l".to_vec(),
        },
        Frame::Content { id: 3, from: block },
        Frame::Hole(1 << 40),
        Frame::Block([4; 32]),
        Frame::End(digest),
        Frame::Seal {
            id: 4,
            attributes,
            path: vec![b'x'; MAX_PATH_LEN],
        },
        Frame::Ask(u64::MAX),
        Frame::Done,
        Frame::Working(5),
        Frame::Bye,
        Frame::Need {
            id: 3,
            from: 0,
            stack: vec![],
        },
        Frame::Need {
            id: 3,
            from: 5 * block,
            stack: vec![[1; 32], [2; 32]],
        },
    ];
    let farewells = (0..=6).map(|code| Frame::Fatal(Farewell::from_code(code), "why".into()));
    frames.extend(farewells);
    let bits = (0..16).map(|bits| Options {
        overwrite: bits & 1 != 0,
        dry_run: bits & 2 != 0,
        no_preserve: bits & 4 != 0,
        recheck: bits & 8 != 0,
    });
    frames.extend(bits.map(Frame::Options));
    let withdrawals = [
        Withdrawal::Again,
        Withdrawal::Changed,
        Withdrawal::Unreadable,
        Withdrawal::Settled,
    ];
    frames.extend(withdrawals.map(|withdrawal| Frame::Withdraw(8, withdrawal)));
    let verdicts = [
        Verdict::Verified(digest),
        Verdict::Done,
        Verdict::Mismatch,
        Verdict::Refused(Refusal::Exists),
        Verdict::Failed(io::ErrorKind::StorageFull, "no space left on device".into()),
        Verdict::Unknown,
        Verdict::Present,
        Verdict::Planned,
    ];
    frames.extend(verdicts.map(|verdict| Frame::Verdict(9, verdict)));
    frames
}

/// Decodes everything, feeding `step` bytes at a time; data comes back joined per frame boundary.
fn decode_all(bytes: &[u8], step: usize) -> Result<(Vec<Frame>, Vec<u8>), ProtocolError> {
    let (mut decoder, mut frames, mut data) = (Decoder::default(), vec![], vec![]);
    for mut piece in bytes.chunks(step) {
        while let Some(item) = decoder.next(&mut piece)? {
            match item {
                Item::Data(bytes) => data.extend_from_slice(bytes),
                Item::Frame(frame) => frames.push(frame),
            }
        }
        assert!(piece.is_empty(), "all input is taken");
    }
    Ok((frames, data))
}

#[test]
fn frames_survive_the_wire_in_any_pieces() {
    let mut bytes = vec![];
    for frame in examples() {
        frame.encode(&mut bytes);
        bytes.extend_from_slice(&data_header(4));
        bytes.extend_from_slice(b"data");
    }
    for step in [1, 2, 3, 7, 1000, usize::MAX] {
        let (frames, data) = decode_all(&bytes, step).unwrap();
        assert_eq!(frames, examples(), "in pieces of {step}");
        assert_eq!(data, b"data".repeat(frames.len()), "in pieces of {step}");
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn hostile_lengths_get_typed_errors() {
    let length = |frame, len| ProtocolError::FrameLength { frame, len };
    let cases: &[(&str, Vec<u8>, ProtocolError)] = &[
        (
            "unknown type",
            frame(0x77, b""),
            ProtocolError::UnknownFrame(0x77),
        ),
        (
            "type zero",
            frame(0, b"abc"),
            ProtocolError::UnknownFrame(0),
        ),
        (
            "4 GiB of data",
            vec![DATA, 255, 255, 255, 255],
            length(DATA, u32::MAX),
        ),
        (
            "4 GiB of path",
            vec![FILE, 255, 255, 255, 255],
            length(FILE, u32::MAX),
        ),
        ("empty data", frame(DATA, b""), length(DATA, 0)),
        ("short end", frame(END, &[0; 31]), length(END, 31)),
        ("long end", frame(END, &[0; 33]), length(END, 33)),
        ("body on done", frame(DONE, b"x"), length(DONE, 1)),
        ("short offer", frame(FILE, &[0; 50]), length(FILE, 50)),
        ("long path", vec![SEAL, 0, 0, 0x81, 0], length(SEAL, 0x8100)),
        (
            "a link's target beyond its frame",
            frame(LINK, &[[0; 24].as_slice(), &[0, 9, b'x']].concat()),
            length(LINK, 27),
        ),
        (
            "verified without hash",
            frame(VERDICT, &[0; 9]),
            length(VERDICT, 9),
        ),
        (
            "done and more",
            frame(VERDICT, &[1; 10]),
            length(VERDICT, 10),
        ),
        ("long message", vec![FATAL, 0, 0, 2, 2], length(FATAL, 514)),
        (
            "endless stack",
            vec![NEED, 0, 0, 0x10, 0],
            length(NEED, 4096),
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(decode_all(bytes, 1).unwrap_err(), *expected, "{name}");
    }
}

#[test]
fn fields_without_a_meaning_get_typed_errors() {
    let mut bad_nanos = vec![0; SEAL_FIXED_LEN];
    bad_nanos[20..24].fill(0xff);
    let mut bad_mode = vec![0; SEAL_FIXED_LEN];
    bad_mode[8..12].fill(0xff);
    let mut offer = vec![0; OFFER_FIXED_LEN + 8];
    offer[8..10].fill(1);
    offer[OFFER_FIXED_LEN - 1] = 31;
    let need = |from: u64, cvs: usize| {
        let body = [&[0; 8], from.to_be_bytes().as_slice(), &vec![0; 32 * cvs]].concat();
        frame(NEED, &body)
    };
    let mut target = vec![0; LINK_FIXED_LEN + 5000];
    target[24..26].copy_from_slice(&4096_u16.to_be_bytes());
    let cases: &[(&str, Vec<u8>)] = &[
        ("attempt", frame(FILE, &[0; OFFER_FIXED_LEN])),
        ("hash length", frame(FILE, &offer)),
        ("mode", frame(SEAL, &bad_mode)),
        ("modification time", frame(SEAL, &bad_nanos)),
        ("withdrawal", frame(WITHDRAW, &[9; 9])),
        ("verdict", frame(VERDICT, &[9; 9])),
        ("refusal", frame(VERDICT, &[0, 0, 0, 0, 0, 0, 0, 0, 3, 99])),
        ("options", frame(OPTIONS, &[0, 0, 0, 16])),
        ("link target", frame(LINK, &target)),
        ("resume position", need(1, 1)),
        ("resume position", need(3 << 20, 1)),
        ("resume position", need(3 << 20, 3)),
        ("resume position", need(0, 1)),
    ];
    for (name, bytes) in cases {
        let error = decode_all(bytes, 1).unwrap_err();
        assert_eq!(error, ProtocolError::BadField(name), "{bytes:?}");
    }
}

#[test]
fn texts_are_cut_between_characters_and_cleaned() {
    let mut bytes = vec![];
    Frame::Fatal(Farewell::Protocol, "ä".repeat(MAX_MESSAGE_LEN)).encode(&mut bytes);
    let (frames, _) = decode_all(&bytes, usize::MAX).unwrap();
    let cut = "ä".repeat(MAX_MESSAGE_LEN / 2);
    assert_eq!(frames, [Frame::Fatal(Farewell::Protocol, cut)]);

    let mut bytes = vec![];
    Frame::Fatal(Farewell::Stalled, "\x1b[2Jgone\n".into()).encode(&mut bytes);
    let (frames, _) = decode_all(&bytes, usize::MAX).unwrap();
    let clean = "\u{fffd}[2Jgone\u{fffd}".into();
    assert_eq!(frames, [Frame::Fatal(Farewell::Stalled, clean)]);
}

#[test]
fn greetings_survive_and_strangers_are_recognised() {
    let greeting = Greeting {
        min_version: 1,
        max_version: 3,
        features: 0x8000_0001,
    };
    assert_eq!(Greeting::decode(greeting.encode()), Ok(greeting));
    assert_eq!(
        Greeting::decode(*b"GET / HTTP/1.1\r\n"),
        Err(ProtocolError::Magic)
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_stay_bounded(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        kind in prop::sample::select(
            vec![FILE, LINK, DATA, END, WITHDRAW, SEAL, ASK, VERDICT, NEED, FATAL]),
    ) {
        let mut input = vec![kind, 0, 0];
        input.extend_from_slice(&bytes);
        let mut decoder = Decoder::default();
        let mut rest = &input[..];
        while let Ok(Some(_)) = decoder.next(&mut rest) {}
        prop_assert!(decoder.gathered_len() <= FRAME_HEADER_LEN + MAX_BODY_LEN);
    }
}
