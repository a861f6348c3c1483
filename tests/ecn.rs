//! Explicit congestion notification, measured on a virtual clock: what marks in place of drops cost and save,
//! and what becomes of a connection whose path mistreats them.
#![cfg(feature = "__internals")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn_udp::{EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use reliable_udp::sim::{Link, LinkConfig, LinkConfigBuilder, MarkTreatment};
use reliable_udp::{Config, CongestionControl, EcnState, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UdpSocket;

#[path = "support/world.rs"]
mod world;

use world::{CLIENT, SERVER, World, marking_link};

/// 100 Mbit/s.
const RATE: u64 = 12_500_000;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn controllers() -> [(&'static str, CongestionControl); 3] {
    [
        ("NewReno", CongestionControl::NewReno),
        ("CUBIC", CongestionControl::Cubic),
        ("BBR", CongestionControl::Bbr),
    ]
}

/// A round trip of 50 ms with a bottleneck on the way out, whose queue holds one bandwidth-delay product.
fn bottleneck() -> LinkConfigBuilder {
    LinkConfig::builder()
        .delay(ms(25))
        .rate(RATE)
        .queue_bytes(625_000)
}

fn world(seed: u64, config: &Config, out: LinkConfigBuilder) -> World {
    let back = LinkConfig::builder().delay(ms(25)).build().unwrap();
    let mut world = World::marking(
        seed,
        [config.clone(), config.clone()],
        [
            marking_link(seed, out.build().unwrap()),
            marking_link(seed, back),
        ],
    );
    world.establish();
    world
}

/// Sends for `length` and returns the bytes that were read in the last of it, and of the first `start_up`.
fn goodput(world: &mut World, start_up: Duration, length: Duration) -> u64 {
    world.write(CLIENT, 1 << 40);
    world.pass(start_up);
    let before = world.ends[SERVER].received;
    world.pass(length);
    world.ends[SERVER].received - before
}

#[test]
fn marks_in_place_of_drops_cost_no_goodput_and_save_every_retransmission() {
    for (name, congestion) in controllers() {
        let config = |ecn| {
            let congestion = congestion.clone();
            let config = Config::builder().congestion(congestion).ecn(ecn);
            // The links have no MTU, and the bounds are those of paths that have one.
            config.datagram_size(1_232).build().unwrap()
        };
        let (start_up, length) = (Duration::from_secs(5), Duration::from_secs(20));
        let mut without = world(1, &config(false), bottleneck());
        let dropping = goodput(&mut without, start_up, length);

        let marking = bottleneck().mark_above_bytes(400_000);
        let mut with = world(1, &config(true), marking);
        with.write(CLIENT, 1 << 40);
        with.pass(start_up);
        let (before, received) = (with.stats(CLIENT), with.ends[SERVER].received);
        with.pass(length);
        let (after, marked) = (with.stats(CLIENT), with.ends[SERVER].received - received);
        println!(
            "{name}: {dropping} B with drops ({} retransmitted), {marked} B with marks ({} before, {} after start-up), {} echoes, {} CE",
            without.stats(CLIENT).segments_retransmitted,
            before.segments_retransmitted,
            after.segments_retransmitted - before.segments_retransmitted,
            after.ecn_reductions,
            with.stats(SERVER).ecn_ce,
        );
        assert_eq!(after.ecn, EcnState::Capable, "{name}");
        assert_eq!(
            after.segments_retransmitted, before.segments_retransmitted,
            "{name}"
        );
        assert!(after.ecn_reductions > before.ecn_reductions, "{name}");
        assert!(without.stats(CLIENT).segments_retransmitted > 0, "{name}");
        assert!(
            marked * 100 >= dropping * 97,
            "{name}: {marked} of {dropping}"
        );
    }
}

/// How long `bytes` take over a path that treats marks so, and the world afterwards.
fn transfer(
    congestion: &CongestionControl,
    treatment: Option<MarkTreatment>,
    bytes: u64,
) -> (Duration, World) {
    let config = Config::builder().congestion(congestion.clone());
    let config = config
        .ecn(treatment.is_some())
        .datagram_size(1_232)
        .build()
        .unwrap();
    let path = bottleneck().marks(treatment.unwrap_or_default());
    let mut world = world(1, &config, path);
    let start = world.now;
    world.write(CLIENT, bytes);
    world.deliver(SERVER, bytes, Duration::from_secs(60));
    (world.now.saturating_since(start), world)
}

#[test]
fn a_path_that_clears_marks_costs_nothing_and_is_seen_by_the_receiver() {
    for (name, congestion) in controllers() {
        let (plain, _) = transfer(&congestion, None, 20_000_000);
        let (cleared, world) = transfer(&congestion, Some(MarkTreatment::Clear), 20_000_000);
        assert_eq!(plain, cleared, "{name}");
        let (sent, received) = (world.stats(CLIENT), world.stats(SERVER));
        assert_eq!(sent.ecn, EcnState::Capable, "{name}");
        assert!(sent.ecn_segments_marked > 10_000, "{name}");
        assert_eq!((received.ecn_ect, received.ecn_ce), (0, 0), "{name}");
        assert!(received.ecn_unmarked > 10_000, "{name}");
    }
}

#[test]
fn a_path_that_marks_everything_slows_down_for_a_bounded_time() {
    for (name, congestion) in controllers() {
        let (plain, _) = transfer(&congestion, None, 5_000_000);
        let (spoiled, world) = transfer(&congestion, Some(MarkTreatment::Spoil), 5_000_000);
        let stats = world.stats(CLIENT);
        println!("{name}: {plain:?} without ECN, {spoiled:?} with every segment marked");
        assert_eq!(stats.ecn, EcnState::AlwaysMarked, "{name}");
        assert_eq!(stats.ecn_reductions, 8, "{name}");
        // From the smallest window on, congestion avoidance has to find the rate again.
        assert!(spoiled < plain + Duration::from_secs(6), "{name}");
        // And what follows is not held up: 5 MB more.
        assert!(stats.cwnd > 20 * stats.mss as u64, "{name}: {}", stats.cwnd);
    }
}

#[test]
fn a_path_that_drops_what_is_marked_costs_two_flights() {
    for (name, congestion) in controllers() {
        for bytes in [1_000, 12_000, 100_000, 5_000_000] {
            let (plain, _) = transfer(&congestion, None, bytes);
            let (dropped, world) = transfer(&congestion, Some(MarkTreatment::Drop), bytes);
            let stats = world.stats(CLIENT);
            println!(
                "{name}: {bytes} B: {plain:?} without ECN, {dropped:?} with all dropped that is marked ({} of them)",
                stats.ecn_segments_marked
            );
            // Two timeouts; and what was lost was taken for congestion, so that a long transfer begins with a
            // small window.
            let patience = if bytes > 100_000 { 6 } else { 2 };
            let limit = plain + Duration::from_secs(patience);
            assert!(dropped < limit, "{name}: {bytes}");
            if bytes >= 100_000 {
                assert_eq!(stats.ecn, EcnState::BlackHoled, "{name}: {bytes}");
            }
        }
    }
}

/// A route that begins to drop what is marked in the middle of a transfer.
#[test]
fn a_path_that_begins_to_drop_what_is_marked_is_found_out_too() {
    for (name, congestion) in controllers() {
        let config = Config::builder()
            .congestion(congestion)
            .datagram_size(1_232);
        let config = config.build().unwrap();
        let fair = bottleneck().build().unwrap();
        let unfair = bottleneck().marks(MarkTreatment::Drop).build().unwrap();
        let back = LinkConfig::builder().delay(ms(25)).build().unwrap();
        let mut link = Link::new(1, fair);
        let out = Box::new(move |sent: &world::Sent, bytes: &bytes::Bytes| {
            if sent.at.as_millis() >= 2_000 && link.config() != &unfair {
                link.set_config(unfair.clone());
            }
            let deliveries = link.send_marked(sent.at, bytes.clone(), sent.ecn);
            let delivery = deliveries.into_iter().next()?;
            Some((delivery.at, delivery.ecn))
        });
        let configs = [config.clone(), config];
        let mut world = World::marking(1, configs, [out, marking_link(1, back)]);
        world.establish();
        world.write(CLIENT, 1 << 40);
        world.pass(ms(2_000));
        let before = world.ends[SERVER].received;
        assert_eq!(world.stats(CLIENT).ecn, EcnState::Capable);
        world.deliver(SERVER, before + 12_500_000, Duration::from_secs(10));
        let stats = world.stats(CLIENT);
        println!("{name}: 12.5 MB {:?} after the change", world.now);
        assert_eq!(stats.ecn, EcnState::BlackHoled, "{name}");
    }
}

#[test]
fn chance_losses_do_not_pass_for_a_path_that_drops_marks() {
    let mut lost = 0;
    for seed in 0..200 {
        let config = Config::default();
        let path = LinkConfig::builder().delay(ms(25)).loss(0.03);
        let mut world = world(seed, &config, path);
        for _ in 0..20 {
            let sum = world.ends[SERVER].received + 3_000;
            world.write(CLIENT, 3_000);
            world.deliver(SERVER, sum, Duration::from_secs(60));
            world.pass(ms(500));
        }
        lost += u32::from(world.stats(CLIENT).ecn != EcnState::Capable);
    }
    println!("{lost} of 200 connections have stopped marking");
    assert!(lost <= 4, "{lost}");
}

/// A router between two real sockets: forwards datagrams with their marks, and sets "congestion experienced" on
/// every tenth that has one.
async fn route(socket: UdpSocket, server: SocketAddr) -> io::Result<()> {
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    // With timestamps, quinn-udp has no room for the mark of datagrams that were put together.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::ReceiveTimestampns,
        &false,
    )?;
    let mut client = server;
    let mut marked = 0_u32;
    let mut buffer = vec![0; 65_536];
    loop {
        let mut meta = [RecvMeta::default()];
        socket
            .async_io(Interest::READABLE, || {
                let mut slices = [io::IoSliceMut::new(&mut buffer)];
                state.recv(UdpSockRef::from(&socket), &mut slices, &mut meta)
            })
            .await?;
        let [meta] = meta;
        if meta.addr != server {
            client = meta.addr;
        }
        let destination = if meta.addr == server { client } else { server };
        for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
            marked += u32::from(meta.ecn.is_some());
            let is_congested = meta.ecn.is_some() && marked.is_multiple_of(10);
            let ecn = if is_congested {
                Some(EcnCodepoint::Ce)
            } else {
                meta.ecn
            };
            let transmit = quinn_udp::Transmit {
                destination,
                ecn,
                contents: datagram,
                segment_size: None,
                src_ip: None,
            };
            let send = || state.try_send(UdpSockRef::from(&socket), &transmit);
            socket.async_io(Interest::WRITABLE, send).await?;
        }
    }
}

#[tokio::test]
async fn marks_travel_between_real_sockets() {
    let server = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let listener = server.listen(1).unwrap();
    let router = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let by_router = router.local_addr().unwrap();
    let routing = tokio::spawn(route(router, server.local_addr().unwrap()));

    let client = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let mut sender = client.connect(by_router).await.unwrap();
    let (mut receiver, _) = listener.accept().await.unwrap();
    let data = vec![7; 1_000_000];
    let writing = async {
        sender.write_all(&data).await.unwrap();
        sender.flush().await.unwrap();
    };
    let mut got = vec![0; data.len()];
    let ((), read) = tokio::join!(writing, receiver.read_exact(&mut got));
    read.unwrap();
    assert!(got == data);

    let (sent, received) = (sender.stats(), receiver.stats());
    assert_eq!(
        (sent.ecn, received.ecn),
        (EcnState::Capable, EcnState::Capable)
    );
    assert!(received.ecn_ect > received.ecn_ce, "{received:?}");
    assert!(received.ecn_ce > 10, "{received:?}");
    assert!(sent.ecn_reductions > 0, "{sent:?}");
    routing.abort();
}
