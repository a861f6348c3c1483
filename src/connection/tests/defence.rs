//! Segments that do not belong: RFC 9293 §3.10.7.4, RFC 5961, RFC 7323 §5, RFC 1337.

use super::*;
use crate::wire::{Extension, Timestamps};

/// RFC 5961 §3.2.
#[test]
fn only_a_reset_at_rcv_nxt_resets() {
    let mut test = ConnectionTest::established(plain());
    test.inject((R, 5_000, 0, 0));
    assert_eq!(
        test.connection.state(),
        State::Established,
        "outside the window: dropped"
    );
    test.inject((R, 5_002, 0, 0));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(
        test.connection.state(),
        State::Established,
        "inside the window: challenged"
    );
    test.inject((R, 5_001, 0, 0));
    assert_eq!(test.connection.error(), Some(&ConnectionError::Reset));
}

/// RFC 5961 §4.2.
#[test]
fn a_syn_in_the_window_is_challenged() {
    let mut test = ConnectionTest::established(plain());
    test.inject((S, 5_050, 0, 0));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(test.connection.state(), State::Established);
}

/// RFC 5961 §5.2.
#[test]
fn an_acknowledgment_of_data_never_sent_is_challenged_and_dropped() {
    let mut test = ConnectionTest::established(plain());
    test.write(100);
    test.expect((A | P, 1_001, 5_001, 100));
    test.inject((A, 5_001, 1_102, 50));
    test.expect((A, 1_101, 5_001, 0));
    assert_eq!(test.connection.stats().flight_size, 100);
    assert_eq!(test.connection.stats().acks_of_unsent_data, 1);
    test.inject((A, 5_001, 1_000_u32.wrapping_sub(10_001), 50));
    test.expect((A, 1_101, 5_001, 0));
    assert_eq!(
        test.connection.stats().receive_buffer_bytes,
        0,
        "its text is not taken either"
    );
    let stats = test.connection.stats();
    assert_eq!(
        (stats.acks_of_unsent_data, stats.segments_unacceptable),
        (1, 2)
    );
}

#[test]
fn challenge_acks_are_limited_per_second() {
    let mut test = ConnectionTest::established(plain().challenge_ack_limit(3));
    for _ in 0..10 {
        test.inject((S, 5_050, 0, 0));
    }
    for _ in 0..3 {
        test.expect((A, 1_001, 5_001, 0));
    }
    test.expect_nothing();
    test.advance(1_000);
    test.inject((S, 5_050, 0, 0));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(test.connection.stats().challenge_acks, 4);
}

#[test]
fn old_text_is_acknowledged_again_and_not_read_twice() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 5_001, 1_001, 100));
    test.read(5_001, 100);
    test.sent.clear();
    test.inject((A, 5_001, 1_001, 100));
    test.expect((A, 1_001, 5_101, 0));
    assert_eq!(
        test.connection.read(test.now, &mut [0; 8]),
        Err(ReadError::Blocked)
    );
}

#[test]
fn text_beyond_the_window_is_dropped() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 15_001, 1_001, 100));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(test.connection.stats().out_of_order_bytes, 0);
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut test = ConnectionTest::established(plain());
    test.inject((P, 5_001, 0, 100));
    test.expect_nothing();
    assert_eq!(test.connection.stats().receive_buffer_bytes, 0);
}

fn stamped(tsval: u32, tsecr: u32) -> Options {
    Options {
        timestamps: Some(Timestamps { tsval, tsecr }),
        ..Options::default()
    }
}

fn with_timestamps() -> ConnectionTest {
    let mut test = ConnectionTest::connect(plain().timestamps(true));
    test.expect((S, 1_000, 0, 0));
    test.inject_with(
        (S | A, 5_000, 1_001, 0),
        Options {
            mss: Some(1_012),
            ..stamped(700, 1)
        },
    );
    let ack = test.expect((A, 1_001, 5_001, 0));
    assert_eq!(ack.options.timestamps.unwrap().tsecr, 700);
    test
}

/// RFC 7323 §5.3 R1.
#[test]
fn paws_drops_a_segment_with_an_older_timestamp() {
    let mut test = with_timestamps();
    test.inject_with((A, 5_001, 1_001, 100), stamped(699, 1));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(test.connection.stats().receive_buffer_bytes, 0);
    test.inject_with((A, 5_001, 1_001, 100), stamped(701, 1));
    test.read(5_001, 100);
    let ack = test.expect((A, 1_001, 5_101, 0));
    assert_eq!(ack.options.timestamps.unwrap().tsecr, 701);
}

/// RFC 7323 §5.3 R1: as soon as both SYNs are known.
#[test]
fn paws_protects_the_handshake_too() {
    // A simultaneous open: the peer's SYN comes instead of its answer.
    let mut test = ConnectionTest::connect(plain().timestamps(true));
    test.expect((S, 1_000, 0, 0));
    let mss = Some(1_012);
    test.inject_with(
        (S, 5_000, 0, 0),
        Options {
            mss,
            ..stamped(700, 0)
        },
    );
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject_with((A, 5_001, 1_001, 0), stamped(699, 1));
    assert_eq!(test.connection.state(), State::SynReceived, "an older one");
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject((A, 5_001, 1_001, 0));
    assert_eq!(test.connection.state(), State::SynReceived, "without one");
    test.inject_with((A, 5_001, 1_001, 0), stamped(700, 1));
    assert_eq!(test.connection.state(), State::Established);
}

