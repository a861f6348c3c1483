//! TCP in IPv4, as the kernel has it, and TCP as it stands in our datagrams: the checksum with and
//! without the pseudo-header, and what a segment's header says.
//!
//! The sums are computed here anew and not by the crate, so that an error in its own shows.

use std::fmt;
use std::net::Ipv4Addr;

/// The kernel's address in each namespace.
pub const KERNEL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The other side's, whoever it is.
pub const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Bytes of an IPv4 header without options, as the kernel sends it.
pub const IP_HEADER: usize = 20;
/// IP's number for TCP.
const TCP: u8 = 6;
/// Where TCP's checksum stands.
const CHECKSUM: std::ops::Range<usize> = 16..18;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// The bits of the mark in the second byte of an IPv4 header (RFC 3168 §5).
pub const MARK: u8 = 0b11;
/// "Congestion experienced".
pub const CE: u8 = 0b11;

/// The ones' complement sum of big-endian 16-bit words (RFC 1071 §1).
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        for word in part.chunks(2) {
            let low = word.get(1).copied().unwrap_or(0);
            total += u64::from(u16::from_be_bytes([word[0], low]));
        }
    }
    while total > 0xFFFF {
        total = (total >> 16) + (total & 0xFFFF);
    }
    u16::try_from(total).unwrap()
}

/// RFC 9293 §3.1
fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> [u8; 12] {
    let mut header = [0; 12];
    header[..4].copy_from_slice(&source.octets());
    header[4..8].copy_from_slice(&destination.octets());
    header[9] = TCP;
    header[10..].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    header
}

/// Takes our segment out of the kernel's IP packet, with its mark: `None` if it holds no TCP.
pub fn unwrap(packet: &[u8]) -> Result<Option<(Vec<u8>, u8)>, &'static str> {
    if packet.len() < IP_HEADER || packet[0] != 0x45 || packet[9] != TCP {
        return Ok(None);
    }
    let (header, segment) = packet.split_at(IP_HEADER);
    if sum(&[header]) != 0xFFFF {
        return Err("the kernel's IP header checksum");
    }
    if usize::from(u16::from_be_bytes([header[2], header[3]])) != packet.len() {
        return Err("the kernel's IP length");
    }
    if segment.len() < 20 {
        return Err("the kernel's TCP header");
    }
    if sum(&[&pseudo_header(KERNEL, PEER, segment.len()), segment]) != 0xFFFF {
        return Err("the kernel's TCP checksum");
    }
    let mut segment = segment.to_vec();
    segment[CHECKSUM].fill(0);
    let check = !sum(&[&segment]);
    segment[CHECKSUM].copy_from_slice(&check.to_be_bytes());
    Ok(Some((segment, header[1] & MARK)))
}

/// Makes an IP packet for the kernel of our segment, with a mark.
pub fn wrap(segment: &[u8], mark: u8) -> Result<Vec<u8>, &'static str> {
    if segment.len() < 20 || sum(&[segment]) != 0xFFFF {
        return Err("our checksum");
    }
    let total = u16::try_from(IP_HEADER + segment.len()).map_err(|_| "our length")?;
    let mut packet = vec![0; IP_HEADER];
    packet[0] = 0x45;
    packet[1] = mark;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    // Don't fragment; hops; protocol.
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = TCP;
    packet[12..16].copy_from_slice(&PEER.octets());
    packet[16..20].copy_from_slice(&KERNEL.octets());
    let check = !sum(&[&packet]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet.extend_from_slice(segment);
    let tcp = &mut packet[IP_HEADER..];
    tcp[CHECKSUM].fill(0);
    let check = !sum(&[&pseudo_header(PEER, KERNEL, tcp.len()), tcp]);
    tcp[CHECKSUM].copy_from_slice(&check.to_be_bytes());
    Ok(packet)
}

/// What a segment's header says.
#[derive(Clone)]
pub struct Summary {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// Bytes.
    pub payload: u32,
    options: Vec<u8>,
}

impl Summary {
    /// Reads a segment that has passed a check above.
    pub fn of(segment: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
        let header = (usize::from(segment[12] >> 4) * 4).clamp(20, segment.len());
        Self {
            flags: segment[13],
            seq: word(4),
            ack: word(8),
            window: u16::from_be_bytes([segment[14], segment[15]]),
            payload: u32::try_from(segment.len() - header).unwrap(),
            options: segment[20..header].to_vec(),
        }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The shift by which windows are scaled, if it says so.
    pub fn window_scale(&self) -> Option<u8> {
        let mut options = options(&self.options);
        options.find_map(|(kind, body)| (kind == 3).then(|| body.first().copied())?)
    }

    /// The number behind its last byte; SYN and FIN take one each.
    pub fn end(&self) -> u32 {
        let extra = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.payload).wrapping_add(extra)
    }
}

/// The options of a header, kind and body; padding is left out.
fn options(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let (&kind, tail) = rest.split_first()?;
            let len = match kind {
                0 => return None,
                1 => 1,
                _ => usize::from(*tail.first()?),
            };
            let option = rest.get(..len).filter(|_| kind == 1 || len >= 2)?;
            rest = &rest[len..];
            if kind != 1 {
                return Some((kind, &option[2..]));
            }
        }
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: String = "FSRPAUEC"
            .chars()
            .enumerate()
            .filter(|(bit, _)| self.flags & (1 << bit) != 0)
            .map(|(_, letter)| letter)
            .collect();
        write!(
            f,
            "{letters:4} seq {}+{} ack {} win {}",
            self.seq, self.payload, self.ack, self.window
        )?;
        for (kind, body) in options(&self.options) {
            let numbers: Vec<u32> = body
                .chunks_exact(4)
                .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
                .collect();
            match kind {
                5 => write!(f, " sack {numbers:?}")?,
                8 => write!(f, " ts {numbers:?}")?,
                _ => write!(f, " {kind}:{body:02x?}")?,
            }
        }
        Ok(())
    }
}
