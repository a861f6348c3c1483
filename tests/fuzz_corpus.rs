//! The corpora of the fuzz targets, on the stable toolchain: every file must pass its target.
//!
//! The seeds among them are generated here. After a change to the wire format or to a target's
//! input format, write them again with
//!
//! ```text
//! RELIABLE_UDP_WRITE_SEEDS=1 cargo test --all-features --test fuzz_corpus the_seeds
//! ```
#![cfg(feature = "__internals")]

#[cfg(feature = "copy")]
#[path = "support/copy_fuzz.rs"]
mod copy_fuzz;
#[cfg(feature = "copy")]
#[path = "support/copy_seeds.rs"]
mod copy_seeds;

use std::fs;
use std::path::{Path, PathBuf};

use reliable_udp::internals::fuzz;
use reliable_udp::internals::wire::{
    Extension, FEATURE_CRC32C, Flags, Header, Integrity, Options, SackBlock, SackBlocks, SeqNumber,
    Timestamps, seal,
};

/// A target's name, its entry, and its seeds.
type Target = (&'static str, fn(&[u8]), fn() -> Vec<Seed>);
/// A file's name and its content.
type Seed = (&'static str, Vec<u8>);

const TARGETS: &[Target] = &[
    ("segment", fuzz::segment, segment_seeds),
    ("assembler", fuzz::assembler, assembler_seeds),
    ("controllers", fuzz::controllers, controllers_seeds),
    ("connection", fuzz::connection, connection_seeds),
    #[cfg(feature = "copy")]
    ("copy", copy_fuzz::copy, copy_seeds::copy_seeds),
];

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target)
}

/// Names the file at hand if the target panics.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed on {}", self.0.display());
        }
    }
}

#[test]
fn every_corpus_file_passes() {
    for &(target, run, _) in TARGETS {
        let mut files: Vec<PathBuf> = fs::read_dir(corpus(target))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no corpus for {target}");
        for file in files {
            let running = Running(&file);
            run(&fs::read(running.0).unwrap());
        }
    }
}

#[test]
fn the_seeds_are_committed() {
    let write = std::env::var_os("RELIABLE_UDP_WRITE_SEEDS").is_some();
    for &(target, _, seeds) in TARGETS {
        for (name, content) in seeds() {
            let file = corpus(target).join(name);
            if write {
                fs::create_dir_all(corpus(target)).unwrap();
                fs::write(&file, &content).unwrap();
            }
            assert_eq!(
                fs::read(&file).ok(),
                Some(content),
                "{} is out of date",
                file.display()
            );
        }
    }
}

/// Seeds that end at the first frame try nothing.
#[cfg(feature = "copy")]
#[test]
fn the_seeds_of_copy_reach_what_they_are_for() {
    let mut table = Vec::new();
    for (name, bytes) in copy_seeds::copy_seeds() {
        let outcomes: Vec<String> = copy_fuzz::outcomes(&bytes)
            .into_iter()
            .map(|outcome| match outcome {
                Ok(report) => {
                    let totals = report.totals;
                    format!("{} {}", totals.files_verified, totals.failed)
                }
                Err(error) => error.to_string(),
            })
            .collect();
        table.push((name, outcomes.join("; ")));
    }
    let expected = copy_seeds::OUTCOMES.iter();
    let expected: Vec<_> = expected
        .map(|(name, end)| (*name, (*end).to_owned()))
        .collect();
    assert_eq!(table, expected, "{table:#?}");
}

