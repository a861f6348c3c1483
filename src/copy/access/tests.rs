use std::io;
use std::path::PathBuf;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_test::io::Builder;

use super::*;
use crate::copy::protocol::Greeting;

const NONCE_R: [u8; 32] = [0x11; 32];
const NONCE_S: [u8; 32] = [0x22; 32];

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

fn right() -> Secret {
    secret("a secret of the two sides")
}

fn wrong() -> Secret {
    secret("a secret of somebody else")
}

fn greeting(features: u32) -> [u8; GREETING_LEN] {
    let greeting = Greeting {
        min_version: 2,
        max_version: 2,
        features,
    };
    greeting.encode()
}

fn greetings() -> Greetings {
    Greetings {
        sender: greeting(SECRET),
        receiver: greeting(SECRET),
    }
}

/// One side of an exchange.
struct Side {
    secret: Secret,
    greetings: Greetings,
    binding: Vec<u8>,
    nonce: [u8; 32],
}

impl Side {
    fn sender() -> Self {
        Self {
            secret: right(),
            greetings: greetings(),
            binding: vec![],
            nonce: NONCE_S,
        }
    }

    fn receiver() -> Self {
        Self {
            nonce: NONCE_R,
            ..Self::sender()
        }
    }

    async fn prove(&self, stream: &mut DuplexStream) -> Result<(), CopyError> {
        let binding = &self.binding;
        prove_with(stream, &self.secret, self.greetings, binding, self.nonce).await
    }

    async fn demand(&self, stream: &mut DuplexStream) -> Result<(), CopyError> {
        let binding = &self.binding;
        demand_with(stream, &self.secret, self.greetings, binding, self.nonce).await
    }
}

type Results = (Result<(), CopyError>, Result<(), CopyError>);

/// Lets two sides speak with one another; each closes when it is done.
async fn exchange(sender: &Side, receiver: &Side) -> Results {
    let (mut near, mut far) = duplex(1024);
    tokio::join!(async move { sender.prove(&mut near).await }, async move {
        receiver.demand(&mut far).await
    },)
}

/// What each side of a right exchange writes: the sender, the receiver.
async fn recorded() -> (Vec<u8>, Vec<u8>) {
    let (mut near, mut relay_s) = duplex(1024);
    let (mut far, mut relay_r) = duplex(1024);
    let (sender, receiver) = (Side::sender(), Side::receiver());
    let relay = async {
        let mut challenge = vec![0; 5 + 32];
        relay_r.read_exact(&mut challenge).await.unwrap();
        relay_s.write_all(&challenge).await.unwrap();
        let mut proof = vec![0; 5 + 64];
        relay_s.read_exact(&mut proof).await.unwrap();
        relay_r.write_all(&proof).await.unwrap();
        let mut welcome = vec![0; 5 + 32];
        relay_r.read_exact(&mut welcome).await.unwrap();
        relay_s.write_all(&welcome).await.unwrap();
        (proof, [challenge, welcome].concat())
    };
    let (sent, received, bytes) =
        tokio::join!(sender.prove(&mut near), receiver.demand(&mut far), relay);
    assert_eq!((sent, received), (Ok(()), Ok(())));
    bytes
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&[kind][..], &len.to_be_bytes(), body].concat()
}

fn denied(denial: Denial) -> Result<(), CopyError> {
    Err(CopyError::Denied(denial))
}

#[tokio::test]
async fn sides_with_the_same_secret_agree() {
    for binding in [vec![], vec![7; 32]] {
        let sender = Side {
            binding: binding.clone(),
            ..Side::sender()
        };
        let receiver = Side {
            binding,
            ..Side::receiver()
        };
        assert_eq!(exchange(&sender, &receiver).await, (Ok(()), Ok(())));
    }
    let (mut near, mut far) = duplex(1024);
    let secret = right();
    let results = tokio::join!(
        prove(&mut near, &secret, greetings(), &[]),
        demand(&mut far, &secret, greetings(), &[]),
    );
    assert_eq!(results, (Ok(()), Ok(())), "with nonces of their own");
}

