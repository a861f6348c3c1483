//! Closing: RFC 9293 §3.6 and what the application is told.

use super::*;
use crate::DropPolicy;

/// RFC 9293 figure 12.
#[test]
fn normal_close_goes_through_fin_wait_to_time_wait() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    assert_eq!(test.connection.state(), State::FinWait1);
    test.inject((A, 5_001, 1_002, 0));
    assert_eq!(test.connection.state(), State::FinWait2);
    test.expect_event(Event::Finished);
    assert_eq!(test.connection.finish_status(), Ok(true));
    test.inject((A | F, 5_001, 1_002, 0));
    test.expect((A, 1_002, 5_002, 0));
    assert_eq!(test.connection.state(), State::TimeWait);
    test.expect_event(Event::Readable);
    assert_eq!(test.connection.read(test.now, &mut [0; 8]), Ok(0));
    test.advance(60_000);
    assert_eq!(test.connection.state(), State::Closed);
    assert_eq!(test.connection.error(), None);
}

/// RFC 9293 figure 13.
#[test]
fn simultaneous_close_goes_through_closing() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.inject((A | F, 5_001, 1_001, 0));
    test.expect((A, 1_002, 5_002, 0));
    assert_eq!(test.connection.state(), State::Closing);
    test.inject((A, 5_002, 1_002, 0));
    assert_eq!(test.connection.state(), State::TimeWait);
}

#[test]
fn passive_close_ends_in_last_ack() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A | F, 5_001, 1_001, 10));
    test.expect((A, 1_001, 5_012, 0));
    assert_eq!(test.connection.state(), State::CloseWait);
    test.read(5_001, 10);
    assert_eq!(test.connection.read(test.now, &mut [0; 8]), Ok(0));
    test.write(10);
    test.expect((A | P, 1_001, 5_012, 10));
    test.finish();
    test.expect((A | F, 1_011, 5_012, 0));
    assert_eq!(test.connection.state(), State::LastAck);
    test.inject((A, 5_012, 1_012, 0));
    assert_eq!(test.connection.state(), State::Closed);
    assert_eq!(test.connection.error(), None);
    assert!(test.connection.is_drained());
}

#[test]
fn a_half_closed_connection_still_receives() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.inject((A, 5_001, 1_002, 500));
    test.read(5_001, 500);
    test.expect((A, 1_002, 5_501, 0));
    test.advance(600_000);
    assert_eq!(
        test.connection.state(),
        State::FinWait2,
        "no limit while the application reads"
    );
}

#[test]
fn a_lost_fin_is_retransmitted() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.advance(300);
    test.expect((A | F, 1_001, 5_001, 0));
}

#[test]
fn the_fin_waits_neither_for_cwnd_nor_for_the_window() {
    let mut test = ConnectionTest::established(plain().initial_window(1));
    test.write(1_000);
    test.expect((A | P, 1_001, 5_001, 1_000));
    test.finish();
    test.expect((A | F, 2_001, 5_001, 0));

    let mut closed = ConnectionTest::established(plain());
    closed.peer_window = 0;
    closed.inject((A, 5_001, 1_001, 0));
    closed.finish();
    closed.expect((A | F, 1_001, 5_001, 0));
}

#[test]
fn the_fin_waits_for_no_retransmission_either() {
    let mut test = ConnectionTest::established(plain());
    test.write(3_000);
    for (flags, seq) in [(A, 1_001), (A, 2_001), (A | P, 3_001)] {
        test.expect((flags, seq, 5_001, 1_000));
    }
    test.advance(400);
    // The window is one segment, and two more wait for it.
    test.expect((A, 1_001, 5_001, 1_000));
    test.finish();
    test.expect((A | F, 4_001, 5_001, 0));
}

#[test]
fn a_retransmitted_fin_in_time_wait_is_acknowledged_and_restarts_it() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.inject((A | F, 5_001, 1_002, 0));
    test.expect((A, 1_002, 5_002, 0));
    let record = test.connection.time_wait().expect("nothing left to do");
    assert_eq!((record.snd_nxt.get(), record.rcv_nxt.get()), (1_002, 5_002));
    test.advance(59_000);
    test.inject((A | F, 5_001, 1_002, 0));
    test.expect((A, 1_002, 5_002, 0));
    test.advance(59_000);
    assert_eq!(test.connection.state(), State::TimeWait);
    test.advance(1_000);
    assert_eq!(test.connection.state(), State::Closed);
}

#[test]
fn writing_after_finish_is_an_error() {
    let mut test = ConnectionTest::established(plain());
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    assert_eq!(
        test.connection.write(test.now, b"x"),
        Err(WriteError::Finished)
    );
    assert_eq!(
        test.connection.finish(test.now),
        Ok(()),
        "finishing twice is harmless"
    );
}

#[test]
fn finish_is_done_only_when_the_fin_is_acknowledged() {
    let mut test = ConnectionTest::established(plain());
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
    test.finish();
    test.expect((A | F, 1_011, 5_001, 0));
    test.inject((A, 5_001, 1_011, 0));
    assert_eq!(
        test.connection.finish_status(),
        Ok(false),
        "data, but not the FIN"
    );
    test.inject((A, 5_001, 1_012, 0));
    assert_eq!(test.connection.finish_status(), Ok(true));
}

