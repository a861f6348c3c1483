//! From SYN to the end of TIME-WAIT, between endpoints that play by the rules.

use std::net::SocketAddrV6;
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::{ConnectionError, EndpointError};
use crate::tap::{Direction, Tap, TappedSegment};
use crate::wire::{Flags, Options, SeqNumber, Timestamps};

#[test]
fn bytes_go_both_ways_until_both_sides_close() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let request = pattern(100_000);
    net.write(CLIENT, client, &request);
    net.advance(Duration::from_secs(1));
    net.expect_read(SERVER, server, &request);
    net.write(SERVER, server, b"thanks");
    net.finish(CLIENT, client);
    net.finish(SERVER, server);
    net.advance(Duration::from_secs(1));
    assert_eq!(net.read(CLIENT, client), (b"thanks".to_vec(), true));
    assert_eq!(net.read(SERVER, server), (Vec::new(), true));
    assert_eq!(net.connection(CLIENT, client).finish_status(), Ok(true));
    assert_eq!(net.connection(SERVER, server).finish_status(), Ok(true));
    let stats = net.endpoint(SERVER).stats();
    assert_eq!((stats.connections_accepted, stats.resets_sent), (1, 0));
    assert_eq!(
        stats.dropped_no_connection + stats.dropped_checksum + stats.dropped_malformed,
        0
    );
}

#[test]
fn the_side_that_closed_first_keeps_a_record_until_it_expires() {
    let config = Config::builder()
        .time_wait(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut net = Net::new(&config);
    let (client, server) = net.establish();
    net.close(client, server);
    for host in [CLIENT, SERVER] {
        assert_eq!(net.endpoint(host).stats().connections, 0, "host {host}");
        assert!(net.endpoint(host).is_idle(), "host {host}");
        assert!(net.endpoint(host).slots.is_empty(), "host {host}");
    }
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 1);
    assert_eq!(net.endpoint(SERVER).stats().time_wait, 0);
    net.advance(Duration::from_secs(59));
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 1);
    net.advance(Duration::from_secs(2));
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 0);
    assert_eq!(net.endpoint(CLIENT).poll_timeout(), None);
    assert_eq!(net.endpoint(SERVER).poll_timeout(), None);
}

#[test]
fn a_retransmitted_fin_is_acknowledged_by_the_record() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.finish(CLIENT, client);
    net.deliver();
    net.release(CLIENT, client);
    // The server's FIN arrives, its acknowledgment does not.
    net.finish(SERVER, server);
    net.collect();
    net.drop_if = |flight| flight.from == address(CLIENT);
    net.deliver();
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 1);
    assert!(net.endpoint(CLIENT).slots.is_empty());
    assert_eq!(net.connection(SERVER, server).finish_status(), Ok(false));
    net.drop_if = |_| false;
    net.advance(Duration::from_secs(5));
    assert_eq!(net.connection(SERVER, server).finish_status(), Ok(true));
    assert_eq!(net.connection(SERVER, server).error(), None);
    assert!(net.endpoint(CLIENT).stats().dropped_time_wait > 0);
}

#[test]
fn a_newer_syn_reopens_a_connection_in_time_wait_with_larger_numbers() {
    for is_held in [false, true] {
        let mut net = Net::new(&Config::default());
        let (client, server) = net.establish();
        let local_port = net.connection(CLIENT, client).local_port();
        net.write(CLIENT, client, b"unread");
        net.deliver();
        if !is_held {
            net.expect_read(SERVER, server, b"unread");
        }
        // The server closes first and waits, with or without its socket.
        net.finish(SERVER, server);
        net.deliver();
        net.finish(CLIENT, client);
        net.deliver();
        net.release(CLIENT, client);
        if !is_held {
            net.release(SERVER, server);
        }
        net.deliver();
        assert_eq!(
            net.endpoint(SERVER).stats().time_wait,
            usize::from(!is_held)
        );
        let last = net.take_sent(SERVER).last().unwrap().header();
        let sent = net.take_sent(CLIENT);
        let recent = sent.last().unwrap().header().options.timestamps.unwrap();
        let syn = |advance: u32| Header {
            src_port: local_port,
            dst_port: PORT,
            seq: SeqNumber::new(17),
            flags: Flags::SYN,
            options: Options {
                timestamps: Some(Timestamps {
                    tsval: recent.tsval.wrapping_add(advance),
                    tsecr: 0,
                }),
                ..Options::default()
            },
            ..Header::default()
        };
        net.forge(address(CLIENT), SERVER, &syn(u32::MAX), &[]);
        // RFC 5961 §4.2 answers where the connection is still there, with an ACK.
        let answers = net.take_sent(SERVER);
        assert_eq!(answers.len(), usize::from(is_held));
        assert!(
            answers
                .iter()
                .all(|flight| flight.header().flags == Flags::ACK)
        );
        net.forge(address(CLIENT), SERVER, &syn(1), &[]);
        let syn_ack = net.take_sent(SERVER)[0].header();
        assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK);
        assert_eq!(syn_ack.ack, SeqNumber::new(18));
        assert!(
            syn_ack.seq.follows(last.seq + 1),
            "{:?} after {:?}",
            syn_ack.seq,
            last.seq
        );
        assert_eq!(net.endpoint(SERVER).stats().time_wait, 0);
        if is_held {
            assert_eq!(net.connection(SERVER, server).state(), State::Closed);
            assert_eq!(net.connection(SERVER, server).error(), None);
            net.expect_read(SERVER, server, b"unread");
            net.release(SERVER, server);
        }
        net.endpoint(SERVER).check_invariants();
    }
}

