//! Data transfer: ACKs, windows, Nagle, retransmission as the peer sees them.

use super::*;
use crate::CongestionControl;
use crate::congestion::{Acked, CongestionController, RecoveryEntered, TimedOut};

#[test]
fn bytes_arrive_as_they_were_written() {
    let mut test = ConnectionTest::established(plain());
    test.write(2_500);
    for (seq, len, flags) in [(1_001, 1_000, A), (2_001, 1_000, A), (3_001, 500, A | P)] {
        let (header, payload) = test.sent.pop_front().unwrap();
        assert_eq!((header.flags, header.seq.get()), (flags, seq));
        assert_eq!(payload, pattern(seq, len));
    }
}

#[test]
fn reads_return_what_arrived_in_order() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 6_001, 1_001, 500));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(
        test.connection.read(test.now, &mut [0; 10]),
        Err(ReadError::Blocked)
    );
    test.inject((A, 5_001, 1_001, 1_000));
    test.expect((A, 1_001, 6_501, 0));
    test.read(5_001, 1_500);
}

#[test]
fn an_acknowledgment_that_is_delayed_needs_no_turn() {
    let mut test = ConnectionTest::established(plain());
    // The first ones are acknowledged at once.
    let delayed = (0..100).map(|count| 5_001 + 500 * count).find(|&seq| {
        test.inject((A, seq, 1_001, 500));
        test.sent.drain(..).count() == 0
    });
    assert!(delayed.is_some());
    assert!(!test.connection.wants_turn(test.now));
    // What is outstanding may have to be sent again.
    test.write(10);
    assert_eq!(test.sent.drain(..).count(), 1);
    assert!(test.connection.wants_turn(test.now));
}

/// RFC 9293 §3.7.4: a small segment waits while another one is unacknowledged.
#[test]
fn nagle_holds_a_second_small_segment_back() {
    let mut test = ConnectionTest::established(plain());
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
    test.write(10);
    test.write(10);
    test.expect_nothing();
    test.inject((A, 5_001, 1_011, 0));
    test.expect((A | P, 1_011, 5_001, 20));
}

#[test]
fn nodelay_flush_and_finish_overrule_nagle() {
    let mut test = ConnectionTest::established(plain().nodelay(true));
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
    test.write(10);
    test.expect((A | P, 1_011, 5_001, 10));
    test.connection.set_nodelay(test.now, false);
    test.write(10);
    test.expect_nothing();
    test.connection.flush(test.now);
    test.drain();
    test.expect((A | P, 1_021, 5_001, 10));
    test.write(10);
    test.expect_nothing();
    test.finish();
    test.expect((A | P | F, 1_031, 5_001, 10));
}

/// RFC 5681 §3.2: the third duplicate ACK sends the missing segment at once.
#[test]
fn the_third_duplicate_ack_retransmits() {
    let mut test = ConnectionTest::established(plain());
    test.write(6_000);
    for seq in [1_001, 2_001, 3_001, 4_001, 5_001] {
        test.expect((A, seq, 5_001, 1_000));
    }
    test.expect((A | P, 6_001, 5_001, 1_000));
    test.inject((A, 5_001, 1_001, 0));
    test.inject((A, 5_001, 1_001, 0));
    test.expect_nothing();
    test.inject((A, 5_001, 1_001, 0));
    test.expect((A, 1_001, 5_001, 1_000));
    let stats = test.connection.stats();
    assert_eq!(
        (stats.fast_recovery_count, stats.segments_retransmitted),
        (1, 1)
    );
    test.inject((A, 5_001, 7_001, 0));
    assert_eq!(test.connection.stats().flight_size, 0);
}

/// RFC 3042: each of the first two duplicate ACKs lets one new segment out.
#[test]
fn limited_transmit_sends_new_data_on_the_first_two_duplicates() {
    let mut test = ConnectionTest::established(plain().initial_window(4));
    test.write(8_000);
    for seq in [1_001, 2_001, 3_001, 4_001] {
        test.expect((A, seq, 5_001, 1_000));
    }
    test.inject((A, 5_001, 1_001, 0));
    test.expect((A, 5_001, 5_001, 1_000));
    test.inject((A, 5_001, 1_001, 0));
    test.expect((A, 6_001, 5_001, 1_000));
    test.inject((A, 5_001, 1_001, 0));
    test.expect((A, 1_001, 5_001, 1_000));
}

#[test]
fn a_closed_window_is_probed_with_one_byte_until_it_opens() {
    let mut test = ConnectionTest::established(plain());
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.write(500);
    test.expect_nothing();
    // RTO after one sample of 100 ms: 100 + 4 * 50 = 300 ms; then doubled.
    for wait in [300, 600, 1_200] {
        test.advance(wait - 1);
        test.expect_nothing();
        test.advance(1);
        test.expect((A, 1_001, 5_001, 1));
        test.inject((A, 5_001, 1_001, 0));
    }
    assert_eq!(test.connection.stats().zero_window_probes, 3);
    test.peer_window = 10_000;
    test.inject((A, 5_001, 1_001, 0));
    test.expect((A | P, 1_001, 5_001, 500));
}

