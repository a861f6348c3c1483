//! The UDP datagram in a captured frame.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use pcap_parser::Linktype;
use reliable_udp::tap::Direction;

/// OpenBSD's loopback, which is NULL in network byte order.
const LOOP: Linktype = Linktype(108);
/// Raw IP under the numbers that some systems write into files.
const RAW_ALIASES: [Linktype; 2] = [Linktype(12), Linktype(14)];
/// Linux's hardware type of the loopback interface.
const ARPHRD_LOOPBACK: u16 = 772;
/// Linux's packet type of what this host sends.
const OUTGOING: u16 = 4;

/// Why a frame is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skip {
    LinkType,
    Malformed,
    FirstSight,
    Fragment,
    NotUdp,
    OtherPort,
    NotSegments,
}

impl Skip {
    pub(crate) const ALL: [Self; 7] = [
        Self::LinkType,
        Self::Malformed,
        Self::FirstSight,
        Self::Fragment,
        Self::NotUdp,
        Self::OtherPort,
        Self::NotSegments,
    ];
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkType => "unknown link type",
            Self::Malformed => "cut short or malformed",
            Self::FirstSight => "sent over loopback, where its arrival counts",
            Self::Fragment => "fragment of an IP packet",
            Self::NotUdp => "not UDP",
            Self::OtherPort => "other UDP port",
            Self::NotSegments => "UDP, but no intact segments",
        })
    }
}

/// A UDP datagram.
#[derive(Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Known on Linux's cooked link types only.
    pub(crate) direction: Option<Direction>,
    pub(crate) payload: &'a [u8],
}

/// Finds the datagram in a frame.
pub(crate) fn find(link_type: Linktype, frame: &[u8]) -> Result<Datagram<'_>, Skip> {
    let word = |at: usize| {
        let bytes = frame.get(at..at + 2).ok_or(Skip::Malformed)?;
        Ok(bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u16::from(*byte)))
    };
    let behind = |at: usize| frame.get(at..).ok_or(Skip::Malformed);
    let (packet, direction) = match link_type {
        Linktype::ETHERNET => (SlicedPacket::from_ethernet(frame), None),
        Linktype::NULL | LOOP => (from_ip(behind(4)?), None),
        Linktype::LINUX_SLL => {
            let direction = cooked(word(0)?, word(2)?)?;
            let packet = SlicedPacket::from_ether_type(EtherType(word(14)?), behind(16)?);
            (packet, direction)
        }
        Linktype::LINUX_SLL2 => {
            // The packet type is one byte, at 10.
            let direction = cooked(word(10)? >> 8, word(8)?)?;
            let packet = SlicedPacket::from_ether_type(EtherType(word(0)?), behind(20)?);
            (packet, direction)
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => (from_ip(frame), None),
        other if RAW_ALIASES.contains(&other) => (from_ip(frame), None),
        _ => return Err(Skip::LinkType),
    };
    let packet = packet.map_err(|_| Skip::Malformed)?;
    if packet.is_ip_payload_fragmented() {
        return Err(Skip::Fragment);
    }
    let Some(TransportSlice::Udp(udp)) = &packet.transport else {
        return Err(Skip::NotUdp);
    };
    let (from, to): (IpAddr, IpAddr) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        Some(NetSlice::Arp(_)) | None => return Err(Skip::NotUdp),
    };
    Ok(Datagram {
        from: SocketAddr::new(from, udp.source_port()),
        to: SocketAddr::new(to, udp.destination_port()),
        direction,
        payload: udp.payload(),
    })
}

fn from_ip(bytes: &[u8]) -> Result<SlicedPacket<'_>, etherparse::err::packet::SliceError> {
    SlicedPacket::from_ip(bytes)
}

/// Which way a frame of a cooked link type went. Loopback has each one leave and arrive, and only one counts:
/// the arrival, as with libpcap, which does not even show the other.
fn cooked(packet_type: u16, hardware: u16) -> Result<Option<Direction>, Skip> {
    match (packet_type == OUTGOING, hardware == ARPHRD_LOOPBACK) {
        (true, true) => Err(Skip::FirstSight),
        (false, true) => Ok(None),
        (true, false) => Ok(Some(Direction::Outgoing)),
        (false, false) => Ok(Some(Direction::Incoming)),
    }
}
