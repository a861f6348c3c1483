//! What an outsider must not guess: initial sequence numbers, local virtual ports and timestamp offsets.
//!
//! Initial sequence numbers follow RFC 6528, local ports algorithm 4 of RFC 6056 §3.3.4, timestamp
//! offsets RFC 7323 §7.1 with one offset per connection identifier, so that a reused identifier keeps an
//! increasing timestamp clock (RFC 6191 needs that). The local address is left out of the hashes:
//! an endpoint has one socket, and its address is often the wildcard.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use siphasher::sip::SipHasher24;

use super::demux::Key;
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

/// RFC 6335 §6 calls 49152 to 65535 dynamic; RFC 6056 §3.2 asks for a range as large as possible. This is
/// the upper half, so that small numbers stay free for listeners.
pub(super) const LOCAL_PORTS: RangeInclusive<u16> = 32_768..=65_535;
/// How many counters algorithm 4 spreads the peers over (RFC 6056 §3.3.4's `TABLE_LENGTH`).
const PORT_COUNTERS: usize = 256;

/// Keys for everything an outsider must not guess; the driver draws them once per endpoint.
#[derive(Clone)]
#[allow(
    clippy::exhaustive_structs,
    reason = "made by the driver and by harnesses, outside semver"
)]
pub struct Secrets {
    /// Key of initial sequence numbers and timestamp offsets (RFC 6528 §3).
    pub isn: [u8; 16],
    /// Key of local port selection (RFC 6056 §3.3.4).
    pub port: [u8; 16],
    /// Key of SYN cookies (RFC 4987 §3.6).
    pub cookie: [u8; 16],
    /// Seed of the hash maps.
    pub hash_seed: u64,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// What a hash is for; hashed first, so that no two uses of one key meet.
#[derive(Clone, Copy)]
enum Purpose {
    Isn = 1,
    TimestampOffset = 2,
    PortOffset = 3,
    PortCounter = 4,
}

impl Secrets {
    /// RFC 6528 §3: `ISN = M + F(localip, localport, remoteip, remoteport, secretkey)`, M a 4 µs clock.
    pub(super) fn isn(&self, now: Timestamp, key: &Key) -> SeqNumber {
        let clock = low_half(now.as_nanos() / 4_000);
        let hash = low_half(keyed_hash(&self.isn, Purpose::Isn, key, key.local_port));
        SeqNumber::new(hash) + clock
    }

    /// The constant that is added to the connection's timestamp clock.
    pub(super) fn timestamp_offset(&self, key: &Key) -> u32 {
        low_half(keyed_hash(
            &self.isn,
            Purpose::TimestampOffset,
            key,
            key.local_port,
        ))
    }
}

/// Draws local virtual ports by RFC 6056 §3.3.4 (double-hash port selection).
#[derive(Debug)]
pub(super) struct PortSelector {
    counters: [u16; PORT_COUNTERS],
}

impl PortSelector {
    pub(super) fn new() -> Self {
        Self {
            counters: [0; PORT_COUNTERS],
        }
    }

    /// Returns the first port for which `is_free` holds, or `None` if there is none. `towards` names the
    /// peer; its local port is ignored.
    pub(super) fn draw(
        &mut self,
        secrets: &Secrets,
        towards: &Key,
        mut is_free: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        let (first, last) = (*LOCAL_PORTS.start(), *LOCAL_PORTS.end());
        let count = u32::from(last - first) + 1;
        let offset = low_half(keyed_hash(&secrets.port, Purpose::PortOffset, towards, 0)) % count;
        let index = low_half(keyed_hash(&secrets.port, Purpose::PortCounter, towards, 0)) as usize;
        let counter = &mut self.counters[index % PORT_COUNTERS];
        for _ in 0..count {
            let step = (offset + u32::from(*counter)) % count;
            *counter = counter.wrapping_add(1);
            let port = first + u16::try_from(step).unwrap_or(0);
            if is_free(port) {
                return Some(port);
            }
        }
        None
    }
}

fn keyed_hash(secret: &[u8; 16], purpose: Purpose, key: &Key, local_port: u16) -> u64 {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write_u8(purpose as u8);
    write_key(&mut hasher, key, local_port);
    hasher.finish()
}

/// Feeds a connection's identity to a hash, the lengths of its parts included.
pub(super) fn write_key(hasher: &mut SipHasher24, key: &Key, local_port: u16) {
    match key.ip {
        IpAddr::V4(ip) => {
            hasher.write_u8(4);
            hasher.write(&ip.octets());
        }
        IpAddr::V6(ip) => {
            hasher.write_u8(6);
            hasher.write(&ip.octets());
        }
    }
    hasher.write_u32(key.scope);
    hasher.write_u16(key.udp_port);
    hasher.write_u16(key.remote_port);
    hasher.write_u16(local_port);
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
pub(super) fn low_half(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;

    fn secrets() -> Secrets {
        Secrets {
            isn: [1; 16],
            port: [2; 16],
            cookie: [3; 16],
            hash_seed: 4,
        }
    }

    fn key(remote: &str, local_port: u16) -> Key {
        Key::new(remote.parse().unwrap(), 1, local_port)
    }

    #[test]
    fn the_isn_follows_a_4_microsecond_clock_from_a_hidden_start() {
        let (secrets, key_a) = (secrets(), key("10.0.0.1:9", 40_000));
        let start = Timestamp::from_millis(1_000);
        let first = secrets.isn(start, &key_a);
        // 1 ms is 250 ticks of 4 µs.
        let later = secrets.isn(start + Duration::from_millis(1), &key_a);
        assert_eq!(later.distance_from(first), 250);
        assert_ne!(secrets.isn(start, &key("10.0.0.1:9", 40_001)), first);
        assert_ne!(secrets.isn(start, &key("10.0.0.2:9", 40_000)), first);
        let other = Secrets {
            isn: [9; 16],
            ..secrets
        };
        assert_ne!(other.isn(start, &key_a), first);
    }

    #[test]
    fn successive_ports_towards_one_peer_differ_and_start_elsewhere_for_another() {
        let (secrets, mut ports) = (secrets(), PortSelector::new());
        let (one, two) = (key("10.0.0.1:9", 0), key("10.0.0.2:9", 0));
        let drawn: Vec<u16> = (0..100)
            .filter_map(|_| ports.draw(&secrets, &one, |_| true))
            .collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 100);
        assert!(drawn.iter().all(|port| LOCAL_PORTS.contains(port)));
        let elsewhere = PortSelector::new().draw(&secrets, &two, |_| true);
        assert_ne!(
            elsewhere,
            PortSelector::new().draw(&secrets, &one, |_| true)
        );
    }

    #[test]
    fn every_port_is_tried_before_giving_up() {
        let (secrets, mut ports) = (secrets(), PortSelector::new());
        let mut tried = HashSet::new();
        let towards = key("10.0.0.1:9", 0);
        assert_eq!(
            ports.draw(&secrets, &towards, |port| !tried.insert(port)),
            None
        );
        assert_eq!(tried.len(), 32_768);
        assert_eq!(
            ports.draw(&secrets, &towards, |port| port == 65_535),
            Some(65_535)
        );
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", secrets()), "Secrets(..)");
    }
}
