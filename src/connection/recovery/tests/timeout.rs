//! The retransmission timer: RFC 6298, RFC 5681 §3.1.

use super::*;

#[test]
fn the_timer_runs_while_something_is_outstanding() {
    let mut test = RecoveryTest::new(SACK);
    assert_eq!(test.deadline(), None);
    test.send(2);
    assert_eq!(test.deadline(), Some(300));
    // RFC 6298 §5.1: it runs already.
    test.advance(50);
    test.send(1);
    assert_eq!(test.deadline(), Some(300));
    // §5.3, and a sample of 100: SRTT 100, RTTVAR 37.5 and RTO 250, from 100 on.
    test.advance(50);
    test.ack(1);
    assert_eq!(test.deadline(), Some(350));
    // A duplicate ACK acknowledges nothing new.
    test.advance(10);
    test.sack(1, &[(2, 3)]);
    assert_eq!(test.deadline(), Some(350));
    // §5.2
    test.ack(3);
    assert_eq!(test.deadline(), None);
    assert_eq!(test.recovery.oldest_unacked_since(), None);
}

#[test]
fn a_timeout_sends_everything_again_in_order_under_slow_start() {
    let mut test = RecoveryTest::new(SACK);
    test.send(4);
    test.expire();
    test.expect_timeout(4, 4, 1);
    test.expect_pipe(0);
    test.expect_retransmission(0);
    test.expect_allowance(0);
    // RFC 6298 §5.5: 600 ms after the expiry at 300.
    assert_eq!(test.deadline(), Some(900));
    test.advance(100);
    test.ack(1);
    // Slow start: cwnd is 2 segments, nothing is in flight.
    test.expect_retransmission(1);
    test.expect_retransmission(2);
    test.expect_allowance(0);
    test.advance(100);
    test.ack(3);
    test.expect_retransmission(3);
    test.ack(4);
    test.expect_no_retransmission();
    assert_eq!(test.recovery.consecutive_timeouts(), 0);
}

#[test]
fn timeouts_in_a_row_are_numbered_and_double_the_timeout() {
    let mut test = RecoveryTest::new(SACK);
    test.send(2);
    for (consecutive, expected) in [(1, 600), (2, 1_200), (3, 2_400)] {
        test.expire();
        // The first time both segments are in flight, later only the one that went out again.
        test.expect_timeout(if consecutive == 1 { 2 } else { 1 }, 2, consecutive);
        test.expect_retransmission(0);
        assert_eq!(test.recovery.current_rto(), ms(expected));
        assert_eq!(test.recovery.consecutive_timeouts(), consecutive);
    }
    // The user timeout counts from the last progress, here the first transmission.
    assert_eq!(test.recovery.oldest_unacked_since(), Some(Timestamp::ZERO));
    // The window of 10 was not used: flight size 2, so ssthresh is 2 segments, and only once set.
    assert_eq!(test.recovery.controller().ssthresh(), 2 * MSS);
    test.ack(1);
    assert_eq!(test.recovery.consecutive_timeouts(), 0);
    assert_eq!(test.recovery.oldest_unacked_since(), Some(test.now));
    test.expire();
    test.expect_timeout(0, 1, 1);
}

#[test]
fn without_timestamps_a_retransmission_gives_no_sample_and_keeps_the_back_off() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(1);
    test.expire();
    test.expect_timeout(1, 1, 1);
    test.expect_retransmission(0);
    test.advance(100);
    test.ack(1);
    // RFC 6298 §3: no sample; §5: the back-off stays until there is one.
    assert_eq!(test.last_acked().rtt.sample, None);
    assert_eq!(test.recovery.current_rto(), ms(600));
    test.send(1);
    test.advance(100);
    test.ack(2);
    // SRTT 100, RTTVAR 37.5.
    assert_eq!(test.last_acked().rtt.sample, Some(ms(100)));
    assert_eq!(test.recovery.current_rto(), ms(250));
}

