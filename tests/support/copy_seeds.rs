//! Sessions of the file copy, written by hand, as seeds of the fuzz target `copy`; and mutations of them.

#![allow(clippy::unwrap_used, reason = "test code, outside the test functions")]

use super::Seed;
use super::copy_fuzz::{
    AGAIN, GREETED, KEEP, LITTLE, OPTIONS, PAUSE, PORTABLE, SECRET, SENDER, SILENT, VERIFY, frame,
    large,
};

const BLOCK: u64 = 1 << 20;

fn attributes(mode: u32) -> Vec<u8> {
    let mtime = 1_600_000_000_i64.to_be_bytes();
    [&mode.to_be_bytes()[..], &mtime, &7_u32.to_be_bytes()].concat()
}

fn file(id: u64, attempts: [u8; 2], size: u64, digest: Option<[u8; 32]>, path: &[u8]) -> Vec<u8> {
    let digest = digest.map(|digest| [&[32], &digest[..]].concat());
    let body = [
        &id.to_be_bytes()[..],
        &attempts,
        &size.to_be_bytes(),
        &attributes(0o640),
        &[7; 16],
        &digest.unwrap_or_else(|| vec![0]),
        path,
    ];
    frame(2, &body.concat())
}

fn link(id: u64, target: &[u8], path: &[u8]) -> Vec<u8> {
    let len = u16::try_from(target.len()).unwrap().to_be_bytes();
    let body = [
        &id.to_be_bytes()[..],
        &attributes(0o777),
        &len,
        target,
        path,
    ];
    frame(3, &body.concat())
}

fn seal(id: u64, mode: u32, path: &[u8]) -> Vec<u8> {
    frame(
        4,
        &[&id.to_be_bytes()[..], &attributes(mode), path].concat(),
    )
}

fn content(id: u64, from: u64) -> Vec<u8> {
    frame(5, &[id.to_be_bytes(), from.to_be_bytes()].concat())
}

fn hole(len: u64) -> Vec<u8> {
    frame(7, &len.to_be_bytes())
}

fn end(content: &[u8]) -> Vec<u8> {
    frame(9, blake3::hash(content).as_bytes())
}

fn withdraw(id: u64, reason: u8) -> Vec<u8> {
    frame(10, &[&id.to_be_bytes()[..], &[reason]].concat())
}

fn ask(id: u64) -> Vec<u8> {
    frame(11, &id.to_be_bytes())
}

fn done() -> Vec<u8> {
    frame(12, &[])
}

fn working(number: u64) -> Vec<u8> {
    frame(0x82, &number.to_be_bytes())
}

/// A whole file of one block.
fn whole(id: u64, path: &[u8], bytes: &[u8]) -> Vec<u8> {
    let offer = file(id, [1, 5], bytes.len() as u64, None, path);
    let data = (!bytes.is_empty()).then(|| frame(6, bytes));
    [offer, content(id, 0), data.unwrap_or_default(), end(bytes)].concat()
}

/// The blocks of a file of holes, with a few bytes at the end of each third block, from a block on.
fn blocks(from: u64, to: u64) -> Vec<u8> {
    use blake3::hazmat::HasherExt;
    let mut frames = Vec::new();
    for index in from..to {
        let tail: &[u8] = if index % 3 == 2 { b"the end" } else { b"" };
        let zeros = BLOCK - tail.len() as u64;
        frames.extend(hole(zeros));
        if !tail.is_empty() {
            frames.extend(frame(6, tail));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(index * BLOCK);
        hasher.update(&vec![0; usize::try_from(zeros).unwrap()]);
        hasher.update(tail);
        let cv = hasher.finalize_non_root();
        frames.extend(frame(8, &cv));
    }
    frames
}

fn of_blocks(to: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(to * BLOCK).unwrap()];
    for index in (2..to).step_by(3) {
        let end = usize::try_from((index + 1) * BLOCK).unwrap();
        bytes[end - 7..end].copy_from_slice(b"the end");
    }
    bytes
}

fn verdict(id: u64, kind: u8, rest: &[u8]) -> Vec<u8> {
    frame(0x81, &[&id.to_be_bytes()[..], &[kind], rest].concat())
}

fn need(id: u64, from: u64, stack: &[[u8; 32]]) -> Vec<u8> {
    let fixed = [id.to_be_bytes(), from.to_be_bytes()].concat();
    frame(0x84, &[fixed, stack.concat()].concat())
}

fn fatal(code: u8, text: &[u8]) -> Vec<u8> {
    frame(0xff, &[&[code], text].concat())
}

fn greeting(min: u8, max: u8, features: u8) -> Vec<u8> {
    [&b"rudpcopy\0"[..], &[min, 0, max, 0, 0, 0, features]].concat()
}

