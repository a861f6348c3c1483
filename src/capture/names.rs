//! Under which IP addresses a segment stands in a capture.
//!
//! A capture shows IP addresses and virtual ports; the UDP ports have no place in it. Two connections
//! that differ in nothing but a UDP port, such as two clients of one host that drew the same virtual
//! port, would be taken for one. The first keeps the real addresses; any other gets addresses made of
//! IP address and UDP port, out of a prefix for local use (RFC 4193).

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use siphasher::sip::SipHasher13;

use super::recent::Recent;

/// The first three groups of made-up addresses; "rudp" and nothing in ASCII.
const PREFIX: [u16; 3] = [0xfd72, 0x7564, 0x7000];

/// The addresses of one segment in the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    /// Whether it is the first segment of its connection.
    pub(super) is_first: bool,
}

/// The two ends of a connection, smaller one first, so that both directions have the same key.
type Ends<A> = [(A, u16); 2];

/// Which connection is shown under which addresses and ports.
#[derive(Debug)]
pub(super) struct Names {
    owners: Recent<Ends<IpAddr>, Ends<SocketAddr>>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            owners: Recent::new(),
        }
    }

    /// Returns the addresses under which a segment from a virtual port to another is shown.
    pub(super) fn show(&mut self, from: (SocketAddr, u16), to: (SocketAddr, u16)) -> Shown {
        let (from_addr, to_addr) = same_family(canonical(from.0), canonical(to.0));
        let connection = ends((from_addr, from.1), (to_addr, to.1));
        let real = (from_addr.ip(), to_addr.ip());
        let mut addrs = real;
        let mut is_first = self.claim(addrs, (from.1, to.1), connection);
        if is_first.is_none() {
            addrs = (made_up(from_addr), made_up(to_addr));
            is_first = self.claim(addrs, (from.1, to.1), connection);
        }
        Shown {
            from: addrs.0,
            to: addrs.1,
            // Two hashes of IPv6 addresses that are equal go for one.
            is_first: is_first.unwrap_or(false),
        }
    }

    /// Lets a connection stand under addresses and ports unless another one does; returns whether this is
    /// new.
    fn claim(
        &mut self,
        (from, to): (IpAddr, IpAddr),
        (from_port, to_port): (u16, u16),
        connection: Ends<SocketAddr>,
    ) -> Option<bool> {
        let shown = ends((from, from_port), (to, to_port));
        if let Some(owner) = self.owners.get(&shown) {
            return (*owner == connection).then_some(false);
        }
        self.owners.insert(shown, connection);
        Some(true)
    }
}

/// Which of this side's addresses a connection uses. The first segments may go out before that is known,
/// and one connection must not be shown under two.
#[derive(Debug)]
pub(super) struct Locals {
    known: Recent<(SocketAddr, u16, u16, u16), IpAddr>,
}

impl Locals {
    pub(super) fn new() -> Self {
        Self {
            known: Recent::new(),
        }
    }

    /// Returns the local address of a connection: the first that was seen, or the one from which the system
    /// would send if that was unspecified.
    pub(super) fn resolve(
        &mut self,
        remote: (SocketAddr, u16),
        local: (SocketAddr, u16),
    ) -> SocketAddr {
        let remote_addr = canonical(remote.0);
        let key = (remote_addr, local.0.port(), remote.1, local.1);
        if let Some(ip) = self.known.get(&key) {
            return SocketAddr::new(*ip, local.0.port());
        }
        let mut ip = local.0.ip().to_canonical();
        if ip.is_unspecified() {
            ip = source_for(remote_addr).unwrap_or(ip);
        }
        self.known.insert(key, ip);
        SocketAddr::new(ip, local.0.port())
    }
}

/// Asks the system from which address it would send. Nothing is sent for it.
fn source_for(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

/// Shows an IPv4 address as one, and no flow label, which may differ from segment to segment.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match (addr.ip().to_canonical(), addr) {
        (ip @ IpAddr::V4(_), _) => SocketAddr::new(ip, addr.port()),
        (IpAddr::V6(_), SocketAddr::V6(mut addr)) => {
            addr.set_flowinfo(0);
            addr.into()
        }
        (IpAddr::V6(_), SocketAddr::V4(_)) => addr,
    }
}

/// An IP packet has both addresses of one family. They differ only if one is unspecified, or under a
/// transport that makes its own rules.
fn same_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    let widened = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port())
        }
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    let narrowed = |addr: SocketAddr| {
        if addr.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port())
        } else {
            addr
        }
    };
    if a.is_ipv4() == b.is_ipv4() {
        return (a, b);
    }
    let (a, b) = (narrowed(a), narrowed(b));
    if a.is_ipv4() == b.is_ipv4() {
        (a, b)
    } else {
        (widened(a), widened(b))
    }
}

