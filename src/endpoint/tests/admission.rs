//! Who is let in: limits, backlog, cookies, addresses and ports.

use super::*;
use crate::Ecn;
use crate::connection::TimeWaitRecord;
use crate::endpoint::demux::Key;
use crate::endpoint::secrets::LOCAL_PORTS;
use crate::error::EndpointError;
use crate::wire::{Flags, Options, SeqNumber};

fn small_backlog() -> Config {
    Config::builder().backlog(2).build().unwrap()
}

/// A SYN whose sender never answers.
fn flood(net: &mut Net, count: u16) {
    for i in 0..count {
        let syn = Header {
            src_port: 1_000 + i,
            dst_port: PORT,
            flags: Flags::SYN,
            options: Options {
                mss: Some(1_000),
                ..Options::default()
            },
            ..Header::default()
        };
        net.forge(SocketAddr::from(([203, 0, 113, 9], 1)), SERVER, &syn, &[]);
    }
}

#[test]
fn a_full_backlog_answers_with_cookies_that_become_connections() {
    for timestamps in [true, false] {
        let client_config = Config::builder().timestamps(timestamps).build().unwrap();
        let mut net = Net::with_configs(&[client_config, small_backlog()]);
        flood(&mut net, 5);
        assert_eq!(net.endpoint(SERVER).stats().connections, 2);
        assert_eq!(net.endpoint(SERVER).stats().syn_cookies_sent, 3);
        let (client, server) = net.establish();
        assert_eq!(net.endpoint(SERVER).stats().syn_cookies_accepted, 1);
        let data = pattern(100_000);
        net.write(CLIENT, client, &data);
        net.write(SERVER, server, &data);
        net.advance(Duration::from_secs(3));
        net.expect_read(SERVER, server, &data);
        net.expect_read(CLIENT, client, &data);
        net.close(client, server);
        net.advance(Duration::from_secs(3));
        assert!(net.endpoint(CLIENT).is_idle());
        assert_eq!(net.endpoint(SERVER).stats().resets_sent, 0);
    }
}

#[test]
fn a_cookie_costs_no_state() {
    let mut net = Net::with_configs(&[Config::default(), small_backlog()]);
    flood(&mut net, 2);
    let before = net.endpoint(SERVER).memory;
    flood(&mut net, 1_000);
    let server = net.endpoint(SERVER);
    assert_eq!((server.slots.len(), server.memory), (2, before));
}

#[test]
fn a_valid_cookie_waits_until_the_accept_queue_has_room() {
    let mut net = Net::with_configs(&[Config::default(), small_backlog()]);
    let first = net.connect(CLIENT, SERVER);
    let second = net.connect(CLIENT, SERVER);
    net.deliver();
    let third = net.connect(CLIENT, SERVER);
    net.write(CLIENT, third, b"patience");
    net.deliver();
    let stats = net.endpoint(SERVER).stats();
    assert_eq!((stats.syn_cookies_sent, stats.syn_cookies_accepted), (1, 0));
    assert!(stats.dropped_backlog > 0);
    assert_eq!(net.endpoint(SERVER).slots.len(), 2);
    let accepted: Vec<_> = std::iter::from_fn(|| net.endpoint(SERVER).accept(PORT)).collect();
    assert_eq!(accepted.len(), 2);
    net.advance(Duration::from_secs(10));
    let (server, _) = net
        .endpoint(SERVER)
        .accept(PORT)
        .expect("the peer's data is sent again");
    net.expect_read(SERVER, server, b"patience");
    for id in [first, second, third] {
        assert_eq!(net.connection(CLIENT, id).error(), None);
    }
}

