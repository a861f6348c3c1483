//! Recovery by SACK: RFC 6675, RFC 9937.

use super::*;

#[test]
fn more_than_two_segments_above_a_hole_begin_recovery() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(1, 2)]);
    test.sack(0, &[(1, 3)]);
    test.expect_no_retransmission();
    assert!(test.sack(0, &[(1, 4)]).must_retransmit);
    // 10 - 1 lost - 3 SACKed; flight size is not affected.
    test.expect_recovery(1, 10, 6);
    // cwnd is 5, pipe 6: the first goes out all the same, nothing more does.
    test.expect_retransmission(0);
    test.expect_allowance(0);
    test.sack(0, &[(1, 5)]);
    test.sack(0, &[(1, 6)]);
    // pipe is 7 - 2 = 5.
    test.expect_allowance(0);
    test.sack(0, &[(1, 7)]);
    test.expect_allowance(1);
    assert_eq!(test.send_allowed(), 1);
    test.advance(100);
    let outcome = test.ack(10);
    assert_eq!((outcome.acked, outcome.delivered), (10 * MSS, 4 * MSS));
    test.expect_exit();
}

#[test]
fn one_ack_that_reports_a_whole_batch_suffices() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    test.advance(100);
    // Segments 1, 4 and 5 are missing; 2..4 are two segments, 6..10 four: all three holes lie below.
    test.sack(1, &[(6, 10), (2, 4)]);
    test.expect_recovery(3, 9, 0);
    test.expect_retransmission(1);
    test.expect_retransmission(4);
    test.expect_retransmission(5);
    test.expect_no_retransmission();
}

#[test]
fn three_duplicates_begin_recovery_even_if_little_was_reported() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    // RFC 6675 §5 step 1: three ACKs with 300 bytes in all.
    for end in 1..=3 {
        let block = at(1)..at(1) + end * 100;
        test.arrive(&AckArrival {
            ack: at(0),
            sack: &[block],
            is_duplicate: true,
            rtt: None,
            rtt_tsecr: None,
            ecn_echo: false,
        });
    }
    test.expect_heard(&[
        Heard::Lost { bytes: MSS },
        Heard::Entered {
            flight_size: 10 * MSS,
            in_flight: 8_700,
        },
    ]);
    test.expect_retransmission(0);
}

#[test]
fn acks_without_new_sack_information_are_no_duplicates() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    for _ in 0..10 {
        test.sack(0, &[(1, 2)]);
    }
    test.expect_heard(&[]);
    // Limited transmit: cwnd 10, pipe 9.
    test.expect_allowance(1);
}

#[test]
fn losses_within_an_episode_cost_no_second_reduction() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    test.sack(0, &[(1, 4)]);
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(0);
    // 4 and 5 are lost too.
    test.sack(0, &[(1, 4), (6, 9)]);
    test.expect_heard(&[Heard::Lost { bytes: MSS }, Heard::Lost { bytes: MSS }]);
    // pipe: 0 again and 9; cwnd 5.
    test.expect_pipe(2);
    test.expect_retransmission(4);
    test.expect_retransmission(5);
    test.expect_allowance(1);
    test.sack(4, &[(6, 10)]);
    assert!(test.recovery.is_in_recovery());
    test.ack(10);
    test.expect_exit();
}

#[test]
fn a_loss_beyond_the_recovery_point_begins_the_next_episode() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    test.sack(0, &[(1, 4)]);
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(0);
    // New data during recovery; its first segment is lost.
    test.send(5);
    test.sack(10, &[(11, 14)]);
    test.expect_heard(&[Heard::Lost { bytes: MSS }, Heard::Exited]);
    // The next ACK finds it still missing: flight size 5, of which 14 is in flight, then SACKed.
    test.sack(10, &[(11, 15)]);
    test.expect_recovery(0, 5, 0);
    test.expect_retransmission(10);
}

#[test]
fn after_a_timeout_no_recovery_begins_before_the_recovery_point() {
    let mut test = RecoveryTest::new(SACK);
    test.send(6);
    test.expire();
    test.expect_timeout(6, 6, 1);
    test.expect_retransmission(0);
    // The peer had 1..5 all along.
    test.sack(0, &[(1, 5)]);
    test.expect_heard(&[]);
    assert!(!test.recovery.is_in_recovery());
    test.sack(5, &[]);
    test.expect_retransmission(5);
    test.send(4);
    test.ack(6);
    // RFC 6675 §5.1: now HighACK has reached it.
    test.sack(6, &[(7, 10)]);
    test.expect_recovery(1, 4, 0);
    test.expect_retransmission(6);
}