#[test]
fn a_newer_syn_that_finds_no_room_leaves_time_wait_in_force() {
    for is_held in [false, true] {
        let mut net = Net::new(&Config::builder().backlog(1).build().unwrap());
        let (client, server) = net.establish();
        let local_port = net.connection(CLIENT, client).local_port();
        net.finish(SERVER, server);
        net.deliver();
        net.finish(CLIENT, client);
        net.deliver();
        net.release(CLIENT, client);
        if !is_held {
            net.release(SERVER, server);
        }
        net.deliver();
        let last = net.take_sent(SERVER).last().unwrap().header();
        let recent = net.take_sent(CLIENT).last().unwrap().header();
        let recent = recent.options.timestamps.unwrap().tsval;
        let segment = |src_port: u16, flags: Flags, seq: u32, tsval: u32| Header {
            src_port,
            dst_port: PORT,
            seq: SeqNumber::new(seq),
            flags,
            options: Options {
                timestamps: Some(Timestamps { tsval, tsecr: 0 }),
                ..Options::default()
            },
            ..Header::default()
        };
        // Another SYN fills the backlog.
        net.forge(address(7), SERVER, &segment(9, Flags::SYN, 7, 1), &[]);
        let newer = segment(local_port, Flags::SYN, 17, recent.wrapping_add(1));
        net.take_sent(SERVER);
        net.forge(address(CLIENT), SERVER, &newer, &[]);
        assert!(net.take_sent(SERVER).is_empty());
        let stats = net.endpoint(SERVER).stats();
        assert_eq!((stats.dropped_backlog, stats.time_wait), (1, 1));
        // There is room again.
        net.forge(address(7), SERVER, &segment(9, Flags::RST, 8, 1), &[]);
        net.forge(address(CLIENT), SERVER, &newer, &[]);
        let syn_ack = net.take_sent(SERVER)[0].header();
        assert_eq!(syn_ack.flags, Flags::SYN | Flags::ACK);
        assert!(syn_ack.seq.follows(last.seq + 1), "held: {is_held}");
        assert_eq!(net.endpoint(SERVER).stats().time_wait, 0);
        if is_held {
            net.release(SERVER, server);
        }
        net.endpoint(SERVER).check_invariants();
    }
}

#[test]
fn an_expired_record_is_gone_even_before_the_timer_ran() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let port = net.connection(CLIENT, client).local_port();
    net.close(client, server);
    net.take_sent(CLIENT);
    let fin = Header {
        src_port: PORT,
        dst_port: port,
        flags: Flags::FIN | Flags::ACK,
        ..Header::default()
    };
    net.now = net.now + Duration::from_secs(60);
    net.forge(address(SERVER), CLIENT, &fin, &[]);
    assert_eq!(net.take_sent(CLIENT)[0].header().flags, Flags::RST);
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 0);
}

