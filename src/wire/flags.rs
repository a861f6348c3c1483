//! `Flags`: the control bits of a segment (RFC 9293 §3.1).

use std::fmt::{self, Write};
use std::ops::{BitOr, BitOrAssign};

/// A set of control bits.
///
/// `Display` writes them as tcpdump does: `S.` is SYN and ACK, `none` is the empty set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No bit set.
    pub const EMPTY: Self = Self(0);
    /// No more data from the sender.
    pub const FIN: Self = Self(1);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(1 << 1);
    /// Reset the connection.
    pub const RST: Self = Self(1 << 2);
    /// Push function.
    pub const PSH: Self = Self(1 << 3);
    /// The acknowledgment number is significant.
    pub const ACK: Self = Self(1 << 4);
    /// The urgent pointer is significant. Never sent by this crate.
    pub const URG: Self = Self(1 << 5);
    /// ECN echo (RFC 3168 §6.1).
    pub const ECE: Self = Self(1 << 6);
    /// Congestion window reduced (RFC 3168 §6.1).
    pub const CWR: Self = Self(1 << 7);

    /// Every bit with the letter that tcpdump gives it, in tcpdump's order.
    const LETTERS: [(Self, char); 8] = [
        (Self::FIN, 'F'),
        (Self::SYN, 'S'),
        (Self::RST, 'R'),
        (Self::PSH, 'P'),
        (Self::ACK, '.'),
        (Self::URG, 'U'),
        (Self::ECE, 'E'),
        (Self::CWR, 'W'),
    ];

    /// Makes a set of the header's flag byte. Every value is valid.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the header's flag byte.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Tells whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Tells whether at least one bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, rhs: Self) {
        self.0 |= rhs.0;
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::EMPTY {
            return f.write_str("none");
        }
        for (flag, letter) in Self::LETTERS {
            if self.contains(flag) {
                f.write_char(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_tcpdumps() {
        let cases = [
            (Flags::EMPTY, "none"),
            (Flags::SYN, "S"),
            (Flags::SYN | Flags::ACK, "S."),
            (Flags::ACK, "."),
            (Flags::PSH | Flags::ACK, "P."),
            (Flags::FIN | Flags::ACK, "F."),
            (Flags::RST, "R"),
            (Flags::SYN | Flags::ECE | Flags::CWR, "SEW"),
            (Flags::from_bits(0xFF), "FSRP.UEW"),
        ];
        for (flags, expected) in cases {
            assert_eq!(flags.to_string(), expected);
        }
    }

    #[test]
    fn bits_are_the_header_byte() {
        // RFC 9293 §3.1: CWR ECE URG ACK PSH RST SYN FIN
        let cases = [
            (Flags::FIN, 0x01),
            (Flags::SYN, 0x02),
            (Flags::RST, 0x04),
            (Flags::PSH, 0x08),
            (Flags::ACK, 0x10),
            (Flags::URG, 0x20),
            (Flags::ECE, 0x40),
            (Flags::CWR, 0x80),
        ];
        for (flag, bits) in cases {
            assert_eq!(flag.bits(), bits, "{flag}");
            assert_eq!(Flags::from_bits(bits), flag);
        }
    }

    #[test]
    fn contains_asks_for_all_and_intersects_for_any() {
        let mut flags = Flags::SYN;
        flags |= Flags::ACK;
        assert!(flags.contains(Flags::SYN | Flags::ACK));
        assert!(!flags.contains(Flags::SYN | Flags::FIN));
        assert!(flags.intersects(Flags::SYN | Flags::FIN));
        assert!(!flags.intersects(Flags::RST | Flags::FIN));
        assert!(flags.contains(Flags::EMPTY));
        assert!(!flags.intersects(Flags::EMPTY));
    }
}