/// Frames behind the two bytes of parameters.
fn seed(first: u8, second: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    [&[first, second], &frames.concat()[..]].concat()
}

pub(super) fn copy_seeds() -> Vec<Seed> {
    let mut seeds = to_receivers();
    seeds.extend(large_to_receivers());
    seeds.extend(to_senders());
    seeds
}

/// How the sessions of the seeds end: files verified and what failed, or the error.
pub(super) const OUTCOMES: &[(&str, &str)] = &[
    ("empty", ""),
    ("r_tree", "2 1"),
    ("r_again", "connection lost; 1 0"),
    ("r_planned", "0 0"),
    ("r_tree_plain", "2 1"),
    ("r_tree_secret", "2 1"),
    ("r_tree_little", "the peer broke the copy protocol"),
    ("r_attacks", "4 11"),
    ("r_portable", "1 4"),
    ("r_wrong", "1 0"),
    ("r_replaced", "2 1"),
    ("r_kept", "0 1"),
    ("r_greeting", "0 0"),
    (
        "r_greeting_other",
        "no common version: the peer speaks 3 to 9, this side 2",
    ),
    (
        "r_greeting_secret",
        "wrong shared secret: the sender did not prove to know the receiver's",
    ),
    ("r_fatal", "the peer ended the copy: bye"),
    ("r_large", "1 0"),
    ("r_large_on", "connection lost during large; 1 0"),
    ("r_large_on_recheck", "connection lost during large; 1 0"),
    ("r_large_again", "1 0; the peer broke the copy protocol"),
    ("r_large_wrong_place", "the peer broke the copy protocol"),
    (
        "r_large_cut",
        "connection lost during large; the peer broke the copy protocol",
    ),
    (
        "r_large_cut_recheck",
        "connection lost during large; the peer broke the copy protocol",
    ),
    ("r_sparse", "1 0"),
    ("r_two", "1 1"),
    ("s_needs", "connection lost"),
    ("s_needs_secret", "connection lost"),
    ("s_refused", "0 2"),
    ("s_mismatched", "connection lost"),
    ("s_verified", "3 0"),
    ("s_planned", "0 0"),
    ("s_planned_hashes", "0 0"),
    ("s_too_far", "connection lost during large"),
    ("s_resumed", "connection lost"),
    ("s_bye", "the peer broke the copy protocol during large"),
    (
        "s_fatal",
        "the receiver is busy with as many sessions as it may serve",
    ),
    ("s_greeting", "connection lost"),
    (
        "s_greeting_none",
        "no common version: the peer speaks 0 to 0, this side 2",
    ),
    ("s_greeting_secret", "connection lost"),
];

