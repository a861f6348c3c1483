//! `SeqNumber`: 32-bit serial arithmetic.

use std::ops::Add;

/// A sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(u32);

impl SeqNumber {
    /// Makes a sequence number.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// Returns `self - earlier` modulo 2^32.
    pub const fn distance_from(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    fn add(self, rhs: u32) -> Self {
        Self(self.0.wrapping_add(rhs))
    }
}