#[tokio::test]
async fn any_difference_is_a_wrong_secret_on_both_sides() {
    let stripped = Greetings {
        sender: greeting(0),
        ..greetings()
    };
    let downgraded = Greetings {
        receiver: greeting(SECRET | 2),
        ..greetings()
    };
    let cases = [
        (
            "secret",
            Side {
                secret: wrong(),
                ..Side::sender()
            },
        ),
        (
            "sender's greeting",
            Side {
                greetings: stripped,
                ..Side::sender()
            },
        ),
        (
            "receiver's greeting",
            Side {
                greetings: downgraded,
                ..Side::sender()
            },
        ),
        (
            "a channel where the receiver has none",
            Side {
                binding: vec![0; 32],
                ..Side::sender()
            },
        ),
    ];
    for (name, sender) in cases {
        let expected = denied(Denial::WrongSecret);
        let results = exchange(&sender, &Side::receiver()).await;
        assert_eq!(results, (expected.clone(), expected), "another {name}");
    }
    let (sender, receiver) = (
        Side {
            binding: vec![1; 32],
            ..Side::sender()
        },
        Side {
            binding: vec![2; 32],
            ..Side::receiver()
        },
    );
    let expected = denied(Denial::WrongSecret);
    let results = exchange(&sender, &receiver).await;
    assert_eq!(results, (expected.clone(), expected), "two TLS channels");
}

#[tokio::test]
async fn a_recorded_sender_is_worth_nothing_against_a_fresh_nonce() {
    let (proof, _) = recorded().await;
    let receiver = Side {
        nonce: [0x33; 32],
        ..Side::receiver()
    };
    let (mut near, mut far) = duplex(1024);
    near.write_all(&proof).await.unwrap();
    assert_eq!(receiver.demand(&mut far).await, denied(Denial::WrongSecret));

    // The same bytes against the same nonce are right: it is the nonce that they fail on.
    let (mut near, mut far) = duplex(1024);
    near.write_all(&proof).await.unwrap();
    assert_eq!(Side::receiver().demand(&mut far).await, Ok(()));
}

#[tokio::test]
async fn a_recorded_receiver_is_worth_nothing_against_a_fresh_nonce() {
    let (_, answers) = recorded().await;
    let sender = Side {
        nonce: [0x33; 32],
        ..Side::sender()
    };
    let (mut near, mut far) = duplex(1024);
    far.write_all(&answers).await.unwrap();
    assert_eq!(sender.prove(&mut near).await, denied(Denial::PeerUnproven));

    let (mut near, mut far) = duplex(1024);
    far.write_all(&answers).await.unwrap();
    assert_eq!(Side::sender().prove(&mut near).await, Ok(()));
}

#[tokio::test]
async fn nonces_are_fresh() {
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let (mut near, mut far) = duplex(1024);
        let secret = right();
        let _ = tokio::join!(demand(&mut far, &secret, greetings(), &[]), async {
            let mut challenge = [0; 37];
            near.read_exact(&mut challenge).await.unwrap();
            nonces.push(challenge[5..].to_vec());
            drop(near);
        },);
    }
    assert_ne!(nonces[0], nonces[1]);
    assert_ne!(nonces[0], [0; 32]);
}

/// Somebody without the secret asks a real sender for a proof, and shows it back to it.
#[tokio::test]
async fn a_senders_proof_reflected_is_no_receivers() {
    let (mut near, mut far) = duplex(1024);
    let thief = async {
        far.write_all(&frame(CHALLENGE, &NONCE_R)).await.unwrap();
        let mut proof = [0; 5 + 64];
        far.read_exact(&mut proof).await.unwrap();
        far.write_all(&frame(WELCOME, &proof[5 + 32..]))
            .await
            .unwrap();
    };
    let (sent, ()) = tokio::join!(async { Side::sender().prove(&mut near).await }, thief);
    assert_eq!(sent, denied(Denial::PeerUnproven));
}

/// A receiver's proof is over a chosen sender's nonce: still no sender's proof, even with all else equal.
#[tokio::test]
async fn a_receivers_proof_reflected_is_no_senders() {
    let transcript = Transcript {
        greetings: greetings(),
        nonce_r: NONCE_R,
        nonce_s: NONCE_S,
        binding: &[],
    };
    let theirs = transcript.mac(&right(), Role::Receiver);
    let proof = frame(PROOF, &[NONCE_S, *theirs.as_bytes()].concat());
    let (mut near, mut far) = duplex(1024);
    near.write_all(&proof).await.unwrap();
    let result = Side::receiver().demand(&mut far).await;
    assert_eq!(result, denied(Denial::WrongSecret));
}