#[test]
fn a_reset_before_the_data_is_acknowledged_fails_the_finish() {
    let mut test = ConnectionTest::established(plain());
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
    test.finish();
    test.expect((A | F, 1_011, 5_001, 0));
    test.inject((R, 5_001, 0, 0));
    assert_eq!(test.connection.finish_status(), Err(ConnectionError::Reset));
}

/// The exception of the shutdown promise: the peer has finished, has all our data, and is gone.
#[test]
fn a_missing_ack_of_the_last_fin_counts_as_delivered() {
    let begin = || {
        let mut test = ConnectionTest::established(plain());
        test.inject((A | F, 5_001, 1_001, 0));
        test.expect((A, 1_001, 5_002, 0));
        test.finish();
        test.expect((A | F, 1_001, 5_002, 0));
        test
    };
    let mut reset = begin();
    reset.inject((R, 5_002, 0, 0));
    assert_eq!(reset.connection.finish_status(), Ok(true));
    assert_eq!(reset.connection.error(), None);

    let mut silent = begin();
    let linger = Duration::from_secs(60);
    silent.advance(linger.as_secs() * 1_000 - 1);
    assert_eq!(silent.connection.finish_status(), Ok(false));
    silent.advance(1);
    assert_eq!(silent.connection.finish_status(), Ok(true));
    silent.sent.clear();
}

#[test]
fn dropping_with_unread_data_resets_the_peer() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 5_001, 1_001, 10));
    test.sent.clear();
    test.release();
    test.expect((R | A, 1_001, 5_011, 0));
    assert!(test.connection.is_drained());
}

#[test]
fn dropping_delivers_in_the_background() {
    let mut test = ConnectionTest::established(plain());
    test.write(500);
    test.expect((A | P, 1_001, 5_001, 500));
    test.release();
    test.expect((A | F, 1_501, 5_001, 0));
    test.inject((A, 5_001, 1_502, 0));
    assert_eq!(test.connection.state(), State::FinWait2);
    test.inject((A | F, 5_001, 1_502, 0));
    test.expect((A, 1_502, 5_002, 0));
    assert_eq!(test.connection.state(), State::TimeWait);
}

#[test]
fn a_dropped_connection_lingers_for_a_bounded_time() {
    let mut test =
        ConnectionTest::established(plain().linger(Duration::from_secs(5)).user_timeout(None));
    test.release();
    test.inject((A, 5_001, 1_002, 0));
    test.advance(5_000);
    assert_eq!(test.connection.state(), State::Closed);
    test.expect((A | F, 1_001, 5_001, 0));
    test.expect((R | A, 1_002, 5_001, 0));
}

/// RFC 1122 §4.2.2.13.
#[test]
fn data_for_a_dropped_connection_is_answered_with_reset() {
    let mut test = ConnectionTest::established(plain());
    test.release();
    test.expect((A | F, 1_001, 5_001, 0));
    test.inject((A, 5_001, 1_002, 100));
    test.expect((R | A, 1_002, 5_001, 0));
    assert!(test.connection.is_drained());
}

#[test]
fn the_reset_policy_turns_a_drop_into_a_reset() {
    let mut cut = ConnectionTest::established(plain().drop_policy(DropPolicy::Reset));
    cut.release();
    cut.expect((R | A, 1_001, 5_001, 0));

    let mut ended = ConnectionTest::established(plain().drop_policy(DropPolicy::Reset));
    ended.finish();
    ended.expect((A | F, 1_001, 5_001, 0));
    ended.release();
    ended.expect_nothing();
}

#[test]
fn abort_sends_one_reset_and_fails_everything() {
    let mut test = ConnectionTest::established(plain());
    test.write(500);
    test.expect((A | P, 1_001, 5_001, 500));
    test.connection.abort(test.now);
    test.drain();
    test.expect((R | A, 1_501, 5_001, 0));
    assert_eq!(
        test.connection.write(test.now, b"x"),
        Err(WriteError::Closed(ConnectionError::Aborted))
    );
    assert_eq!(
        test.connection.read(test.now, &mut [0; 8]),
        Err(ReadError::Closed(ConnectionError::Aborted))
    );
    assert_eq!(
        test.connection.finish_status(),
        Err(ConnectionError::Aborted)
    );
}

#[test]
fn what_arrived_before_a_reset_can_still_be_read() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 5_001, 1_001, 10));
    test.sent.clear();
    test.inject((R, 5_011, 0, 0));
    test.read(5_001, 10);
    assert_eq!(
        test.connection.read(test.now, &mut [0; 8]),
        Err(ReadError::Closed(ConnectionError::Reset))
    );
}