#[expect(clippy::too_many_lines, reason = "a table of sessions")]
fn to_receivers() -> Vec<Seed> {
    let overwrite = 1 << OPTIONS;
    let dry = 2 << OPTIONS;
    let plain = 4 << OPTIONS;
    let tree = [
        whole(0, b"tree/a", b"one"),
        whole(1, b"tree/empty", b""),
        link(2, b"../tree/a", b"tree/deep/link"),
        file(
            3,
            [1, 5],
            9,
            Some(*blake3::hash(b"was there").as_bytes()),
            b"there",
        ),
        file(4, [1, 2], 3, None, b"tree/gone"),
        withdraw(4, 0),
        ask(4),
        working(9),
        file(5, [2, 2], 3, None, b"tree/gone"),
        content(5, 0),
        frame(6, b"x"),
        withdraw(5, 1),
        seal(6, 0o755, b"tree/deep"),
        seal(7, 0o750, b"tree"),
        done(),
    ];
    let offer = |id, path: &[u8]| file(id, [1, 1], 6, None, path);
    let attacks = [
        offer(0, b"../canary/file"),
        offer(1, b"/canary"),
        offer(2, b"out/file"),
        whole(3, b"in/file", b"stays"),
        link(4, b"../../canary", b"tree/x"),
        link(5, b"directory", b"tree/y"),
        link(6, b"b", b"out/z"),
        link(7, b"../canary", b"directory/c"),
        whole(8, b"tree/directory/file", b"where"),
        offer(9, b".reliable-udp-0123456789abcdef.part"),
        whole(10, b"A", b"upper"),
        offer(11, b"out"),
        offer(12, b"directory"),
        seal(13, 0o7777, b"out"),
        seal(14, 0o700, b"directory"),
        offer(15, b"there/below"),
        whole(16, b"tree/y/file2", b"through a link"),
        done(),
    ];
    let portable = [
        whole(0, b"A", b"upper"),
        offer(1, b"a"),
        offer(2, b"con"),
        offer(3, b"THERE"),
        offer(4, b"x/aux.txt"),
        done(),
    ];
    let wrong = [
        file(0, [1, 2], 3, None, b"wrong"),
        content(0, 0),
        frame(6, b"abc"),
        end(b"abd"),
        ask(0),
        file(1, [2, 2], 3, None, b"wrong"),
        content(1, 0),
        frame(6, b"abc"),
        end(b"abc"),
        done(),
    ];
    let kept = [
        offer(0, b"there"),
        link(1, b"x", b"directory/there"),
        done(),
    ];
    let planned = [
        offer(0, b"tree/a"),
        offer(1, b"there"),
        link(2, b"a", b"tree/b"),
        seal(3, 0o755, b"tree"),
        done(),
    ];
    let again = [
        whole(0, b"a", b"one"),
        PAUSE.to_vec(),
        file(0, [1, 5], 3, None, b"a"),
        whole(1, b"b", b"two"),
        done(),
    ];
    let replaced = [
        whole(0, b"there", b"is there"),
        whole(1, b"there", b"is there again"),
        link(2, b"x/y", b"directory/there"),
        offer(3, b"directory/there"),
        done(),
    ];
    vec![
        ("empty", Vec::new()),
        ("r_tree", seed(GREETED, 0, &tree)),
        ("r_again", seed(GREETED | AGAIN, 0, &again)),
        ("r_planned", seed(GREETED | dry | overwrite, 0, &planned)),
        ("r_tree_plain", seed(GREETED | plain, VERIFY, &tree)),
        ("r_tree_secret", seed(GREETED | SECRET, 0, &tree)),
        ("r_tree_little", seed(GREETED, LITTLE, &tree)),
        ("r_attacks", seed(GREETED, 0, &attacks)),
        ("r_portable", seed(GREETED | overwrite, PORTABLE, &portable)),
        ("r_wrong", seed(GREETED, SILENT, &wrong)),
        ("r_replaced", seed(GREETED | overwrite, 0, &replaced)),
        ("r_kept", seed(GREETED | overwrite, KEEP, &kept)),
        (
            "r_greeting",
            seed(0, 0, &[greeting(2, 2, 0), frame(1, &[0; 4]), done()]),
        ),
        ("r_greeting_other", seed(0, SILENT, &[greeting(3, 9, 1)])),
        (
            "r_greeting_secret",
            seed(SECRET, 0, &[greeting(1, 2, 1), frame(14, &[3; 64])]),
        ),
        (
            "r_fatal",
            seed(GREETED, 0, &[whole(0, b"a", b"b"), fatal(6, b"bye")]),
        ),
    ]
}

fn large_to_receivers() -> Vec<Seed> {
    let size = 7 * BLOCK;
    let large = |from| {
        [
            file(0, [1, 5], size, None, b"large"),
            content(0, from),
            blocks(from / BLOCK, 7),
            end(&of_blocks(7)),
            done(),
        ]
    };
    // Cut where one checkpoint is past; the second session names the place, or is told it is wrong.
    let large_on = |from: u64| {
        [
            file(0, [1, 5], size, None, b"large"),
            content(0, 0),
            blocks(0, 6),
            PAUSE.to_vec(),
            file(0, [1, 5], size, None, b"large"),
            content(0, from),
            blocks(from / BLOCK, 7),
            end(&of_blocks(7)),
            done(),
        ]
    };
    let cut = [
        file(0, [1, 5], size, None, b"large"),
        content(0, 0),
        blocks(0, 6),
    ];
    let sparse = [
        file(0, [1, 1], 1000, None, b"hole"),
        content(0, 0),
        hole(990),
        frame(6, b"0123456789"),
        end(&[&[0; 990][..], b"0123456789"].concat()),
        done(),
    ];
    let two = [
        file(0, [1, 5], 2 * BLOCK, None, b"same"),
        file(1, [1, 5], 2 * BLOCK, None, b"same"),
        content(1, 0),
        blocks(0, 2),
        end(&of_blocks(2)),
        content(0, 0),
        blocks(0, 1),
        withdraw(0, 2),
        done(),
    ];
    let recheck = 8 << OPTIONS;
    vec![
        ("r_large", seed(GREETED, 0, &large(0))),
        ("r_large_on", seed(GREETED | AGAIN, 0, &large_on(4 * BLOCK))),
        (
            "r_large_on_recheck",
            seed(GREETED | AGAIN | recheck, 0, &large_on(4 * BLOCK)),
        ),
        ("r_large_again", seed(GREETED | AGAIN, VERIFY, &large(0))),
        ("r_large_wrong_place", seed(GREETED, 0, &large(4 * BLOCK))),
        ("r_large_cut", seed(GREETED | AGAIN, 0, &cut)),
        (
            "r_large_cut_recheck",
            seed(GREETED | AGAIN | recheck, 0, &cut),
        ),
        ("r_sparse", seed(GREETED, 0, &sparse)),
        ("r_two", seed(GREETED | (1 << OPTIONS), 0, &two)),
    ]
}