#[test]
fn nobody_listening_is_connection_refused() {
    let mut net = Net::new(&Config::default());
    let (now, addr) = (net.now, address(SERVER));
    let id = net.endpoint(CLIENT).connect(now, addr, 77, None).unwrap();
    net.deliver();
    assert_eq!(
        net.connection(CLIENT, id).error(),
        Some(&ConnectionError::Refused)
    );
    let events = net.take_events(CLIENT);
    assert!(
        events.contains(&EndpointEvent::Connection(id, Event::Closed)),
        "{events:?}"
    );
    assert_eq!(net.endpoint(CLIENT).stats().connections_refused, 1);
    assert_eq!(net.endpoint(SERVER).stats().resets_sent, 1);
    assert!(net.endpoint(CLIENT).is_idle());
}

#[test]
fn an_unreachable_port_refuses_only_while_connecting() {
    let mut net = Net::new(&Config::default());
    let id = net.connect(CLIENT, SERVER);
    net.drop_if = |_| true;
    net.deliver();
    let (now, syn) = (net.now, net.take_sent(CLIENT).remove(0));
    let mut other = syn.bytes.to_vec();
    other[7] ^= 1;
    net.endpoint(CLIENT)
        .handle_unreachable(now, address(SERVER), &other);
    net.endpoint(CLIENT)
        .handle_unreachable(now, address(SERVER), &syn.bytes[..3]);
    assert_eq!(net.connection(CLIENT, id).state(), State::SynSent);
    net.endpoint(CLIENT)
        .handle_unreachable(now, address(SERVER), &syn.bytes[..8]);
    assert_eq!(
        net.connection(CLIENT, id).error(),
        Some(&ConnectionError::Refused)
    );
    assert_eq!(net.endpoint(CLIENT).stats().icmp_errors, 1);

    net.drop_if = |_| false;
    let (client, _) = net.establish();
    net.write(CLIENT, client, b"x");
    net.deliver();
    let data = net.take_sent(CLIENT).pop().unwrap();
    net.endpoint(CLIENT)
        .handle_unreachable(now, address(SERVER), &data.bytes);
    assert_eq!(net.connection(CLIENT, client).state(), State::Established);
    assert_eq!(net.endpoint(CLIENT).stats().icmp_errors, 2);
}

#[test]
fn a_duplicate_syn_gets_the_same_syn_ack() {
    let mut net = Net::new(&Config::default());
    net.connect(CLIENT, SERVER);
    net.collect();
    let syn = net.flying.pop_front().unwrap();
    net.inject(&syn);
    net.collect();
    net.flying.clear();
    let first = net.take_sent(SERVER);
    net.now = net.now + Duration::from_millis(100);
    net.inject(&syn);
    net.collect();
    let second = net.take_sent(SERVER);
    assert_eq!((first.len(), second.len()), (1, 1));
    let (first, second) = (first[0].header(), second[0].header());
    assert_eq!(first.flags, Flags::SYN | Flags::ACK | Flags::ECE);
    assert_eq!(
        (first.seq, first.ack, first.window),
        (second.seq, second.ack, second.window)
    );
    let fixed = |options: Options| Options {
        timestamps: None,
        ..options
    };
    assert_eq!(fixed(first.options), fixed(second.options));
    assert_eq!(net.endpoint(SERVER).stats().connections, 1);
}

#[test]
fn connections_are_accepted_in_the_order_of_their_handshakes_and_announced_once() {
    let mut net = Net::new(&Config::default());
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let id = net.connect(CLIENT, SERVER);
            net.collect();
            id
        })
        .collect();
    assert!(net.endpoint(SERVER).accept(PORT).is_none());
    while let Some(flight) = net.flying.pop_front() {
        net.inject(&flight);
        let now = net.now;
        let mut buf = [0; 2_000];
        for host in &mut net.hosts {
            while let Some(departure) = host.endpoint.poll_transmit(now, 1, &mut buf) {
                let bytes = Bytes::copy_from_slice(&buf[..departure.len]);
                net.flying.push_back(Flight {
                    from: host.addr,
                    to: departure.remote,
                    bytes,
                });
            }
        }
    }
    net.collect();
    assert_eq!(
        net.take_events(SERVER),
        [EndpointEvent::Incoming { port: PORT }]
    );
    for client in clients {
        let (server, _) = net.endpoint(SERVER).accept(PORT).unwrap();
        let expected = net.connection(CLIENT, client).local_port();
        assert_eq!(net.connection(SERVER, server).remote_port(), expected);
    }
    assert!(net.endpoint(SERVER).accept(PORT).is_none());
}

