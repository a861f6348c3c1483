//! Opening: RFC 9293 §3.5.

use super::*;

#[test]
fn active_open_is_the_three_way_handshake() {
    let mut test = ConnectionTest::connect(plain());
    let syn = test.expect((S, 1_000, 0, 0));
    assert_eq!(syn.options.mss, Some(1_000));
    assert_eq!(syn.window, 10_000);
    test.inject((S | A, 5_000, 1_001, 0));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(test.connection.state(), State::Established);
    test.expect_event(Event::Connected);
}

#[test]
fn passive_open_waits_for_the_acknowledgment_of_its_syn() {
    let mut test = ConnectionTest::accept(plain());
    test.expect((S | A, 1_000, 5_001, 0));
    assert_eq!(test.connection.state(), State::SynReceived);
    test.inject((A, 5_001, 1_001, 0));
    assert_eq!(test.connection.state(), State::Established);
}

#[test]
fn data_with_the_handshakes_last_ack_is_taken() {
    let mut test = ConnectionTest::accept(plain());
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject((A | P, 5_001, 1_001, 100));
    assert_eq!(test.connection.state(), State::Established);
    test.read(5_001, 100);
    test.expect((A, 1_001, 5_101, 0));
}

#[test]
fn a_repeated_syn_gets_the_same_syn_ack() {
    let mut test = ConnectionTest::accept(plain());
    let first = test.expect((S | A, 1_000, 5_001, 0));
    test.advance(10);
    test.inject_with(
        (S, 5_000, 0, 0),
        Options {
            mss: Some(1_000),
            ..Options::default()
        },
    );
    let second = test.expect((S | A, 1_000, 5_001, 0));
    assert_eq!(first, second);
}

/// RFC 9293 figure 7.
#[test]
fn simultaneous_open_ends_established_on_both_sides() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    test.inject((S, 5_000, 0, 0));
    assert_eq!(test.connection.state(), State::SynReceived);
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject((S | A, 5_000, 1_001, 0));
    assert_eq!(test.connection.state(), State::Established);
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
}

/// RFC 9293 figure 8: an old duplicate SYN is found out by the RST.
#[test]
fn an_old_duplicate_syn_is_recovered_from() {
    let mut test = ConnectionTest::accept(plain());
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject((R, 5_001, 0, 0));
    assert_eq!(test.connection.state(), State::Closed);
    assert_eq!(test.connection.error(), Some(&ConnectionError::Reset));
}

#[test]
fn a_wrong_acknowledgment_of_the_syn_is_answered_with_reset() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    test.inject((S | A, 5_000, 999, 0));
    test.expect((R, 999, 0, 0));
    test.inject((A, 5_000, 1_002, 0));
    test.expect((R, 1_002, 0, 0));
    test.inject((R | A, 5_000, 1_000, 0));
    assert_eq!(
        test.connection.state(),
        State::SynSent,
        "an unacceptable RST is dropped"
    );
}

#[test]
fn a_reset_that_acknowledges_the_syn_is_a_refusal() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    test.inject((R | A, 0, 1_001, 0));
    assert_eq!(test.connection.error(), Some(&ConnectionError::Refused));
    test.expect_event(Event::Closed);
}

/// RFC 5927 §4.1.
#[test]
fn an_icmp_error_refuses_only_the_syn_that_is_out() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    test.connection
        .handle_unreachable(test.now, SeqNumber::new(999));
    assert_eq!(test.connection.state(), State::SynSent);
    test.connection
        .handle_unreachable(test.now, SeqNumber::new(1_000));
    assert_eq!(test.connection.error(), Some(&ConnectionError::Refused));

    let mut live = ConnectionTest::established(plain());
    live.connection
        .handle_unreachable(live.now, SeqNumber::new(1_000));
    assert_eq!(live.connection.state(), State::Established);
}

#[test]
fn a_syn_is_sent_as_often_as_configured_and_then_times_out() {
    let mut test = ConnectionTest::connect(
        plain()
            .initial_rto(Duration::from_millis(100))
            .syn_retries(4),
    );
    let first = test.expect((S, 1_000, 0, 0));
    // 100, 200, 400, 800 ms after one another; the fifth expiry, 1,600 ms later, gives up.
    for wait in [100, 200, 400, 800] {
        test.advance(wait - 1);
        test.expect_nothing();
        test.advance(1);
        let again = test.expect((S, 1_000, 0, 0));
        assert_eq!(again.options, first.options, "identical options");
    }
    test.advance(1_599);
    assert_eq!(test.connection.state(), State::SynSent);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::SynRetries { retries: 4 });
}

