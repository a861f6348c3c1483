//! Every field of the statistics: what counts, and what does not.

use super::*;

#[test]
fn segments_and_bytes_are_counted_in_both_directions() {
    let mut test = ConnectionTest::established(plain());
    let stats = test.connection.stats();
    // SYN and ACK; SYN-ACK.
    assert_eq!((stats.segments_sent, stats.segments_received), (2, 1));
    assert_eq!((stats.mss, stats.datagram_size), (1_000, 1_020));
    assert_eq!((stats.snd_wnd, stats.rcv_wnd), (10_000, 10_000));
    assert_eq!(stats.latest_rtt, Some(Duration::from_millis(100)));
    assert_eq!(stats.min_rtt, Some(Duration::from_millis(100)));
    assert_eq!(stats.srtt, Some(Duration::from_millis(100)));
    // RFC 6298 §2.2: R / 2, and RTO = SRTT + 4 * RTTVAR.
    assert_eq!(stats.rttvar, Some(Duration::from_millis(50)));
    assert_eq!(stats.rto, Duration::from_millis(300));
    assert_eq!((stats.cwnd, stats.ssthresh), (10_000, u64::MAX));

    test.write(2_500);
    test.expect((A, 1_001, 5_001, 1_000));
    test.expect((A, 2_001, 5_001, 1_000));
    test.expect((A | P, 3_001, 5_001, 500));
    let stats = test.connection.stats();
    assert_eq!((stats.segments_sent, stats.bytes_sent), (5, 2_500));
    assert_eq!((stats.flight_size, stats.bytes_in_flight), (2_500, 2_500));
    assert_eq!((stats.send_buffer_bytes, stats.bytes_acked), (2_500, 0));

    // Acknowledged at once: the peer is in slow start.
    test.inject((A, 5_001, 2_001, 10));
    test.expect((A, 3_501, 5_011, 0));
    test.inject((A, 5_001, 2_001, 10));
    test.expect((A, 3_501, 5_011, 0));
    test.inject((A, 5_021, 2_001, 20));
    test.expect((A, 3_501, 5_011, 0));
    let stats = test.connection.stats();
    assert_eq!((stats.segments_sent, stats.segments_received), (8, 4));
    assert_eq!((stats.bytes_acked, stats.send_buffer_bytes), (1_000, 1_500));
    assert_eq!((stats.bytes_received, stats.receive_buffer_bytes), (10, 10));
    assert_eq!(
        (stats.segments_duplicate, stats.segments_unacceptable),
        (1, 1)
    );
    assert_eq!(
        (stats.segments_out_of_order, stats.out_of_order_bytes),
        (1, 20)
    );
    test.read(5_001, 10);
    let stats = test.connection.stats();
    assert_eq!((stats.bytes_received, stats.receive_buffer_bytes), (10, 0));
    assert_eq!(stats.segments_retransmitted, 0);

    // Both segments are lost; the timeout sends the first again.
    test.advance(500);
    test.expect((A, 2_001, 5_011, 1_000));
    let stats = test.connection.stats();
    assert_eq!((stats.rto_count, stats.segments_retransmitted), (1, 1));
    assert_eq!(
        (stats.bytes_sent, stats.bytes_retransmitted),
        (3_500, 1_000)
    );
    assert_eq!((stats.segments_lost, stats.fast_recovery_count), (2, 0));
    assert_eq!((stats.cwnd, stats.bytes_in_flight), (1_000, 1_000));
}

#[test]
fn probes_are_counted() {
    let mut test = ConnectionTest::established(
        plain()
            .keepalive(Some(Duration::from_secs(10)))
            .keepalive_interval(Duration::from_secs(1)),
    );
    test.advance(11_500);
    test.expect((A, 1_000, 5_001, 0));
    test.expect((A, 1_000, 5_001, 0));
    assert_eq!(test.connection.stats().keepalive_probes, 2);
    test.peer_window = 0;
    test.inject((A, 5_001, 1_001, 0));
    test.write(10);
    test.advance(400);
    test.expect((A, 1_001, 5_001, 1));
    assert_eq!(test.connection.stats().zero_window_probes, 1);
    assert_eq!(test.connection.stats().snd_wnd, 0);
}
