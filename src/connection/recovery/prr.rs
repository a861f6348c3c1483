//! Proportional rate reduction: how much may be sent in reply to each ACK of a recovery episode
//! (RFC 9937).
//!
//! While more is in flight than the target, transmissions are spread so that the reduction is done
//! after one round; below it, the window is filled up again, by what was delivered and, while
//! recovery goes well, one segment more per ACK. Without SACK it works on the estimate that each
//! duplicate ACK delivers one segment (RFC 9937 §3, `DeliveredData`).

use super::ack::Delivery;
use super::{Phase, Recovery};
use crate::Timestamp;

/// RFC 6928 §2
const RESTART_SEGMENTS: u64 = 10;

/// What an ACK in recovery means to PRR. All numbers are bytes.
#[derive(Debug, Clone, Copy)]
pub struct PrrAck {
    /// Bytes newly acknowledged or SACKed (`DeliveredData`).
    pub delivered: u64,
    /// Bytes estimated in the network after this ACK.
    pub in_flight: u64,
    /// The target for the end of the episode.
    pub ssthresh: u64,
    /// Whether `snd_una` advanced and nothing more proved lost (`SafeACK`).
    pub is_safe: bool,
    /// Whether it answers a tail loss probe: nothing else was in flight.
    pub answers_probe: bool,
    /// Effective send MSS.
    pub mss: u64,
}

/// The state of one recovery episode.
#[derive(Debug, Clone)]
pub struct Prr {
    /// Bytes delivered since the episode began.
    delivered: u64,
    /// Bytes sent since the episode began.
    out: u64,
    /// Bytes that will be delivered in the episode's first round; never 0.
    recover_fs: u64,
    /// What may be in flight until the next ACK.
    window: u64,
}

impl Prr {
    /// Begins an episode. `recover_fs` is the flight size less what was SACKed before the ACK that
    /// began it, plus what that ACK acknowledged cumulatively (RFC 9937 §6.1).
    pub fn new(recover_fs: u64) -> Self {
        Self {
            delivered: 0,
            out: 0,
            recover_fs: recover_fs.max(1),
            window: 0,
        }
    }

    /// Takes an ACK, that which began the episode included (RFC 9937 §6.2).
    pub fn on_ack(&mut self, ack: &PrrAck) {
        if ack.delivered == 0 {
            return;
        }
        self.delivered = self.delivered.saturating_add(ack.delivered);
        let mut send = if ack.in_flight > ack.ssthresh {
            let product = u128::from(self.delivered) * u128::from(ack.ssthresh);
            let out = product.div_ceil(u128::from(self.recover_fs));
            u64::try_from(out)
                .unwrap_or(u64::MAX)
                .saturating_sub(self.out)
        } else {
            let mut send = self.delivered.saturating_sub(self.out).max(ack.delivered);
            if ack.is_safe {
                send = send.saturating_add(ack.mss);
            }
            if ack.answers_probe {
                // Deviation from RFC 9937 §6.2: after a silence of two round trips there is no ACK clock to
                // keep, and one segment for the one that the probe delivered would leave the rest of a lost
                // tail waiting for another round trip. What may go out is what may after idling (RFC 5681
                // §4.1, RFC 6928).
                send = send.max(ack.mss.saturating_mul(RESTART_SEGMENTS));
            }
            send.min(ack.ssthresh - ack.in_flight)
        };
        if self.out == 0 && send == 0 {
            // Forces the fast retransmit.
            send = ack.mss;
        }
        self.window = ack.in_flight.saturating_add(send);
    }

    /// Counts bytes sent, new or again (RFC 9937 §6.3).
    pub fn on_sent(&mut self, bytes: u64) {
        self.out = self.out.saturating_add(bytes);
    }

    /// Returns what may be in flight until the next ACK.
    pub const fn window(&self) -> u64 {
        self.window
    }
}

impl Recovery {
    /// Begins one, unless it is switched off here or by the controller (RFC 9937 §6.1).
    pub(super) fn begin_rate_reduction(
        &self,
        now: Timestamp,
        delivery: &Delivery,
    ) -> Option<Box<Prr>> {
        let sacked = self.scoreboard.sacked().bytes() + self.duplicates.held();
        let sacked_before = sacked.saturating_sub(delivery.newly_sacked);
        let outstanding = self.flight_size() + self.unanswered.bytes(now);
        let recover_fs = outstanding.saturating_sub(sacked_before) + delivery.acked;
        (self.prr && self.controller.uses_prr()).then(|| Box::new(Prr::new(recover_fs)))
    }

