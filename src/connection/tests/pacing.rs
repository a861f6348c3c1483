//! How departures are spaced. Segments of 1,000 bytes, an initial window of 10, an RTT of 100 ms.

use super::*;

/// Has had its first window acknowledged, has 40 segments more to send, and a window of 20: 400 kB/s.
fn paced() -> ConnectionTest {
    let mut test = ConnectionTest::established(plain().pacing(true));
    test.peer_window = u16::MAX;
    test.inject((A, 5_001, 1_001, 0));
    test.write(10_000);
    // The first window leaves at once.
    assert_eq!(test.sent.len(), 10);
    test.advance(100);
    test.sent.clear();
    test.inject((A, 5_001, 11_001, 0));
    test.write(40_000);
    assert_eq!(test.connection.stats().pacing_rate, Some(400_000));
    test
}

#[test]
fn a_window_leaves_in_pairs_and_then_one_by_one() {
    let mut test = paced();
    // Two segments are more than what the rate sends in 2 ms.
    assert_eq!(test.sent.len(), 2);
    // One takes 2.5 ms.
    for millis in [5, 10, 15, 20, 25, 30, 35, 40, 45] {
        test.advance(5);
        assert_eq!(test.sent.len(), 2 + millis / 5 * 2, "after {millis} ms");
    }
    // Then the window is full.
    test.advance(20);
    assert_eq!(test.sent.len(), 20);
    let stats = test.connection.stats();
    assert_eq!(stats.pacing_limited_time, Duration::from_millis(45));
    test.sent.clear();
}

#[test]
fn one_send_takes_no_more_than_the_pace_allows() {
    let mut test = paced();
    test.now = test.now + Duration::from_millis(30);
    test.connection.handle_timeout(test.now);
    let mut buf = vec![0; 65_536];
    let transmit = test.connection.poll_transmit(test.now, 64, &mut buf);
    // Twelve would have left in that time, but no more than two are saved up.
    assert_eq!(transmit.map(|transmit| transmit.segments), Some(2));
    assert!(
        test.connection
            .poll_transmit(test.now, 64, &mut buf)
            .is_none()
    );
    test.sent.clear();
}

#[test]
fn neither_a_fin_nor_a_reset_waits_for_the_pace() {
    let mut test = ConnectionTest::established(plain().pacing(true));
    test.peer_window = u16::MAX;
    test.inject((A, 5_001, 1_001, 0));
    test.write(10_000);
    test.advance(100);
    test.inject((A, 5_001, 11_001, 0));
    test.write(2_000);
    test.sent.clear();
    assert!(test.connection.stats().pacing_rate.is_some());
    test.connection.finish(test.now).unwrap();
    test.drain();
    test.expect((A | F, 13_001, 5_001, 0));
    let mut test = paced();
    test.sent.clear();
    test.connection.abort(test.now);
    test.drain();
    assert!(test.sent[0].0.flags.contains(Flags::RST));
    test.sent.clear();
}