#[test]
fn the_connect_timeout_bounds_the_handshake_in_time() {
    let limit = Duration::from_millis(1_500);
    let mut test = ConnectionTest::connect(plain().connect_timeout(Some(limit)));
    test.expect((S, 1_000, 0, 0));
    test.advance(1_000);
    test.expect((S, 1_000, 0, 0));
    test.advance(500);
    test.expect_timed_out(TimeoutCause::ConnectTimeout(limit));
}

#[test]
fn data_written_while_connecting_leaves_with_the_handshakes_last_ack() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    test.write(300);
    test.expect_nothing();
    test.inject((S | A, 5_000, 1_001, 0));
    test.expect((A | P, 1_001, 5_001, 300));
    test.expect_nothing();
}

#[test]
fn the_crc_is_used_once_both_syns_offered_it() {
    let config = Config::builder();
    let mut test = ConnectionTest::connect(config);
    let syn = test.expect((S, 1_000, 0, 0));
    assert_eq!(
        test.connection.expected_integrity(A),
        None,
        "either while nothing is agreed"
    );
    let options = Options {
        mss: Some(1_000),
        extension: syn.options.extension,
        ..syn.options
    };
    test.inject_with((S | A, 5_000, 1_001, 0), options);
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(
        test.connection.expected_integrity(A),
        Some(Integrity::Crc32c)
    );
}

/// RFC 9293 §3.10.4: a close before ESTABLISHED is queued.
#[test]
fn finish_while_connecting_sends_data_and_fin_after_the_handshake() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    test.write(10);
    test.finish();
    test.expect_nothing();
    test.inject((S | A, 5_000, 1_001, 0));
    test.expect((A | P | F, 1_001, 5_001, 10));
    assert_eq!(test.connection.state(), State::FinWait1);
}

/// RFC 7323 §2.2.
#[test]
fn the_window_of_a_syn_ack_is_not_scaled_in_a_simultaneous_open_either() {
    let mut test = ConnectionTest::connect(plain().window_scaling(true));
    test.expect((S, 1_000, 0, 0));
    let options = Options {
        mss: Some(1_000),
        window_scale: Some(7),
        ..Options::default()
    };
    test.inject_with((S, 5_000, 0, 0), options);
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject_with((S | A, 5_000, 1_001, 0), options);
    assert_eq!(test.connection.stats().snd_wnd, 10_000);
    test.inject((A, 5_001, 1_001, 0));
    assert_eq!(test.connection.stats().snd_wnd, 10_000 << 7);
}

/// RFC 9293 §3.10.7.4, first: a peer that has started over learns from the answer that we have not.
#[test]
fn a_segment_that_does_not_belong_is_answered_in_syn_received() {
    let mut test = ConnectionTest::accept(plain());
    let first = test.expect((S | A, 1_000, 5_001, 0));
    test.inject((S, 7_000, 0, 0));
    assert_eq!(test.expect((S | A, 1_000, 5_001, 0)), first);
    test.inject((A, 25_000, 1_001, 0));
    test.expect((S | A, 1_000, 5_001, 0));
    test.inject((A, 5_001, 1_001, 0));
    test.expect_nothing();
    assert_eq!(test.connection.state(), State::Established);
}

/// Both SYNs of a simultaneous open and the peer's SYN-ACK are handled before anything leaves.
#[test]
fn a_simultaneous_open_that_arrives_in_one_batch_is_acknowledged() {
    let mut test = ConnectionTest::connect(plain());
    test.expect((S, 1_000, 0, 0));
    for (flags, ack) in [(S, 0), (S | A, 1_001)] {
        let header = segment(flags, 5_000, ack, 10_000, Options::default());
        let bytes = encode(&header, &[], Integrity::Sum);
        let segment = Segment::decode(&bytes).unwrap();
        test.connection.handle_segment(test.now, &segment, &bytes);
    }
    test.drain();
    assert_eq!(test.connection.state(), State::Established);
    test.expect((A, 1_001, 5_001, 0));
}

#[test]
fn repeated_syns_do_not_keep_a_handshake_alive() {
    let mut test = ConnectionTest::accept(plain().syn_retries(1));
    // 1 s, doubled once: 3 s in all, however often the peer repeats its SYN.
    for _ in 0..6 {
        assert_eq!(test.connection.state(), State::SynReceived);
        test.advance(500);
        test.inject((S, 5_000, 0, 0));
    }
    test.expect_timed_out(TimeoutCause::SynRetries { retries: 1 });
    test.sent.clear();
}