#[test]
fn a_cookie_counts_although_the_syn_came_again_and_found_room() {
    for timestamps in [true, false] {
        let client_config = Config::builder().timestamps(timestamps).build().unwrap();
        let mut net = Net::with_configs(&[client_config, small_backlog()]);
        net.connect(CLIENT, SERVER);
        net.connect(CLIENT, SERVER);
        net.deliver();
        net.take_sent(CLIENT);
        net.drop_if =
            |flight| flight.from == address(CLIENT) && !flight.header().flags.contains(Flags::SYN);
        let client = net.connect(CLIENT, SERVER);
        net.write(CLIENT, client, b"here");
        net.deliver();
        assert_eq!(net.endpoint(SERVER).stats().syn_cookies_sent, 1);
        let syn = net.take_sent(CLIENT).swap_remove(0);
        while net.endpoint(SERVER).accept(PORT).is_some() {}

        // The late copy of the SYN is answered with a number of its own, and that with an ACK of the first
        // one, behind data that is lost.
        net.drop_if = |_| false;
        net.inject(&syn);
        net.deliver();
        assert_eq!(net.endpoint(SERVER).accept(PORT), None);
        net.advance(Duration::from_secs(5));
        let accepted = net.endpoint(SERVER).accept(PORT);
        let (server, _) = accepted.expect("the cookie's connection");
        net.expect_read(SERVER, server, b"here");
        net.write(SERVER, server, b"found");
        net.deliver();
        net.expect_read(CLIENT, client, b"found");
        let stats = net.endpoint(SERVER).stats();
        assert_eq!((stats.syn_cookies_accepted, stats.resets_sent), (1, 0));
        assert_eq!(stats.connections, 3);
    }
}

/// The server may answer three times; a client that has nothing to say must not wait for ever.
#[test]
fn a_silent_client_whose_acks_were_lost_is_accepted_in_the_end() {
    let mut net = Net::new(&Config::default());
    let is_ack = |flight: &Flight| {
        flight.from == address(CLIENT) && !flight.header().flags.contains(Flags::SYN)
    };
    net.drop_if = is_ack;
    let client = net.connect(CLIENT, SERVER);
    net.deliver();
    assert_eq!(net.connection(CLIENT, client).state(), State::Established);
    // SYN-ACKs at 0, 1 and 3 s use up what the SYN has allowed; the client asks at 1, 3, 7, 15 s.
    net.advance(Duration::from_secs(14));
    assert!(net.endpoint(SERVER).stats().amplification_suppressed > 0);
    assert_eq!(net.endpoint(SERVER).accept(PORT), None);
    net.drop_if = |_| false;
    net.advance(Duration::from_secs(2));
    let accepted = net.endpoint(SERVER).accept(PORT);
    let (server, _) = accepted.expect("the client has asked");
    net.write(SERVER, server, b"welcome");
    net.deliver();
    net.expect_read(CLIENT, client, b"welcome");
}

#[test]
fn a_client_asks_once_whether_it_was_accepted_and_then_all_is_quiet() {
    let mut net = Net::new(&Config::default());
    let (client, _) = net.establish();
    net.take_sent(CLIENT);
    net.advance(Duration::from_secs(3_600));
    assert_eq!(net.take_sent(CLIENT).len(), 1, "the question");
    assert_eq!(net.connection(CLIENT, client).stats().keepalive_probes, 1);
    assert_eq!(net.endpoint(CLIENT).poll_timeout(), None);
    assert_eq!(net.endpoint(SERVER).poll_timeout(), None);
    // Whoever has heard its peer has no question.
    let (client, server) = net.establish();
    net.write(SERVER, server, b"hello");
    net.deliver();
    net.expect_read(CLIENT, client, b"hello");
    assert_eq!(net.connection(CLIENT, client).stats().keepalive_probes, 0);
    net.advance(Duration::from_secs(3_600));
    assert_eq!(net.connection(CLIENT, client).stats().keepalive_probes, 0);
}

#[test]
fn a_cookie_makes_one_connection_only() {
    let mut net = Net::with_configs(&[Config::default(), small_backlog()]);
    flood(&mut net, 2);
    net.take_sent(CLIENT);
    let client = net.connect(CLIENT, SERVER);
    net.write(CLIENT, client, b"pay once");
    net.deliver();
    let (server, _) = net.endpoint(SERVER).accept(PORT).expect("by its cookie");
    let copies = net.take_sent(CLIENT);
    net.expect_read(SERVER, server, b"pay once");
    net.close(client, server);
    net.advance(Duration::from_secs(3));
    assert_eq!(net.endpoint(SERVER).stats().connections, 2, "the flood's");
    assert_eq!(net.endpoint(SERVER).stats().resets_sent, 0);
    // Late copies of the ACK and of the data behind it.
    for flight in copies
        .iter()
        .filter(|flight| !flight.header().flags.contains(Flags::SYN))
    {
        net.inject(flight);
        net.deliver();
    }
    assert_eq!(net.endpoint(SERVER).accept(PORT), None);
    let stats = net.endpoint(SERVER).stats();
    assert_eq!((stats.connections, stats.syn_cookies_accepted), (2, 1));
    assert!(stats.resets_sent > 0, "as if there had been no cookie");
}