/// RFC 7323 §3.2: a RST should carry timestamps as well.
#[test]
fn a_reset_of_ours_carries_timestamps() {
    let mut test = with_timestamps();
    test.connection.abort(test.now);
    test.drain();
    let reset = test.expect((R | A, 1_001, 5_001, 0));
    assert_eq!(reset.options.timestamps, stamped(1, 700).timestamps);
}

/// Deviation from RFC 7323 §5.3 R1, between two ends that count milliseconds.
#[test]
fn paws_lets_pass_what_is_just_late_if_both_offered_the_extension() {
    // (the SYN-ACK's, a later segment's, whether it comes too late: at most 250 ms, and not before the SYN-ACK)
    let cases = [
        (100, 450, false),
        (100, 449, true),
        (600, 600, false),
        (600, 599, true),
    ];
    for (first, tsval, is_dropped) in cases {
        let mut test = ConnectionTest::connect(plain().timestamps(true).extension(true));
        let syn = test.expect((S, 1_000, 0, 0));
        // Without the CRC, which the fixture does not make.
        let extension = syn.options.extension.map(|extension| Extension {
            features: 0,
            ..extension
        });
        test.inject_with(
            (S | A, 5_000, 1_001, 0),
            Options {
                mss: Some(1_012),
                extension,
                ..stamped(first, 1)
            },
        );
        test.expect((A, 1_001, 5_001, 0));
        // Renews TS.Recent.
        test.inject_with((A, 5_001, 1_001, 0), stamped(700, 1));
        test.inject_with((A, 5_001, 1_001, 100), stamped(tsval, 1));
        let expected = if is_dropped { 0 } else { 100 };
        let received = test.connection.stats().receive_buffer_bytes;
        assert_eq!(received, expected, "{tsval} after {first}");
        if is_dropped {
            test.expect((A, 1_001, 5_001, 0));
        } else {
            test.read(5_001, 100);
            let ack = test.expect((A, 1_001, 5_101, 0));
            // It does not renew TS.Recent.
            assert_eq!(ack.options.timestamps.map(|ts| ts.tsecr), Some(700));
        }
    }
}

/// RFC 7323 §4.3 (2): a segment ahead of a gap does not renew TS.Recent.
#[test]
fn the_echo_is_that_of_the_segment_that_filled_the_window_in_order() {
    let mut test = with_timestamps();
    test.inject_with((A, 5_101, 1_001, 100), stamped(720, 1));
    let ack = test.expect((A, 1_001, 5_001, 0));
    assert_eq!(ack.options.timestamps.unwrap().tsecr, 700);
    test.inject_with((A, 5_001, 1_001, 100), stamped(710, 1));
    let ack = test.expect((A, 1_001, 5_201, 0));
    assert_eq!(ack.options.timestamps.unwrap().tsecr, 710);
}

/// The ACK that a filled gap drew was lost: the peer sends the first of it again, long afterwards.
#[test]
fn the_echo_is_that_of_the_copy_if_the_ack_of_a_filled_gap_was_lost() {
    let mut test = with_timestamps();
    test.inject_with((A, 5_101, 1_001, 300), stamped(710, 1));
    test.expect((A, 1_001, 5_001, 0));
    test.inject_with((A, 5_001, 1_001, 100), stamped(720, 1));
    test.expect((A, 1_001, 5_401, 0));
    test.inject_with((A, 5_001, 1_001, 100), stamped(9_000, 1));
    let ack = test.expect((A, 1_001, 5_401, 0));
    assert_eq!(ack.options.timestamps.unwrap().tsecr, 9_000);
    // What an earlier ACK had covered is only an old duplicate.
    test.inject_with((A, 5_401, 1_001, 100), stamped(9_010, 1));
    test.sent.clear();
    test.advance(100);
    test.sent.clear();
    test.inject_with((A, 5_001, 1_001, 100), stamped(9_020, 1));
    let ack = test.expect((A, 1_001, 5_501, 0));
    assert_eq!(ack.options.timestamps.unwrap().tsecr, 9_010);
}

/// RFC 7323 §3.2.
#[test]
fn a_segment_without_the_agreed_timestamps_is_dropped_silently() {
    let mut test = with_timestamps();
    test.inject((A, 5_001, 1_001, 100));
    test.expect_nothing();
    assert_eq!(test.connection.stats().receive_buffer_bytes, 0);
    test.inject((R, 5_001, 0, 0));
    assert_eq!(
        test.connection.error(),
        Some(&ConnectionError::Reset),
        "but RST needs none"
    );
}

/// An answer to an answer would go on for ever between two sides that refuse each other's segments.
#[test]
fn answers_to_unacceptable_acks_are_limited_per_second() {
    let mut test = ConnectionTest::established(plain().challenge_ack_limit(3));
    for _ in 0..10 {
        test.inject((A, 4_000, 1_001, 0));
        test.inject((A, 25_000, 1_001, 0));
    }
    for _ in 0..3 {
        test.expect((A, 1_001, 5_001, 0));
    }
    test.expect_nothing();
    test.inject((A, 5_000, 1_001, 0));
    test.expect((A, 1_001, 5_001, 0));
    test.inject((A, 25_000, 1_001, 100));
    test.expect((A, 1_001, 5_001, 0));
}

/// RFC 1337 §3.
#[test]
fn a_reset_does_not_end_time_wait() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.inject((A | F, 5_001, 1_002, 0));
    test.expect((A, 1_002, 5_002, 0));
    test.inject((R, 5_002, 0, 0));
    assert_eq!(test.connection.state(), State::TimeWait);
}
