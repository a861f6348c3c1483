//! `SeqNumber`: 32-bit serial arithmetic.
//!
//! A sequence number names one byte of a stream modulo 2^32 (RFC 9293 §3.4). It exists on the wire
//! only: `connection::Offset` takes over as soon as a segment has been accepted.

use std::fmt;
use std::ops::Add;

/// A sequence number, or an acknowledgment number, as it stands in a segment.
///
/// Order is serial (RFC 1982 §3.2): of two numbers less than 2^31 apart, the one from which a short
/// way up leads to the other comes first. This relation is not transitive, so the type is not
/// `Ord`. At a distance of exactly 2^31, which RFC 1982 leaves undefined, neither number precedes
/// the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(u32);

impl SeqNumber {
    /// Makes a sequence number of its value on the wire.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// Returns the value on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Tells whether `self` comes before `other`: `other` is 1 to 2^31 - 1 numbers further on.
    // RFC 1982 §3.2
    pub const fn precedes(self, other: Self) -> bool {
        let distance = other.distance_from(self);
        0 < distance && distance < 1 << 31
    }

    /// Tells whether `self` comes after `other`: `other.precedes(self)`.
    pub const fn follows(self, other: Self) -> bool {
        other.precedes(self)
    }

    /// Returns how many steps up lead from `earlier` to `self`: `self - earlier` modulo 2^32.
    pub const fn distance_from(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl Add<u32> for SeqNumber {
    type Output = Self;

    /// Advances by `rhs` numbers, modulo 2^32.
    // RFC 9293 §3.4
    fn add(self, rhs: u32) -> Self {
        Self(self.0.wrapping_add(rhs))
    }
}

impl fmt::Display for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF: u32 = 1 << 31;

    #[test]
    fn order_is_serial() {
        // (name, a, b, a precedes b)
        let cases = [
            ("equal", 7, 7, false),
            ("next", 7, 8, true),
            ("previous", 8, 7, false),
            ("across the wrap", u32::MAX, 0, true),
            ("back across the wrap", 0, u32::MAX, false),
            ("just below half the circle", 5, 5 + HALF - 1, true),
            ("exactly half the circle", 5, 5 + HALF, false),
            (
                "exactly half the circle, from the other side",
                5 + HALF,
                5,
                false,
            ),
            ("just above half the circle", 5, 5 + HALF + 1, false),
        ];
        for (name, a, b, expected) in cases {
            let (a, b) = (SeqNumber::new(a), SeqNumber::new(b));
            assert_eq!(a.precedes(b), expected, "{name}");
            assert_eq!(b.follows(a), expected, "{name}");
        }
    }

    #[test]
    fn display_is_the_plain_number() {
        assert_eq!(SeqNumber::new(4_294_967_295).to_string(), "4294967295");
    }

    proptest! {
        #[test]
        fn distance_undoes_addition(start: u32, steps: u32) {
            let start = SeqNumber::new(start);
            prop_assert_eq!((start + steps).distance_from(start), steps);
        }

        #[test]
        fn exactly_one_relation_holds(a: u32, b: u32) {
            let (a, b) = (SeqNumber::new(a), SeqNumber::new(b));
            let relations = [a == b, a.precedes(b), a.follows(b), b.distance_from(a) == HALF];
            prop_assert_eq!(relations.iter().filter(|&&holds| holds).count(), 1);
        }

        #[test]
        fn a_step_up_follows(start: u32, steps in 1..HALF) {
            let start = SeqNumber::new(start);
            prop_assert!((start + steps).follows(start));
            prop_assert!(!(start + steps).precedes(start));
        }

        #[test]
        fn nobody_precedes_at_half_the_circle(start: u32) {
            let start = SeqNumber::new(start);
            prop_assert!(!start.precedes(start + HALF));
            prop_assert!(!start.follows(start + HALF));
        }
    }
}
