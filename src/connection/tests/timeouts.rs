//! Retransmission, retry limits, user timeout, keepalive, idle timeout.

use super::*;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

#[test]
fn data_is_retransmitted_with_doubled_timeouts_and_then_given_up() {
    let mut test = ConnectionTest::established(plain().data_retries(4).user_timeout(None));
    test.write(1_000);
    test.expect((A | P, 1_001, 5_001, 1_000));
    // RFC 6298 §2.2: 100 + 4 * 50 = 300 ms, then doubled.
    for wait in [300, 600, 1_200, 2_400] {
        test.advance(wait - 1);
        test.expect_nothing();
        test.advance(1);
        test.expect((A | P, 1_001, 5_001, 1_000));
    }
    test.advance(4_799);
    assert_eq!(test.connection.state(), State::Established);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::DataRetries { retries: 4 });
}

#[test]
fn an_initial_rto_of_100_ms_is_used_until_there_is_a_sample() {
    let mut test = ConnectionTest::connect(plain().initial_rto(Duration::from_millis(100)));
    test.expect((S, 1_000, 0, 0));
    test.advance(100);
    test.expect((S, 1_000, 0, 0));
    // Karn: a retransmitted SYN gives no sample.
    test.inject((S | A, 5_000, 1_001, 0));
    test.expect((A, 1_001, 5_001, 0));
    assert_eq!(test.connection.stats().srtt, None);
}

#[test]
fn unacknowledged_data_ends_with_the_user_timeout() {
    let limit = Duration::from_secs(2);
    let mut test = ConnectionTest::established(plain().user_timeout(Some(limit)));
    test.write(1_000);
    test.advance(1_999);
    assert_eq!(test.connection.state(), State::Established);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::UserTimeout(limit));
    let reset = test.sent.pop_back().unwrap().0;
    assert_eq!(reset.flags, R | A);
    test.sent.clear();
}

#[test]
fn progress_restarts_the_user_timeout() {
    let limit = Duration::from_secs(2);
    let mut test = ConnectionTest::established(plain().user_timeout(Some(limit)));
    test.write(2_000);
    test.advance(1_500);
    test.inject((A, 5_001, 2_001, 0));
    test.advance(1_500);
    assert_eq!(test.connection.state(), State::Established);
    test.advance(500);
    test.expect_timed_out(TimeoutCause::UserTimeout(limit));
    test.sent.clear();
}

#[test]
fn an_unanswered_zero_window_ends_with_the_user_timeout() {
    let limit = Duration::from_secs(5);
    let mut test = ConnectionTest::established(plain().user_timeout(Some(limit)));
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.write(100);
    test.advance(300 + 5_000);
    test.expect_timed_out(TimeoutCause::UserTimeout(limit));
    test.sent.clear();
}

/// RFC 9293 §3.8.6.1: a peer that goes on acknowledging while its window is closed is not given up, here
/// for a FIN that it refuses. The RTO backs off to more than the limit meanwhile.
#[test]
fn a_fin_at_a_closed_window_is_no_silence_while_the_peer_answers() {
    let limit = Duration::from_secs(5);
    let mut test = ConnectionTest::established(
        plain()
            .user_timeout(Some(limit))
            .max_rto(Duration::from_secs(20)),
    );
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    for _ in 0..40 {
        test.inject((A, 5_001, 1_001, 0));
        let due = test.connection.poll_timeout().unwrap();
        test.advance(millis(due.saturating_since(test.now)));
        test.expect((A | F, 1_001, 5_001, 0));
    }
    assert_eq!(test.connection.state(), State::FinWait1);
    test.inject((A, 5_001, 1_001, 0));
    // The last retransmission, 20 s later, finds nobody.
    test.advance(20_000);
    test.expect((A | F, 1_001, 5_001, 0));
    test.advance(4_999);
    assert_eq!(test.connection.state(), State::FinWait1);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::UserTimeout(limit));
    test.sent.clear();
}

/// A window that opens does not turn the wait before into silence.
#[test]
fn the_user_timeout_begins_when_a_closed_window_opens() {
    let limit = Duration::from_secs(5);
    let mut test = ConnectionTest::established(plain().user_timeout(Some(limit)));
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.advance(4_000);
    test.sent.clear();
    test.peer_window = 10_000;
    test.inject((A, 5_001, 1_001, 0));
    test.advance(4_999);
    assert_eq!(test.connection.state(), State::FinWait1);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::UserTimeout(limit));
    test.sent.clear();
}

#[test]
fn keepalive_is_off_by_default_and_an_idle_connection_waits_for_nothing() {
    let mut test = ConnectionTest::established(plain());
    assert_eq!(test.connection.poll_timeout(), None);
    test.advance(24 * 3_600_000);
    assert_eq!(test.connection.state(), State::Established);
}

#[test]
fn keepalive_probes_an_idle_peer_and_gives_up_when_unanswered() {
    let mut test = ConnectionTest::established(
        plain()
            .keepalive(Some(Duration::from_secs(10)))
            .keepalive_interval(Duration::from_secs(1))
            .keepalive_probes(3),
    );
    test.advance(10_000);
    test.expect((A, 1_000, 5_001, 0));
    test.inject((A, 5_001, 1_001, 0));
    test.advance(9_999);
    test.expect_nothing();
    test.advance(1);
    for _ in 0..3 {
        test.expect((A, 1_000, 5_001, 0));
        test.advance(1_000);
    }
    test.expect_timed_out(TimeoutCause::Keepalive { probes: 3 });
    test.expect((R | A, 1_001, 5_001, 0));
}

#[test]
fn nothing_received_ends_with_the_idle_timeout() {
    let limit = Duration::from_secs(30);
    let mut test = ConnectionTest::established(plain().idle_timeout(Some(limit)));
    test.advance(29_999);
    test.inject((A, 5_001, 1_001, 10));
    test.read(5_001, 10);
    test.advance(29_999);
    assert_eq!(test.connection.state(), State::Established);
    test.advance(1);
    test.expect_timed_out(TimeoutCause::IdleTimeout(limit));
    test.sent.clear();
}

#[test]
fn a_keepalive_probe_is_answered() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 5_000, 1_001, 0));
    test.expect((A, 1_001, 5_001, 0));
}

/// Nothing at all is what it takes: a probe is something.
#[test]
fn keepalive_probes_of_the_peer_hold_off_the_idle_timeout() {
    let limit = Duration::from_secs(30);
    let mut test = ConnectionTest::established(plain().idle_timeout(Some(limit)));
    for _ in 0..3 {
        test.advance(29_999);
        test.inject((A, 5_000, 1_001, 0));
        test.expect((A, 1_001, 5_001, 0));
    }
    // An acknowledgment that cannot be shows that this is not the peer.
    test.advance(29_999);
    test.inject((A, 5_000, 9_001, 0));
    test.expect((A, 1_001, 5_001, 0));
    test.advance(1);
    test.expect_timed_out(TimeoutCause::IdleTimeout(limit));
    test.sent.clear();
}
