//! A segment as an IP packet that carries TCP, as if UDP had never been below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpSlice};

use super::record::SegmentError;

/// TTL and hop limit, as most systems send (RFC 1700).
const HOP_LIMIT: u8 = 64;
/// Fields of the segment's header that change.
const FLAGS: usize = 13;
const URG: u8 = 1 << 5;
const CHECKSUM: Range<usize> = 16..18;
const CHECKSUM_AND_URGENT: Range<usize> = 16..20;

/// Writes the packet into `frame`, in place of what is there: IP header, and the segment with TCP's
/// checksum (RFC 9293 §3.1), without urgent pointer and URG.
pub(super) fn build(
    frame: &mut Vec<u8>,
    from: IpAddr,
    to: IpAddr,
    segment: &[u8],
) -> Result<(), SegmentError> {
    frame.clear();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => push_ipv4(frame, from, to, segment)?,
        (from, to) => push_ipv6(frame, v6(from), v6(to), segment)?,
    }
    let header_len = frame.len();
    frame.extend_from_slice(segment);
    let tcp = frame.get_mut(header_len..).unwrap_or_default();
    *tcp.get_mut(FLAGS).ok_or(SegmentError::Malformed)? &= !URG;
    tcp.get_mut(CHECKSUM_AND_URGENT)
        .ok_or(SegmentError::Malformed)?
        .fill(0);
    let parsed = TcpSlice::from_slice(tcp).map_err(|_| SegmentError::Malformed)?;
    let checksum = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => parsed.calc_checksum_ipv4(from.octets(), to.octets()),
        (from, to) => parsed.calc_checksum_ipv6(v6(from).octets(), v6(to).octets()),
    };
    let checksum = checksum.map_err(|_| SegmentError::TooLong)?;
    if let Some(field) = tcp.get_mut(CHECKSUM) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    Ok(())
}

fn push_ipv4(
    frame: &mut Vec<u8>,
    from: Ipv4Addr,
    to: Ipv4Addr,
    segment: &[u8],
) -> Result<(), SegmentError> {
    let len = u16::try_from(segment.len()).map_err(|_| SegmentError::TooLong)?;
    let mut header = Ipv4Header::new(len, HOP_LIMIT, IpNumber::TCP, from.octets(), to.octets())
        .map_err(|_| SegmentError::TooLong)?;
    header.header_checksum = header.calc_header_checksum();
    frame.extend_from_slice(&header.to_bytes());
    Ok(())
}

fn push_ipv6(
    frame: &mut Vec<u8>,
    from: Ipv6Addr,
    to: Ipv6Addr,
    segment: &[u8],
) -> Result<(), SegmentError> {
    let header = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: u16::try_from(segment.len()).map_err(|_| SegmentError::TooLong)?,
        next_header: IpNumber::TCP,
        hop_limit: HOP_LIMIT,
        source: from.octets(),
        destination: to.octets(),
    };
    frame.extend_from_slice(&header.to_bytes());
    Ok(())
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Flags, Header, Integrity, SeqNumber, seal};

    const V4: [&str; 2] = ["127.0.0.1", "192.0.2.7"];
    const V6: [&str; 2] = ["fd72:7564:7000::9c41:7f00:1", "2001:db8::1"];

    fn segment(integrity: Integrity, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            src_port: 51_000,
            dst_port: 1,
            seq: SeqNumber::new(0x1a2b_3c4d),
            flags,
            window: 77,
            ..Header::default()
        };
        let mut bytes = vec![0; header.encoded_len()];
        header.encode(&mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        seal(&mut bytes, integrity);
        bytes
    }

    /// RFC 1071 over everything that is given, checksum fields included: 0 if they are right.
    fn rest(parts: &[&[u8]]) -> u16 {
        let bytes = parts.concat();
        let mut sum: u64 = 0;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    fn check(addrs: [&str; 2], original: &[u8]) {
        let [from, to] = addrs.map(|text| text.parse::<IpAddr>().unwrap());
        let mut frame = vec![1, 2, 3];
        build(&mut frame, from, to, original).unwrap();
        let (ip, tcp, pseudo) = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (ip, tcp) = frame.split_at(20);
                assert_eq!((ip[0], ip[9]), (0x45, 6));
                assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), frame.len());
                assert_eq!(rest(&[ip]), 0, "IP checksum");
                (ip, tcp, [from.octets(), to.octets()].concat())
            }
            (from, to) => {
                let (ip, tcp) = frame.split_at(40);
                assert_eq!((ip[0], ip[6]), (0x60, 6));
                assert_eq!(usize::from(u16::from_be_bytes([ip[4], ip[5]])), tcp.len());
                (ip, tcp, [v6(from).octets(), v6(to).octets()].concat())
            }
        };
        assert_eq!(ip.len() + original.len(), frame.len());
        let len = u32::try_from(tcp.len()).unwrap().to_be_bytes();
        let trailer = [len.as_slice(), &[0, 0, 0, 6]].concat();
        assert_eq!(rest(&[&pseudo, &trailer, tcp]), 0, "TCP checksum");
        assert_eq!(tcp[18..20], [0, 0], "urgent pointer");
        assert_eq!(tcp[FLAGS], original[FLAGS] & !URG);
        assert_eq!(tcp[..FLAGS], original[..FLAGS]);
        assert_eq!(tcp[14..16], original[14..16]);
        assert_eq!(tcp[20..], original[20..]);
    }

    #[test]
    fn every_length_up_to_the_limit_of_udp_fits() {
        // UDP's payload over IPv4 and IPv6, less the segment's header.
        for (addrs, most) in [(V4, 65_507 - 20), (V6, 65_527 - 20)] {
            for len in [0, 1, 2, 3, 1_211, 1_212, most - 1, most] {
                for integrity in [Integrity::Sum, Integrity::Crc32c] {
                    let payload = vec![0xa5; len];
                    check(
                        addrs,
                        &segment(integrity, Flags::ACK | Flags::URG, &payload),
                    );
                }
            }
        }
    }

    #[test]
    fn what_no_ip_packet_holds_is_refused() {
        let cases = [(V4, 65_535 - 20), (V6, 65_535)];
        for (addrs, most) in cases {
            let [from, to] = addrs.map(|text| text.parse().unwrap());
            let mut frame = Vec::new();
            let segment = segment(Integrity::Sum, Flags::ACK, &vec![0; 65_536]);
            assert_eq!(build(&mut frame, from, to, &segment[..most]), Ok(()));
            assert_eq!(
                build(&mut frame, from, to, &segment[..=most]),
                Err(SegmentError::TooLong)
            );
        }
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let [from, to] = V4.map(|text| text.parse().unwrap());
        let segment = segment(Integrity::Sum, Flags::ACK, b"data");
        for len in [0, 13, 14, 19] {
            let outcome = build(&mut Vec::new(), from, to, &segment[..len]);
            assert_eq!(outcome, Err(SegmentError::Malformed), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn headers_are_right_whatever_they_carry(
            payload in prop::collection::vec(any::<u8>(), 0..3_000),
            flags in any::<u8>(),
            is_crc in any::<bool>(),
            is_v4 in any::<bool>(),
        ) {
            let integrity = if is_crc { Integrity::Crc32c } else { Integrity::Sum };
            let segment = segment(integrity, Flags::from_bits(flags), &payload);
            check(if is_v4 { V4 } else { V6 }, &segment);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let [from, to] = V4.map(|text| text.parse().unwrap());
            let _ = build(&mut Vec::new(), from, to, &bytes);
        }
    }
}
