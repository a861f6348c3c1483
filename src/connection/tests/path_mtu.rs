use super::*;

/// Connected to a peer that has taken 18,000 bytes, and 20,000 more written, which begin at 19,001.
fn searching() -> ConnectionTest {
    let mut test = ConnectionTest::connect(plain().sack(true).mss(65_487));
    test.expect((S, 1_000, 0, 0));
    test.advance(100);
    test.peer_window = 60_000;
    test.inject_with(
        (S | A, 5_000, 1_001, 0),
        Options {
            mss: Some(65_487),
            sack_permitted: true,
            ..Options::default()
        },
    );
    test.expect((A, 1_001, 5_001, 0));
    test.expect_event(Event::Connected);
    test.write(18_000);
    test.inject((A, 5_001, 13_001, 0));
    test.inject((A, 5_001, 19_001, 0));
    assert_eq!(
        test.connection.stats().path_probes_sent,
        0,
        "so far too little"
    );
    test.sent.clear();
    let data = pattern(19_001, 20_000);
    assert_eq!(test.connection.write(test.now, &data), Ok(20_000));
    test
}

/// Sends one run and returns the sequence number and the size of its datagrams.
fn send(test: &mut ConnectionTest) -> (u32, usize) {
    let mut buf = vec![0; 65_536];
    let transmit = test
        .connection
        .poll_transmit(test.now, 1, &mut buf)
        .unwrap();
    let segment = Segment::decode(&buf[..transmit.len]).unwrap();
    (segment.header.seq.get(), transmit.segment_size)
}

#[test]
fn data_probes_the_path_once_there_was_enough_of_it() {
    let mut test = searching();
    assert_eq!(send(&mut test), (19_001, 1_452));
    assert_eq!(send(&mut test), (20_433, 1_232));
    let stats = test.connection.stats();
    assert_eq!((stats.path_probes_sent, stats.datagram_size), (1, 1_232));
    test.inject((A, 5_001, 20_433, 0));
    let stats = test.connection.stats();
    assert_eq!((stats.mss, stats.datagram_size), (1_432, 1_452));
    test.sent.clear();
}

#[test]
fn what_the_system_refuses_is_sent_again_at_once() {
    let mut test = searching();
    assert_eq!(send(&mut test), (19_001, 1_452));
    test.connection.handle_refused(test.now, 1_452);
    let stats = test.connection.stats();
    assert_eq!((stats.path_probes_lost, stats.bytes_in_flight), (1, 0));
    // Again in small segments, and the next probe with what follows.
    assert_eq!(send(&mut test), (19_001, 1_232));
    assert_eq!(send(&mut test), (20_213, 20 + 220));
    test.drain();
    test.sent.clear();
    test.inject((A, 5_001, 20_433, 0));
    let stats = test.connection.stats();
    let signs = [
        stats.segments_lost,
        stats.fast_recovery_count,
        stats.rto_count,
    ];
    assert_eq!(signs, [0; 3]);
    test.sent.clear();
}

#[test]
fn a_refused_segment_ends_its_size() {
    let mut test = searching();
    assert_eq!(send(&mut test), (19_001, 1_452));
    test.inject((A, 5_001, 20_433, 0));
    test.sent.clear();
    test.connection.handle_refused(test.now, 1_452);
    let stats = test.connection.stats();
    assert_eq!((stats.datagram_size, stats.black_holes), (1_232, 1));
    test.drain();
    test.sent.clear();
}