#[test]
fn a_probe_byte_that_the_peer_takes_is_not_sent_again() {
    let mut test = ConnectionTest::established(plain());
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.write(500);
    test.advance(300);
    test.expect((A, 1_001, 5_001, 1));
    test.peer_window = 10_000;
    test.inject((A, 5_001, 1_002, 0));
    test.expect((A | P, 1_002, 5_001, 499));
}

#[test]
fn an_answering_peer_with_a_closed_window_is_never_given_up() {
    let mut test = ConnectionTest::established(plain().data_retries(2).user_timeout(None));
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.write(500);
    for _ in 0..40 {
        let due = test.connection.poll_timeout().unwrap();
        let wait = due.saturating_since(test.now).as_millis();
        test.advance(u64::try_from(wait).unwrap() + 1);
        test.expect((A, 1_001, 5_001, 1));
        test.inject((A, 5_001, 1_001, 0));
    }
    assert_eq!(test.connection.state(), State::Established);
}

#[test]
fn reading_reopens_a_closed_window_with_an_update() {
    let mut test = ConnectionTest::established(plain());
    let mut seq = 5_001;
    for _ in 0..10 {
        test.inject((A, seq, 1_001, 1_000));
        seq += 1_000;
    }
    let last = test.sent.pop_back().unwrap().0;
    test.sent.clear();
    assert_eq!((last.ack.get(), last.window), (15_001, 0));
    let mut buf = [0; 10_000];
    assert_eq!(test.connection.read(test.now, &mut buf), Ok(10_000));
    test.drain();
    let update = test.expect((A, 1_001, 15_001, 0));
    assert_eq!(update.window, 10_000);
}

#[test]
fn an_mss_of_576_bounds_both_directions() {
    let mut test = ConnectionTest::connect(plain().mss(576));
    let syn = test.expect((S, 1_000, 0, 0));
    assert_eq!(syn.options.mss, Some(576));
    test.inject_with(
        (S | A, 5_000, 1_001, 0),
        Options {
            mss: Some(1_460),
            ..Options::default()
        },
    );
    test.expect((A, 1_001, 5_001, 0));
    test.write(1_000);
    test.expect((A, 1_001, 5_001, 576));
    test.expect((A | P, 1_577, 5_001, 424));
}

/// A window of a fixed number of segments: what a user's own controller may do.
#[derive(Debug)]
struct FixedWindow(u64);

impl CongestionController for FixedWindow {
    fn on_acked(&mut self, _: &Acked) {}
    fn on_recovery_entered(&mut self, _: &RecoveryEntered) {}
    fn on_timeout(&mut self, _: &TimedOut) {}
    fn cwnd(&self) -> u64 {
        self.0
    }
    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
    fn uses_prr(&self) -> bool {
        false
    }
}

#[test]
fn a_window_of_one_segment_is_stop_and_wait() {
    let controller = CongestionControl::custom(|params| FixedWindow(params.mss));
    let mut test = ConnectionTest::established(plain().congestion(controller));
    test.write(3_000);
    test.expect((A, 1_001, 5_001, 1_000));
    test.expect_nothing();
    test.inject((A, 5_001, 2_001, 0));
    test.expect((A, 2_001, 5_001, 1_000));
    test.expect_nothing();
    test.inject((A, 5_001, 3_001, 0));
    test.expect((A | P, 3_001, 5_001, 1_000));
}

#[test]
fn the_second_full_segment_is_acknowledged_at_once_and_a_lone_one_later() {
    let mut test = ConnectionTest::established(plain());
    // Out of the quick-ACK phase of the peer's slow start.
    let mut seq = 5_001;
    for _ in 0..40 {
        test.inject((A, seq, 1_001, 1_000));
        seq += 1_000;
        let mut buf = [0; 1_000];
        assert_eq!(test.connection.read(test.now, &mut buf), Ok(1_000));
        test.drain();
    }
    test.advance(100);
    test.sent.clear();
    test.inject((A, seq, 1_001, 1_000));
    test.inject((A, seq + 1_000, 1_001, 1_000));
    test.expect((A, 1_001, seq + 2_000, 0));
    test.read(seq, 2_000);
    test.sent.clear();
    test.inject((A, seq + 2_000, 1_001, 1_000));
    test.read(seq + 2_000, 1_000);
    test.expect_nothing();
    test.advance(24);
    test.expect_nothing();
    test.advance(1);
    test.expect((A, 1_001, seq + 3_000, 0));
}

