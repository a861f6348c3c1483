//! Segments that belong to nobody, and what an outsider can and cannot make an endpoint do.

use super::*;
use crate::wire::{Flags, Options, SeqNumber, Timestamps};

fn stranger() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 5], 5_555))
}

fn segment(flags: Flags) -> Header {
    Header {
        src_port: 40_000,
        dst_port: 77,
        seq: SeqNumber::new(1_000),
        ack: SeqNumber::new(2_000),
        flags,
        ..Header::default()
    }
}

#[test]
fn the_reset_fits_what_it_answers() {
    // RFC 9293 §3.10.7.1. (name, flags, payload, sequence number, ACK number, flags)
    let cases = [
        ("SYN", Flags::SYN, 0, 0, Some(1_001)),
        ("SYN with data", Flags::SYN, 5, 0, Some(1_006)),
        ("FIN without ACK", Flags::FIN, 0, 0, Some(1_001)),
        ("ACK", Flags::ACK, 0, 2_000, None),
        ("data", Flags::ACK | Flags::PSH, 9, 2_000, None),
        ("SYN-ACK", Flags::SYN | Flags::ACK, 0, 2_000, None),
    ];
    for (name, flags, payload, seq, ack) in cases {
        let mut net = Net::new(&Config::default());
        net.forge(stranger(), SERVER, &segment(flags), &pattern(payload));
        let sent = net.take_sent(SERVER);
        assert_eq!(sent.len(), 1, "{name}");
        let reset = sent[0].header();
        assert_eq!((reset.src_port, reset.dst_port), (77, 40_000), "{name}");
        assert_eq!(reset.seq.get(), seq, "{name}");
        match ack {
            Some(ack) => {
                assert_eq!(reset.flags, Flags::RST | Flags::ACK, "{name}");
                assert_eq!(reset.ack.get(), ack, "{name}");
            }
            None => assert_eq!(reset.flags, Flags::RST, "{name}"),
        }
        assert_eq!(sent[0].bytes.len(), 20, "{name}");
        assert_eq!(sent[0].to, stranger(), "{name}");
    }
}

#[test]
fn a_train_is_sorted_anew_behind_what_ends_a_connection_within_it() {
    let mut net = Net::new(&Config::default());
    let (client, _) = net.establish();
    let now = net.now;
    net.take_sent(CLIENT);
    net.drop_if = |flight| flight.to == address(SERVER);
    net.endpoint(CLIENT)
        .with_connection(now, client, |c| c.abort(now));
    net.deliver();
    let reset = net.take_sent(CLIENT).remove(0);
    // Of the same length: nothing that can be read, and a segment of the connection that is no more.
    let header = Header {
        seq: reset.header().seq,
        ack: reset.header().ack,
        flags: Flags::ACK,
        ..reset.header()
    };
    let mut train = reset.bytes.to_vec();
    let stride = train.len();
    train.resize(2 * stride, 0);
    train.extend_from_slice(&encode(&header, &[], Integrity::Sum));
    assert_eq!(train.len(), 3 * stride);
    let arrival = Arrival {
        remote: address(CLIENT),
        local_ip: None,
        ecn: None,
        bytes: &train.into(),
        stride,
    };
    net.endpoint(SERVER).handle_arrival(now, &arrival);
    let stats = net.endpoint(SERVER).stats();
    assert_eq!((stats.dropped_malformed, stats.resets_sent), (1, 1));
}

#[test]
fn no_reset_answers_a_reset_or_what_a_listener_ignores() {
    let mut net = Net::new(&Config::default());
    net.forge(stranger(), SERVER, &segment(Flags::RST), &[]);
    net.forge(stranger(), SERVER, &segment(Flags::RST | Flags::ACK), &[]);
    for flags in [
        Flags::EMPTY,
        Flags::FIN,
        Flags::RST,
        Flags::SYN | Flags::FIN,
    ] {
        net.forge(
            stranger(),
            SERVER,
            &Header {
                dst_port: PORT,
                ..segment(flags)
            },
            b"x",
        );
    }
    assert!(net.take_sent(SERVER).is_empty());
    assert_eq!(net.endpoint(SERVER).stats().dropped_no_connection, 6);
}