#[test]
fn data_that_came_before_accept_is_read_after_it() {
    let mut net = Net::new(&Config::default());
    let client = net.connect(CLIENT, SERVER);
    net.deliver();
    net.write(CLIENT, client, b"early");
    net.finish(CLIENT, client);
    net.advance(Duration::from_secs(1));
    let (server, _) = net.endpoint(SERVER).accept(PORT).unwrap();
    assert_eq!(net.read(SERVER, server), (b"early".to_vec(), true));
}

#[test]
fn an_equal_event_is_not_queued_twice() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.take_events(SERVER);
    let now = net.now;
    for _ in 0..5 {
        net.write(CLIENT, client, b"0123456789");
        net.endpoint(CLIENT)
            .with_connection(now, client, |c| c.flush(now))
            .unwrap();
        // Drained without taking the server's events.
        let mut buf = [0; 2_000];
        while let Some(departure) = net.endpoint(CLIENT).poll_transmit(now, 1, &mut buf) {
            let bytes = Bytes::copy_from_slice(&buf[..departure.len]);
            net.inject(&Flight {
                from: address(CLIENT),
                to: departure.remote,
                bytes,
            });
        }
    }
    net.collect();
    let readable = EndpointEvent::Connection(server, Event::Readable);
    let events = net.take_events(SERVER);
    assert_eq!(
        events.iter().filter(|&&event| event == readable).count(),
        1,
        "{events:?}"
    );
}

#[test]
fn an_id_dies_with_its_release_and_is_never_reused() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let now = net.now;
    net.close(client, server);
    let (again, _) = net.establish();
    assert_eq!(client.slot(), again.slot());
    assert_ne!(client, again);
    let endpoint = net.endpoint(CLIENT);
    assert!(endpoint.connection(client).is_none());
    assert!(endpoint.with_connection(now, client, |_| ()).is_none());
    assert!(endpoint.remote_addr(client).is_none() && endpoint.local_ip(client).is_none());
    endpoint.release(now, client);
    assert!(endpoint.connection(again).is_some());
    assert!(endpoint.replace_remote(client, address(7)).is_err());
}

#[test]
fn a_released_connection_still_delivers_what_was_written() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let data = pattern(50_000);
    net.write(CLIENT, client, &data);
    net.release(CLIENT, client);
    assert!(!net.endpoint(CLIENT).is_idle());
    net.advance(Duration::from_secs(1));
    assert_eq!(net.read(SERVER, server), (data, true));
    net.finish(SERVER, server);
    net.advance(Duration::from_secs(1));
    assert!(net.endpoint(CLIENT).is_idle());
}

#[test]
fn an_idle_connection_waits_for_nothing() {
    let mut net = Net::new(&Config::default());
    assert_eq!(net.endpoint(CLIENT).poll_timeout(), None);
    let (client, server) = net.establish();
    net.write(CLIENT, client, &pattern(10_000));
    net.advance(Duration::from_secs(2));
    net.expect_read(SERVER, server, &pattern(10_000));
    net.advance(Duration::from_secs(10));
    net.take_sent(CLIENT);
    assert_eq!(net.endpoint(CLIENT).poll_timeout(), None);
    assert_eq!(net.endpoint(SERVER).poll_timeout(), None);
    net.advance(Duration::from_secs(3_600));
    assert!(net.sent.is_empty() || net.take_sent(CLIENT).is_empty());
}

#[test]
fn a_blocked_transport_does_not_make_the_timer_spin() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.write(CLIENT, client, &pattern(100_000));
    net.advance(Duration::from_secs(2));
    net.expect_read(SERVER, server, &pattern(100_000));
    net.deliver();
    // One small segment, whose ACK is delayed.
    net.write(CLIENT, client, b"x");
    net.collect();
    let data = net.flying.pop_front().unwrap();
    net.inject(&data);
    net.collect();
    let deadline = net.endpoint(SERVER).poll_timeout().unwrap();
    assert!(deadline > net.now);
    net.endpoint(SERVER).handle_timeout(deadline);
    let next = net.endpoint(SERVER).poll_timeout();
    assert!(next.is_none_or(|next| next > deadline), "{next:?}");
    net.now = deadline;
    net.take_sent(SERVER);
    net.collect();
    assert_eq!(net.take_sent(SERVER).len(), 1);
}