#[test]
fn on_a_short_path_an_ack_waits_for_a_quarter_of_the_rtt() {
    // RTT, and the delay that follows from it and the default of 25 ms.
    for (rtt, delay) in [(0, 1), (8, 2), (40, 10), (400, 25)] {
        let mut test = ConnectionTest::connect(plain());
        test.expect((S, 1_000, 0, 0));
        test.advance(rtt);
        test.inject((S | A, 5_000, 1_001, 0));
        test.expect((A, 1_001, 5_001, 0));
        test.inject((A | P, 5_001, 1_001, 1_000));
        test.sent.clear();
        test.inject((A | P, 6_001, 1_001, 1));
        test.expect_nothing();
        test.advance(delay - 1);
        test.expect_nothing();
        test.advance(1);
        test.expect((A, 1_001, 6_002, 0));
    }
}

/// A peer that has filled our window stands at its right edge; that some of what it sent is missing must
/// not make its ACKs unacceptable.
#[test]
fn the_ack_of_a_peer_that_filled_the_window_is_taken() {
    let mut test = ConnectionTest::established(plain());
    test.write(100);
    test.expect((A | P, 1_001, 5_001, 100));
    // Our window is 10,000 bytes; what the peer sent is late.
    test.inject((A, 15_001, 1_101, 0));
    test.expect_nothing();
    assert_eq!(test.connection.stats().flight_size, 0);
    test.inject((A, 15_003, 1_101, 0));
    test.expect((A, 1_101, 5_001, 0));
}

/// RFC 9293 §3.8.6.2.1 (4): a window that stays too small to be worth a segment is used all the same once
/// the override timeout has passed, however often the peer repeats it.
#[test]
fn a_small_window_that_is_repeated_is_used_after_the_override_timeout() {
    let mut test = ConnectionTest::established(plain());
    test.peer_window = 400;
    test.inject((A, 5_001, 1_001, 0));
    test.write(3_000);
    test.expect_nothing();
    for n in 0..2 {
        test.advance(100);
        test.inject((A, 5_001 + n * 10, 1_001, 10));
        test.read(5_001 + n * 10, 10);
    }
    test.advance(99);
    test.sent.retain(|(_, payload)| !payload.is_empty());
    test.expect_nothing();
    // 300 ms after the window became too small: the RTO after one sample of 100 ms.
    test.advance(1);
    test.expect((A, 1_001, 5_021, 400));
}

/// A bulk writer is not woken for every segment: a third of the buffer has to be free.
#[test]
fn a_waiting_writer_is_woken_by_a_third_of_the_buffer() {
    // With an initial window of two segments enough is left to be sent, with one of ten nothing is: then an
    // eighth has to do.
    for (initial_window, too_early, enough) in [(2, 3_001, 4_001), (10, 2_001, 3_001)] {
        let builder = plain().send_buffer(9_000).initial_window(initial_window);
        let mut test = ConnectionTest::established(builder);
        let data = pattern(1_001, 12_000);
        assert_eq!(test.connection.write(test.now, &data), Ok(9_000));
        assert_eq!(
            test.connection.write(test.now, &data[9_000..]),
            Err(WriteError::Blocked)
        );
        test.drain();
        test.inject((A, 5_001, too_early, 0));
        assert_eq!(test.connection.poll_event(), None, "{initial_window}");
        test.inject((A, 5_001, enough, 0));
        test.expect_event(Event::Writable);
        test.sent.clear();
    }
}

/// What has left makes room under the limit on what is not sent, not only what was acknowledged.
#[test]
fn a_writer_that_waits_for_unsent_bytes_is_woken_when_they_leave() {
    let mut test = ConnectionTest::established(plain().notsent_lowat(Some(4_096)));
    let data = pattern(1_001, 20_000);
    let mut written = 0;
    // Nine segments and the short tail of the first write fill the congestion window.
    while let Ok(taken) = test.connection.write(test.now, &data[written..]) {
        assert!(taken <= 4_096);
        written += taken;
        test.drain();
    }
    assert_eq!(written, 9_096 + 4_096);
    assert_eq!(test.connection.stats().unsent_bytes, 4_096);
    while test.connection.poll_event().is_some() {}
    test.sent.clear();
    // The peer's window lets one segment out for each that is acknowledged.
    for (ack, unsent) in [(2_001, 3_096), (3_001, 2_096)] {
        test.inject((A, 5_001, ack, 0));
        assert_eq!(test.connection.stats().unsent_bytes, unsent);
        assert_eq!(test.connection.poll_event(), None);
    }
    test.inject((A, 5_001, 4_001, 0));
    test.expect_event(Event::Writable);
    assert_eq!(test.connection.stats().unsent_bytes, 1_096);
    test.sent.clear();
}