#[test]
fn proofs_depend_on_every_field() {
    let base = Transcript {
        greetings: greetings(),
        nonce_r: NONCE_R,
        nonce_s: NONCE_S,
        binding: &[],
    };
    let mut other = greetings();
    other.sender[15] ^= 2;
    let mut another = greetings();
    another.receiver[9] ^= 1;
    let variants = [
        base,
        Transcript {
            greetings: other,
            ..base
        },
        Transcript {
            greetings: another,
            ..base
        },
        Transcript {
            nonce_r: NONCE_S,
            nonce_s: NONCE_R,
            ..base
        },
        Transcript {
            binding: &[0],
            ..base
        },
        Transcript {
            binding: &[0, 0],
            ..base
        },
    ];
    let mut macs = Vec::new();
    for transcript in variants {
        for secret in [right(), wrong()] {
            macs.push(transcript.mac(&secret, Role::Sender));
            macs.push(transcript.mac(&secret, Role::Receiver));
        }
    }
    for (at, mac) in macs.iter().enumerate() {
        assert_eq!(macs.iter().position(|other| other == mac), Some(at));
    }
}

/// The specification's words, computed from parts: another implementation needs only these.
#[test]
fn proofs_are_as_specified() {
    let key = blake3::derive_key(
        "reliable-udp copy 2026-11 shared secret",
        b"a secret of the two sides",
    );
    let binding = [9; 32];
    let transcript = Transcript {
        greetings: greetings(),
        nonce_r: NONCE_R,
        nonce_s: NONCE_S,
        binding: &binding,
    };
    for (role, letter) in [(Role::Sender, b'S'), (Role::Receiver, b'R')] {
        let parts: [&[u8]; 7] = [
            &[letter],
            &greeting(SECRET),
            &greeting(SECRET),
            &NONCE_R,
            &NONCE_S,
            &32_u32.to_be_bytes(),
            &binding,
        ];
        let expected = blake3::keyed_hash(&key, &parts.concat());
        assert_eq!(transcript.mac(&right(), role), expected, "{role:?}");
    }
}

/// The exchange of features as a sender and a receiver do it, with somebody between them.
fn negotiate(
    sender: Option<&Secret>,
    receiver: Option<&Secret>,
    strip_offer: bool,
    strip_grant: bool,
) -> (Result<(), Denial>, Result<u32, Denial>) {
    let offer = if strip_offer { 0 } else { offered(sender) };
    let granted = grant(receiver, offer);
    let seen = if strip_grant { 0 } else { granted.unwrap_or(0) };
    (accept(sender, seen), granted)
}

#[test]
fn a_side_with_a_secret_never_goes_on_without() {
    let secret = right();
    let some = Some(&secret);
    let lacks = Err(Denial::PeerWithoutSecret);
    let needs = Err(Denial::SecretNeeded);
    let cases = [
        (
            "both",
            negotiate(some, some, false, false),
            (Ok(()), Ok(SECRET)),
        ),
        ("none", negotiate(None, None, false, false), (Ok(()), Ok(0))),
        (
            "only the sender",
            negotiate(some, None, false, false),
            (lacks, Ok(0)),
        ),
        (
            "only the receiver",
            negotiate(None, some, false, false),
            (Ok(()), needs),
        ),
        (
            "offer stripped",
            negotiate(some, some, true, false),
            (lacks, needs),
        ),
        (
            "grant stripped",
            negotiate(some, some, false, true),
            (lacks, Ok(SECRET)),
        ),
        (
            "both stripped",
            negotiate(some, some, true, true),
            (lacks, needs),
        ),
    ];
    for (name, got, expected) in cases {
        assert_eq!(got, expected, "{name}");
    }
}

/// Somebody changes a bit of the offer that both sides would go on with.
#[tokio::test]
async fn a_greeting_changed_on_the_way_is_found() {
    let seen_by_receiver = Greetings {
        sender: greeting(SECRET | 4),
        receiver: greeting(SECRET),
    };
    let receiver = Side {
        greetings: seen_by_receiver,
        ..Side::receiver()
    };
    let expected = denied(Denial::WrongSecret);
    let results = exchange(&Side::sender(), &receiver).await;
    assert_eq!(results, (expected.clone(), expected));
}

#[tokio::test]
async fn nothing_behind_the_exchange_is_consumed() {
    let (proof, answers) = recorded().await;
    let (mut near, mut far) = duplex(1024);
    near.write_all(&[&proof[..], b"offers"].concat())
        .await
        .unwrap();
    Side::receiver().demand(&mut far).await.unwrap();
    let mut rest = [0; 6];
    far.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"offers");

    let (mut near, mut far) = duplex(1024);
    far.write_all(&[&answers[..], b"verdict"].concat())
        .await
        .unwrap();
    Side::sender().prove(&mut near).await.unwrap();
    let mut rest = [0; 7];
    near.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"verdict");
}

/// Reads one frame of type `kind` from `bytes`, which must give an error.
async fn read_error(kind: u8, bytes: &[u8]) -> CopyError {
    let mut stream = Builder::new().read(bytes).build();
    let error = if kind == PROOF {
        read_frame::<2, _>(&mut stream, kind).await.unwrap_err()
    } else {
        read_frame::<1, _>(&mut stream, kind).await.unwrap_err()
    };
    // The mock wants all its bytes to be taken; a wrong header leaves its body.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    error
}