#[test]
fn a_hole_that_is_not_provably_lost_may_be_sent_again_when_nothing_else_can() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    // 0 and 8 are lost; only one segment lies above 8.
    test.sack(0, &[(1, 8), (9, 10)]);
    test.expect_recovery(1, 10, 1);
    test.expect_retransmission(0);
    test.expect_no_retransmission();
    // RFC 6675 §4, NextSeg rule 3.
    let next = test.recovery.next_speculative_retransmission(MSS);
    assert_eq!(next, Some(at(8)..at(9)));
    test.recovery.on_retransmitted(test.now, at(8)..at(9));
    // 0 again, 8 twice.
    test.expect_pipe(3);
    assert_eq!(test.recovery.next_speculative_retransmission(MSS), None);
    test.ack(10);
    test.expect_exit();
}

#[test]
fn a_retransmission_from_before_the_episode_hides_no_hole() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    // The last segment is sent again as a probe, then 0 and 8 prove missing.
    test.recovery.on_retransmitted(test.now, at(9)..at(10));
    test.sack(0, &[(1, 8), (9, 10)]);
    test.expect_recovery(1, 10, 1);
    test.expect_retransmission(0);
    // RFC 6675 §5 step 3.1 has reset HighRxt.
    assert_eq!(
        test.recovery.next_speculative_retransmission(MSS),
        Some(at(8)..at(9))
    );
}

#[test]
fn an_ack_that_shows_further_loss_is_not_safe() {
    // Blocks of the ACK that acknowledges the retransmission of 0, losses shown by it, segments allowed.
    type Case = (&'static [(u64, u64)], usize, u64);
    let cases: [Case; 2] = [
        // In flight 7 + 3 - 1 = 9; delivered 4, sent 3: max(4 - 3, 1) + 1, PRR-SSRB.
        (&[(20, 23)], 0, 2),
        // 26..29 too: 23..26 are lost. In flight 9 - 6; delivered 7, sent 3: max(7 - 3, 4), PRR-CRB.
        (&[(20, 23), (26, 29)], 3, 4),
    ];
    for (blocks, lost, allowed) in cases {
        let mut test = RecoveryTest::new(Setup { window: 30, ..PRR });
        test.send(30);
        test.advance(100);
        // 20 are lost, 7 in flight, the target is 15.
        test.sack(0, &[(20, 23)]);
        test.expect_recovery(20, 30, 7);
        for segment in 0..3 {
            test.expect_retransmission(segment);
        }
        test.expect_allowance(0);
        test.sack(1, blocks);
        test.expect_heard(&vec![Heard::Lost { bytes: MSS }; lost]);
        test.expect_allowance(allowed);
    }
}

#[test]
fn the_reduction_is_spread_over_the_round() {
    let mut test = RecoveryTest::new(Setup { window: 20, ..PRR });
    assert_eq!(test.send_allowed(), 20);
    test.advance(100);
    for end in 2..=3 {
        test.sack(0, &[(1, end)]);
        assert_eq!(test.send_allowed(), 1);
    }
    test.sack(0, &[(1, 4)]);
    // Limited transmit sent two more, which do not count: target 10. In flight 22 - 1 - 3.
    test.expect_recovery(1, 20, 18);
    test.expect_retransmission(0);
    // RecoverFS = 22 - 2 = 20: every second segment delivered allows one, of which the retransmission took
    // the first.
    let sent: Vec<u64> = (5..=12)
        .map(|end| {
            test.sack(0, &[(1, end)]);
            test.send_allowed()
        })
        .collect();
    assert_eq!(sent, [0, 0, 1, 0, 1, 0, 1, 0]);
    // The controller's window is the target from the beginning.
    assert_eq!(test.recovery.controller().cwnd(), 10 * MSS);
    test.ack(22);
    test.expect_exit();
}

#[test]
fn a_controller_that_governs_recovery_itself_gets_no_rate_reduction() {
    for (uses_prr, expected) in [(true, 0), (false, 4)] {
        let mut test = RecoveryTest::new(Setup {
            controller_uses_prr: uses_prr,
            window: 20,
            ..PRR
        });
        test.send(20);
        test.advance(100);
        // Everything but the first and the last 5 arrived, in one ACK.
        test.sack(0, &[(1, 15)]);
        test.expect_recovery(1, 20, 5);
        test.expect_retransmission(0);
        if uses_prr {
            // PRR-CRB: as much as was delivered, at most up to the target: 10 - 5, of which one is spent.
            test.expect_allowance(4);
            // Nothing more delivered, nothing more allowed.
            test.send(4);
        }
        test.expect_allowance(expected);
    }
}

#[test]
fn a_late_segment_is_no_loss() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(1, 3)]);
    test.ack(3);
    test.ack(10);
    assert_eq!(test.last_acked().total_delivered, 10 * MSS);
    assert_eq!(test.last_acked().total_lost, 0);
}