/// RFC 9293 §3.10.7.4: a peer that holds on to its closed window takes only segments at RCV.NXT, and must
/// hear our ACKs all the same.
#[test]
fn acks_stay_acceptable_to_a_peer_that_refuses_the_fin() {
    let mut test = ConnectionTest::established(plain());
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.finish();
    test.expect((A | F, 1_001, 5_001, 0));
    test.advance(300);
    test.expect((A | F, 1_001, 5_001, 0));
    test.inject((A, 5_001, 1_001, 1_000));
    test.expect((A, 1_001, 6_001, 0));
    test.peer_window = 10_000;
    test.inject((A, 6_001, 1_002, 1_000));
    test.expect((A, 1_002, 7_001, 0));
}

/// RFC 9293 §3.10.5: in TIME-WAIT there is nobody left to reset, and the wait goes on.
/// RFC 9293 appendix A.2: both sides believe that the other has refused the FIN, and so both stay at the number
/// before it, which neither expects any more.
#[test]
fn an_ack_from_before_the_fin_still_acknowledges_ours() {
    let mut test = ConnectionTest::established(plain());
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.finish();
    test.expect((F | A, 1_001, 5_001, 0));
    test.advance(400);
    test.expect((F | A, 1_001, 5_001, 0));
    test.inject((F | A, 5_001, 1_001, 0));
    test.expect((A, 1_001, 5_002, 0));
    assert_eq!(test.connection.state(), State::Closing);
    // What is older, or acknowledges nothing new, changes nothing.
    test.inject((A, 5_001, 1_001, 0));
    test.expect((A, 1_001, 5_002, 0));
    assert_eq!(test.connection.state(), State::Closing);
    test.inject((A, 5_001, 1_002, 0));
    test.expect((A, 1_002, 5_002, 0));
    assert_eq!(test.connection.state(), State::TimeWait);
    test.expect_event(Event::Readable);
    test.expect_event(Event::Finished);
}

#[test]
fn dropping_unread_data_in_time_wait_is_silent() {
    let mut test = ConnectionTest::established(plain());
    test.inject((A, 5_001, 1_001, 10));
    test.sent.clear();
    test.finish();
    test.expect((A | F, 1_001, 5_011, 0));
    test.inject((A | F, 5_011, 1_002, 0));
    test.expect((A, 1_002, 5_012, 0));
    test.release();
    test.expect_nothing();
    assert_eq!(test.connection.state(), State::TimeWait);
    assert!(test.connection.time_wait().is_some());
    assert_eq!(test.connection.memory(), 0);
    test.connection.abort(test.now);
    test.drain();
    assert!(test.connection.is_drained());
}

#[test]
fn an_unreachable_peer_that_had_finished_ends_the_wait_for_the_ack_of_our_fin() {
    // (what is unacknowledged besides the FIN, the number that the error quotes, whether it ends)
    for (unacked, quoted, ends) in [(0, 1_001, true), (0, 1_002, false), (10, 1_011, false)] {
        let mut test = ConnectionTest::established(plain());
        test.inject((A | F, 5_001, 1_001, 0));
        test.expect((A, 1_001, 5_002, 0));
        if unacked > 0 {
            test.write(unacked);
            test.expect((A | P, 1_001, 5_002, unacked));
        }
        test.finish();
        let fin = 1_001 + u32::try_from(unacked).unwrap();
        test.expect((A | F, fin, 5_002, 0));
        test.connection
            .handle_unreachable(test.now, SeqNumber::new(quoted));
        let expected = if ends { State::Closed } else { State::LastAck };
        assert_eq!(test.connection.state(), expected, "{unacked} {quoted}");
        assert_eq!(
            test.connection.finish_status(),
            Ok(ends),
            "{unacked} {quoted}"
        );
        assert_eq!(test.connection.error(), None);
    }
}

#[test]
fn neither_syn_nor_fin_counts_as_an_acknowledged_byte() {
    let mut test = ConnectionTest::established(plain());
    assert_eq!(test.connection.stats().bytes_acked, 0);
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
    test.finish();
    test.expect((A | F, 1_011, 5_001, 0));
    test.inject((A, 5_001, 1_011, 0));
    assert_eq!(test.connection.stats().bytes_acked, 10);
    test.inject((A, 5_001, 1_012, 0));
    assert_eq!(test.connection.stats().bytes_acked, 10);
    test.inject((A | F, 5_001, 1_012, 7));
    test.expect((A, 1_012, 5_009, 0));
    assert_eq!(test.connection.stats().bytes_received, 7);
    assert_eq!(test.connection.stats().bytes_acked, 10, "in TIME-WAIT");
    test.advance(60_000);
    assert_eq!(test.connection.stats().bytes_acked, 10, "in CLOSED");
}

#[test]
fn finishing_after_a_peer_that_finished_has_gone_is_no_error() {
    let mut test = ConnectionTest::established(plain());
    test.write(10);
    test.expect((A | P, 1_001, 5_001, 10));
    test.inject((A | F, 5_001, 1_011, 0));
    test.expect((A, 1_011, 5_002, 0));
    test.inject((R, 5_002, 0, 0));
    assert_eq!(test.connection.finish(test.now), Ok(()));
    assert_eq!(test.connection.finish_status(), Ok(true));
    assert_eq!(
        test.connection.write(test.now, b"x"),
        Err(WriteError::Closed(ConnectionError::Reset))
    );
}
