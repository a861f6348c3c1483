//! Loss detection by time: RFC 8985 §6. A quarter of the smallest RTT is 25 ms.

use super::*;

/// An ACK up to `segment` that reports `duplicate` in its first block.
fn dsack(test: &mut RecoveryTest, segment: u64, duplicate: u64, blocks: &[(u64, u64)]) {
    let mut all = vec![(duplicate, duplicate + 1)];
    all.extend(blocks);
    test.sack(segment, &all);
}

#[test]
fn what_is_overtaken_by_one_segment_is_lost_a_quarter_of_the_rtt_later() {
    // RFC 8985 §6.2: a flight too short for three duplicate ACKs.
    let mut test = RecoveryTest::new(RACK);
    test.send(2);
    test.advance(100);
    test.sack(0, &[(1, 2)]);
    test.expect_heard(&[]);
    // 0 was sent at 0: 0 + RTT 100 + 25.
    test.expire_reordering(125);
    test.expect_recovery(1, 2, 0);
    test.expect_retransmission(0);
    test.advance(100);
    test.ack(2);
    test.expect_exit();
    assert_eq!(test.recovery.counters().rto_count, 0);
}

#[test]
fn three_segments_that_overtake_are_enough_where_reordering_was_never_seen() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(1, 3)]);
    test.expect_heard(&[]);
    test.sack(0, &[(1, 4)]);
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(0);
    test.ack(10);
    test.expect_exit();
}

#[test]
fn in_recovery_everything_sent_before_what_arrived_is_lost_at_once() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    // RFC 6675 would spare 8, above which lies one segment only.
    test.sack(0, &[(1, 8), (9, 10)]);
    test.expect_recovery(2, 10, 0);
    test.expect_retransmission(0);
    test.expect_retransmission(8);
    test.ack(10);
    test.expect_exit();
}

#[test]
fn reordering_within_the_window_causes_no_retransmission() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    // 0 is late by two segments and 20 ms.
    test.sack(0, &[(1, 3)]);
    test.advance(20);
    test.ack(3);
    assert_eq!(test.recovery.counters().reordering_count, 1);
    // Now even seven segments that overtake prove nothing ...
    test.sack(3, &[(4, 10)]);
    test.expect_heard(&[]);
    test.expect_no_retransmission();
    // ... until 3, sent at 0, is late: RTT 120 + 25.
    test.expire_reordering(145);
    test.expect_recovery(1, 7, 0);
    test.expect_retransmission(3);
    test.ack(10);
    test.expect_exit();
}

#[test]
fn a_lost_retransmission_is_found_without_a_timeout() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(1, 10)]);
    test.expect_recovery(1, 10, 0);
    test.expect_retransmission(0);
    // Sent after it, and arrives: it is lost again, RTT 100 after its sending.
    test.advance(10);
    test.send(1);
    test.advance(100);
    test.sack(0, &[(1, 11)]);
    test.expect_heard(&[Heard::Lost { bytes: MSS }]);
    test.expect_retransmission(0);
    test.advance(100);
    test.ack(11);
    test.expect_exit();
    assert_eq!(test.recovery.counters().rto_count, 0);
}

#[test]
fn within_a_run_the_order_is_that_of_the_sequence_numbers() {
    let mut test = RecoveryTest::new(RACK);
    // One send of ten segments.
    test.recovery.on_sent(test.now, at(0)..at(10));
    test.advance(100);
    // 5 arrived: 0..5 are overtaken, 6..10 are not.
    test.sack(0, &[(5, 6)]);
    test.expire_reordering(125);
    test.expect_recovery(5, 10, 4);
    test.expect_retransmission(0);
    // The rest of the run is overtaken by a retransmission; sent at 0, it is late already.
    test.advance(100);
    test.sack(1, &[(5, 6)]);
    test.expect_heard(&vec![Heard::Lost { bytes: MSS }; 4]);
    test.expect_retransmission(1);
    test.ack(10);
    test.expect_exit();
}