#[test]
fn long_after_a_flood_no_cookie_is_believed() {
    let mut net = Net::with_configs(&[Config::default(), small_backlog()]);
    flood(&mut net, 2);
    net.drop_if =
        |flight| flight.from == address(CLIENT) && !flight.header().flags.contains(Flags::SYN);
    net.connect(CLIENT, SERVER);
    net.deliver();
    let ack = net.take_sent(CLIENT).pop().unwrap();
    net.drop_if = |_| false;
    // The cookie was the last one; 128 s later its number means nothing.
    net.advance(Duration::from_secs(129));
    net.take_sent(SERVER);
    net.inject(&ack);
    net.deliver();
    let stats = net.endpoint(SERVER).stats();
    assert_eq!(stats.syn_cookies_accepted, 0);
    assert_eq!(net.take_sent(SERVER)[0].header().flags, Flags::RST);
}

#[test]
fn a_half_open_connection_that_gives_up_frees_its_place() {
    let mut net = Net::with_configs(&[Config::default(), small_backlog()]);
    flood(&mut net, 2);
    net.advance(Duration::from_secs(600));
    assert_eq!(net.endpoint(SERVER).slots.len(), 0);
    net.establish();
    assert_eq!(net.endpoint(SERVER).stats().syn_cookies_sent, 0);
}

#[test]
fn one_that_was_reset_before_accept_does_not_come_out_of_it() {
    let mut net = Net::with_configs(&[Config::default(), small_backlog()]);
    for _ in 0..50 {
        let client = net.connect(CLIENT, SERVER);
        net.deliver();
        let now = net.now;
        net.endpoint(CLIENT)
            .with_connection(now, client, |c| c.abort(now))
            .unwrap();
        net.release(CLIENT, client);
        net.deliver();
    }
    assert!(net.endpoint(SERVER).accept(PORT).is_none());
    assert_eq!(net.endpoint(SERVER).slots.len(), 0);
    net.establish();
}

#[test]
fn the_connection_limit_holds_for_both_directions() {
    let config = Config::builder().max_connections(2).build().unwrap();
    let mut net = Net::with_configs(&[Config::default(), config]);
    net.establish();
    net.establish();
    net.connect(CLIENT, SERVER);
    net.deliver();
    assert!(net.endpoint(SERVER).accept(PORT).is_none());
    assert_eq!(net.endpoint(SERVER).stats().dropped_backlog, 1);
    let now = net.now;
    let refused = net
        .endpoint(SERVER)
        .connect(now, address(CLIENT), PORT, None);
    assert_eq!(refused, Err(EndpointError::TooManyConnections(2)));
}

/// Buffers of full size from the beginning, so that memory is the limit.
fn roomy() -> crate::ConfigBuilder {
    Config::builder().buffer_tuning(false)
}

#[test]
fn beyond_the_memory_limit_nobody_comes_in() {
    let config = roomy().max_memory(256 * 1024).build().unwrap();
    let mut net = Net::with_configs(&[roomy().build().unwrap(), config]);
    let (client, server) = net.establish();
    let data = pattern(300_000);
    net.write(CLIENT, client, &data);
    net.advance(Duration::from_secs(5));
    assert!(net.endpoint(SERVER).memory > 256 * 1024);
    let late = net.connect(CLIENT, SERVER);
    net.deliver();
    assert_eq!(net.connection(CLIENT, late).state(), State::SynSent);
    let now = net.now;
    let refused = net
        .endpoint(SERVER)
        .connect(now, address(CLIENT), PORT, None);
    assert_eq!(refused, Err(EndpointError::MemoryExhausted(256 * 1024)));
    // Once it was read, there is room again.
    net.read_all(SERVER, server, &data);
    net.advance(Duration::from_secs(10));
    assert_eq!(net.connection(CLIENT, late).state(), State::Established);
}

