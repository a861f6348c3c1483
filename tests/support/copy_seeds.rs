//! Sessions of the file copy, written by hand, as seeds of the fuzz target `copy`; and mutations of them.

#![allow(
    clippy::unwrap_used,
    reason = "test code, outside the test functions"
)]

use super::Seed;
use super::copy_fuzz::{
    AGAIN, GREETED, KEEP, LITTLE, OPTIONS, PORTABLE, SECRET, SENDER, SILENT, VERIFY, frame,
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
    frame(4, &[&id.to_be_bytes()[..], &attributes(mode), path].concat())
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
    [offer, content(id, 0), frame(6, bytes), end(bytes)].concat()
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

/// How the sessions of some seeds end: files verified and what failed, or the error.
pub(super) const OUTCOMES: [(&str, &str); 1] = [
    ("r_tree", "?"),
];

fn to_receivers() -> Vec<Seed> {
    let overwrite = 1 << OPTIONS;
    let dry = 2 << OPTIONS;
    let plain = 4 << OPTIONS;
    let tree = [
        whole(0, b"tree/a", b"one"),
        whole(1, b"tree/empty", b""),
        link(2, b"../tree/a", b"tree/deep/link"),
        file(3, [1, 5], 9, Some(*blake3::hash(b"was there").as_bytes()), b"there"),
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
    let attacks = [
        whole(0, b"../canary/file", b"croaks"),
        whole(1, b"/canary", b"croaks"),
        whole(2, b"out/file", b"croaks"),
        whole(3, b"in/file", b"stays"),
        link(4, b"../../canary", b"tree/x"),
        link(5, b"../directory", b"tree/y"),
        link(6, b"b", b"out/z"),
        link(7, b"../canary", b"directory/c"),
        whole(8, b"tree/y/file", b"where"),
        whole(9, b".reliable-udp-0123456789abcdef.part", b"ours"),
        whole(10, b"A", b"upper"),
        whole(11, b"a", b"lower"),
        whole(12, b"con", b"device"),
        seal(13, 0o7777, b"out"),
        seal(14, 0o000, b"directory"),
        whole(15, b"directory", b"is one"),
        whole(16, b"there/below", b"a file"),
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
    let replaced = [
        whole(0, b"there", b"is there"),
        whole(1, b"there", b"is there again"),
        link(2, b"x/y", b"directory/there"),
        whole(3, b"directory/there", b"no link"),
        done(),
    ];
    vec![
        ("empty", Vec::new()),
        ("r_tree", seed(GREETED, 0, &tree)),
        ("r_tree_again", seed(GREETED | AGAIN, 0, &tree)),
        ("r_tree_dry", seed(GREETED | dry, 0, &tree)),
        ("r_tree_plain", seed(GREETED | plain | AGAIN, VERIFY, &tree)),
        ("r_tree_secret", seed(GREETED | SECRET, 0, &tree)),
        ("r_tree_little", seed(GREETED, LITTLE, &tree)),
        ("r_attacks", seed(GREETED, 0, &attacks)),
        ("r_attacks_portable", seed(GREETED | overwrite, PORTABLE, &attacks)),
        ("r_wrong", seed(GREETED, SILENT, &wrong)),
        ("r_replaced", seed(GREETED | overwrite, 0, &replaced)),
        ("r_kept", seed(GREETED | overwrite, KEEP, &replaced)),
        ("r_greeting", seed(0, 0, &[greeting(2, 2, 0), frame(1, &[0; 4]), done()])),
        ("r_greeting_other", seed(0, SILENT, &[greeting(3, 9, 1)])),
        ("r_greeting_secret", seed(SECRET, 0, &[greeting(1, 2, 1), frame(14, &[3; 64])])),
        ("r_fatal", seed(GREETED, 0, &[whole(0, b"a", b"b"), fatal(6, b"bye")])),
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
    let cut = [file(0, [1, 5], size, None, b"large"), content(0, 0), blocks(0, 6)];
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
        ("r_large_again", seed(GREETED | AGAIN, VERIFY, &large(0))),
        ("r_large_wrong_place", seed(GREETED, 0, &large(4 * BLOCK))),
        ("r_large_cut", seed(GREETED | AGAIN, 0, &cut)),
        ("r_large_cut_recheck", seed(GREETED | AGAIN | recheck, 0, &cut)),
        ("r_sparse", seed(GREETED, 0, &sparse)),
        ("r_two", seed(GREETED | (1 << OPTIONS), 0, &two)),
    ]
}

fn to_senders() -> Vec<Seed> {
    // The first offers are 0 to 3 in some order: whatever fits none is an end like any other.
    let needs: Vec<_> = (0..4).map(|id| need(id, 0, &[])).collect();
    let refused = [
        verdict(0, 3, &[10]),
        verdict(1, 4, b"\x01no space"),
        verdict(2, 5, &[]),
        verdict(3, 6, &[]),
        working(3),
    ];
    let mismatched = [need(0, 0, &[]), verdict(0, 2, &[]), need(1, 0, &[]), verdict(1, 2, &[])];
    let verified = [
        needs.concat(),
        verdict(0, 0, blake3::hash(b"small").as_bytes()),
        verdict(1, 0, blake3::hash(b"").as_bytes()),
    ];
    let planned: Vec<_> = (0..6).map(|id| verdict(id, 7, &[])).collect();
    let resumed = [
        need(0, BLOCK, &[[1; 32]]),
        need(1, BLOCK, &[[1; 32]]),
        need(2, 2 * BLOCK, &[[2; 32]]),
    ];
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
        ("s_resumed", seed(greeted, SILENT, &resumed)),
        ("s_bye", seed(greeted, 0, &[frame(0x83, &[])])),
        ("s_fatal", seed(greeted, 0, &[fatal(3, b"busy")])),
        ("s_greeting", seed(SENDER, SILENT, &[greeting(2, 2, 0)])),
        ("s_greeting_none", seed(SENDER, 0, &[greeting(0, 0, 0)])),
        ("s_greeting_secret", seed(SENDER | SECRET, 0, &[greeting(2, 2, 1), frame(0x85, &[1; 32])])),
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
