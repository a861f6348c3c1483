//! Short runs of several connections in one send.

use super::*;

/// What a host would send in one go, at most `max_segments` at a time.
fn sends(net: &mut Net, host: usize, max_segments: usize) -> Vec<(Departure, Bytes)> {
    let (now, mut buf) = (net.now, vec![0; 65_536]);
    let endpoint = net.endpoint(host);
    let poll = || {
        let departure = endpoint.poll_transmit(now, max_segments, &mut buf)?;
        Some((departure, Bytes::copy_from_slice(&buf[..departure.len])))
    };
    let sends: Vec<_> = std::iter::from_fn(poll).collect();
    net.endpoint(host).check_invariants();
    sends
}

fn shapes(sends: &[(Departure, Bytes)]) -> Vec<(usize, usize)> {
    let shape = |(departure, _): &(Departure, Bytes)| (departure.segments, departure.segment_size);
    sends.iter().map(shape).collect()
}

/// `count` connections on which the client has something new to say.
fn connections(count: usize) -> (Net, Vec<ConnectionId>) {
    let mut net = Net::new(&Config::default());
    let ids = (0..count).map(|_| net.establish().0).collect();
    net.advance(Duration::from_secs(10));
    (net, ids)
}

#[test]
fn segments_of_one_size_for_one_address_share_a_send() {
    let (mut net, ids) = connections(10);
    for &id in &ids {
        net.write(CLIENT, id, b"?");
    }
    // A byte behind 20 of header and 12 of timestamps.
    let sent = sends(&mut net, CLIENT, 8);
    assert_eq!(shapes(&sent), [(8, 33), (2, 33)]);
    let ports: Vec<_> = sent
        .iter()
        .flat_map(|(_, bytes)| bytes.chunks(33))
        .map(|segment| Segment::decode(segment).unwrap().header.src_port)
        .collect();
    let port = |&id| net.connection(CLIENT, id).local_port();
    assert_eq!(ports, ids.iter().map(port).collect::<Vec<_>>());
}

#[test]
fn a_shorter_segment_ends_a_send_and_a_longer_one_begins_the_next() {
    let (mut net, ids) = connections(5);
    for (&id, text) in ids.iter().zip(["333", "333", "22", "333", "333"]) {
        net.write(CLIENT, id, text.as_bytes());
    }
    let sent = sends(&mut net, CLIENT, 64);
    assert_eq!(shapes(&sent), [(3, 35), (2, 35)]);
    let lens = sent.iter().map(|(departure, _)| departure.len);
    assert_eq!(lens.collect::<Vec<_>>(), [35 + 35 + 34, 35 + 35]);
    let (mut net, ids) = connections(2);
    for (&id, text) in ids.iter().zip(["22", "333"]) {
        net.write(CLIENT, id, text.as_bytes());
    }
    assert_eq!(shapes(&sends(&mut net, CLIENT, 64)), [(1, 34), (1, 35)]);
}

#[test]
fn other_addresses_and_long_runs_have_sends_of_their_own() {
    let configs = [(); 3].map(|()| Config::default());
    let mut net = Net::with_configs(&configs);
    net.endpoint(2).listen(PORT, None).unwrap();
    net.connect(CLIENT, SERVER);
    net.connect(CLIENT, 2);
    assert_eq!(sends(&mut net, CLIENT, 64).len(), 2);

    let (mut net, ids) = connections(3);
    net.write(CLIENT, ids[0], b"?");
    net.write(CLIENT, ids[1], &pattern(3_600));
    net.write(CLIENT, ids[2], b"?");
    // 1,200 bytes of text fill a segment; what is short may follow a long run.
    let sent = sends(&mut net, CLIENT, 64);
    assert_eq!(sent[0].0.segments, 1);
    assert!(sent[1..].iter().map(|(d, _)| d.segments).sum::<usize>() >= 4);
    for (departure, bytes) in sent {
        for segment in bytes.chunks(departure.segment_size) {
            let bytes = Bytes::copy_from_slice(segment);
            let (from, to) = (address(CLIENT), departure.remote);
            net.inject(&Flight { from, to, bytes });
        }
    }
    net.deliver();
    for &id in &ids {
        let stats = net.connection(CLIENT, id).stats();
        assert_eq!(stats.segments_retransmitted, 0);
    }
}

#[test]
fn a_probe_of_the_path_leaves_alone_and_its_refusal_is_heard_of() {
    let (mut net, ids) = connections(2);
    // As much as has to be acknowledged before the path is probed.
    net.write(CLIENT, ids[0], &pattern(14_700));
    net.advance(Duration::from_millis(100));
    assert_eq!(net.connection(CLIENT, ids[0]).stats().path_probes_sent, 0);
    net.write(CLIENT, ids[0], &pattern(20_000));
    net.write(CLIENT, ids[1], b"?");
    let (now, mut buf) = (net.now, vec![0; 65_536]);
    let client = net.endpoint(CLIENT);
    let probe = client.poll_transmit(now, 64, &mut buf).unwrap();
    assert_eq!((probe.segments, probe.segment_size), (1, 1_452));
    client.handle_refused(now, &probe);
    let stats = net.connection(CLIENT, ids[0]).stats();
    assert_eq!((stats.path_probes_sent, stats.path_probes_lost), (1, 1));
    net.deliver();
    net.advance(Duration::from_secs(1));
    for id in ids {
        assert_eq!(net.connection(CLIENT, id).stats().segments_lost, 0);
    }
}

#[test]
fn what_waits_for_the_next_send_keeps_to_a_limit_that_fell() {
    let (mut net, ids) = connections(3);
    let now = net.now;
    for (&id, text) in ids.iter().zip(["1", "22", "22"]) {
        net.write(CLIENT, id, text.as_bytes());
    }
    let mut buf = vec![0; 65_536];
    let first = net.endpoint(CLIENT).poll_transmit(now, 64, &mut buf);
    assert_eq!(first.unwrap().len, 33);
    assert!(net.endpoint(CLIENT).has_transmit());
    assert_eq!(shapes(&sends(&mut net, CLIENT, 1)), [(1, 34), (1, 34)]);
}
