//! The wire format: bytes ⇄ [`Segment`]. Pure, total, without state.
//!
//! One UDP datagram carries one segment, whose format is TCP's (RFC 9293 §3.1). `docs/PROTOCOL.md`
//! specifies it with worked examples.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          source port          |       destination port        |
//! +-------------------------------+-------------------------------+
//! |                        sequence number                        |
//! +---------------------------------------------------------------+
//! |                     acknowledgment number                     |
//! +-------+-------+---------------+-------------------------------+
//! |  data | reser-|C|E|U|A|P|R|S|F|                               |
//! | offset|  ved  |W|C|R|C|S|S|Y|I|            window             |
//! |       |       |R|E|G|K|H|T|N|N|                               |
//! +-------+-------+---------------+-------------------------------+
//! |           checksum            |         urgent pointer        |
//! |...............................................................|  one of the two checks:
//! |    ones' complement sum       |               0               |  Integrity::Sum
//! |                            CRC-32C                            |  Integrity::Crc32c
//! +---------------------------------------------------------------+
//! |            options, padded to a multiple of 4 bytes           |
//! +---------------------------------------------------------------+
//! |                            payload                            |
//! ```
//!
//! | kind | length | option | body |
//! | --- | --- | --- | --- |
//! | 0 | – | end of list | |
//! | 1 | – | padding | |
//! | 2 | 4 | MSS | largest payload that the sender can receive, 2 bytes |
//! | 3 | 3 | window scale | shift, 1 byte, at most 14 |
//! | 4 | 2 | SACK permitted | |
//! | 5 | 8 n + 2 | SACK | n = 1 to 4 times left edge, right edge, 4 bytes each |
//! | 8 | 10 | timestamps | `tsval`, `tsecr`, 4 bytes each |
//! | 254 | 8 or 16 | extension | `RU`, version, features (2), ACK delay in ms, token (0 or 8) |

// Lints that would be too much elsewhere: everything here is read from the network.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]
#![allow(
    unreachable_pub,
    unnameable_types,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

mod checksum;
mod crc;
mod error;
mod flags;
#[cfg(any(test, fuzzing, feature = "__internals"))]
mod fuzz;
mod option;
mod segment;
mod seq;
#[cfg(test)]
mod tests;

pub use self::checksum::{Integrity, seal, seal_parts};
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub use self::error::DecodeError;
pub use self::flags::Flags;
#[cfg(any(test, fuzzing, feature = "__internals"))]
pub use self::fuzz::fuzz_decode;
pub use self::option::{
    Extension, FEATURE_CRC32C, MAX_OPTIONS_LEN, MAX_WINDOW_SCALE, Options, SackBlock, SackBlocks,
    Timestamps,
};
pub use self::segment::{HEADER_LEN, Header, Segment, peek_ports, peek_seq};
pub use self::seq::SeqNumber;