#[test]
fn an_ack_to_a_listener_is_reset() {
    let mut net = Net::new(&Config::default());
    net.forge(
        stranger(),
        SERVER,
        &Header {
            dst_port: PORT,
            ..segment(Flags::ACK)
        },
        b"x",
    );
    assert_eq!(net.take_sent(SERVER)[0].header().flags, Flags::RST);
}

#[test]
fn the_reset_carries_the_check_of_its_trigger() {
    for integrity in [Integrity::Sum, Integrity::Crc32c] {
        let mut net = Net::new(&Config::default());
        let bytes = encode(&segment(Flags::ACK), b"data", integrity);
        net.inject(&Flight {
            from: stranger(),
            to: address(SERVER),
            bytes,
        });
        net.deliver();
        let reset = net.take_sent(SERVER).remove(0);
        assert!(
            Segment::decode(&reset.bytes).unwrap().verify(integrity),
            "{integrity:?}"
        );
    }
}

#[test]
fn a_syn_must_carry_the_plain_sum() {
    let mut net = Net::new(&Config::default());
    let syn = Header {
        dst_port: PORT,
        ..segment(Flags::SYN)
    };
    let bytes = encode(&syn, &[], Integrity::Crc32c);
    net.inject(&Flight {
        from: stranger(),
        to: address(SERVER),
        bytes,
    });
    net.deliver();
    assert!(net.take_sent(SERVER).is_empty());
    assert_eq!(net.endpoint(SERVER).stats().dropped_checksum, 1);
}

#[test]
fn resets_are_limited_per_second() {
    let config = Config::builder().reset_rate_limit(10).build().unwrap();
    let mut net = Net::new(&config);
    for _ in 0..25 {
        net.forge(stranger(), SERVER, &segment(Flags::ACK), &[]);
    }
    assert_eq!(net.take_sent(SERVER).len(), 10);
    net.advance(Duration::from_millis(250));
    for _ in 0..25 {
        net.forge(stranger(), SERVER, &segment(Flags::ACK), &[]);
    }
    // 10 per second are 2 in 250 ms.
    assert_eq!(net.take_sent(SERVER).len(), 2);
    let stats = net.endpoint(SERVER).stats();
    assert_eq!((stats.resets_sent, stats.resets_suppressed), (12, 38));
}

#[test]
fn a_known_port_pair_from_a_foreign_address_gets_no_reset() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let (src_port, dst_port) = {
        let connection = net.connection(CLIENT, client);
        (connection.local_port(), connection.remote_port())
    };
    net.take_sent(SERVER);
    for flags in [Flags::ACK, Flags::RST, Flags::FIN | Flags::ACK] {
        net.forge(
            stranger(),
            SERVER,
            &Header {
                src_port,
                dst_port,
                ..segment(flags)
            },
            &[],
        );
    }
    assert!(net.take_sent(SERVER).is_empty());
    assert_eq!(net.connection(SERVER, server).state(), State::Established);
    assert_eq!(net.endpoint(SERVER).stats().dropped_foreign_address, 2);
    // But who asks for a connection gets one: another peer may well have drawn the same port.
    net.forge(
        stranger(),
        SERVER,
        &Header {
            src_port,
            dst_port,
            ..segment(Flags::SYN)
        },
        &[],
    );
    assert_eq!(
        net.take_sent(SERVER)[0].header().flags,
        Flags::SYN | Flags::ACK
    );
}

