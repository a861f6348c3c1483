//! Reductions that prove spurious: RFC 3522, RFC 3708, RFC 4015.

use super::*;
use crate::ecn::EcnState;

impl RecoveryTest {
    /// An ACK up to `segment` with SACK blocks that echoes the time `echoed`, in ms.
    fn echo(&mut self, segment: u64, blocks: &[(u64, u64)], echoed: u64) {
        let sack: Vec<_> = blocks
            .iter()
            .map(|&(start, end)| at(start)..at(end))
            .collect();
        self.arrive(&AckArrival {
            ack: at(segment),
            sack: &sack,
            is_duplicate: false,
            rtt: Some(ms(self.now.as_millis() - echoed)),
            rtt_tsecr: Some(0),
            ecn_echo: false,
        });
    }

    #[track_caller]
    pub(super) fn expect_window(&self, cwnd: u64, ssthresh: u64) {
        let controller = self.recovery.controller();
        assert_eq!((controller.cwnd(), controller.ssthresh()), (cwnd, ssthresh));
    }
}

const UNDONE: Heard = Heard::Undone { was_timeout: false };

#[test]
fn a_recovery_is_undone_when_every_retransmission_was_a_duplicate() {
    // 0 and 1 were overtaken by three others.
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(2, 5)]);
    test.expect_recovery(2, 10, 5);
    test.expect_retransmission(0);
    test.advance(10);
    test.sack(2, &[(2, 5)]);
    test.sack(10, &[]);
    test.expect_exit();
    // 5,000 and what the last ACK added.
    test.expect_window(6_600, 5 * MSS);
    // 1 was never sent again, for it arrived; the report about 0 comes after the episode.
    test.advance(90);
    test.sack(10, &[(0, 1)]);
    test.expect_heard(&[UNDONE]);
    test.expect_window(10 * MSS, u64::MAX);
    let counters = test.recovery.counters();
    assert_eq!((counters.undo_count, counters.segments_spurious), (1, 1));
}

#[test]
fn one_retransmission_that_was_needed_forbids_the_undo_by_duplicates() {
    let mut test = RecoveryTest::new(RACK);
    test.send(8);
    test.advance(100);
    test.sack(0, &[(2, 8)]);
    test.expect_recovery(2, 8, 0);
    test.expect_retransmission(0);
    test.expect_retransmission(1);
    test.advance(100);
    test.sack(8, &[(0, 1)]);
    test.expect_exit();
    // A duplicate that the network made proves nothing either, and no lie counts for more than was sent.
    test.sack(8, &[(4, 8)]);
    let counters = test.recovery.counters();
    assert_eq!((counters.undo_count, counters.segments_spurious), (0, 2));
}

#[test]
fn an_echo_from_before_the_retransmission_ends_the_recovery() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(2, 5)]);
    test.expect_recovery(2, 10, 5);
    test.expect_retransmission(0);
    test.advance(10);
    // The original of 0 arrived; 1 is in flight after all.
    test.echo(1, &[(2, 5)], 0);
    test.expect_heard(&[UNDONE, Heard::Exited]);
    // As before, and slow start goes on.
    test.expect_window(11 * MSS, u64::MAX);
    test.expect_no_retransmission();
    test.expect_pipe(6);
    // It was lost, though: as the path reorders, that needs time.
    test.send(1);
    test.advance(100);
    test.sack(1, &[(2, 11)]);
    let (deadline, timer) = test.recovery.timer().unwrap();
    assert_eq!(timer, RecoveryTimer::Reordering);
    test.now = deadline;
    test.recovery.on_reordering_timeout(deadline);
    test.expect_recovery(1, 10, 0);
    test.expect_retransmission(1);
    test.ack(11);
    test.expect_exit();
}

#[test]
fn an_echo_of_the_same_millisecond_proves_nothing_and_only_the_first_ack_counts() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(2, 5)]);
    test.expect_recovery(2, 10, 5);
    test.expect_retransmission(0);
    test.advance(100);
    test.echo(1, &[(2, 5)], 100);
    assert!(test.recovery.is_in_recovery());
    test.log.lock().unwrap().heard.clear();
    test.echo(5, &[], 0);
    assert_eq!(test.recovery.counters().undo_count, 0);
    test.ack(10);
    test.log.lock().unwrap().heard.clear();
}

#[test]
fn a_timeout_by_a_delay_spike_is_undone() {
    let mut test = RecoveryTest::new(RACK);
    test.send(6);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    test.expect_window(MSS, 3 * MSS);
    test.advance(50);
    // The originals arrive.
    test.echo(1, &[], 0);
    test.expect_heard(&[Heard::Undone { was_timeout: true }]);
    test.expect_window(11 * MSS, u64::MAX);
    test.expect_no_retransmission();
    test.expect_pipe(5);
    test.echo(6, &[], 0);
    assert_eq!(test.recovery.flight_size(), 0);
    assert_eq!(test.recovery.timer(), None);
}

