//! Connections that come and go faster than TIME-WAIT lasts: their ports are used again, and safely.

use super::*;
use crate::endpoint::demux::Key;
use crate::endpoint::secrets::LOCAL_PORTS;
use crate::wire::Flags;

/// Time between two connections: 33,333 of them a second.
const STEP: Duration = Duration::from_micros(30);

/// One byte each way; then both let go, `first` before the other.
fn visit(net: &mut Net, first: usize) {
    let (client, server) = net.establish();
    net.write(CLIENT, client, b"?");
    net.deliver();
    net.expect_read(SERVER, server, b"?");
    net.write(SERVER, server, b"!");
    net.deliver();
    net.expect_read(CLIENT, client, b"!");
    let mut ends = [(CLIENT, client), (SERVER, server)];
    ends.sort_by_key(|&(host, _)| host != first);
    for (host, id) in ends {
        net.release(host, id);
        net.deliver();
    }
    net.sent.clear();
    for host in &mut net.hosts {
        host.events.clear();
    }
    net.now = net.now + STEP;
}

#[test]
fn one_address_pair_carries_more_connections_than_there_are_ports() {
    // 32,768 ports, each for 60 s in TIME-WAIT at whoever closes first.
    for first in [CLIENT, SERVER] {
        let mut net = Net::new(&Config::default());
        net.is_checked = false;
        for _ in 0..100_000 {
            visit(&mut net, first);
        }
        for host in [CLIENT, SERVER] {
            let stats = net.endpoint(host).stats();
            assert_eq!(stats.connections, 0, "{first} closes first, host {host}");
            assert_eq!(stats.resets_sent, 0, "{first} closes first, host {host}");
            net.endpoint(host).check_invariants();
        }
        let waiting = net.endpoint(first).stats().time_wait;
        assert_eq!(waiting, LOCAL_PORTS.len(), "{first} closes first");
    }
}

/// A client whose only port that is not taken for good is the one whose connection has just ended.
fn only_port(drop_if: fn(&Flight) -> bool) -> (Net, Header) {
    let mut net = Net::new(&Config::default());
    let (client, server) = net.establish();
    let local_port = net.connection(CLIENT, client).local_port();
    net.release(CLIENT, client);
    net.deliver();
    net.drop_if = drop_if;
    net.release(SERVER, server);
    net.deliver();
    net.drop_if = |_| false;
    let last = net.sent.last().unwrap().header();
    assert_eq!(last.flags, Flags::ACK);
    for port in LOCAL_PORTS.filter(|&port| port != local_port) {
        let key = Key::new(address(SERVER), PORT, port);
        net.endpoint(CLIENT).demux.insert(key, usize::MAX);
    }
    net.is_checked = false;
    (net, last)
}

#[test]
fn a_port_is_drawn_again_only_once_the_timestamps_tell_the_connections_apart() {
    let (mut net, last) = only_port(|_| false);
    let (now, server) = (net.now, address(SERVER));
    let early = net.endpoint(CLIENT).connect(now, server, PORT, None);
    assert!(early.is_err(), "at the same tick of the clock");
    net.now = now + Duration::from_millis(299);
    let late = net.now;
    let early = net.endpoint(CLIENT).connect(late, server, PORT, None);
    assert!(early.is_err(), "within what PAWS lets pass");
    net.now = now + Duration::from_millis(300);
    let late = net.now;
    let plain = Config::builder().timestamps(false).build().unwrap();
    let plain = net
        .endpoint(CLIENT)
        .connect(late, server, PORT, Some(plain));
    assert!(plain.is_err(), "the next connection has no timestamps");
    let (client, _) = net.establish();
    assert_eq!(net.connection(CLIENT, client).local_port(), last.src_port);
    let syn = net
        .sent
        .iter()
        .rfind(|flight| flight.header().flags.contains(Flags::SYN) && flight.to == server)
        .unwrap()
        .header();
    let advance = |header: &Header| header.options.timestamps.unwrap().tsval;
    assert!(advance(&syn).wrapping_sub(advance(&last)) >= 300);
    assert!(syn.seq.follows(last.seq), "{} after {}", syn.seq, last.seq);
    assert_eq!(net.endpoint(CLIENT).stats().time_wait, 0);
}

#[test]
fn a_peer_that_waits_for_the_last_ack_makes_way_for_the_next_connection() {
    // The ACK of the server's FIN is lost: it stays in LAST-ACK.
    let (mut net, last) = only_port(|flight| flight.to == address(SERVER));
    assert_eq!(net.endpoint(SERVER).stats().connections, 1);
    net.now = net.now + Duration::from_millis(300);
    let client = net.connect(CLIENT, SERVER);
    net.advance(Duration::from_secs(2));
    assert_eq!(net.connection(CLIENT, client).local_port(), last.src_port);
    assert_eq!(net.connection(CLIENT, client).state(), State::Established);
    assert!(net.endpoint(SERVER).accept(PORT).is_some());
    assert_eq!(net.endpoint(SERVER).stats().connections, 1);
}