#[test]
fn what_is_no_segment_is_counted_and_dropped() {
    let mut net = Net::new(&Config::default());
    let good = encode(&segment(Flags::ACK), &[], Integrity::Sum);
    let mut damaged = good.to_vec();
    damaged[4] ^= 1;
    let port_zero = encode(
        &Header {
            src_port: 0,
            ..segment(Flags::SYN)
        },
        &[],
        Integrity::Sum,
    );
    let cases: [Bytes; 4] = [
        Bytes::new(),
        Bytes::from_static(b"hello"),
        port_zero,
        damaged.into(),
    ];
    for bytes in cases {
        net.inject(&Flight {
            from: stranger(),
            to: address(SERVER),
            bytes,
        });
    }
    net.deliver();
    let stats = net.endpoint(SERVER).stats();
    assert_eq!((stats.dropped_malformed, stats.dropped_checksum), (3, 1));
    assert_eq!(stats.datagrams_received, 4);
    assert!(net.take_sent(SERVER).is_empty());
}

#[test]
fn a_damaged_segment_never_reaches_its_connection() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.write(CLIENT, client, b"payload");
    net.collect();
    let flight = net.flying.pop_front().unwrap();
    for bit in 0..flight.bytes.len() * 8 {
        let mut bytes = flight.bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        net.inject(&Flight {
            bytes: bytes.into(),
            ..flight.clone()
        });
    }
    net.collect();
    assert_eq!(net.read(SERVER, server), (Vec::new(), false));
    net.inject(&flight);
    net.expect_read(SERVER, server, b"payload");
}

#[test]
fn one_without_proof_gets_at_most_three_bytes_per_byte() {
    // (name, options of the SYN)
    let timestamps = Some(Timestamps { tsval: 5, tsecr: 0 });
    let cases = [
        ("bare", Options::default()),
        (
            "full",
            Options {
                mss: Some(1_400),
                window_scale: Some(7),
                sack_permitted: true,
                timestamps,
                ..Options::default()
            },
        ),
    ];
    for (name, options) in cases {
        let mut net = Net::new(&Config::default());
        let syn = Header {
            dst_port: PORT,
            options,
            ..segment(Flags::SYN)
        };
        net.forge(stranger(), SERVER, &syn, &[]);
        net.advance(Duration::from_secs(600));
        let received = syn.encoded_len();
        let sent: usize = net
            .take_sent(SERVER)
            .iter()
            .map(|flight| flight.bytes.len())
            .sum();
        assert!(
            sent > 0 && sent <= 3 * received,
            "{name}: {sent} bytes for {received}"
        );
        let stats = net.endpoint(SERVER).stats();
        assert!(stats.amplification_suppressed > 0, "{name}");
        assert_eq!(
            stats.connections, 0,
            "{name}: the attempt ends all the same"
        );
    }
}

#[test]
fn another_syn_raises_the_budget() {
    let mut net = Net::new(&Config::default());
    let syn = Header {
        dst_port: PORT,
        ..segment(Flags::SYN)
    };
    net.forge(stranger(), SERVER, &syn, &[]);
    net.advance(Duration::from_secs(40));
    net.take_sent(SERVER);
    net.forge(stranger(), SERVER, &syn, &[]);
    assert_eq!(net.take_sent(SERVER).len(), 1);
}

#[test]
fn the_queue_of_answers_has_an_end() {
    let config = Config::builder()
        .reset_rate_limit(1_000_000)
        .build()
        .unwrap();
    let mut net = Net::new(&config);
    let bytes = encode(&segment(Flags::ACK), &[], Integrity::Sum);
    for _ in 0..300 {
        net.inject(&Flight {
            from: stranger(),
            to: address(SERVER),
            bytes: bytes.clone(),
        });
    }
    net.deliver();
    assert_eq!(net.take_sent(SERVER).len(), 256);
    assert_eq!(net.endpoint(SERVER).stats().answers_dropped, 44);
}

#[test]
fn a_reset_does_not_end_time_wait() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let port = net.connection(CLIENT, client).local_port();
    net.close(client, server);
    let last = net.take_sent(SERVER).pop().unwrap().header();
    let reset = Header {
        dst_port: port,
        flags: Flags::RST | Flags::ACK,
        ..last
    };
    let bytes = encode(
        &Header {
            seq: last.seq + 1,
            ..reset
        },
        &[],
        Integrity::Crc32c,
    );
    net.inject(&Flight {
        from: address(SERVER),
        to: address(CLIENT),
        bytes,
    });
    net.deliver();
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 1);
    assert_eq!(net.endpoint(CLIENT).stats().dropped_time_wait, 1);
    assert_eq!(net.endpoint(CLIENT).stats().dropped_checksum, 0);
}