#[test]
fn with_timestamps_a_retransmission_gives_a_sample_and_ends_the_back_off() {
    let mut test = RecoveryTest::new(SACK);
    test.send(1);
    test.expire();
    test.expect_timeout(1, 1, 1);
    test.expect_retransmission(0);
    test.advance(100);
    test.ack(1);
    assert_eq!(test.last_acked().rtt.sample, Some(ms(100)));
    assert_eq!(test.recovery.current_rto(), ms(250));
}

#[test]
fn our_clock_is_preferred_to_the_coarser_echo() {
    let mut test = RecoveryTest::new(SACK);
    test.send(1);
    test.advance(97);
    // The echo says 100.
    test.ack(1);
    assert_eq!(test.last_acked().rtt.sample, Some(ms(97)));
}

#[test]
fn the_sample_is_that_of_the_earliest_segment_acknowledged() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(1);
    test.advance(30);
    test.send(1);
    test.advance(90);
    // A delayed ACK of both.
    test.ack(2);
    assert_eq!(test.last_acked().rtt.sample, Some(ms(120)));
}

#[test]
fn sack_information_survives_a_timeout() {
    let mut test = RecoveryTest::new(SACK);
    test.send(5);
    test.advance(100);
    test.sack(0, &[(1, 2), (3, 4)]);
    test.expire();
    // 0, 2 and 4 are in flight.
    test.expect_timeout(3, 5, 1);
    test.expect_retransmission(0);
    test.advance(100);
    test.sack(2, &[(3, 4)]);
    test.expect_retransmission(2);
    test.expect_retransmission(4);
    test.expect_no_retransmission();
}

#[test]
fn sacked_data_that_the_peer_discarded_is_sent_again() {
    let mut test = RecoveryTest::new(SACK);
    test.send(4);
    test.advance(100);
    test.sack(0, &[(1, 3)]);
    // 0 arrives, yet the ACK stops where the SACKed range began (RFC 2018 §8).
    test.ack(1);
    test.expire();
    // 1, 2 and 3.
    test.expect_timeout(3, 3, 1);
    assert_eq!(test.recovery.counters().reneging_count, 1);
    test.expect_retransmission(1);
    test.ack(2);
    test.expect_retransmission(2);
    test.expect_retransmission(3);
    // No byte was delivered twice: 4 segments.
    test.ack(4);
    assert_eq!(test.last_acked().total_delivered, 4 * MSS);
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut test = RecoveryTest::new(SACK);
    test.send(1);
    let fin = at(1)..at(1) + 1;
    test.recovery.on_sent(test.now, fin.clone());
    test.advance(100);
    test.ack(1);
    test.expire();
    test.expect_heard(&[
        Heard::Lost { bytes: 1 },
        Heard::TimedOut {
            flight_size: 1,
            consecutive: 1,
        },
    ]);
    assert_eq!(test.recovery.next_retransmission(MSS), Some(fin.clone()));
    test.recovery.on_retransmitted(test.now, fin.clone());
    assert_eq!(test.recovery.pipe(), 1);
    let arrival = AckArrival {
        ack: fin.end,
        sack: &[],
        is_duplicate: false,
        rtt: None,
        rtt_tsecr: None,
        ecn_echo: false,
    };
    test.arrive(&arrival);
    assert_eq!((test.recovery.flight_size(), test.deadline()), (0, None));
}

#[test]
fn before_the_handshake_an_expiry_only_doubles_the_timeout() {
    let mut recovery = Recovery::new(&Config::default());
    assert_eq!(recovery.current_rto(), ms(1_000));
    recovery.on_rto(Timestamp::from_millis(1_000));
    recovery.on_rto(Timestamp::from_millis(3_000));
    assert_eq!(
        (recovery.current_rto(), recovery.rto_deadline()),
        (ms(4_000), None)
    );
    let start = RecoveryStart {
        mss: MSS,
        sack: true,
        rack: true,
        tail_loss_probe: true,
        timestamps: false,
        prr: true,
        handshake_rtt: None,
        syn_retransmitted: true,
        peer_ack_delay: None,
        seed: 0,
    };
    recovery.start(Timestamp::from_millis(4_000), start);
    // RFC 6298 §5.7, RFC 5681 §3.1.
    assert_eq!(
        (recovery.current_rto(), recovery.controller().cwnd()),
        (ms(3_000), MSS)
    );
    assert_eq!(recovery.consecutive_timeouts(), 0);
}

