//! The control messages of one `sendmsg(2)`, laid out as cmsg(3) has it, in an array on the stack.

use std::net::IpAddr;

use nix::libc;

use crate::driver::transport::Transmit;
use crate::endpoint::Ecn;

/// Where every header and all data begin: at multiples of the system's word.
const ALIGNMENT: usize = size_of::<usize>();
/// `struct cmsghdr`: the length in a word, level and type in an `int` each.
const HEADER_LEN: usize = (ALIGNMENT + 2 * size_of::<libc::c_int>()).next_multiple_of(ALIGNMENT);
/// Room for all three: the mark, the segment size, and the packet info of IPv6.
const CAPACITY: usize = 3 * HEADER_LEN + 2 * ALIGNMENT.next_multiple_of(8) + 24;

/// What a send asks for beyond address and content.
pub(super) struct Control {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Control {
    /// Lays out what `transmit`, whose addresses are in the form of the socket's family, asks for.
    pub(super) fn new(transmit: &Transmit<'_>) -> Self {
        let mut control = Self {
            bytes: [0; CAPACITY],
            len: 0,
        };
        if let Some(ecn) = transmit.ecn {
            let mark = codepoint(ecn).to_ne_bytes();
            // A mapped address makes an IPv4 datagram.
            if transmit.remote.ip().to_canonical().is_ipv4() {
                control.push(libc::IPPROTO_IP, libc::IP_TOS, &mark);
            } else {
                control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark);
            }
        }
        if let Some(size) = transmit.segment_size {
            // More than the length field of UDP has is refused by the system.
            let size = u16::try_from(size).unwrap_or(u16::MAX).to_ne_bytes();
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &size);
        }
        match transmit.local_ip {
            Some(IpAddr::V4(ip)) => {
                // `struct in_pktinfo`: any interface, the source address, nothing.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) => {
                // `struct in6_pktinfo`: the source address, any interface.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        control
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let start = self.len;
        let len = HEADER_LEN + data.len();
        self.put(start, &len.to_ne_bytes());
        self.put(start + ALIGNMENT, &level.to_ne_bytes());
        self.put(start + ALIGNMENT + size_of_val(&level), &kind.to_ne_bytes());
        self.put(start + HEADER_LEN, data);
        self.len = start + len.next_multiple_of(ALIGNMENT);
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }
}

/// RFC 3168 §5.
fn codepoint(ecn: Ecn) -> libc::c_int {
    match ecn {
        Ecn::Ect1 => 0b01,
        Ecn::Ect0 => 0b10,
        Ecn::Ce => 0b11,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_set_of_messages_fits() {
        let mut transmit = Transmit::new("[2001:db8::1]:1".parse().unwrap(), &[]);
        transmit.ecn = Some(Ecn::Ce);
        transmit.segment_size = Some(1_452);
        transmit.local_ip = Some("2001:db8::2".parse().unwrap());
        let control = Control::new(&transmit);
        assert!(control.len <= CAPACITY, "{} of {CAPACITY}", control.len);
        let space = |len: usize| HEADER_LEN + len.next_multiple_of(ALIGNMENT);
        assert_eq!(control.as_slice().len(), space(4) + space(2) + space(20));
    }

    #[test]
    fn nothing_asked_for_is_no_message() {
        let transmit = Transmit::new("192.0.2.1:1".parse().unwrap(), &[]);
        assert!(Control::new(&transmit).as_slice().is_empty());
    }
}
