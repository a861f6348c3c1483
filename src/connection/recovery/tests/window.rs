//! What may be sent: window validation, idle restart, pacing, delivery rate.

use super::*;

#[test]
fn a_window_that_is_not_used_is_reported_so() {
    // Segments sent of a window of 10, whether that counts as used: half of it (RFC 7661 §4.3).
    for (segments, expected) in [(10, true), (6, true), (5, true), (4, false), (1, false)] {
        let mut test = RecoveryTest::new(SACK);
        test.send(segments);
        test.advance(100);
        test.ack(1);
        assert_eq!(test.last_acked().is_cwnd_limited, expected, "{segments}");
    }
}

#[test]
fn the_window_restarts_after_an_idle_timeout() {
    let mut test = RecoveryTest::new(SACK);
    test.send(1);
    test.advance(100);
    test.ack(1);
    // Sent at 0, idle for 250: the RTO of 250 is not exceeded.
    test.advance(150);
    test.recovery.on_idle(test.now);
    test.expect_heard(&[]);
    test.advance(1);
    test.recovery.on_idle(test.now);
    test.recovery.on_idle(test.now);
    test.expect_heard(&[Heard::IdleRestart]);
}

#[test]
fn departures_are_spaced_but_a_due_retransmission_is_not() {
    // 100 kB/s: one segment in 10 ms, after the first window.
    let mut test = RecoveryTest::new(Setup {
        pacing_rate: Some(100_000),
        ..SACK
    });
    assert_eq!(test.recovery.pacing_budget(test.now), 10 * MSS);
    test.send(10);
    test.ack(10);
    assert_eq!(test.recovery.pacing_budget(test.now), 2 * MSS);
    test.send(2);
    assert_eq!(
        test.recovery.pacing_deadline(test.now, MSS),
        Some(Timestamp::from_millis(10))
    );
    assert_eq!(test.recovery.pacing_budget(test.now), 0);
    test.send(8);
    test.sack(10, &[(11, 14)]);
    test.expect_recovery(1, 10, 6);
    assert_eq!(test.recovery.pacing_deadline(test.now, MSS), None);
    assert_eq!(test.recovery.pacing_budget(test.now), MSS);
    test.expect_retransmission(10);
    // 11 segments are 110 ms; the burst covers 20, the next needs 10.
    assert_eq!(
        test.recovery.pacing_deadline(test.now, MSS),
        Some(Timestamp::from_millis(100))
    );
}

#[test]
fn without_a_pacing_rate_nothing_is_spaced() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    assert_eq!(test.recovery.pacing_deadline(test.now, MSS), None);
    assert_eq!(test.recovery.pacing_budget(test.now), u64::MAX);
    let mut stopped = RecoveryTest::new(Setup {
        pacing_rate: Some(0),
        ..SACK
    });
    // Zero is one segment per second.
    assert_eq!(stopped.recovery.pacing_rate(), Some(MSS));
    stopped.send(12);
    assert_eq!(
        stopped.recovery.pacing_deadline(stopped.now, MSS),
        Some(Timestamp::from_millis(1_000))
    );
}

#[test]
fn a_window_without_a_rate_is_spread_over_the_round_trip() {
    let mut test = RecoveryTest::new(Setup {
        paces_windows: true,
        ..SACK
    });
    // The handshake took 100 ms: two windows of 10,000 in that time.
    assert_eq!(test.recovery.pacing_rate(), Some(200_000));
    // The first window leaves at once.
    test.send(10);
    test.advance(100);
    test.ack(10);
    assert_eq!(test.recovery.pacing_rate(), Some(400_000));
    assert_eq!(test.recovery.pacing_budget(test.now), 2 * MSS);
    test.send(2);
    // The first four carry the clock 10 ms ahead; the burst is 5 ms.
    assert_eq!(
        test.recovery.pacing_deadline(test.now, 8 * MSS),
        Some(test.now + Duration::from_micros(2_500))
    );
    test.send(8);
    test.sack(10, &[(11, 14)]);
    test.expect_recovery(1, 10, 6);
    test.expect_retransmission(10);
    // Slow start is over: a fifth faster than one window per round trip, of the 7,000 still on their way,
    assert_eq!(test.recovery.pacing_rate(), Some(84_000));
    test.advance(100);
    test.ack(20);
    // and of the window after it, as large by now.
    test.expect_heard(&[Heard::Exited]);
    assert_eq!(test.recovery.pacing_rate(), Some(84_000));
}

#[test]
fn an_idle_restart_begins_with_a_burst() {
    let mut test = RecoveryTest::new(Setup {
        paces_windows: true,
        ..SACK
    });
    test.send(10);
    test.advance(100);
    test.ack(10);
    test.send(2);
    test.advance(100);
    test.ack(12);
    assert_eq!(test.recovery.pacing_budget(test.now), 2 * MSS);
    test.advance(1_000);
    test.recovery.on_idle(test.now);
    test.expect_heard(&[Heard::IdleRestart]);
    assert_eq!(test.recovery.pacing_budget(test.now), 10 * MSS);
}

#[test]
fn a_controller_with_a_rate_of_its_own_restarts_at_that_rate() {
    let mut test = RecoveryTest::new(Setup {
        pacing_rate: Some(100_000),
        ..SACK
    });
    test.send(10);
    test.advance(100);
    test.ack(10);
    test.advance(1_000);
    test.recovery.on_idle(test.now);
    test.expect_heard(&[Heard::IdleRestart]);
    assert_eq!(test.recovery.pacing_budget(test.now), 2 * MSS);
}

#[test]
fn an_ack_carries_a_delivery_rate() {
    let mut test = RecoveryTest::new(SACK);
    test.send(10);
    test.advance(100);
    test.ack(10);
    let rate = test.last_acked().rate.unwrap();
    // 10,000 bytes in 100 ms.
    assert_eq!(
        (rate.bytes_per_second(), rate.is_app_limited),
        (100_000, false)
    );
    assert_eq!(rate.tx_in_flight, 10 * MSS);
    // With the window empty, the application is the limit; with it full, it is not.
    test.recovery.on_app_limited(test.now);
    test.send(1);
    test.advance(100);
    test.ack(11);
    assert!(test.last_acked().rate.unwrap().is_app_limited);
    test.send(30);
    test.recovery.on_app_limited(test.now);
    test.advance(100);
    test.ack(41);
    assert!(!test.last_acked().rate.unwrap().is_app_limited);
}

#[test]
fn a_window_below_one_segment_counts_as_one() {
    let mut test = RecoveryTest::new(SACK);
    test.recovery.set_mss(20_000);
    // The window is 10,000 bytes.
    assert_eq!(test.recovery.send_allowance(test.now), 20_000);
}

#[test]
fn an_ack_of_two_spaced_segments_gives_a_sample_each_time() {
    // One segment each 10 ms, every second one acknowledged 80 ms after it was sent: the RTT is 90 ms by the
    // first of the two and 80 by the second, which leaves as soon as an ACK has arrived.
    let mut test = RecoveryTest::new(SACK);
    for segment in 0..40 {
        if segment >= 10 && segment % 2 == 0 {
            test.ack(segment - 7);
            let rate = test.last_acked().rate;
            assert!(rate.is_some(), "at {} ms", test.now.as_millis());
        }
        test.send(1);
        test.advance(10);
    }
}