#[test]
fn two_who_connect_to_each_other_get_one_connection() {
    let mut net = Net::new(&Config::default());
    let now = net.now;
    let left = net
        .endpoint(CLIENT)
        .rendezvous(now, address(SERVER), 500, None)
        .unwrap();
    let right = net
        .endpoint(SERVER)
        .rendezvous(now, address(CLIENT), 500, None)
        .unwrap();
    net.advance(Duration::from_secs(5));
    for (host, id) in [(CLIENT, left), (SERVER, right)] {
        assert_eq!(
            net.connection(host, id).state(),
            State::Established,
            "host {host}"
        );
        assert_eq!(net.endpoint(host).stats().connections, 1, "host {host}");
    }
    net.write(CLIENT, left, b"ping");
    net.write(SERVER, right, b"pong");
    net.advance(Duration::from_secs(1));
    net.expect_read(SERVER, right, b"ping");
    net.expect_read(CLIENT, left, b"pong");
}

#[test]
fn a_rendezvous_waits_for_the_one_who_is_late() {
    let mut net = Net::new(&Config::default());
    let now = net.now;
    let left = net
        .endpoint(CLIENT)
        .rendezvous(now, address(SERVER), 500, None)
        .unwrap();
    net.deliver();
    assert_eq!(net.endpoint(SERVER).stats().resets_sent, 1);
    let syn = net.take_sent(CLIENT).remove(0);
    net.endpoint(CLIENT)
        .handle_unreachable(now, address(SERVER), &syn.bytes);
    assert_eq!(net.connection(CLIENT, left).state(), State::SynSent);
    net.advance(Duration::from_millis(2_500));
    let now = net.now;
    let right = net
        .endpoint(SERVER)
        .rendezvous(now, address(CLIENT), 500, None)
        .unwrap();
    assert!(
        net.endpoint(SERVER)
            .rendezvous(now, address(CLIENT), 500, None)
            .is_err()
    );
    net.advance(Duration::from_secs(5));
    assert_eq!(net.connection(CLIENT, left).state(), State::Established);
    assert_eq!(net.connection(SERVER, right).state(), State::Established);
}

#[test]
fn a_connection_survives_the_change_of_its_peers_address() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.write(CLIENT, client, b"before");
    net.advance(Duration::from_secs(1));
    let moved = SocketAddr::from(([192, 0, 2, 1], 1_234));
    net.hosts[CLIENT].addr = moved;
    net.write(CLIENT, client, b" and after");
    net.advance(Duration::from_secs(2));
    // The new address is unknown: nothing gets through, and nothing is reset.
    assert_eq!(net.connection(CLIENT, client).state(), State::Established);
    assert!(net.endpoint(SERVER).stats().dropped_foreign_address > 0);
    assert_eq!(net.endpoint(SERVER).stats().resets_sent, 0);
    net.endpoint(SERVER).replace_remote(server, moved).unwrap();
    net.advance(Duration::from_secs(10));
    net.expect_read(SERVER, server, b"before and after");
    assert_eq!(net.endpoint(SERVER).remote_addr(server), Some(moved));
    net.close(client, server);
    net.advance(Duration::from_secs(10));
    assert!(net.endpoint(SERVER).is_idle() && net.endpoint(CLIENT).is_idle());
}

#[test]
fn an_address_that_another_connection_has_is_not_taken() {
    let configs = [Config::default(), Config::default(), Config::default()];
    let mut net = Net::with_configs(&configs);
    let now = net.now;
    let one = net
        .endpoint(SERVER)
        .rendezvous(now, address(CLIENT), 500, None)
        .unwrap();
    let two = net
        .endpoint(SERVER)
        .rendezvous(now, address(2), 500, None)
        .unwrap();
    let taken = net.endpoint(SERVER).replace_remote(one, address(2));
    assert_eq!(taken, Err(EndpointError::PortInUse(500)));
    assert_eq!(net.endpoint(SERVER).replace_remote(two, address(2)), Ok(()));
    net.endpoint(SERVER).check_invariants();
}

#[test]
fn stopping_to_listen_resets_those_who_wait() {
    let mut net = Net::new(&Config::default());
    let (kept, _) = net.establish();
    let waiting = net.connect(CLIENT, SERVER);
    net.deliver();
    let now = net.now;
    net.endpoint(SERVER).unlisten(now, PORT);
    net.deliver();
    assert_eq!(
        net.connection(CLIENT, waiting).error(),
        Some(&ConnectionError::Reset)
    );
    assert_eq!(net.connection(CLIENT, kept).error(), None);
    assert!(net.endpoint(SERVER).accept(PORT).is_none());
    assert_eq!(net.endpoint(SERVER).stats().connections, 1);
    net.endpoint(SERVER).listen(PORT, None).unwrap();
}