/// What the fuzzer would do, for those who have none: each seed with some bytes changed, left out,
/// doubled, or taken from another seed. `RELIABLE_UDP_MUTATIONS` says how many, and
/// `RELIABLE_UDP_MUTATION` runs one alone.
#[cfg(feature = "copy")]
#[test]
fn mutations_of_the_seeds_of_copy_pass() {
    let number = |name| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seeds = copy_seeds::copy_seeds();
    let all = match number("RELIABLE_UDP_MUTATION") {
        Some(one) => one..one + 1,
        None => 0..number("RELIABLE_UDP_MUTATIONS").unwrap_or(300),
    };
    for mutation in all {
        let bytes = copy_seeds::mutate(&seeds, mutation);
        let run = std::panic::AssertUnwindSafe(|| copy_fuzz::copy(&bytes));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("failed with RELIABLE_UDP_MUTATION={mutation}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn segment(flags: Flags, options: Options, payload: &[u8], integrity: Integrity) -> Vec<u8> {
    let header = Header {
        src_port: 0xc001,
        dst_port: 1,
        seq: SeqNumber::new(0xffff_ff00),
        ack: if flags.contains(Flags::ACK) {
            SeqNumber::new(1_001)
        } else {
            SeqNumber::default()
        },
        flags,
        window: 0xffff,
        options,
    };
    let mut bytes = vec![0; header.encoded_len()];
    assert_eq!(header.encode(&mut bytes), Some(bytes.len()));
    bytes.extend_from_slice(payload);
    seal(&mut bytes, integrity);
    bytes
}

/// The options of every segment after the handshake.
fn stamped() -> Options {
    let timestamps = Timestamps {
        tsval: 1_000,
        tsecr: 2_000,
    };
    Options {
        timestamps: Some(timestamps),
        ..Options::default()
    }
}

fn handshake_options(token: Option<[u8; 8]>) -> Options {
    let extension = Extension {
        version: 1,
        features: FEATURE_CRC32C,
        ack_delay_ms: 25,
        token,
    };
    Options {
        mss: Some(1_212),
        window_scale: Some(9),
        sack_permitted: true,
        extension: Some(extension),
        ..stamped()
    }
}

fn sack(count: u32) -> Options {
    let mut sack_blocks = SackBlocks::new();
    for i in 0..count {
        let left = 3_000 + 2_000 * i;
        sack_blocks.push(SackBlock {
            left: SeqNumber::new(left),
            right: SeqNumber::new(left + 1_000),
        });
    }
    Options {
        sack_blocks,
        ..Options::default()
    }
}

fn segment_seeds() -> Vec<Seed> {
    let plain = Options::default;
    let push = Flags::ACK | Flags::PSH;
    let mut seeds = vec![
        ("empty", Vec::new()),
        ("ports", vec![0xc0, 1, 0, 1]),
        (
            "syn",
            segment(Flags::SYN, handshake_options(None), b"", Integrity::Sum),
        ),
        (
            "syn_ack",
            segment(
                Flags::SYN | Flags::ACK,
                handshake_options(None),
                b"",
                Integrity::Sum,
            ),
        ),
        (
            "syn_token",
            segment(
                Flags::SYN,
                handshake_options(Some(*b"8 bytes!")),
                b"",
                Integrity::Sum,
            ),
        ),
        ("ack", segment(Flags::ACK, plain(), b"", Integrity::Crc32c)),
        ("data_sum", segment(push, stamped(), b"odd", Integrity::Sum)),
        (
            "data_crc",
            segment(push, stamped(), b"even", Integrity::Crc32c),
        ),
        (
            "fin",
            segment(
                Flags::FIN | Flags::ACK,
                stamped(),
                b"end",
                Integrity::Crc32c,
            ),
        ),
        ("rst", segment(Flags::RST, plain(), b"", Integrity::Sum)),
        (
            "ecn",
            segment(
                Flags::ACK | Flags::ECE | Flags::CWR,
                plain(),
                b"",
                Integrity::Sum,
            ),
        ),
        (
            "sack_1",
            segment(Flags::ACK, sack(1), b"", Integrity::Crc32c),
        ),
        (
            "sack_4",
            segment(Flags::ACK, sack(4), b"", Integrity::Crc32c),
        ),
    ];
    // Damage: a header cut short, an offset beyond the end, an option longer than its room.
    let syn = segment(Flags::SYN, handshake_options(None), b"", Integrity::Sum);
    seeds.push(("cut", syn.iter().copied().take(19).collect()));
    let patched = |at: usize, value: u8| {
        let mut bytes = syn.clone();
        bytes[at] = value;
        bytes
    };
    seeds.push(("offset_beyond", patched(12, 0xf0)));
    seeds.push(("option_length_0", patched(21, 0)));
    seeds.push(("option_length_255", patched(21, 255)));
    seeds.push(("option_unknown", patched(20, 99)));
    seeds
}

/// Ranges as pairs of 16-bit start and 8-bit length: the shapes that reassembly meets.
fn assembler_seeds() -> Vec<Seed> {
    fn ranges(list: impl IntoIterator<Item = (u16, u8)>) -> Vec<u8> {
        list.into_iter()
            .flat_map(|(start, len)| [start.to_le_bytes()[0], start.to_le_bytes()[1], len])
            .collect()
    }
    vec![
        ("in_order", ranges((0..32).map(|i| (i * 100, 100)))),
        ("reversed", ranges((0..32).rev().map(|i| (i * 100, 100)))),
        (
            "every_second_then_the_rest",
            ranges((0..32).map(|i| (i * 2 % 33 * 100, 100))),
        ),
        ("overlapping", ranges((0..32).map(|i| (i * 50, 150)))),
        ("one_byte_gaps", ranges((0..64).map(|i| (i * 2 + 1, 1)))),
        ("duplicates", ranges((0..32).map(|i| (i / 4 * 100, 100)))),
        ("empty_ranges", ranges((0..8).map(|i| (i * 100, 0)))),
    ]
}

/// Possible events, two bytes each, and impossible ones, four bytes each, behind four bytes of parameters.
fn controllers_seeds() -> Vec<Seed> {
    /// Of 1,000 bytes per segment, with an initial window of ten and paced.
    fn possible(events: &[(u8, u8)]) -> Vec<u8> {
        let mut bytes = vec![0, 2, 3, 0];
        bytes.extend(events.iter().flat_map(|&(event, amount)| [event, amount]));
        bytes
    }
    const SEND: (u8, u8) = (0, 0);
    const ROUND: (u8, u8) = (6, 0);
    const EXIT: (u8, u8) = (10, 0);
    const UNDO: (u8, u8) = (12, 0);
    let lossy = [ROUND, ROUND, SEND, (7, 2), (3, 4), (9, 1), (131, 2), EXIT];
    let marked = [ROUND, SEND, (8, 0), (131, 1), EXIT, SEND, (8, 0), EXIT];
    let timed_out = [
        ROUND,
        SEND,
        (11, 0),
        (11, 0),
        (2, 0),
        ROUND,
        SEND,
        (11, 0),
        UNDO,
    ];
    let resized = [
        ROUND,
        (14, 4),
        ROUND,
        (14, 0),
        SEND,
        (7, 0),
        (14, 5),
        EXIT,
        ROUND,
    ];
    let timeless = [
        (15, 0),
        ROUND,
        ROUND,
        SEND,
        (7, 0),
        EXIT,
        ROUND,
        (95, 5),
        ROUND,
    ];
    let idle = [
        ROUND,
        (63, 3),
        (13, 1),
        SEND,
        (5, 0),
        (79, 3),
        (13, 0),
        (1, 1),
        (5, 0),
    ];
    let every_kind = |flags: u8, a: u8, b: u8| {
        let mut bytes = vec![1, 2, 3, 1];
        bytes.extend((0..32).flat_map(|kind| [kind, flags, a, b]));
        bytes
    };
    vec![
        ("lossy", possible(&lossy.repeat(3))),
        ("marked", possible(&marked.repeat(4))),
        ("timed_out", possible(&timed_out.repeat(2))),
        (
            "undone",
            possible(&[&lossy[..4], &[UNDO, ROUND], &lossy].concat()),
        ),
        ("resized", possible(&resized)),
        ("timeless", possible(&timeless.repeat(2))),
        ("idle", possible(&idle.repeat(2))),
        ("slow_start", possible(&[ROUND; 60])),
        ("largest", every_kind(0xff, 64, 64)),
        ("smallest", every_kind(0xff, 192, 192)),
        ("small_and_large", every_kind(0x55, 192, 64)),
        ("events", (1..=255).collect()),
        (
            "events_spread",
            (1..=255_u8).map(|i| i.wrapping_mul(37)).collect(),
        ),
    ]
}

/// A handshake, data and the close, each segment behind an opcode and its length, and streams of
/// operations without segments.
fn connection_seeds() -> Vec<Seed> {
    let session = [
        segment(
            Flags::SYN | Flags::ACK,
            handshake_options(None),
            b"",
            Integrity::Sum,
        ),
        segment(Flags::ACK, stamped(), b"", Integrity::Crc32c),
        segment(
            Flags::ACK | Flags::PSH,
            stamped(),
            b"some data",
            Integrity::Crc32c,
        ),
        segment(Flags::ACK, sack(2), b"", Integrity::Crc32c),
        segment(Flags::FIN | Flags::ACK, stamped(), b"", Integrity::Crc32c),
        segment(Flags::RST, Options::default(), b"", Integrity::Crc32c),
    ];
    let mut bytes = Vec::new();
    for (opcode, segment) in (0_u8..).zip(&session) {
        bytes.push(opcode);
        bytes.push(segment.len().to_le_bytes()[0]);
        bytes.extend_from_slice(segment);
    }
    vec![
        ("session", bytes),
        ("operations", (0..=255).collect()),
        ("operations_reversed", (0..=255).rev().collect()),
        (
            "operations_spread",
            (0..=255_u8).map(|i| i.wrapping_mul(37)).collect(),
        ),
    ]
}
