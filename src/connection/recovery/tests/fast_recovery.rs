//! Fast retransmit and fast recovery without SACK: RFC 5681 §3.2, RFC 6582, RFC 3042.

use super::*;

#[test]
fn three_duplicates_send_the_first_segment_again() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(10);
    test.advance(100);
    test.duplicates(2);
    test.expect_no_retransmission();
    assert!(test.ack(0).must_retransmit);
    // The first is lost, three more have left the network: 10 - 1 - 3.
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(0);
    test.expect_no_retransmission();
    test.ack(10);
    test.expect_exit();
}

#[test]
fn the_first_two_duplicates_each_allow_one_new_segment() {
    let mut test = RecoveryTest::new(NO_SACK);
    assert_eq!(test.send_allowed(), 10);
    test.advance(100);
    for _ in 0..2 {
        test.duplicates(1);
        // RFC 3042 §2
        assert_eq!(test.send_allowed(), 1);
    }
    test.duplicates(1);
    // RFC 5681 §3.2: of the 12 segments in flight, the two of limited transmit do not count. In the network
    // are 12 - 1 - 3.
    test.expect_recovery(1, 10, 8);
    assert_eq!(test.recovery.controller().cwnd(), 5 * MSS);
    test.expect_retransmission(0);
}

#[test]
fn limited_transmit_of_an_earlier_round_counts_as_flight() {
    let mut test = RecoveryTest::new(NO_SACK);
    assert_eq!(test.send_allowed(), 10);
    test.duplicates(2);
    assert_eq!(test.send_allowed(), 2);
    // It was reordering.
    test.ack(3);
    test.duplicates(3);
    // 12 - 3; in the network one lost and three held less.
    test.expect_recovery(1, 9, 5);
    test.expect_retransmission(3);
}

#[test]
fn limited_transmit_ends_two_segments_beyond_the_window() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(4);
    test.expire();
    test.expect_timeout(4, 4, 1);
    test.expect_retransmission(0);
    test.ack(4);
    assert!(test.send_allowed() > 3);
    // At the recovery point duplicates begin no recovery (RFC 6582 §3.2 step 1), however many.
    test.duplicates(3);
    test.send_allowed();
    let cwnd = test.recovery.controller().cwnd();
    assert_eq!(test.recovery.flight_size(), cwnd + 2 * MSS);
}

#[test]
fn what_may_be_sent_is_what_inflating_the_window_allows() {
    // RFC 6582 §3.2 side by side: 20 segments, the first and the eleventh lost, one segment per duplicate.
    let mut test = RecoveryTest::new(Setup {
        window: 20,
        ..NO_SACK
    });
    assert_eq!(test.send_allowed(), 20);
    test.advance(100);
    test.duplicates(3);
    test.expect_recovery(1, 20, 16);
    test.expect_retransmission(0);
    // The three duplicates and limited transmit, which was not used.
    let ssthresh = 10;
    let mut cwnd = ssthresh + 3;
    let mut flight = 20;
    for _ in 3..18 {
        test.duplicates(1);
        cwnd += 1;
        let allowed = u64::saturating_sub(cwnd, flight);
        assert_eq!(test.send_allowed(), allowed);
        flight += allowed;
    }
    // 18 duplicates: cwnd is 28, so 8 new segments went out.
    assert_eq!(flight, 28);
    test.advance(100);
    // A partial ACK of 10 segments: the window deflates by 10 and adds one back.
    assert!(test.ack(10).must_retransmit);
    test.expect_heard(&[Heard::Lost { bytes: MSS }]);
    cwnd = cwnd - 10 + 1;
    flight -= 10;
    test.expect_retransmission(10);
    let allowed = cwnd - flight;
    assert_eq!(test.send_allowed(), allowed);
    test.ack(20);
    test.expect_exit();
}

#[test]
fn each_partial_ack_sends_one_segment_again_whatever_the_window() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(10);
    test.advance(100);
    test.duplicates(3);
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(0);
    for segment in 1..4 {
        test.advance(100);
        assert!(test.ack(segment).must_retransmit);
        test.expect_heard(&[Heard::Lost { bytes: MSS }]);
        test.expect_retransmission(segment);
        assert!(test.recovery.is_in_recovery());
        // RFC 6298 §5.3: the RTO from now on, whatever it has become.
        assert_eq!(
            test.recovery.rto_deadline(),
            Some(test.now + test.recovery.current_rto())
        );
    }
    test.ack(10);
    test.expect_exit();
}

#[test]
fn duplicates_below_the_recovery_point_start_no_recovery_after_a_timeout() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(6);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    // RFC 6582 §3.2 step 1: neither before, nor at the recovery point itself.
    test.duplicates(5);
    test.expect_heard(&[]);
    test.ack(6);
    test.send(6);
    test.duplicates(5);
    test.expect_heard(&[]);
    // Beyond it they count again.
    test.ack(7);
    test.duplicates(3);
    test.expect_recovery(1, 5, 1);
    test.expect_retransmission(7);
}

#[test]
fn duplicates_count_every_byte_once() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(10);
    // Reordering: segment 0 comes third.
    test.duplicates(2);
    assert_eq!(test.last_acked().total_delivered, 2 * MSS);
    let outcome = test.ack(3);
    assert_eq!((outcome.acked, outcome.delivered), (3 * MSS, MSS));
    // A loss: 3 duplicates, then the partial ACK of 2 segments, the retransmission one of them.
    test.duplicates(3);
    test.expect_recovery(1, 7, 3);
    test.expect_retransmission(3);
    assert_eq!(test.ack(5).delivered, MSS);
    test.expect_heard(&[Heard::Lost { bytes: MSS }]);
    test.expect_retransmission(5);
    test.ack(10);
    test.expect_exit();
    assert_eq!(test.last_acked().total_delivered, 10 * MSS);
}

#[test]
fn duplicates_never_count_for_more_than_is_outstanding() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(3);
    test.duplicates(50);
    // Segment 0 is lost, the other two may be with the peer.
    test.expect_recovery(1, 3, 0);
    assert_eq!(test.last_acked().total_delivered, 2 * MSS);
    test.expect_retransmission(0);
    test.expect_pipe(1);
}

#[test]
fn a_single_outstanding_segment_is_left_to_the_timer() {
    let mut test = RecoveryTest::new(NO_SACK);
    test.send(1);
    test.duplicates(2);
    test.expect_no_retransmission();
    test.expire();
    test.expect_timeout(1, 1, 1);
    test.expect_retransmission(0);
}

#[test]
fn proportional_rate_reduction_works_on_estimates_too() {
    let mut test = RecoveryTest::new(Setup {
        prr: true,
        window: 22,
        ..NO_SACK
    });
    assert_eq!(test.send_allowed(), 22);
    test.duplicates(3);
    test.expect_recovery(1, 22, 18);
    test.expect_retransmission(0);
    // RecoverFS = 22 - 2, target 11: after n duplicates ceil(n · 11 / 20) segments may have gone out, of
    // which the forced first took one; n = 2 allows 1.1, n = 4 allows 2.2, n = 6 allows 3.3.
    let sent: Vec<u64> = (2..=6)
        .map(|_| {
            test.duplicates(1);
            test.send_allowed()
        })
        .collect();
    assert_eq!(sent, [0, 0, 1, 0, 1]);
}