#[test]
fn a_greedy_peer_gets_no_more_than_the_memory_limit_and_starves_nobody() {
    const LIMIT: usize = 256 * 1024;
    let config = roomy().max_memory(LIMIT).build().unwrap();
    let mut net = Net::with_configs(&[roomy().build().unwrap(), config]);
    let (modest, modest_server) = net.establish();
    let (greedy, greedy_server) = net.establish();
    let data = pattern(2_000_000);
    net.write(CLIENT, greedy, &data);
    net.advance(Duration::from_secs(2));
    // One train, and one buffer's growth, may overshoot.
    let memory = net.endpoint(SERVER).memory;
    assert!(memory < LIMIT + 128 * 1024, "{memory}");
    assert!(net.endpoint(SERVER).stats().dropped_memory > 0);

    let few = pattern(20_000);
    net.write(CLIENT, modest, &few);
    net.advance(Duration::from_secs(2));
    net.expect_read(SERVER, modest_server, &few);

    net.read_all(SERVER, greedy_server, &data);
    assert_eq!(net.connection(CLIENT, greedy).error(), None);
}

#[test]
fn a_released_connection_gives_its_memory_back() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.close(client, server);
    for host in [CLIENT, SERVER] {
        assert_eq!(net.endpoint(host).memory, 0, "host {host}");
    }
}

#[test]
fn an_address_that_cannot_be_reached_is_refused_with_a_reason() {
    let now = Timestamp::ZERO;
    let secrets = Secrets {
        isn: [1; 16],
        port: [2; 16],
        cookie: [3; 16],
        hash_seed: 4,
    };
    // (socket, peer, virtual port, reachable as)
    let cases = [
        ("0.0.0.0:1", "10.0.0.1:9", 1, Some("10.0.0.1:9")),
        ("0.0.0.0:1", "[::ffff:10.0.0.1]:9", 1, Some("10.0.0.1:9")),
        ("0.0.0.0:1", "[2001:db8::1]:9", 1, None),
        ("0.0.0.0:1", "10.0.0.1:0", 1, None),
        ("0.0.0.0:1", "10.0.0.1:9", 0, None),
        ("0.0.0.0:1", "0.0.0.0:9", 1, None),
        ("0.0.0.0:1", "224.0.0.1:9", 1, None),
        ("0.0.0.0:1", "255.255.255.255:9", 1, None),
        ("[::]:1", "10.0.0.1:9", 1, Some("[::ffff:10.0.0.1]:9")),
        ("[::]:1", "[2001:db8::1]:9", 1, Some("[2001:db8::1]:9")),
        ("[::]:1", "[::]:9", 1, None),
        ("[::]:1", "[ff02::1]:9", 1, None),
        ("[2001:db8::2]:1", "10.0.0.1:9", 1, None),
        (
            "[::ffff:10.0.0.2]:1",
            "10.0.0.1:9",
            1,
            Some("[::ffff:10.0.0.1]:9"),
        ),
        ("[::ffff:10.0.0.2]:1", "[2001:db8::1]:9", 1, None),
    ];
    for (local, remote, port, reachable) in cases {
        let local = EndpointLocal {
            addr: local.parse().unwrap(),
        };
        let mut endpoint = Endpoint::new(now, Config::default(), secrets.clone(), local);
        let remote: SocketAddr = remote.parse().unwrap();
        let result = endpoint.connect(now, remote, port, None);
        match reachable {
            Some(form) => {
                let id = result.unwrap_or_else(|error| panic!("{local:?} {remote}: {error}"));
                let form: SocketAddr = form.parse().unwrap();
                assert_eq!(endpoint.remote_addr(id), Some(form), "{local:?} {remote}");
            }
            None => assert!(
                matches!(result, Err(EndpointError::InvalidAddress(a, _)) if a == remote),
                "{local:?} {remote}: {result:?}"
            ),
        }
    }
}