#[test]
fn the_first_retransmission_of_an_episode_restarts_the_timer() {
    let mut test = RecoveryTest::new(SACK);
    test.send(5);
    test.advance(200);
    test.sack(0, &[(1, 4)]);
    test.expect_recovery(1, 5, 1);
    assert_eq!(test.deadline(), Some(300));
    // RFC 6675 §6: its ACK comes at 300 at the earliest. The RTO is 300.
    test.expect_retransmission(0);
    assert_eq!(test.deadline(), Some(500));
}

#[test]
fn with_rack_only_what_is_late_is_lost() {
    // RFC 8985 §6.3. Something was delivered after 100 ms, so `RACK.rtt` is 100 and `reo_wnd` 25 ms.
    let mut test = RecoveryTest::new(RACK);
    test.send(1);
    test.advance(100);
    test.ack(1);
    test.send(3);
    test.advance(200);
    test.send(2);
    // 1, 2 and 3 were sent 250 ms before, 4 and 5 50 ms before.
    test.expire();
    assert_eq!(test.now.as_millis(), 350);
    test.expect_timeout(3, 5, 1);
    test.expect_pipe(2);
    // The first goes out though the two fill the window.
    test.expect_retransmission(1);
    test.expect_allowance(0);
    // What is on its way arrives, and so does the retransmission.
    test.advance(60);
    test.sack(1, &[(4, 6)]);
    test.expect_pipe(1);
    test.advance(40);
    test.ack(2);
    test.expect_retransmission(2);
    test.expect_retransmission(3);
    test.ack(6);
}

#[test]
fn the_first_segment_is_lost_however_lately_it_was_sent() {
    let mut test = RecoveryTest::new(RACK);
    test.send(1);
    test.advance(100);
    test.ack(1);
    test.send(1);
    // As if the timer had been armed long before.
    test.advance(50);
    test.recovery.on_rto(test.now);
    test.expect_timeout(1, 1, 1);
    test.expect_retransmission(1);
}

#[test]
fn sacks_of_what_was_sent_before_the_first_segment_put_the_timeout_off() {
    let mut test = RecoveryTest::new(RACK);
    test.send(6);
    test.advance(100);
    test.sack(0, &[(1, 4)]);
    test.expect_recovery(1, 6, 2);
    test.expect_retransmission(0);
    assert_eq!(test.deadline(), Some(400));
    test.advance(50);
    test.sack(0, &[(1, 5)]);
    assert_eq!(test.deadline(), Some(450));
    // What repeats is no news.
    test.advance(50);
    test.sack(0, &[(1, 5)]);
    assert_eq!(test.deadline(), Some(450));
    test.ack(6);
    test.log.lock().unwrap().heard.clear();
}

#[test]
fn a_window_that_is_restored_ends_the_back_off_once() {
    let mut test = RecoveryTest::new(SACK);
    test.send(3);
    for (consecutive, lost) in [(1, 3), (2, 1), (3, 1)] {
        test.expire();
        test.expect_timeout(lost, 3, consecutive);
        test.expect_retransmission(0);
    }
    test.advance(10);
    test.recovery.on_window_restored(test.now);
    test.expect_heard(&[Heard::Lost { bytes: MSS }]);
    test.expect_retransmission(0);
    let deadline = test.now.as_millis() + 300;
    assert_eq!(test.deadline(), Some(deadline));
    test.recovery.on_window_restored(test.now);
    test.expect_retransmission_is_not_due();
}
