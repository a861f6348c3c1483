//! A congestion window that is not used (RFC 7661), with the default controller. Segments of 1,000 bytes, an
//! initial window of 10, an RTT of 100 ms.

use super::*;

struct Sending {
    test: ConnectionTest,
    /// Bytes written and acknowledged.
    at: u32,
}

impl Sending {
    /// As many bytes acknowledged as make the window 20,000.
    fn new(config: ConfigBuilder) -> Self {
        let mut test = ConnectionTest::established(config.user_timeout(None));
        test.peer_window = u16::MAX;
        test.inject((A, 5_001, 1_001, 0));
        let mut sending = Self { test, at: 0 };
        sending.rounds(1, 10);
        sending.expect_cwnd(20_000);
        sending
    }

    /// Sends so many segments and has them acknowledged a round trip later, so many times.
    fn rounds(&mut self, count: u32, segments: u32) {
        for _ in 0..count {
            self.test.write(1_000 * usize::try_from(segments).unwrap());
            self.test.advance(100);
            self.ack(segments);
        }
    }

    fn ack(&mut self, segments: u32) {
        self.at += 1_000 * segments;
        self.test.inject((A, 5_001, 1_001 + self.at, 0));
        self.test.sent.clear();
    }

    #[track_caller]
    fn expect_cwnd(&self, cwnd: u64) {
        assert_eq!(self.test.connection.stats().cwnd, cwnd);
    }

    #[track_caller]
    fn expect_ssthresh(&self, ssthresh: u64) {
        assert_eq!(self.test.connection.stats().ssthresh, ssthresh);
    }
}

#[test]
fn half_a_window_in_use_lets_it_grow_and_less_does_not() {
    let mut sending = Sending::new(plain());
    sending.rounds(1, 9);
    // The round before, of 10, still counts: slow start adds what was acknowledged.
    sending.expect_cwnd(29_000);
    sending.rounds(30, 9);
    sending.expect_cwnd(29_000);
}

/// RFC 7661 §4.4.1: `(max(pipeACK, LossFlightSize) - R) / 2`.
#[test]
fn a_loss_in_an_unused_window_halves_what_was_used() {
    let mut sending = Sending::new(plain());
    // 8 of 29 segments per round trip: pipeACK is 8,000 once the larger sample is a second old.
    sending.rounds(30, 8);
    let unused = sending.test.connection.stats().cwnd;
    assert_eq!(unused, 28_000);
    sending.test.write(4_000);
    sending.test.advance(100);
    for _ in 0..3 {
        let at = sending.at;
        sending.test.inject((A, 5_001, 1_001 + at, 0));
    }
    assert_eq!(sending.test.connection.stats().fast_recovery_count, 1);
    sending.expect_ssthresh(4_000);
    sending.test.advance(100);
    sending.ack(4);
    // One segment was sent again: (8,000 - 1,000) / 2.
    sending.expect_cwnd(3_500);
    sending.expect_ssthresh(3_500);
}

/// RFC 7661 §4.4.3, where RFC 5681 §4.1 is switched off.
#[test]
fn an_idle_window_is_kept_for_five_minutes_and_then_halved() {
    let mut sending = Sending::new(plain().slow_start_after_idle(false));
    sending.rounds(1, 20);
    sending.expect_cwnd(40_000);
    sending.test.advance(299_000);
    sending.rounds(1, 1);
    sending.expect_cwnd(40_000);
    // Unused since a second after the 20 segments: the sampling period.
    sending.test.advance(2_000);
    sending.rounds(1, 1);
    sending.expect_cwnd(20_000);
    // max(40,000 / 2, IW); ssthresh stays where it was, at no limit at all.
    sending.expect_ssthresh(u64::MAX);
    // Two more periods: 10,000, and no less than the initial window.
    sending.test.advance(601_000);
    sending.rounds(1, 1);
    sending.expect_cwnd(10_000);
}

#[test]
fn by_default_an_idle_window_restarts_after_an_rto() {
    let mut sending = Sending::new(plain());
    sending.rounds(1, 20);
    sending.expect_cwnd(40_000);
    sending.test.advance(1_000);
    sending.test.write(1_000);
    sending.expect_cwnd(10_000);
    sending.test.sent.clear();
}
