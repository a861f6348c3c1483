//! `State`: the connection states of RFC 9293 §3.3.2 and the legal transitions between them.
//!
//! ```text
//!        connect              SYN arrives at a listener
//!           │                            │
//!       SYN-SENT ── SYN arrives ──▶ SYN-RECEIVED
//!           │ SYN-ACK arrives            │ our SYN is acknowledged
//!           └────────▶ ESTABLISHED ◀─────┘
//!             finish │            │ FIN arrives
//!               FIN-WAIT-1    CLOSE-WAIT
//!     acknowledged │  │ FIN        │ finish
//!         FIN-WAIT-2  CLOSING   LAST-ACK
//!          FIN │         │ acked    │ acknowledged
//!              └▶ TIME-WAIT         ▼
//!                     └────────▶ CLOSED
//! ```
//!
//! LISTEN belongs to the endpoint, which makes a connection when a SYN arrives.

use tracing::debug;

/// A state of RFC 9293 §3.3.2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// A SYN was sent; its acknowledgment and the peer's SYN are awaited.
    SynSent,
    /// A SYN arrived and was answered; the acknowledgment of ours is awaited.
    SynReceived,
    /// Data flows both ways.
    Established,
    /// This side finished; its FIN is not yet acknowledged.
    FinWait1,
    /// Our FIN is acknowledged; the peer may still send.
    FinWait2,
    /// The peer's FIN arrived; this side may still send.
    CloseWait,
    /// Both sides finished at once; our FIN is not yet acknowledged.
    Closing,
    /// Our FIN, sent after the peer's, is not yet acknowledged.
    LastAck,
    /// Both sides are done; stray segments are awaited.
    TimeWait,
    /// No connection.
    #[default]
    Closed,
}

impl State {
    /// Says whether both SYNs have been exchanged.
    pub fn is_synchronized(self) -> bool {
        match self {
            Self::SynSent | Self::SynReceived | Self::Closed => false,
            Self::Established
            | Self::FinWait1
            | Self::FinWait2
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait => true,
        }
    }

    /// Says whether the peer may still send data, its FIN not having arrived.
    pub fn may_receive(self) -> bool {
        match self {
            Self::Established | Self::FinWait1 | Self::FinWait2 => true,
            Self::SynSent
            | Self::SynReceived
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait
            | Self::Closed => false,
        }
    }

    /// A SYN without acknowledgment arrived: simultaneous open (RFC 9293 §3.5).
    pub(super) fn on_syn_received(&mut self) {
        if *self == Self::SynSent {
            self.enter(Self::SynReceived);
        }
    }

    /// Our SYN is acknowledged and the peer's has arrived.
    pub(super) fn on_established(&mut self) {
        if matches!(self, Self::SynSent | Self::SynReceived) {
            self.enter(Self::Established);
        }
    }

    /// The application finished sending; the FIN follows the last byte (RFC 9293 §3.10.4).
    ///
    /// Before ESTABLISHED the FIN stays queued, and this is called again on establishment.
    pub(super) fn on_finish(&mut self) {
        match self {
            Self::Established => self.enter(Self::FinWait1),
            Self::CloseWait => self.enter(Self::LastAck),
            Self::SynSent
            | Self::SynReceived
            | Self::FinWait1
            | Self::FinWait2
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait
            | Self::Closed => {}
        }
    }

    /// The peer acknowledged our FIN (RFC 9293 §3.10.7.4, fifth).
    pub(super) fn on_fin_acked(&mut self) {
        match self {
            Self::FinWait1 => self.enter(Self::FinWait2),
            Self::Closing => self.enter(Self::TimeWait),
            Self::LastAck => self.enter(Self::Closed),
            Self::SynSent
            | Self::SynReceived
            | Self::Established
            | Self::FinWait2
            | Self::CloseWait
            | Self::TimeWait
            | Self::Closed => {}
        }
    }

    /// The peer's FIN arrived in order (RFC 9293 §3.10.7.4, eighth).
    pub(super) fn on_fin_received(&mut self) {
        match self {
            Self::SynReceived | Self::Established => self.enter(Self::CloseWait),
            Self::FinWait1 => self.enter(Self::Closing),
            Self::FinWait2 => self.enter(Self::TimeWait),
            Self::SynSent
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait
            | Self::Closed => {}
        }
    }

    /// The connection is over: reset, aborted, timed out, or TIME-WAIT ended.
    pub(super) fn on_closed(&mut self) {
        if *self != Self::Closed {
            self.enter(Self::Closed);
        }
    }

    fn enter(&mut self, new: Self) {
        debug!(old = ?*self, ?new, "state");
        *self = new;
    }
}

#[cfg(test)]
mod tests {
    use super::State::{
        CloseWait, Closed, Closing, Established, FinWait1, FinWait2, LastAck, SynReceived, SynSent,
        TimeWait,
    };
    use super::*;

    const ALL: [State; 10] = [
        SynSent,
        SynReceived,
        Established,
        FinWait1,
        FinWait2,
        CloseWait,
        Closing,
        LastAck,
        TimeWait,
        Closed,
    ];

    /// RFC 9293 figure 5, one row per event: every state, and where it leads.
    #[test]
    fn every_event_in_every_state_leads_where_the_diagram_says() {
        type Event = (&'static str, fn(&mut State), [State; 10]);
        #[rustfmt::skip]
        let table: [Event; 6] = [
            ("syn received", State::on_syn_received,
             [SynReceived, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait, Closed]),
            ("established", State::on_established,
             [Established, Established, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait, Closed]),
            ("finish", State::on_finish,
             [SynSent, SynReceived, FinWait1, FinWait1, FinWait2, LastAck, Closing, LastAck, TimeWait, Closed]),
            ("fin acked", State::on_fin_acked,
             [SynSent, SynReceived, Established, FinWait2, FinWait2, CloseWait, TimeWait, Closed, TimeWait, Closed]),
            ("fin received", State::on_fin_received,
             [SynSent, CloseWait, CloseWait, Closing, TimeWait, CloseWait, Closing, LastAck, TimeWait, Closed]),
            ("closed", State::on_closed, [Closed; 10]),
        ];
        for (event, transition, expected) in table {
            for (from, to) in ALL.into_iter().zip(expected) {
                let mut state = from;
                transition(&mut state);
                assert_eq!(state, to, "{event} in {from:?}");
            }
        }
    }
}