fn length(frame: u8, len: u32) -> CopyError {
    ProtocolError::FrameLength { frame, len }.into()
}

fn cut() -> CopyError {
    CopyError::connection(io::ErrorKind::UnexpectedEof.into())
}

#[tokio::test]
async fn hostile_frames_get_typed_errors() {
    let unexpected = |frame| {
        let when = "before the shared secret was proven";
        CopyError::from(ProtocolError::Unexpected { frame, when })
    };
    let proof = frame(PROOF, &[0; 64]);
    let cases: &[(&str, u8, Vec<u8>, CopyError)] = &[
        ("nothing", PROOF, vec![], cut()),
        ("half a header", PROOF, vec![PROOF, 0, 0], cut()),
        ("half a body", PROOF, proof[..40].to_vec(), cut()),
        ("short", PROOF, frame(PROOF, &[0; 63]), length(PROOF, 63)),
        ("long", PROOF, frame(PROOF, &[0; 65]), length(PROOF, 65)),
        (
            "4 GiB",
            PROOF,
            vec![PROOF, 255, 255, 255, 255],
            length(PROOF, u32::MAX),
        ),
        ("empty", PROOF, frame(PROOF, &[]), length(PROOF, 0)),
        ("an offer", PROOF, frame(0x02, &[0; 64]), unexpected(0x02)),
        (
            "a challenge",
            PROOF,
            frame(CHALLENGE, &[0; 32]),
            unexpected(CHALLENGE),
        ),
        ("a proof", CHALLENGE, proof, unexpected(PROOF)),
        (
            "welcome first",
            CHALLENGE,
            frame(WELCOME, &[0; 32]),
            unexpected(WELCOME),
        ),
    ];
    for (name, kind, bytes, expected) in cases {
        assert_eq!(read_error(*kind, bytes).await, *expected, "{name}");
    }
}

#[tokio::test]
async fn fatal_in_place_of_a_frame_is_the_peers_reason() {
    let peer = |message: &str| CopyError::Peer {
        file: None,
        message: message.into(),
    };
    let cases: &[(&str, &[u8], CopyError)] = &[
        ("nothing", &[], length(FATAL, 0)),
        ("long", &[0; 514], length(FATAL, 514)),
        ("needed", &[1], Denial::SecretNeeded.into()),
        ("wrong", b"\x02no", Denial::WrongSecret.into()),
        ("busy", &[3], Denial::Busy.into()),
        ("not allowed", &[4], Denial::NotAllowed.into()),
        ("other", b"\x06bye", peer("bye")),
        ("escape", b"\x06\x1b[2J", peer("\u{fffd}[2J")),
        ("not UTF-8", &[0, 0xff], peer("\u{fffd}")),
    ];
    for (name, body, expected) in cases {
        let error = read_error(CHALLENGE, &frame(FATAL, body)).await;
        assert_eq!(error, *expected, "{name}");
    }
    assert_eq!(read_error(PROOF, &frame(FATAL, b"\0why")[..7]).await, cut());
}

/// Each denial reaches the peer as itself.
#[tokio::test]
async fn denials_reach_the_peer() {
    let told = [
        Denial::SecretNeeded,
        Denial::WrongSecret,
        Denial::Busy,
        Denial::NotAllowed,
    ];
    for denial in told {
        let (mut near, mut far) = duplex(1024);
        assert_eq!(deny(&mut far, denial).await, CopyError::Denied(denial));
        let heard = Side::sender().prove(&mut near).await;
        assert_eq!(heard, denied(denial));
    }
}

/// A wrong try leaves nothing behind: there is no place for it, and the right one still works.
#[tokio::test]
async fn a_thousand_wrong_tries_leave_nothing() {
    assert_eq!(size_of::<Secret>(), 32, "a key, and no list of anything");
    let receiver = Side::receiver();
    for try_number in 0..1_000_u32 {
        let sender = Side {
            secret: secret(&format!("guess number {try_number:020}")),
            ..Side::sender()
        };
        let expected = denied(Denial::WrongSecret);
        let results = exchange(&sender, &receiver).await;
        assert_eq!(results, (expected.clone(), expected), "try {try_number}");
    }
    let results = exchange(&Side::sender(), &receiver).await;
    assert_eq!(results, (Ok(()), Ok(())));
}

