//! Explicit congestion notification, but for the sender's answer: what the handshake agrees on (RFC 3168
//! §6.1.1), and the echo of the marks that arrive (§6.1.3).
//!
//! What an echo does to the sender stands in `recovery::ecn`.

use crate::connection::Connection;
use crate::ecn::{Ecn, EcnState};
use crate::wire::{Flags, Header};

/// Retransmissions of a SYN or SYN-ACK by timeout that still offer ECN.
///
/// Deviation from RFC 3168 §6.1.1.1: the first one does, because the offer lies in a UDP payload, where hardly anybody
/// on the way takes offence at it; it is far likelier that the SYN was lost.
const OFFERED_AGAIN: u32 = 1;

/// What the SYNs and SYN-ACKs of both sides have said of ECN.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts")]
pub struct EcnOffers {
    /// An ECN-setup SYN or SYN-ACK left.
    sent: bool,
    /// One left that is none.
    sent_plain: bool,
    heard: bool,
    heard_plain: bool,
}

impl EcnOffers {
    /// Those that a SYN cookie remembers.
    pub fn remembered(is_agreed: bool) -> Self {
        Self {
            sent: is_agreed,
            sent_plain: !is_agreed,
            heard: is_agreed,
            heard_plain: !is_agreed,
        }
    }

    /// Returns the flags of the next SYN or SYN-ACK, whose first transmission timed out `retries` times, and
    /// notes them as sent.
    pub fn offer(&mut self, is_enabled: bool, is_syn_ack: bool, retries: u32) -> Flags {
        // A SYN-ACK answers: only to an ECN-setup SYN may it be ECN-setup itself.
        let may_answer = !is_syn_ack || (self.heard && !self.heard_plain);
        if !is_enabled || !may_answer || retries > OFFERED_AGAIN {
            self.sent_plain = true;
            return Flags::EMPTY;
        }
        self.sent = true;
        if is_syn_ack {
            Flags::ECE
        } else {
            Flags::ECE | Flags::CWR
        }
    }

    /// The peer's SYN or SYN-ACK arrived, perhaps again.
    pub fn hear(&mut self, flags: Flags) {
        if is_setup(flags) {
            self.heard = true;
        } else {
            self.heard_plain = true;
        }
    }

    /// Returns what follows from all of them (RFC 3168 §6.1.1).
    pub fn outcome(self) -> EcnState {
        if !self.sent || !self.heard || self.heard_plain {
            EcnState::Off
        } else if self.sent_plain {
            EcnState::EchoOnly
        } else {
            EcnState::Capable
        }
    }
}

/// Says whether a SYN or SYN-ACK is "ECN-setup" (RFC 3168 §6.1.1): both flags on a SYN; ECE alone on a SYN-ACK,
/// since a peer that returns what it got would send both.
pub fn is_setup(flags: Flags) -> bool {
    let has_cwr = flags.contains(Flags::CWR);
    flags.contains(Flags::ECE) && has_cwr != flags.contains(Flags::ACK)
}

/// The receiver's side.
#[derive(Debug, Clone, Default)]
pub(super) struct Echo {
    state: EcnState,
    /// The mark of the segment that is being processed.
    arriving: Option<Ecn>,
    /// A CE mark arrived, and no CWR since.
    is_owed: bool,
    /// Segments that arrived with CE, whatever else they were.
    pub(super) ce: u64,
    /// Segments with data that arrived as ECT.
    pub(super) ect: u64,
    /// Segments with data that arrived without a mark though ECN was agreed on.
    pub(super) unmarked: u64,
}

impl Echo {
    pub(super) fn start(&mut self, state: EcnState) {
        self.state = state;
    }

    /// Returns the flags of every segment that acknowledges.
    pub(super) fn flags(&self) -> Flags {
        if self.is_owed {
            Flags::ACK | Flags::ECE
        } else {
            Flags::ACK
        }
    }

    /// Takes the mark and the CWR of an acceptable segment with data, and says whether an ACK is to leave at
    /// once.
    fn on_data(&mut self, flags: Flags) -> bool {
        if self.state == EcnState::Off {
            return false;
        }
        // RFC 3168 §6.1.3: the segment with CWR may be marked itself.
        if flags.contains(Flags::CWR) {
            self.is_owed = false;
        }
        match self.arriving {
            Some(Ecn::Ce) => !std::mem::replace(&mut self.is_owed, true),
            Some(Ecn::Ect0 | Ecn::Ect1) => {
                self.ect = self.ect.saturating_add(1);
                false
            }
            None => {
                self.unmarked = self.unmarked.saturating_add(1);
                false
            }
        }
    }
}

impl Connection {
    /// The next segment, intact, came with this mark in its IP header (RFC 3168 §5).
    pub fn note_mark(&mut self, mark: Option<Ecn>) {
        self.echo.arriving = mark;
        let is_ce = u64::from(mark == Some(Ecn::Ce));
        self.echo.ce = self.echo.ce.saturating_add(is_ce);
    }