#[test]
fn of_several_timeouts_the_first_is_undone() {
    let mut test = RecoveryTest::new(RACK);
    test.send(4);
    test.expire();
    test.expect_timeout(4, 4, 1);
    test.expect_retransmission(0);
    test.expire();
    test.expect_timeout(1, 4, 2);
    test.expect_retransmission(0);
    test.advance(10);
    test.echo(3, &[], 0);
    test.expect_heard(&[Heard::Undone { was_timeout: true }]);
    test.expect_window(13 * MSS, u64::MAX);
}

#[test]
fn an_undo_that_acknowledges_everything_leaves_no_timer() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(2, 5)]);
    test.expect_recovery(2, 10, 5);
    test.expect_retransmission(0);
    test.advance(10);
    test.echo(1, &[(2, 5)], 0);
    test.expect_heard(&[UNDONE, Heard::Exited]);
    // RFC 3522 §3.2, step 5: only from a peer that reports duplicates is an echo proof where everything is
    // acknowledged.
    test.sack(1, &[(0, 1), (2, 5)]);
    test.send(1);
    test.advance(100);
    // The path is known to reorder: 1 is lost once it is late.
    test.sack(1, &[(2, 11)]);
    let (deadline, _) = test.recovery.timer().unwrap();
    test.now = deadline;
    test.recovery.on_reordering_timeout(deadline);
    test.expect_recovery(1, 10, 0);
    test.expect_retransmission(1);
    test.send(2);
    // 11 is overtaken and not late yet.
    test.advance(1);
    test.sack(1, &[(2, 11), (12, 13)]);
    let (_, timer) = test.recovery.timer().unwrap();
    assert_eq!(timer, RecoveryTimer::Reordering);
    test.advance(1);
    test.echo(13, &[], 0);
    test.expect_heard(&[UNDONE, Heard::Exited]);
    assert_eq!(test.recovery.timer(), None);
}

#[test]
fn a_tail_behind_an_undone_recovery_is_probed() {
    let mut test = RecoveryTest::new(TLP);
    // Reordering is seen: 0 arrives after 1.
    test.send(3);
    test.advance(100);
    test.sack(0, &[(1, 2)]);
    test.advance(10);
    test.ack(3);
    // 3 at 200 ms, 4 to 7 from 210 ms on; 5 overtakes 3 and 4.
    test.advance(90);
    test.send(1);
    test.advance(10);
    for _ in 4..=7 {
        test.send(1);
        test.advance(1);
    }
    test.advance(96);
    test.sack(3, &[(5, 6)]);
    // 200 + 99 + 25
    test.expire_reordering(324);
    test.expect_recovery(1, 5, 3);
    test.expect_retransmission(3);
    // 3 and 4 were late; 6 and 7 are lost.
    test.advance(6);
    test.arrive(&AckArrival {
        ack: at(6),
        sack: &[],
        is_duplicate: false,
        rtt: Some(ms(130)),
        rtt_tsecr: Some(1),
        ecn_echo: false,
    });
    test.expect_heard(&[Heard::Undone { was_timeout: false }, Heard::Exited]);
    // That of 4: 210 + 99 + 25.
    test.expire_reordering(334);
    let timer = test.recovery.timer().map(|(_, timer)| timer);
    assert_eq!(timer, Some(RecoveryTimer::Probe));
}

#[test]
fn an_ack_that_tells_of_congestion_takes_nothing_back() {
    // RFC 4015 §3.1, step 9; an echo that is ignored tells of nothing.
    for (state, ecn_echo, undone) in [
        (EcnState::Capable, false, 1),
        (EcnState::Capable, true, 0),
        (EcnState::AlwaysMarked, true, 1),
    ] {
        let mut test = RecoveryTest::new(RACK);
        test.recovery.start_ecn(state);
        test.send(6);
        test.expire();
        test.expect_timeout(6, 6, 1);
        test.expect_retransmission(0);
        test.advance(50);
        test.arrive(&AckArrival {
            ack: at(1),
            sack: &[],
            is_duplicate: false,
            rtt: Some(ms(test.now.as_millis())),
            rtt_tsecr: Some(0),
            ecn_echo,
        });
        let counters = test.recovery.counters();
        assert_eq!(counters.undo_count, undone, "{state:?}, {ecn_echo}");
        test.log.lock().unwrap().heard.clear();
    }
}