#[test]
fn a_closed_endpoint_resets_everything_and_opens_nothing() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let now = net.now;
    net.endpoint(SERVER).close(now);
    net.deliver();
    assert_eq!(
        net.connection(CLIENT, client).error(),
        Some(&ConnectionError::Reset)
    );
    assert_eq!(
        net.connection(SERVER, server).error(),
        Some(&ConnectionError::Aborted)
    );
    let endpoint = net.endpoint(SERVER);
    assert!(endpoint.is_idle());
    assert_eq!(endpoint.listen(2, None), Err(EndpointError::Closed));
    assert_eq!(
        endpoint.connect(now, address(CLIENT), 1, None),
        Err(EndpointError::Closed)
    );
}

#[test]
fn a_closed_connection_that_is_still_held_gives_its_ports_back() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let now = net.now;
    // The server's reset is lost: what the client sends later is answered as nobody's.
    net.drop_if = |_| true;
    net.endpoint(SERVER)
        .with_connection(now, server, |c| c.abort(now));
    net.deliver();
    net.drop_if = |_| false;
    assert_eq!(net.connection(CLIENT, client).error(), None);
    net.write(CLIENT, client, b"anybody there?");
    net.finish(CLIENT, client);
    net.deliver();
    assert_eq!(net.endpoint(SERVER).stats().resets_sent, 1);
    assert_eq!(
        net.connection(CLIENT, client).error(),
        Some(&ConnectionError::Reset)
    );
    // A new connection with the same ports is none of its business.
    let key = net.endpoint(SERVER).slots[server.slot()].key;
    let syn = Header {
        src_port: key.remote_port,
        dst_port: PORT,
        flags: Flags::SYN,
        ..Header::default()
    };
    let bytes = encode(&syn, &[], Integrity::Sum);
    net.inject(&Flight {
        from: address(CLIENT),
        to: address(SERVER),
        bytes,
    });
    net.release(SERVER, server);
    net.collect();
    assert!(net.endpoint(SERVER).demux.contains(&key));
    assert_eq!(net.endpoint(SERVER).slots.len(), 1);
}

#[test]
fn a_train_of_datagrams_is_taken_apart() {
    let mut net = Net::new(&Config::builder().datagram_size(1_232).build().unwrap());
    let (client, server) = net.establish();
    let data = pattern(5_000);
    net.write(CLIENT, client, &data);
    let now = net.now;
    let mut buf = vec![0; 65_536];
    let departure = net
        .endpoint(CLIENT)
        .poll_transmit(now, 16, &mut buf)
        .unwrap();
    assert!(departure.segments > 2);
    let bytes = Bytes::copy_from_slice(&buf[..departure.len]);
    let before = net.endpoint(SERVER).stats().datagrams_received;
    net.endpoint(SERVER).handle_arrival(
        now,
        &Arrival {
            remote: address(CLIENT),
            local_ip: None,
            ecn: None,
            bytes: &bytes,
            stride: departure.segment_size,
        },
    );
    let after = net.endpoint(SERVER).stats().datagrams_received;
    assert_eq!(after - before, departure.segments as u64);
    net.advance(Duration::from_secs(1));
    net.expect_read(SERVER, server, &data);
}

#[test]
fn replies_leave_from_the_address_that_the_peer_used() {
    let mut net = Net::new(&Config::default());
    let (_, server) = net.establish();
    let used = address(SERVER).ip();
    assert_eq!(net.endpoint(SERVER).local_ip(server), Some(used));
    net.write(SERVER, server, b"x");
    let now = net.now;
    let mut buf = [0; 2_000];
    let departure = net
        .endpoint(SERVER)
        .poll_transmit(now, 1, &mut buf)
        .unwrap();
    assert_eq!(departure.local_ip, Some(used));
}