    /// RFC 9937 §6.2
    pub(super) fn reduce_rate(&mut self, now: Timestamp, delivery: &Delivery, is_safe: bool) {
        let ack = PrrAck {
            delivered: delivery.delivered,
            in_flight: self.pipe() + self.unanswered.bytes(now),
            ssthresh: self.cwnd(),
            is_safe,
            answers_probe: delivery.answers_probe,
            mss: self.mss,
        };
        if let Phase::FastRecovery { prr: Some(prr), .. } | Phase::Cwr { prr: Some(prr), .. } =
            &mut self.phase
        {
            prr.on_ack(&ack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u64 = 1_000;

    /// Drives one episode in which every ACK delivers one segment, and returns what was sent for each. Of
    /// `flight` segments, `lost` are lost and three were SACKed at its beginning, the last of them by
    /// the ACK that begins it.
    fn episode(flight: u64, lost: u64, ssthresh: u64, acks: u64) -> Vec<u64> {
        let mut prr = Prr::new((flight - 2) * MSS);
        let mut in_flight = flight - 3 - lost;
        let mut sent = Vec::new();
        for ack in 0..acks {
            if ack > 0 {
                in_flight -= 1;
            }
            prr.on_ack(&PrrAck {
                delivered: MSS,
                in_flight: in_flight * MSS,
                ssthresh: ssthresh * MSS,
                is_safe: false,
                answers_probe: false,
                mss: MSS,
            });
            // The first retransmission goes out whatever the window says.
            let minimum = u64::from(ack == 0);
            let segments = (prr.window().saturating_sub(in_flight * MSS) / MSS).max(minimum);
            prr.on_sent(segments * MSS);
            in_flight += segments;
            sent.push(segments);
        }
        sent
    }

    #[test]
    fn half_of_the_window_goes_out_spread_over_the_round() {
        // In the manner of RFC 9937 §8, first example: 22 segments, 1 lost, target 10. RecoverFS = 20, so
        // after n ACKs n · 10 / 20 segments may have been sent: one for every second ACK.
        let expected = [1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0];
        assert_eq!(episode(22, 1, 10, 15), expected);
    }

    #[test]
    fn heavy_loss_is_answered_by_packet_conservation() {
        // In the manner of RFC 9937 §8, second example: 15 of 20 lost, so that 2 are in flight where 10 is
        // the target. Each ACK delivers one segment and releases one (PRR-CRB), never more.
        assert_eq!(episode(20, 15, 10, 3), [1, 1, 1]);
    }

    #[test]
    fn a_safe_ack_lets_the_window_grow_by_one_segment_more() {
        // Below the target of 10: send = max(1, 1) + 1 (PRR-SSRB), at most 10 − in flight.
        for (in_flight, is_safe, expected) in
            [(2, true, 2_000), (2, false, 1_000), (9, true, 1_000)]
        {
            let mut prr = Prr::new(20 * MSS);
            prr.on_ack(&PrrAck {
                delivered: MSS,
                in_flight: in_flight * MSS,
                ssthresh: 10 * MSS,
                is_safe,
                answers_probe: false,
                mss: MSS,
            });
            assert_eq!(
                prr.window() - in_flight * MSS,
                expected,
                "{in_flight} {is_safe}"
            );
        }
    }

    #[test]
    fn the_answer_of_a_probe_lets_the_rest_of_the_tail_go_up_to_the_target() {
        // In flight in segments, target, sent.
        for (in_flight, ssthresh, expected) in [(0, 2, 2), (1, 2, 1), (0, 50, 10), (0, 5, 5)] {
            let mut prr = Prr::new(20 * MSS);
            prr.on_ack(&PrrAck {
                delivered: 100,
                in_flight: in_flight * MSS,
                ssthresh: ssthresh * MSS,
                is_safe: false,
                answers_probe: true,
                mss: MSS,
            });
            let sent = prr.window() - in_flight * MSS;
            assert_eq!(sent, expected * MSS, "{in_flight} of {ssthresh}");
        }
    }

    #[test]
    fn the_first_retransmission_is_forced() {
        // In flight equals the target: nothing would be allowed, yet one segment has to go.
        let mut prr = Prr::new(20 * MSS);
        let ack = PrrAck {
            delivered: MSS,
            in_flight: 10 * MSS,
            ssthresh: 10 * MSS,
            is_safe: false,
            answers_probe: false,
            mss: MSS,
        };
        prr.on_ack(&ack);
        assert_eq!(prr.window(), 11 * MSS);
        prr.on_sent(MSS);
        // Afterwards it is not: 11 > 10, ceil(2 · 10 / 20) − 1 = 0.
        prr.on_ack(&PrrAck {
            in_flight: 11 * MSS,
            ..ack
        });
        assert_eq!(prr.window(), 11 * MSS);
    }

    #[test]
    fn an_ack_that_delivers_nothing_changes_nothing() {
        let mut prr = Prr::new(20 * MSS);
        let ack = PrrAck {
            delivered: 0,
            in_flight: 0,
            ssthresh: u64::MAX,
            is_safe: true,
            answers_probe: false,
            mss: MSS,
        };
        prr.on_ack(&ack);
        assert_eq!(prr.window(), 0);
        // And no number overflows.
        prr.on_ack(&PrrAck {
            delivered: u64::MAX,
            ..ack
        });
        prr.on_ack(&PrrAck {
            delivered: u64::MAX,
            in_flight: u64::MAX,
            ssthresh: 1,
            ..ack
        });
    }
}
