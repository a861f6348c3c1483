//! Decides which connection a datagram belongs to, and which addresses name the same peer.
//!
//! A connection is (remote UDP address, remote virtual port, local virtual port). The address part is
//! normalised, so that the forms in which a system may report one peer lead to one key: an IPv4-mapped
//! IPv6 address (RFC 4291 §2.5.5.2) is the IPv4 address, flow labels never count, and a scope counts
//! only for link-local addresses. The hash is keyed: whoever chooses ports and addresses cannot choose
//! collisions.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use siphasher::sip::SipHasher13;

/// What identifies a connection within one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    /// Remote IP address, IPv4-mapped ones as IPv4.
    pub(super) ip: IpAddr,
    /// Scope of a link-local address, else 0.
    pub(super) scope: u32,
    /// Remote UDP port.
    pub(super) udp_port: u16,
    /// Remote virtual port.
    pub(super) remote_port: u16,
    /// Local virtual port.
    pub(super) local_port: u16,
}

impl Key {
    pub(super) fn new(remote: SocketAddr, remote_port: u16, local_port: u16) -> Self {
        let ip = remote.ip().to_canonical();
        let scope = match (remote, ip) {
            (SocketAddr::V6(remote), IpAddr::V6(ip)) if ip.is_unicast_link_local() => {
                remote.scope_id()
            }
            _ => 0,
        };
        Self {
            ip,
            scope,
            udp_port: remote.port(),
            remote_port,
            local_port,
        }
    }

    fn ports(&self) -> PortPair {
        PortPair {
            remote: self.remote_port,
            local: self.local_port,
        }
    }
}

/// Strips what must not be sent back: the flow label is the sender's, not ours (RFC 6437 §2).
pub(super) fn without_flow(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => remote,
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
    }
}

/// The keyed hash of every map whose keys a peer can choose.
#[derive(Debug, Clone)]
pub(super) struct KeyedHash {
    seed: u64,
}

impl KeyedHash {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.seed, self.seed.rotate_left(32))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PortPair {
    remote: u16,
    local: u16,
}

/// Live connections by key, and how many of them share a pair of virtual ports.
///
/// Invariant: `pairs` counts the keys of `slots` by their ports, and holds no zero.
#[derive(Debug)]
pub(super) struct Demux {
    slots: HashMap<Key, u32, KeyedHash>,
    pairs: HashMap<PortPair, u32, KeyedHash>,
}

impl Demux {
    pub(super) fn new(hash: &KeyedHash) -> Self {
        Self {
            slots: HashMap::with_hasher(hash.clone()),
            pairs: HashMap::with_hasher(hash.clone()),
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<usize> {
        usize::try_from(*self.slots.get(key)?).ok()
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.slots.contains_key(key)
    }

    /// Whether a live connection of any address has these virtual ports.
    pub(super) fn is_pair_alive(&self, key: &Key) -> bool {
        self.pairs.contains_key(&key.ports())
    }

    /// Binds `key` to `slot`; the caller has checked that it is free.
    pub(super) fn insert(&mut self, key: Key, slot: usize) {
        // There is no memory for more connections than this can name.
        let slot = u32::try_from(slot).unwrap_or(u32::MAX);
        if self.slots.insert(key, slot).is_none() {
            *self.pairs.entry(key.ports()).or_insert(0) += 1;
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if self.slots.remove(key).is_none() {
            return;
        }
        if let Some(count) = self.pairs.get_mut(&key.ports()) {
            *count -= 1;
            if *count == 0 {
                self.pairs.remove(&key.ports());
            }
        }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self) {
        let mut recount: HashMap<PortPair, u32> = HashMap::new();
        for key in self.slots.keys() {
            *recount.entry(key.ports()).or_insert(0) += 1;
        }
        assert_eq!(recount.len(), self.pairs.len(), "port pairs");
        for (pair, count) in recount {
            assert_eq!(self.pairs.get(&pair), Some(&count), "{pair:?}");
        }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(remote: &str) -> Key {
        Key::new(remote.parse().unwrap(), 1, 40_000)
    }

    fn v6(ip: &str, flow: u32, scope: u32) -> SocketAddr {
        SocketAddrV6::new(ip.parse().unwrap(), 9, flow, scope).into()
    }

    #[test]
    fn forms_of_one_address_have_one_key() {
        assert_eq!(key("[::ffff:10.0.0.1]:9"), key("10.0.0.1:9"));
        let global = |flow, scope| Key::new(v6("2001:db8::1", flow, scope), 1, 2);
        assert_eq!(global(0, 0), global(7, 3));
        let link_local = |flow, scope| Key::new(v6("fe80::1", flow, scope), 1, 2);
        assert_eq!(link_local(0, 3), link_local(7, 3));
        assert_ne!(link_local(0, 2), link_local(0, 3));
        assert_ne!(key("10.0.0.1:9"), key("10.0.0.1:10"));
    }

    #[test]
    fn replies_keep_the_scope_and_lose_the_flow() {
        assert_eq!(without_flow(v6("fe80::1", 7, 3)), v6("fe80::1", 0, 3));
    }

    #[test]
    fn a_pair_lives_as_long_as_one_connection_has_it() {
        let mut demux = Demux::new(&KeyedHash::new(1));
        demux.insert(key("10.0.0.1:9"), 0);
        demux.insert(key("10.0.0.2:9"), 1);
        demux.remove(&key("10.0.0.1:9"));
        demux.remove(&key("10.0.0.1:9"));
        assert!(demux.is_pair_alive(&key("10.0.0.3:9")));
        demux.check_invariants();
        demux.remove(&key("10.0.0.2:9"));
        assert!(!demux.is_pair_alive(&key("10.0.0.3:9")));
        demux.check_invariants();
    }
}