#[test]
fn the_ack_of_an_original_says_nothing_about_its_retransmission() {
    // Whether the echo is older than the retransmission, and losses found.
    for (echoed_rtt, lost) in [(150, 0), (50, 1)] {
        let mut test = RecoveryTest::new(RACK);
        test.send(6);
        test.advance(100);
        test.sack(0, &[(2, 5)]);
        test.expect_recovery(2, 6, 1);
        test.expect_retransmission(0);
        test.expect_retransmission(1);
        // 150 ms after all was sent, 50 ms after the retransmissions; the RTT of 100 makes it impossible that
        // they arrived, but the smallest RTT could have been larger than the path's.
        test.advance(100);
        test.arrive(&AckArrival {
            ack: at(1),
            sack: &[at(2)..at(5)],
            is_duplicate: false,
            rtt: Some(ms(echoed_rtt)),
            rtt_tsecr: None,
            ecn_echo: false,
        });
        // 5 was sent before the retransmission.
        test.expect_heard(&vec![Heard::Lost { bytes: MSS }; lost]);
        test.recovery.check_invariants();
        test.ack(6);
        test.expect_exit();
    }
}

#[test]
fn the_window_grows_with_each_round_of_duplicates_and_decays_after_sixteen_recoveries() {
    let mut test = RecoveryTest::new(RACK);
    let wnd = |test: &RecoveryTest| test.recovery.reo_wnd().unwrap();
    assert_eq!(wnd(&test), ms(25));
    let episode = |test: &mut RecoveryTest, duplicate: bool| {
        let first = test.recovery.snd_una().saturating_since(at(0)) / MSS;
        test.send(5);
        test.advance(100);
        test.sack(first, &[(first + 1, first + 5)]);
        let (deadline, timer) = test.recovery.timer().unwrap();
        if timer == RecoveryTimer::Reordering {
            test.now = deadline;
            test.recovery.on_reordering_timeout(test.now);
        }
        test.expect_recovery(1, 5, 0);
        test.expect_retransmission(first);
        test.ack(first + 5);
        test.expect_exit();
        if duplicate {
            dsack(test, first + 5, first, &[]);
            test.expect_heard(&[Heard::Undone { was_timeout: false }]);
        }
    };
    episode(&mut test, true);
    assert_eq!(wnd(&test), ms(50));
    // The same round reports more: no further step. Nothing is outstanding, so the next round is at hand.
    episode(&mut test, true);
    assert_eq!(wnd(&test), ms(75));
    for _ in 0..15 {
        episode(&mut test, false);
        assert_eq!(wnd(&test), ms(75));
    }
    episode(&mut test, false);
    assert_eq!(wnd(&test), ms(25));
    // Never beyond the smoothed RTT.
    for _ in 0..10 {
        episode(&mut test, true);
    }
    assert_eq!(Some(wnd(&test)), test.recovery.rtt().srtt());
}

#[test]
fn one_round_of_duplicates_counts_once() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(2, 8)]);
    test.expect_recovery(2, 10, 2);
    test.expect_retransmission(0);
    test.expect_retransmission(1);
    test.ack(8);
    dsack(&mut test, 8, 0, &[]);
    dsack(&mut test, 8, 1, &[]);
    let undone = Heard::Undone { was_timeout: false };
    test.expect_heard(&[undone, Heard::Exited]);
    test.ack(10);
    assert_eq!(test.recovery.reo_wnd(), Some(ms(50)));
}

#[test]
fn blocks_of_one_ack_in_any_order_are_no_reordering() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(6, 7), (2, 3)]);
    test.expect_heard(&[]);
    assert_eq!(test.recovery.counters().reordering_count, 0);
    test.ack(10);
}

#[test]
fn the_reordering_timer_stands_in_place_of_the_retransmission_timer() {
    let mut test = RecoveryTest::new(RACK);
    test.send(2);
    // The ACK comes so late that the timeout, due at 300, is before 290 + 25.
    test.advance(290);
    test.sack(0, &[(1, 2)]);
    test.expire_reordering(315);
    test.expect_recovery(1, 2, 0);
    // 600 ms would be a back-off.
    assert_eq!(test.deadline(), Some(315 + 300));
    test.expect_retransmission(0);
    test.ack(2);
    test.expect_exit();
}

#[test]
fn a_loss_beyond_the_recovery_point_begins_an_episode_of_its_own() {
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    test.sack(0, &[(1, 4)]);
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(0);
    test.send(5);
    test.advance(100);
    test.sack(10, &[(11, 14)]);
    test.expect_heard(&[Heard::Lost { bytes: MSS }, Heard::Exited]);
    // Sent again before the next ACK, which is what the episode is told of by.
    test.expect_retransmission(10);
    test.sack(10, &[(11, 15)]);
    test.expect_recovery(0, 5, 1);
    test.ack(15);
    test.expect_exit();
}