fn to_senders() -> Vec<Seed> {
    let pause = || PAUSE.to_vec();
    // After the offers.
    let needs = [pause(), need(0, 0, &[]), need(1, 0, &[]), need(2, 0, &[])];
    let placed = |id: u64, content: &[u8]| verdict(id, 0, blake3::hash(content).as_bytes());
    let ends = [
        verdict(3, 1, &[]),
        pause(),
        verdict(4, 1, &[]),
        verdict(5, 1, &[]),
        pause(),
        frame(0x83, &[]),
    ];
    let verified = [
        needs.concat(),
        pause(),
        placed(0, &large()),
        placed(1, b""),
        placed(2, b"small"),
        ends.concat(),
    ];
    let refused = [
        pause(),
        verdict(0, 3, &[10]),
        verdict(1, 4, b"\x01no space"),
        verdict(2, 6, &[]),
        working(3),
        ends.concat(),
    ];
    let mismatched = [
        needs.concat(),
        pause(),
        verdict(0, 2, &[]),
        verdict(1, 2, &[]),
        verdict(2, 5, &[]),
        verdict(3, 1, &[]),
        pause(),
        need(4, 0, &[]),
        need(5, 0, &[]),
    ];
    let planned: Vec<_> = [pause()]
        .into_iter()
        .chain((0..4).map(|id| verdict(id, 7, &[])))
        .chain([pause(), verdict(4, 7, &[]), verdict(5, 7, &[])])
        .chain([pause(), frame(0x83, &[])])
        .collect();
    let resumed = [
        pause(),
        need(0, BLOCK, &[[1; 32]]),
        pause(),
        verdict(0, 2, &[]),
    ];
    let too_far = [pause(), need(0, 3 * BLOCK, &[[1; 32], [2; 32]])];
    let dry = 2 << OPTIONS;
    let greeted = SENDER | GREETED;
    vec![
        ("s_needs", seed(greeted, SILENT, &needs)),
        ("s_needs_secret", seed(greeted | SECRET, SILENT, &needs)),
        ("s_refused", seed(greeted, SILENT, &refused)),
        ("s_mismatched", seed(greeted, SILENT, &mismatched)),
        ("s_verified", seed(greeted, SILENT, &verified)),
        ("s_planned", seed(greeted | dry, SILENT, &planned)),
        ("s_planned_hashes", seed(greeted | dry | AGAIN, 0, &planned)),
        ("s_too_far", seed(greeted, 0, &too_far)),
        ("s_resumed", seed(greeted, SILENT, &resumed)),
        ("s_bye", seed(greeted, 0, &[pause(), frame(0x83, &[])])),
        ("s_fatal", seed(greeted, 0, &[pause(), fatal(3, b"busy")])),
        ("s_greeting", seed(SENDER, SILENT, &[greeting(2, 2, 0)])),
        ("s_greeting_none", seed(SENDER, 0, &[greeting(0, 0, 0)])),
        (
            "s_greeting_secret",
            seed(
                SENDER | SECRET,
                0,
                &[greeting(2, 2, 1), frame(0x85, &[1; 32])],
            ),
        ),
    ]
}

/// The mutation of that number.
pub(super) fn mutate(seeds: &[Seed], number: u64) -> Vec<u8> {
    let mut state = number;
    let mut below = |bound: usize| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % u64::try_from(bound.max(1)).unwrap()).unwrap()
    };
    let mut bytes = seeds[below(seeds.len())].1.clone();
    for _ in 0..=below(4) {
        let at = below(bytes.len());
        let to = at + below((bytes.len() - at).min(64) + 1);
        match below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 2, 0x7f, 0x80, 0xff][below(6)],
            2 => drop(bytes.drain(at..to)),
            3 => {
                let piece = bytes[at..to].to_vec();
                let place = below(bytes.len());
                bytes.splice(place..place, piece);
            }
            4 => {
                let other = &seeds[below(seeds.len())].1;
                let start = below(other.len());
                bytes.splice(at..to, other[start..].iter().copied().take(200));
            }
            5 => bytes.truncate(at),
            // The parameters.
            _ if bytes.len() > 1 => bytes[below(2)] ^= 1 << below(8),
            _ => {}
        }
    }
    bytes
}