    /// The segment was dealt with.
    pub(super) fn forget_mark(&mut self) {
        self.echo.arriving = None;
    }

    /// An acceptable segment with data arrived. What lies outside the window has no say (RFC 3168 §6.1.5), nor
    /// has a pure ACK, which nobody marks (§6.1.4).
    pub(super) fn take_mark(&mut self, header: &Header) {
        if self.echo.on_data(header.flags) {
            // A sender whose window is small must not wait for the ACK.
            self.receiver.demand_ack();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: Flags = Flags::from_bits(0b1100_0010);
    const PLAIN: Flags = Flags::SYN;

    #[test]
    fn a_syn_offers_with_both_flags_and_a_syn_ack_with_one() {
        let syn_ack = Flags::SYN | Flags::ACK;
        let cases = [
            ("SYN with both", SETUP, true),
            ("SYN without", PLAIN, false),
            ("SYN with ECE", PLAIN | Flags::ECE, false),
            ("SYN with CWR", PLAIN | Flags::CWR, false),
            ("SYN-ACK with ECE", syn_ack | Flags::ECE, true),
            ("SYN-ACK reflected", SETUP | Flags::ACK, false),
            ("SYN-ACK with CWR", syn_ack | Flags::CWR, false),
            ("SYN-ACK without", syn_ack, false),
        ];
        for (name, flags, expected) in cases {
            assert_eq!(is_setup(flags), expected, "{name}");
        }
    }

    #[test]
    fn both_sides_have_to_offer_and_never_to_take_it_back() {
        // What was sent as SYN, by the number of timeouts before; what was heard; the outcome.
        type Case = (
            &'static str,
            bool,
            &'static [u32],
            &'static [Flags],
            EcnState,
        );
        let cases: [Case; 7] = [
            ("both", true, &[0], &[SETUP], EcnState::Capable),
            ("off here", false, &[0], &[SETUP], EcnState::Off),
            ("off there", true, &[0], &[PLAIN], EcnState::Off),
            ("sent again", true, &[0, 1], &[SETUP], EcnState::Capable),
            (
                "sent without",
                true,
                &[0, 1, 2],
                &[SETUP],
                EcnState::EchoOnly,
            ),
            ("heard without", true, &[0], &[SETUP, PLAIN], EcnState::Off),
            ("nothing sent", true, &[], &[SETUP], EcnState::Off),
        ];
        for (name, is_enabled, sent, heard, expected) in cases {
            let mut offers = EcnOffers::default();
            for &retries in sent {
                offers.offer(is_enabled, false, retries);
            }
            for &flags in heard {
                offers.hear(flags);
            }
            assert_eq!(offers.outcome(), expected, "{name}");
        }
    }

    #[test]
    fn a_syn_ack_offers_nothing_to_a_plain_syn() {
        let mut offers = EcnOffers::default();
        offers.hear(SETUP);
        assert_eq!(offers.offer(true, true, 0), Flags::ECE);
        offers.hear(PLAIN);
        assert_eq!(offers.offer(true, true, 0), Flags::EMPTY);
        assert_eq!(offers.outcome(), EcnState::Off);
    }

    #[test]
    fn an_echo_lasts_until_the_sender_has_reduced_its_window() {
        let mut echo = Echo::default();
        echo.start(EcnState::Capable);
        // The mark, the flags, whether an ACK leaves at once, whether the echo is set afterwards.
        let steps = [
            (Some(Ecn::Ect0), Flags::ACK, false, false),
            (Some(Ecn::Ce), Flags::ACK, true, true),
            (Some(Ecn::Ce), Flags::ACK, false, true),
            (Some(Ecn::Ect0), Flags::ACK, false, true),
            (None, Flags::ACK, false, true),
            (Some(Ecn::Ect0), Flags::ACK | Flags::CWR, false, false),
            (Some(Ecn::Ce), Flags::ACK | Flags::CWR, true, true),
            // Marked again on the way.
            (Some(Ecn::Ce), Flags::ACK | Flags::CWR, true, true),
        ];
        for (step, (mark, flags, is_urgent, is_set)) in steps.into_iter().enumerate() {
            echo.arriving = mark;
            assert_eq!(echo.on_data(flags), is_urgent, "step {step}");
            assert_eq!(echo.flags().contains(Flags::ECE), is_set, "step {step}");
        }
        assert_eq!((echo.ect, echo.unmarked), (3, 1));
    }

    #[test]
    fn nothing_is_echoed_that_was_not_agreed_on() {
        let mut echo = Echo {
            arriving: Some(Ecn::Ce),
            ..Echo::default()
        };
        assert!(!echo.on_data(Flags::ACK));
        assert_eq!(echo.flags(), Flags::ACK);
    }
}