#[test]
fn without_sack_nothing_is_detected_by_time() {
    let mut test = RecoveryTest::new(Setup {
        rack: true,
        ..NO_SACK
    });
    test.send(3);
    test.advance(100);
    test.duplicates(2);
    assert_eq!(test.recovery.reo_wnd(), None);
    let timeout = (Timestamp::from_millis(300), RecoveryTimer::Timeout);
    assert_eq!(test.recovery.timer(), Some(timeout));
}

#[test]
fn a_large_window_costs_no_more_per_ack_than_a_small_one() {
    const SEGMENTS: u64 = 20_000;
    let mut test = RecoveryTest::new(Setup {
        window: 1_000,
        ..RACK
    });
    for run in 0..SEGMENTS / 50 {
        test.recovery
            .on_sent(test.now, at(run * 50)..at((run + 1) * 50));
    }
    test.now = test.now + ms(100);
    test.recovery.scoreboard.touched.set(0);
    let (mut most, mut total) = (0, 0);
    // Every second segment arrives; those between are lost and sent again.
    for segment in (1..SEGMENTS).step_by(2) {
        test.recovery.on_ack(
            test.now,
            &AckArrival {
                ack: at(0),
                sack: &[at(segment)..at(segment + 1)],
                is_duplicate: true,
                rtt: None,
                rtt_tsecr: None,
                ecn_echo: false,
            },
        );
        while let Some(next) = test.recovery.next_retransmission(MSS) {
            test.recovery.on_retransmitted(test.now, next);
        }
        let work = test.recovery.scoreboard.touched.replace(0);
        most = most.max(work);
        total += work;
    }
    test.log.lock().unwrap().heard.clear();
    test.recovery.check_invariants();
    // A run of 50 is looked through once when it has come to the head of the queue.
    assert!(most <= 120, "{most} records touched by one ACK");
    assert!(total <= 16 * SEGMENTS, "{total} in all");
}

#[test]
fn a_probe_that_is_quicker_than_all_before_still_tells_what_it_overtook() {
    let mut test = RecoveryTest::new(TLP);
    test.send(3);
    test.expire_probe(200);
    test.probe();
    // 90 ms are less than the smallest RTT: it may be the original that is SACKed, and that would say no
    // less of what was sent before it.
    test.advance(90);
    test.sack(0, &[(2, 3)]);
    assert_eq!(test.recovery.counters().segments_lost, 2);
    test.log.lock().unwrap().heard.clear();
    test.expect_retransmission(0);
    test.expect_retransmission(1);
    test.ack(3);
    test.expect_exit();
}

#[test]
fn the_echo_says_nothing_about_what_is_sacked() {
    // RFC 7323 §4.3: a segment out of order leaves the echo as it was.
    let mut test = RecoveryTest::new(TLP);
    test.send(3);
    test.expire_probe(200);
    test.probe();
    test.advance(110);
    let sack = [at(2)..at(3)];
    test.arrive(&AckArrival {
        ack: at(0),
        sack: &sack,
        is_duplicate: true,
        rtt: Some(ms(310)),
        rtt_tsecr: Some(0),
        ecn_echo: false,
    });
    assert_eq!(test.recovery.counters().segments_lost, 2);
    test.log.lock().unwrap().heard.clear();
}

#[test]
fn patience_does_not_stop_the_sender() {
    // RFC 6675 §5, step 3.3: with SACK what left the network is replaced, however much it is.
    let mut test = RecoveryTest::new(RACK);
    test.send(10);
    test.advance(100);
    // 1 overtakes 0, and 0 arrives: reordering is seen, so nothing is lost for another 25 ms.
    test.sack(0, &[(1, 2)]);
    test.ack(2);
    test.send_allowed();
    test.advance(20);
    test.sack(2, &[(3, 10)]);
    test.expect_no_retransmission();
    let beyond = test.recovery.flight_size() + test.recovery.send_allowance(test.now);
    assert!(beyond > test.recovery.controller().cwnd() + 2 * MSS);
}
