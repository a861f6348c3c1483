//! A disk that lies, to try out what is done about it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Disk, PAGE_LEN, PlainDisk};

/// The chance that a page is damaged in one read or write, by level, in units of 2⁻³²: 0.001, 0.003,
/// 0.01, 0.03 and 0.1.
const CHANCES: [u32; 5] = [4_294_967, 12_884_902, 42_949_673, 128_849_019, 429_496_730];

/// Flips one bit in some of the pages that are read or written.
///
/// What happens is a function of the seed and of the number of operations before.
#[derive(Debug)]
pub(super) struct NastyDisk {
    chance: u32,
    seed: u64,
    operations: AtomicU64,
    /// How many bits were flipped.
    pub(super) flips: AtomicU64,
}

impl NastyDisk {
    /// Makes a disk of a level from 1 to 5; others are taken for the nearest.
    pub(super) fn new(level: u8, seed: u64) -> Self {
        let level = usize::from(level.clamp(1, 5));
        Self {
            chance: CHANCES.get(level - 1).copied().unwrap_or(u32::MAX),
            seed,
            operations: AtomicU64::new(0),
            flips: AtomicU64::new(0),
        }
    }

    fn damage(&self, bytes: &mut [u8]) {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        let mut state = self.seed ^ operation.wrapping_mul(0xd134_2543_de82_ef95);
        for page in bytes.chunks_mut(PAGE_LEN) {
            let (dice, place) = (next(&mut state), next(&mut state));
            // The upper half is the dice.
            if dice >> 32 >= u64::from(self.chance) {
                continue;
            }
            let bits = u64::try_from(page.len()).unwrap_or(u64::MAX) * 8;
            let bit = usize::try_from(place % bits.max(1)).unwrap_or(0);
            if let Some(byte) = page.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
                self.flips.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Disk for NastyDisk {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = PlainDisk.read_at(file, buf, offset)?;
        self.damage(buf.get_mut(..read).unwrap_or_default());
        Ok(read)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut bytes = bytes.to_vec();
        self.damage(&mut bytes);
        PlainDisk.write_at(file, &bytes, offset)
    }
}

/// `SplitMix64`: short, and good enough for where a bit flips.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_damages_its_share_of_pages_and_the_seed_says_which() {
        for (level, expected) in [(1, 10), (2, 30), (3, 100), (4, 300), (5, 1000)] {
            let damaged = |seed| {
                let disk = NastyDisk::new(level, seed);
                let mut bytes = vec![0; 10_000 * PAGE_LEN];
                bytes
                    .chunks_mut(25 * PAGE_LEN)
                    .for_each(|operation| disk.damage(operation));
                let ones: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
                assert_eq!(ones, disk.flips.into_inner());
                assert!(
                    (expected / 2..expected * 2).contains(&ones),
                    "{level}: {ones}"
                );
                blake3::hash(&bytes)
            };
            assert_eq!(damaged(1), damaged(1));
            assert_ne!(damaged(1), damaged(2));
        }
    }
}
