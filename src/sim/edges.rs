//! The right edges of the windows that are told on the wire: none may move left (RFC 9293 §3.8.6).
//!
//! Follows every segment that leaves a node. The field counts in units of the agreed shift, so that an
//! edge may fall back by less than one unit (RFC 7323 §2.4).

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::wire::{Flags, Segment, SeqNumber};

/// Sender and receiver of segments, with their virtual ports.
type Flow = (SocketAddr, u16, SocketAddr, u16);

/// What one side of a connection has told.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Its initial sequence number.
    iss: SeqNumber,
    /// The shift in its SYN.
    shift: Option<u8>,
    /// Whether it has sent different SYNs, as a listener does that answers with a cookie and then without:
    /// which of them the connection is from, its segments do not say.
    is_ambiguous: bool,
    /// The furthest right edge.
    edge: Option<SeqNumber>,
}

/// Watches every connection whose SYN it has seen.
#[derive(Debug, Default)]
pub(super) struct EdgeWatch {
    told: HashMap<Flow, Told>,
}

impl EdgeWatch {
    /// Looks at a datagram that leaves.
    ///
    /// # Errors
    ///
    /// By how much the right edge moved left.
    pub(super) fn watch(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), String> {
        let Ok(segment) = Segment::decode(datagram) else {
            return Ok(());
        };
        let header = &segment.header;
        let flags = header.flags;
        let flow = (from, header.src_port, to, header.dst_port);
        if flags.contains(Flags::SYN) {
            let syn = Told {
                iss: header.seq,
                shift: header.options.window_scale,
                is_ambiguous: false,
                edge: None,
            };
            let told = self.told.entry(flow).or_insert(syn);
            told.is_ambiguous |= told.iss != syn.iss;
        }
        if flags.contains(Flags::RST) || !flags.contains(Flags::ACK) {
            return Ok(());
        }
        let back = (to, header.dst_port, from, header.src_port);
        let is_offered = self.told.get(&back).and_then(|told| told.shift).is_some();
        let Some(told) = self.told.get_mut(&flow).filter(|told| !told.is_ambiguous) else {
            return Ok(());
        };
        let is_scaled = is_offered && !flags.contains(Flags::SYN);
        let shift = told.shift.filter(|_| is_scaled).unwrap_or(0).min(14);
        let edge = header.ack + (u32::from(header.window) << shift);
        match told.edge {
            Some(before) if edge.precedes(before) => {
                let back = before.distance_from(edge);
                if back >= 1 << shift {
                    return Err(format!("the right edge moved left by {back} bytes"));
                }
            }
            _ => told.edge = Some(edge),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HEADER_LEN, Header, MAX_OPTIONS_LEN, Options};

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    fn segment(flags: Flags, ack: u32, window: u16, window_scale: Option<u8>) -> Vec<u8> {
        let header = Header {
            src_port: 1,
            dst_port: 1,
            ack: SeqNumber::new(ack),
            flags,
            window,
            options: Options {
                window_scale,
                ..Options::default()
            },
            ..Header::default()
        };
        let mut bytes = vec![0; HEADER_LEN + MAX_OPTIONS_LEN];
        let len = header.encode(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn an_edge_that_moves_left_by_a_unit_is_found() {
        let (a, b) = (addr(1), addr(2));
        let mut edges = EdgeWatch::default();
        let syn = Flags::SYN;
        assert_eq!(edges.watch(a, b, &segment(syn, 0, 9, Some(3))), Ok(()));
        let syn_ack = segment(syn | Flags::ACK, 5, 9, Some(0));
        assert_eq!(edges.watch(b, a, &syn_ack), Ok(()));
        // Units of 8: the edges are 180, 181, 174, 173.
        for (ack, window, is_well) in [
            (100, 10, true),
            (101, 10, true),
            (102, 9, true),
            (101, 9, false),
        ] {
            let told = edges.watch(a, b, &segment(Flags::ACK, ack, window, None));
            assert_eq!(told.is_ok(), is_well, "{ack} {window}: {told:?}");
        }
    }
}