#[test]
fn secrets_have_bounds_and_lose_one_line_end() {
    let cases: &[(&str, Vec<u8>, Option<u64>)] = &[
        ("shortest", vec![b'x'; 16], None),
        ("too short", vec![b'x'; 15], Some(15)),
        (
            "too short without its line end",
            b"xxxxxxxxxxxxxxx\n".to_vec(),
            Some(15),
        ),
        ("empty", vec![], Some(0)),
        ("a line end", b"\n".to_vec(), Some(0)),
        ("longest", vec![b'x'; 4096], None),
        (
            "longest and a line end",
            [&[b'x'; 4096][..], b"\r\n"].concat(),
            None,
        ),
        ("too long", vec![b'x'; 4097], Some(4097)),
    ];
    for (name, bytes, wrong_len) in cases {
        let error = Secret::new(bytes).err();
        let expected = wrong_len.map(|len| SecretError::Length { path: None, len }.into());
        assert_eq!(error, expected, "{name}");
    }
    let key = |bytes: &str| secret(bytes).key;
    let plain = key("0123456789abcdef");
    assert_eq!(plain, key("0123456789abcdef\n"));
    assert_eq!(plain, key("0123456789abcdef\r\n"));
    assert_ne!(plain, key("0123456789abcdef\n\n"));
    assert_ne!(plain, key("0123456789abcdef "));
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(
        format!("{:?} {:#?}", right(), right()),
        "Secret(..) Secret(..)"
    );
    let error = Secret::new("hunter2").unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    assert!(
        error.to_string().contains("openssl rand -hex 32"),
        "{error}"
    );
}

fn written(bytes: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, bytes).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    #[cfg(not(unix))]
    let _ = mode;
    (directory, path)
}

#[test]
fn files_are_read_as_their_content() {
    let (_directory, path) = written(b"a secret of the two sides\n", 0o600);
    assert_eq!(Secret::from_file(&path).unwrap().key, right().key);

    for (len, bytes) in [(7, &b"hunter2"[..]), (5_000, &[b'x'; 5_000])] {
        let (_directory, path) = written(bytes, 0o600);
        let error = Secret::from_file(&path).unwrap_err();
        let path = Some(path);
        assert_eq!(error, SecretError::Length { path, len }.into());
    }
    let (directory, _) = written(b"", 0o600);
    let error = Secret::from_file(directory.path()).unwrap_err();
    assert_eq!(error, SecretError::NotAFile(directory.path().into()).into());

    let path = directory.path().join("missing");
    let error = Secret::from_file(&path).unwrap_err();
    let source = Arc::new(io::ErrorKind::NotFound.into());
    assert_eq!(error, SecretError::Read { path, source }.into());
}

#[cfg(unix)]
#[test]
fn files_open_to_others_are_refused() {
    for (mode, is_refused) in [
        (0o600, false),
        (0o400, false),
        (0o700, false),
        (0o640, true),
        (0o604, true),
        (0o620, true),
        (0o601, true),
    ] {
        let (_directory, path) = written(b"a secret of the two sides", mode);
        let error = Secret::from_file(&path).err();
        let expected = is_refused.then(|| SecretError::Exposed { path, mode }.into());
        assert_eq!(error, expected, "{mode:o}");
    }
}

/// As with `ssh`, somebody else's file is not ours to judge. Needs root, which can give files away.
#[cfg(unix)]
#[test]
fn files_of_others_are_taken_as_they_are() {
    let (_directory, path) = written(b"a secret of the two sides", 0o644);
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
        assert_eq!(Secret::from_file(&path).unwrap().key, right().key);
    }
}

#[cfg(unix)]
#[test]
fn named_pipes_are_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let (owner, kind) = (rustix::fs::Mode::RUSR, rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, owner, 0).unwrap();
    let error = Secret::from_file(&path).unwrap_err();
    assert_eq!(error, SecretError::NotAFile(path).into());
}

proptest! {
    #[test]
    fn arbitrary_bytes_prove_nothing_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..700),
        kind in prop::sample::select(vec![PROOF, CHALLENGE, WELCOME, FATAL, 0]),
        len in prop::sample::select(vec![0_u32, 1, 32, 64, 513, u32::MAX]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let input = [&[kind][..], &len.to_be_bytes(), &bytes].concat();
        runtime.block_on(async {
            let (mut near, mut far) = duplex(4096);
            near.write_all(&input).await.unwrap();
            near.shutdown().await.unwrap();
            assert!(Side::receiver().demand(&mut far).await.is_err());
            let (mut near, mut far) = duplex(4096);
            far.write_all(&input).await.unwrap();
            far.shutdown().await.unwrap();
            assert!(Side::sender().prove(&mut near).await.is_err());
        });
    }
}