#[test]
fn flow_labels_are_not_sent_back() {
    let now = Timestamp::ZERO;
    let mut endpoint = endpoint(now, SERVER, Config::default());
    endpoint.listen(PORT, None).unwrap();
    let remote = |flow| SocketAddrV6::new("fe80::7".parse().unwrap(), 9, flow, 3).into();
    let mut buf = [0; 2_000];
    for dst_port in [PORT, 77] {
        let syn = Header {
            src_port: 5,
            dst_port,
            flags: Flags::SYN,
            ..Header::default()
        };
        let bytes = encode(&syn, &[], Integrity::Sum);
        let arrival = Arrival {
            remote: remote(7),
            local_ip: None,
            ecn: None,
            bytes: &bytes,
            stride: 0,
        };
        endpoint.handle_arrival(now, &arrival);
        let departure = endpoint.poll_transmit(now, 1, &mut buf).unwrap();
        assert_eq!(departure.remote, remote(0), "port {dst_port}");
    }
}

#[test]
fn connections_take_turns() {
    let mut net = Net::new(&Config::default());
    let pairs: Vec<_> = (0..3).map(|_| net.establish()).collect();
    for &(client, _) in &pairs {
        net.write(CLIENT, client, &pattern(8_000));
    }
    let now = net.now;
    let mut buf = [0; 2_000];
    let ports: Vec<u16> = (0..6)
        .map(|_| {
            let departure = net
                .endpoint(CLIENT)
                .poll_transmit(now, 1, &mut buf)
                .unwrap();
            Segment::decode(&buf[..departure.len])
                .unwrap()
                .header
                .src_port
        })
        .collect();
    assert_eq!(ports[..3], ports[3..]);
    assert_ne!(ports[0], ports[1]);
    assert_ne!(ports[1], ports[2]);
}

#[derive(Debug, PartialEq, Clone, Copy)]
struct Seen {
    direction: Direction,
    remote: SocketAddr,
    local: SocketAddr,
}

#[derive(Debug, Default, Clone)]
struct Record(Arc<Mutex<Vec<Seen>>>);

impl Tap for Record {
    fn on_segment(&mut self, _now: Timestamp, tapped: &TappedSegment<'_>) {
        let segment = Segment::decode(tapped.segment).unwrap();
        assert!(segment.integrity().is_some());
        self.0.lock().unwrap().push(Seen {
            direction: tapped.direction,
            remote: tapped.remote,
            local: tapped.local,
        });
    }
}

#[test]
fn the_tap_sees_every_intact_segment() {
    let mut net = Net::new(&Config::default());
    let record = Record::default();
    assert!(
        net.endpoint(SERVER)
            .set_tap(Some(Box::new(record.clone())))
            .is_none()
    );
    let (client, server) = net.establish();
    net.write(CLIENT, client, &pattern(5_000));
    net.advance(Duration::from_secs(1));
    net.close(client, server);
    let mut damaged = net.take_sent(CLIENT).pop().unwrap();
    let stats = net.endpoint(SERVER).stats();
    let seen = record.0.lock().unwrap().clone();
    let count = |wanted| seen.iter().filter(|seen| seen.direction == wanted).count() as u64;
    assert_eq!(count(Direction::Incoming), stats.datagrams_received);
    assert_eq!(count(Direction::Outgoing), stats.datagrams_sent);
    let ends = (address(CLIENT), address(SERVER));
    assert!(seen.iter().all(|seen| (seen.remote, seen.local) == ends));
    let mut bytes = damaged.bytes.to_vec();
    bytes[8] ^= 1;
    damaged.bytes = bytes.into();
    net.inject(&damaged);
    assert_eq!(record.0.lock().unwrap().len(), seen.len());
}

#[test]
fn only_a_command_with_consequences_asks_for_a_turn() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.write(CLIENT, client, b"data");
    assert!(net.endpoint(CLIENT).has_transmit());
    net.deliver();
    assert!(!net.endpoint(CLIENT).has_transmit());
    let now = net.now;
    let mut buf = [0; 8];
    for expected in [Ok(4), Err(ReadError::Blocked)] {
        let endpoint = net.endpoint(SERVER);
        let read =
            endpoint.with_connection(now, server, |connection| connection.read(now, &mut buf));
        assert_eq!(read, Some(expected));
        assert!(!endpoint.has_transmit(), "the window is as good as open");
        endpoint.check_invariants();
    }
    net.endpoint(SERVER)
        .with_connection(now, server, |connection| connection.abort(now));
    assert!(net.endpoint(SERVER).has_transmit());
}