/// Makes an IPv6 address that is different for each UDP port of each IP address: IPv4 address and port
/// can be read off its end, of an IPv6 address there is only a hash.
fn made_up(addr: SocketAddr) -> IpAddr {
    let [a, b, c] = PREFIX;
    let port = addr.port();
    match addr {
        SocketAddr::V4(v4) => {
            let [high, low] = halves(v4.ip().to_bits());
            Ipv6Addr::new(a, b, c, 0, 0, port, high, low).into()
        }
        SocketAddr::V6(v6) => {
            let mut hasher = SipHasher13::new();
            (v6.ip(), v6.scope_id()).hash(&mut hasher);
            let hash = hasher.finish();
            let [h3, h2, h1, h0] = [48, 32, 16, 0].map(|shift| low_half(hash >> shift));
            Ipv6Addr::new(a, b, c, port, h3, h2, h1, h0).into()
        }
    }
}

fn halves(bits: u32) -> [u16; 2] {
    [16, 0].map(|shift| low_half(u64::from(bits) >> shift))
}

fn low_half(bits: u64) -> u16 {
    u16::try_from(bits & 0xffff).unwrap_or(0)
}

/// Orders the ends of a connection.
pub(super) fn ends<A: Ord>(a: (A, u16), b: (A, u16)) -> Ends<A> {
    if a <= b { [a, b] } else { [b, a] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_that_differ_in_a_udp_port_only_are_shown_apart() {
        let mut names = Names::new();
        let server = (addr("127.0.0.1:4000"), 1);
        let (one, two) = (addr("127.0.0.1:40000"), addr("127.0.0.1:40001"));
        for is_first in [true, false] {
            let shown = names.show((one, 51_000), server);
            let loopback = ip("127.0.0.1");
            assert_eq!((shown.from, shown.to), (loopback, loopback));
            assert_eq!(shown.is_first, is_first);
            let shown = names.show((two, 51_000), server);
            assert_eq!(shown.from, ip("fd72:7564:7000::9c41:7f00:1"));
            assert_eq!(shown.to, ip("fd72:7564:7000::fa0:7f00:1"));
            assert_eq!(shown.is_first, is_first);
        }
        // The way back, and another virtual port.
        let shown = names.show(server, (two, 51_000));
        assert_eq!(shown.to, ip("fd72:7564:7000::9c41:7f00:1"));
        let shown = names.show(server, (two, 51_001));
        assert_eq!((shown.to, shown.is_first), (ip("127.0.0.1"), true));
    }

    #[test]
    fn ipv6_clients_of_one_host_are_shown_apart() {
        let mut names = Names::new();
        let server = (addr("[2001:db8::1]:4000"), 1);
        let first = names.show((addr("[2001:db8::2]:5"), 9), server);
        assert_eq!(first.from, ip("2001:db8::2"));
        let mut shown = vec![first.from];
        for (host, port) in [(2, 6), (2, 7), (3, 6)] {
            let client = addr(&format!("[2001:db8::{host}]:{port}"));
            let seen = names.show((client, 9), server);
            assert!(!shown.contains(&seen.from), "{seen:?}");
            shown.push(seen.from);
        }
        assert_eq!(shown.last(), Some(&ip("2001:db8::3")));
    }

    #[test]
    fn mapped_and_unspecified_addresses_take_the_peers_family() {
        let cases = [
            ("[::ffff:10.0.0.1]:5", "10.0.0.2:6", "10.0.0.1", "10.0.0.2"),
            ("[::]:5", "10.0.0.2:6", "0.0.0.0", "10.0.0.2"),
            ("[2001:db8::1]:5", "0.0.0.0:6", "2001:db8::1", "::"),
            (
                "[2001:db8::1]:5",
                "10.0.0.2:6",
                "2001:db8::1",
                "::ffff:10.0.0.2",
            ),
        ];
        for (from, to, from_ip, to_ip) in cases {
            let shown = Names::new().show((addr(from), 1), (addr(to), 2));
            assert_eq!(
                (shown.from, shown.to),
                (ip(from_ip), ip(to_ip)),
                "{from} {to}"
            );
        }
    }

    #[test]
    fn a_connection_keeps_its_first_local_address() {
        let mut locals = Locals::new();
        let remote = (addr("127.0.0.1:4000"), 1);
        let local = |text, port| (addr(text), port);
        // The SYN, before the system has told the address.
        let resolved = locals.resolve(remote, local("0.0.0.0:50000", 7));
        assert_eq!(resolved, addr("127.0.0.1:50000"));
        let resolved = locals.resolve(remote, local("127.0.0.2:50000", 7));
        assert_eq!(resolved, addr("127.0.0.1:50000"));
        let resolved = locals.resolve(remote, local("127.0.0.2:50000", 8));
        assert_eq!(resolved, addr("127.0.0.2:50000"));
        let resolved = locals.resolve((addr("[::ffff:127.0.0.1]:4000"), 1), local("[::]:50000", 9));
        assert_eq!(resolved, addr("127.0.0.1:50000"));
    }
}