/// RFC 9293 figure 8. The reset answers a SYN-ACK, which carries the plain sum, though both SYNs offered
/// the CRC.
#[test]
fn an_old_duplicate_syn_leaves_nothing_behind() {
    let mut net = Net::new(&Config::default());
    net.connect(CLIENT, SERVER);
    net.deliver();
    let syn = net.take_sent(CLIENT).remove(0);
    net.endpoint(SERVER).accept(PORT).unwrap();
    let live = net.endpoint(SERVER).stats().connections;
    // The same SYN under another port, of which the client knows nothing.
    let header = Header {
        src_port: 50_000,
        ..syn.header()
    };
    net.forge(syn.from, SERVER, &header, &[]);
    assert_eq!(
        net.take_sent(CLIENT).pop().unwrap().header().flags,
        Flags::RST
    );
    assert_eq!(net.endpoint(SERVER).stats().dropped_checksum, 0);
    assert_eq!(net.endpoint(SERVER).stats().connections, live);
}

#[test]
fn what_cannot_be_answered_makes_no_connection_and_no_answer() {
    let stranger_at = |port| SocketAddr::new(stranger().ip(), port);
    // (source, destination)
    let cases = [
        (stranger_at(0), "10.0.0.2"),
        (SocketAddr::from(([0, 0, 0, 0], 9)), "10.0.0.2"),
        (SocketAddr::from(([0; 8], 9)), "::1"),
        (SocketAddr::from(([255, 255, 255, 255], 9)), "10.0.0.2"),
        (stranger(), "255.255.255.255"),
        (stranger(), "224.0.0.1"),
        (stranger(), "::ffff:224.0.0.1"),
        (stranger(), "ff02::1"),
    ];
    for (remote, local) in cases {
        let mut net = Net::new(&Config::default());
        let now = net.now;
        for (port, flags) in [
            (PORT, Flags::SYN),
            (PORT, Flags::ACK),
            (77, Flags::SYN),
            (77, Flags::ACK),
        ] {
            let header = Header {
                dst_port: port,
                ..segment(flags)
            };
            let bytes = encode(&header, &[], Integrity::Sum);
            let arrival = Arrival {
                remote,
                local_ip: Some(local.parse().unwrap()),
                ecn: None,
                bytes: &bytes,
                stride: 0,
            };
            net.endpoint(SERVER).handle_arrival(now, &arrival);
        }
        net.deliver();
        assert!(net.take_sent(SERVER).is_empty(), "{remote} to {local}");
        let stats = net.endpoint(SERVER).stats();
        assert_eq!(stats.connections, 0, "{remote} to {local}");
        assert_eq!(stats.dropped_no_connection, 4, "{remote} to {local}");
    }
}

#[test]
fn connections_that_come_and_go_while_nothing_is_sent_leave_nothing_behind() {
    let mut net = Net::new(&Config::default());
    let now = net.now;
    for i in 0..10_000_u32 {
        let syn = Header {
            src_port: 40_000,
            dst_port: PORT,
            seq: SeqNumber::new(1_000 * i),
            flags: Flags::SYN,
            ..Header::default()
        };
        let reset = Header {
            seq: syn.seq + 1,
            flags: Flags::RST,
            ..syn
        };
        for header in [syn, reset] {
            let flight = Flight {
                from: stranger(),
                to: address(SERVER),
                bytes: encode(&header, &[], Integrity::Sum),
            };
            net.inject(&flight);
        }
    }
    assert_eq!(net.now, now);
    let server = net.endpoint(SERVER);
    assert_eq!(server.slots.len(), 0);
    assert!(server.ready.iter().count() < 100);
    assert!(server.events.len() < 100);
}