#[test]
fn a_port_is_listened_on_once() {
    let mut net = Net::new(&Config::default());
    let now = net.now;
    assert_eq!(
        net.endpoint(SERVER).listen(PORT, None),
        Err(EndpointError::PortInUse(PORT))
    );
    assert_eq!(
        net.endpoint(SERVER).listen(0, None),
        Err(EndpointError::InvalidPort(0))
    );
    net.endpoint(SERVER).unlisten(now, PORT);
    net.endpoint(SERVER).unlisten(now, PORT);
    assert_eq!(net.endpoint(SERVER).listen(PORT, None), Ok(()));
}

#[test]
fn taken_ports_are_not_drawn_and_may_run_out() {
    let mut net = Net::new(&Config::default());
    let now = net.now;
    let record = TimeWaitRecord {
        local_port: 0,
        remote_port: PORT,
        snd_nxt: SeqNumber::new(0),
        rcv_nxt: SeqNumber::new(0),
        ts_recent: None,
        timestamp_offset: 0,
        integrity: Integrity::Sum,
        expires: now + Duration::from_secs(60),
        window_field: 0,
    };
    for port in LOCAL_PORTS.filter(|&port| port != 40_000) {
        let key = Key::new(address(SERVER), PORT, port);
        net.endpoint(CLIENT)
            .time_wait
            .insert(key, record, Duration::from_secs(60));
    }
    let id = net.connect(CLIENT, SERVER);
    assert_eq!(net.connection(CLIENT, id).local_port(), 40_000);
    let exhausted = net
        .endpoint(CLIENT)
        .connect(now, address(SERVER), PORT, None);
    assert_eq!(
        exhausted,
        Err(EndpointError::PortsExhausted(address(SERVER)))
    );
    // Towards another port or peer they are free.
    assert!(
        net.endpoint(CLIENT)
            .connect(now, address(SERVER), 2, None)
            .is_ok()
    );
    assert!(
        net.endpoint(CLIENT)
            .connect(now, address(2), PORT, None)
            .is_ok()
    );
    net.now = now + Duration::from_secs(60);
    net.connect(CLIENT, SERVER);
}

#[test]
fn a_thousand_connections_share_an_endpoint() {
    let mut net = Net::new(&Config::default());
    let clients: Vec<_> = (0..1_000).map(|_| net.connect(CLIENT, SERVER)).collect();
    net.quietly(Duration::from_secs(1));
    let servers: Vec<_> = std::iter::from_fn(|| net.endpoint(SERVER).accept(PORT)).collect();
    assert_eq!(servers.len(), 1_000);
    for (i, &client) in clients.iter().enumerate() {
        net.write(CLIENT, client, &pattern(i + 1));
        net.finish(CLIENT, client);
    }
    net.quietly(Duration::from_secs(1));
    let mut lengths: Vec<usize> = servers
        .iter()
        .map(|&(server, _)| {
            let (data, has_ended) = net.read(SERVER, server);
            assert!(has_ended);
            assert!(data == pattern(data.len()));
            data.len()
        })
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (1..=1_000).collect::<Vec<_>>());
    for &(server, _) in &servers {
        net.release(SERVER, server);
    }
    for &client in &clients {
        net.release(CLIENT, client);
    }
    net.quietly(Duration::from_secs(1));
    for host in [CLIENT, SERVER] {
        assert!(net.endpoint(host).is_idle(), "host {host}");
        net.endpoint(host).check_invariants();
    }
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 1_000);
}

#[test]
fn a_congestion_mark_is_counted_for_the_connection_that_it_reached() {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    net.drop_if = |flight| flight.from == address(CLIENT);
    net.take_sent(CLIENT);
    net.write(CLIENT, client, b"marked");
    net.deliver();
    let flight = net.take_sent(CLIENT).swap_remove(0);
    let now = net.now;
    for (mark, expected) in [
        (None, 0),
        (Some(Ecn::Ect0), 0),
        (Some(Ecn::Ce), 1),
        (Some(Ecn::Ce), 2),
    ] {
        net.endpoint(SERVER).handle_arrival(
            now,
            &Arrival {
                remote: address(CLIENT),
                local_ip: None,
                ecn: mark,
                bytes: &flight.bytes,
                stride: 0,
            },
        );
        let stats = net.connection(SERVER, server).stats();
        assert_eq!(stats.ecn_ce, expected, "{mark:?}");
    }
}
