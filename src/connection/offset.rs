//! `Offset`: a 64-bit position in one direction's stream, and the crossing to 32-bit sequence numbers.
//!
//! Arriving sequence numbers are widened once, in `ingress`, relative to a reference inside the
//! current window; departing ones are narrowed once, in `egress`. Everything in between compares
//! offsets with ordinary order and never sees wrap-around.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, AddAssign};

use crate::wire::SeqNumber;

/// A position in a stream, counted from the initial sequence number (RFC 9293 §3.4): the SYN
/// occupies 0, the first byte is 1, and the FIN follows the last byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(
    /// One more than the position, so that an `Option` takes no more memory.
    NonZeroU64,
);

impl Offset {
    /// The SYN's position.
    pub const ZERO: Self = Self::new(0);
    /// The first data byte's position.
    pub const FIRST: Self = Self::new(1);

    /// Makes an offset from a count of sequence numbers after the ISN.
    pub const fn new(position: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(position))
    }

    /// Returns the count of sequence numbers after the ISN.
    pub const fn get(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns `self - earlier`, or 0 if `earlier` lies beyond `self`.
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }

    /// Returns `self - bytes`, or the ISN's position.
    #[must_use]
    pub const fn saturating_back(self, bytes: u64) -> Self {
        Self::new(self.get().saturating_sub(bytes))
    }

    /// Widens `seq` to the offset nearest to `near`, or `None` if that lies before the ISN.
    ///
    /// `near` has to be within 2^31 of the truth, which holds for every acceptable segment: windows
    /// are at most 2^30 (RFC 7323 §2.3). A distance of exactly 2^31 is taken as ahead of `near`.
    pub fn widen(seq: SeqNumber, isn: SeqNumber, near: Self) -> Option<Self> {
        let near_seq = near.narrow(isn);
        let ahead = seq.distance_from(near_seq);
        if ahead <= 1 << 31 {
            near.0.checked_add(u64::from(ahead)).map(Self)
        } else {
            let behind = (1_u64 << 32) - u64::from(ahead);
            near.get().checked_sub(behind).map(Self::new)
        }
    }

    /// Narrows to the sequence number of this position.
    pub fn narrow(self, isn: SeqNumber) -> SeqNumber {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "sequence numbers are taken modulo 2^32"
        )]
        let low = self.get() as u32;
        isn + low
    }
}

impl Default for Offset {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<u64> for Offset {
    type Output = Self;

    fn add(self, rhs: u64) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl AddAssign<u64> for Offset {
    fn add_assign(&mut self, rhs: u64) {
        *self = *self + rhs;
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.get())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn widening_crosses_the_wrap_in_both_directions() {
        let isn = SeqNumber::new(u32::MAX - 10);
        let near = Offset::new(100);
        for position in [90_u64, 99, 100, 101, 110, 4_000] {
            let offset = Offset::new(position);
            assert_eq!(
                Offset::widen(offset.narrow(isn), isn, near),
                Some(offset),
                "{position}"
            );
        }
    }

    #[test]
    fn a_number_before_the_isn_has_no_offset() {
        let isn = SeqNumber::new(1_000);
        assert_eq!(Offset::widen(SeqNumber::new(999), isn, Offset::FIRST), None);
    }

    proptest! {
        #[test]
        fn widen_undoes_narrow_within_half_the_space(
            isn: u32,
            near in 0..u64::from(u32::MAX) * 8,
            distance in -(1_i64 << 31) + 1..(1_i64 << 31),
        ) {
            let isn = SeqNumber::new(isn);
            if let Some(position) = near.checked_add_signed(distance) {
                let offset = Offset::new(position);
                prop_assert_eq!(Offset::widen(offset.narrow(isn), isn, Offset::new(near)), Some(offset));
            }
        }
    }
}
