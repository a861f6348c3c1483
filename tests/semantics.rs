//! Promises of the API beyond plain streaming: what leaves without waiting, who is woken, what a drop still
//! delivers, how errors are told, and what alien datagrams do to a live endpoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, outside the test functions"
)]

mod support;

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;
use reliable_udp::{
    Config, ConfigBuilder, ConfigError, ConnectionError, Endpoint, EndpointError, EndpointStats,
    ReliableUdpSocket, State, TimeoutCause,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_test::task;

use self::support::relay::{Impairments, Random, Relay};
use self::support::{Memory, MemoryPair, loopback, pattern, reason};

const SECOND: Duration = Duration::from_secs(1);

fn build(set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Config {
    set(Config::builder()).build().unwrap()
}

/// A connection of which the server takes at most 4 KiB until it reads.
async fn narrow_pair(client: Config) -> MemoryPair {
    MemoryPair::new(client, build(|config| config.receive_buffer(4096))).await
}

/// Lets everything that is under way arrive.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn fin_and_rst_wait_for_no_congestion_window() {
    for is_abort in [false, true] {
        let config = build(|config| config.initial_window(1));
        let mut pair = MemoryPair::new(config, Config::default()).await;
        pair.client_line.cut(true);
        let mss = pair.client.stats().mss;
        pair.client.write_all(&pattern(mss)).await.unwrap();
        let stats = pair.client.stats();
        assert_eq!(
            (stats.cwnd, stats.bytes_in_flight),
            (mss as u64, mss as u64),
            "the window is full"
        );
        let sent = pair.client_line.sent();
        if is_abort {
            pair.client.abort();
        } else {
            pair.client.finish().unwrap();
        }
        assert_eq!(pair.client_line.sent(), sent + 1, "abort: {is_abort}");
        let flags = pair.client_line.latest()[13];
        assert_eq!(flags & 0b101, if is_abort { 0b100 } else { 0b001 });
    }
}

#[tokio::test(start_paused = true)]
async fn fin_waits_for_no_window_and_its_end_is_seen_as_soon_as_all_is_read() {
    let mut pair = narrow_pair(Config::default()).await;
    let len = usize::try_from(pair.client.stats().snd_wnd).unwrap();
    pair.client.write_all(&pattern(len)).await.unwrap();
    settle().await;
    let stats = pair.client.stats();
    assert_eq!((stats.snd_wnd, stats.flight_size), (0, 0));

    let sent = pair.client_line.sent();
    pair.client.finish().unwrap();
    assert_eq!(pair.client_line.sent(), sent + 1);
    assert_eq!(pair.client_line.latest()[13] & 1, 1, "a FIN");

    // Long enough for every timer to have backed off.
    tokio::time::sleep(600 * SECOND).await;
    let mut received = Vec::new();
    let read = pair.server.read_to_end(&mut received);
    tokio::time::timeout(SECOND, read)
        .await
        .expect("the end follows the last byte at once")
        .unwrap();
    assert!(received == pattern(len));
    pair.server.shutdown().await.unwrap();
    pair.client.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_window_that_opens_after_a_long_time_is_used_at_once() {
    let mut pair = narrow_pair(Config::default()).await;
    pair.client.write_all(&pattern(20_000)).await.unwrap();
    pair.client.finish().unwrap();
    tokio::time::sleep(1_000 * SECOND).await;
    assert!(pair.client.stats().zero_window_probes > 10);
    let mut received = Vec::new();
    let read = pair.server.read_to_end(&mut received);
    tokio::time::timeout(SECOND, read).await.unwrap().unwrap();
    assert!(received == pattern(20_000));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes_behind_a_closed_window_is_missed_within_the_user_timeout() {
    let limit = 8 * SECOND;
    let config = build(|config| config.user_timeout(Some(limit)));
    let mut pair = narrow_pair(config).await;
    pair.client.write_all(&pattern(20_000)).await.unwrap();
    // The probes have backed off as far as they do.
    tokio::time::sleep(1_000 * SECOND).await;
    pair.server_line.cut(true);
    let error = tokio::time::timeout(limit, pair.client.read(&mut [0; 8]))
        .await
        .expect("within the limit")
        .unwrap_err();
    let cause = TimeoutCause::UserTimeout(limit);
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
}

#[tokio::test(start_paused = true)]
async fn finish_does_not_wait_where_shutdown_does() {
    let config = build(|config| config.receive_buffer(8192));
    let mut pair = MemoryPair::new(config.clone(), config).await;
    // More than the other side takes unread, and both write before they read.
    let sent = pattern(50_000);
    pair.client.write_all(&sent).await.unwrap();
    pair.server.write_all(&sent).await.unwrap();
    let mut shutdown = task::spawn(async { pair.client.shutdown().await });
    assert!(shutdown.poll().is_pending());
    tokio::time::sleep(100 * SECOND).await;
    assert!(shutdown.poll().is_pending());
    drop(shutdown);
    pair.server.finish().unwrap();

    let (mut here, mut there) = (Vec::new(), Vec::new());
    let (a, b) = tokio::join!(
        pair.client.read_to_end(&mut here),
        pair.server.read_to_end(&mut there)
    );
    a.unwrap();
    b.unwrap();
    assert!(here == sent && there == sent);
    let (a, b) = tokio::join!(pair.client.shutdown(), pair.server.shutdown());
    a.unwrap();
    b.unwrap();
}

/// A task that waits in one direction of a socket.
type Waiter = task::Spawn<()>;

fn wait_read(socket: &mut ReliableUdpSocket) -> Waiter {
    let mut waiter = task::spawn(());
    let poll = waiter.enter(|cx, _| Pin::new(socket).poll_read(cx, &mut ReadBuf::new(&mut [0; 8])));
    assert!(poll.is_pending());
    waiter
}

fn wait_write(socket: &mut ReliableUdpSocket) -> Waiter {
    let mut waiter = task::spawn(());
    let poll = waiter.enter(|cx, _| Pin::new(socket).poll_write(cx, &[0; 8]));
    assert!(poll.is_pending());
    waiter
}

fn wait_shutdown(socket: &mut ReliableUdpSocket) -> Waiter {
    let mut waiter = task::spawn(());
    let poll = waiter.enter(|cx, _| Pin::new(socket).poll_shutdown(cx));
    assert!(poll.is_pending());
    waiter
}

/// Has every kind of waiter wait, lets `end` happen and sees that all are woken and told why.
async fn everybody_learns(end: impl AsyncFn(&MemoryPair), expected: ConnectionError) {
    for is_shutdown in [false, true] {
        let config = build(|config| config.send_buffer(4096));
        let mut pair = MemoryPair::new(config, Config::default()).await;
        // The window of the other side is not the limit, but nothing is acknowledged.
        pair.client_line.cut(true);
        pair.client.write_all(&[0; 4096]).await.unwrap();
        let socket = &mut pair.client;
        let reader = wait_read(socket);
        let writer = if is_shutdown {
            wait_shutdown(socket)
        } else {
            wait_write(socket)
        };
        {
            let mut peek_buf = [0; 8];
            let mut peek = task::spawn(pair.client.peek(&mut peek_buf));
            let mut closed = task::spawn(pair.client.closed());
            let mut also_closed = task::spawn(pair.client.closed());
            assert!(peek.poll().is_pending());
            assert!(closed.poll().is_pending() && also_closed.poll().is_pending());
            let woken = [reader.is_woken(), writer.is_woken(), peek.is_woken()];
            assert_eq!(woken, [false; 3], "nothing has happened");

            end(&pair).await;
            settle().await;
            let woken = [reader.is_woken(), writer.is_woken(), peek.is_woken()];
            assert_eq!(woken, [true; 3], "read, write or shutdown, peek");
            assert!(closed.is_woken() && also_closed.is_woken());
            for outcome in [peek.await.map(drop), closed.await, also_closed.await] {
                assert_eq!(reason(&outcome.unwrap_err()), expected);
            }
        }
        let error = pair.client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(reason(&error), expected);
        let error = pair.client.shutdown().await.unwrap_err();
        assert_eq!(reason(&error), expected);
        let error = pair.client.write(b"x").await.unwrap_err();
        if is_shutdown {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        } else {
            assert_eq!(reason(&error), expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_wakes_everybody() {
    everybody_learns(async |pair| pair.server.abort(), ConnectionError::Reset).await;
}

#[tokio::test(start_paused = true)]
async fn an_abort_wakes_everybody() {
    everybody_learns(async |pair| pair.client.abort(), ConnectionError::Aborted).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_wakes_everybody() {
    let cause = TimeoutCause::UserTimeout(300 * SECOND);
    everybody_learns(
        async |_| tokio::time::sleep(300 * SECOND).await,
        ConnectionError::TimedOut(cause),
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn closing_the_endpoint_wakes_everybody() {
    everybody_learns(
        async |pair| {
            let listener = pair.client_endpoint.listen(7).unwrap();
            let nowhere = pair.client_line.peer();
            let mut accept = task::spawn(listener.accept());
            let mut connect = task::spawn(pair.client_endpoint.connect(nowhere));
            let mut idle = task::spawn(pair.client_endpoint.wait_idle());
            assert!(accept.poll().is_pending() && connect.poll().is_pending());
            assert!(idle.poll().is_pending());
            let error = pair.client_endpoint.close(SECOND).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(accept.is_woken() && connect.is_woken() && idle.is_woken());
            for outcome in [accept.await.map(drop), connect.await.map(drop)] {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionAborted);
            }
            idle.await;
        },
        ConnectionError::Aborted,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_dropped_with_all_its_handles_delivers_while_the_runtime_lives() {
    const LEN: usize = 200_000;
    let impairments = Impairments {
        loss: 50,
        duplication: 50,
        reordering: 50,
        ..Impairments::default()
    };
    let endpoint = loopback().await;
    let listener = endpoint.listen(1).unwrap();
    let relay = Relay::start(endpoint.local_addr().unwrap(), impairments, 5).await;
    let connect = ReliableUdpSocket::connect(relay.addr());
    let (client, accepted) = tokio::join!(connect, listener.accept());
    let (mut client, mut server) = (client.unwrap(), accepted.unwrap().0);
    drop((listener, endpoint));
    client.write_all(&pattern(LEN)).await.unwrap();
    // Neither a socket nor an endpoint is left on this side.
    drop(client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(LEN));
    server.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_socket_waits_for_a_slow_reader_but_not_beyond_linger() {
    for (pause, is_delivered) in [(8 * SECOND, true), (12 * SECOND, false)] {
        let config = build(|config| config.linger(10 * SECOND));
        let mut pair = narrow_pair(config).await;
        pair.client.write_all(&pattern(30_000)).await.unwrap();
        drop(pair.client);
        tokio::time::sleep(pause).await;
        assert_eq!(
            pair.client_endpoint.wait_idle().now_or_never().is_none(),
            is_delivered,
            "lingers for as long as it says"
        );
        let mut received = Vec::new();
        let outcome = pair.server.read_to_end(&mut received).await;
        if is_delivered {
            outcome.unwrap();
            assert!(received == pattern(30_000));
        } else {
            // What was cut short never looks like an end.
            assert_eq!(reason(&outcome.unwrap_err()), ConnectionError::Reset);
            assert!(received.len() < 30_000 && pattern(30_000).starts_with(&received));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_stream_never_hides_an_error() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.server.write_all(b"the first part").await.unwrap();
    settle().await;
    pair.server.abort();
    settle().await;
    let mut received = Vec::new();
    let error = pair.client.read_to_end(&mut received).await.unwrap_err();
    assert_eq!(reason(&error), ConnectionError::Reset);
    assert_eq!(
        received, b"the first part",
        "what had arrived stays readable"
    );
    let error = pair.client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(reason(&error), ConnectionError::Reset);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_done_and_gone_does_not_fail_our_shutdown() {
    // Its end and the acknowledgment of all our data arrived; only that of our FIN is missing.
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.server.write_all(b"answer").await.unwrap();
    pair.client.read_exact(&mut [0; 6]).await.unwrap();
    pair.client.shutdown().await.unwrap();
    settle().await;
    pair.client.abort();
    settle().await;
    pair.server.shutdown().await.unwrap();

    // But what it may not have read was lost.
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.client.shutdown().await.unwrap();
    pair.server_line.cut(true);
    pair.server.write_all(b"answer").await.unwrap();
    pair.client.abort();
    settle().await;
    let error = pair.server.shutdown().await.unwrap_err();
    assert_eq!(reason(&error), ConnectionError::Reset);
}

#[tokio::test(start_paused = true)]
async fn every_limit_names_itself() {
    let cases = [
        (
            "idle_timeout",
            build(|config| config.idle_timeout(Some(7 * SECOND))),
            TimeoutCause::IdleTimeout(7 * SECOND),
        ),
        (
            "data_retries",
            // A tail loss probe is one retransmission more, and none by timeout.
            build(|config| config.data_retries(4).tail_loss_probe(false)),
            TimeoutCause::DataRetries { retries: 4 },
        ),
        (
            "data_retries",
            build(|config| config.data_retries(0).tail_loss_probe(false)),
            TimeoutCause::DataRetries { retries: 0 },
        ),
    ];
    for (name, config, cause) in cases {
        let mut pair = MemoryPair::new(config, Config::default()).await;
        let sent = pair.client_line.sent();
        pair.server_line.cut(true);
        pair.client.write_all(b"anybody there?").await.unwrap();
        let error = pair.client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{name}");
        assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
        assert!(error.to_string().contains(name), "{error}");
        if let TimeoutCause::DataRetries { retries } = cause {
            let repeated = pair.client_line.sent() - sent - 1;
            assert_eq!(repeated, retries as usize, "retransmissions");
        }
    }

    let (line, _nobody) = Memory::line();
    let config = build(|config| config.connect_timeout(Some(4 * SECOND)));
    let endpoint = Endpoint::with_transport(line.clone(), config).unwrap();
    let error = endpoint.connect(line.peer()).await.unwrap_err();
    let cause = TimeoutCause::ConnectTimeout(4 * SECOND);
    assert_eq!(reason(&error), ConnectionError::TimedOut(cause));
    assert!(error.to_string().contains("connect_timeout"), "{error}");
}

#[test]
fn a_setting_out_of_range_is_named() {
    const LONG: Duration = Duration::from_secs(100_000);
    const ZERO: Duration = Duration::ZERO;
    let b = Config::builder;
    let cases = [
        ("initial_window", b().initial_window(0)),
        ("initial_window", b().initial_window(1_001)),
        ("send_buffer", b().send_buffer(4_095)),
        ("send_buffer", b().send_buffer((1 << 30) + 1)),
        ("receive_buffer", b().receive_buffer(4_095)),
        ("receive_buffer", b().receive_buffer((1 << 30) + 1)),
        ("datagram_size", b().datagram_size(511)),
        ("datagram_size", b().datagram_size(65_508)),
        ("mss", b().mss(63)),
        ("mss", b().mss(65_488)),
        ("ack_delay", b().ack_delay(Duration::from_millis(501))),
        ("initial_rto", b().initial_rto(ZERO)),
        ("initial_rto", b().initial_rto(LONG)),
        ("min_rto", b().min_rto(ZERO)),
        ("min_rto", b().min_rto(LONG)),
        ("max_rto", b().max_rto(Duration::from_millis(999))),
        ("max_rto", b().max_rto(LONG)),
        ("syn_retries", b().syn_retries(256)),
        ("connect_timeout", b().connect_timeout(Some(ZERO))),
        ("data_retries", b().data_retries(256)),
        ("user_timeout", b().user_timeout(Some(ZERO))),
        ("keepalive", b().keepalive(Some(ZERO))),
        ("keepalive_interval", b().keepalive_interval(ZERO)),
        ("keepalive_probes", b().keepalive_probes(0)),
        ("keepalive_probes", b().keepalive_probes(256)),
        ("idle_timeout", b().idle_timeout(Some(ZERO))),
        ("linger", b().linger(LONG)),
        ("time_wait", b().time_wait(LONG)),
        ("time_wait_capacity", b().time_wait_capacity(1 << 25)),
        ("backlog", b().backlog(0)),
        ("backlog", b().backlog((1 << 20) + 1)),
        ("max_connections", b().max_connections(0)),
        ("max_connections", b().max_connections((1 << 24) + 1)),
        ("max_memory", b().max_memory(65_535)),
        ("reset_rate_limit", b().reset_rate_limit(1_000_001)),
        ("challenge_ack_limit", b().challenge_ack_limit(1_000_001)),
    ];
    for (name, builder) in cases {
        let error = builder.build().unwrap_err();
        assert!(
            matches!(error, ConfigError::OutOfRange { field, .. } if field == name),
            "{name}: {error:?}"
        );
        assert!(error.to_string().starts_with(name), "{error}");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.get_ref().unwrap().is::<ConfigError>());
    }
}

#[tokio::test]
async fn an_address_or_port_that_cannot_be_is_named() {
    let endpoint = loopback().await;
    let addr: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let config = Config::default();
    let invalid = |error: &io::Error| {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let inner: &(dyn Error + Send + Sync) = error.get_ref().unwrap();
        inner.downcast_ref::<EndpointError>().cloned().unwrap()
    };
    let error = endpoint.connect_with(addr, 0, config).await.unwrap_err();
    assert!(error.to_string().contains("virtual port 0"), "{error}");
    invalid(&error);
    let error = endpoint.rendezvous(addr, 0).await.unwrap_err();
    assert!(error.to_string().contains("virtual port 0"), "{error}");
    invalid(&error);
    for wrong in [
        "127.0.0.1:0",
        "0.0.0.0:9",
        "255.255.255.255:9",
        "224.0.0.1:9",
    ] {
        let error = endpoint.connect(wrong).await.unwrap_err();
        let EndpointError::InvalidAddress(named, _) = invalid(&error) else {
            unreachable!("{error}");
        };
        assert_eq!(named, wrong.parse().unwrap());
        assert!(error.to_string().contains(wrong), "{error}");
    }
    let error = endpoint.listen(0).unwrap_err();
    assert!(error.to_string().contains("virtual port 0"), "{error}");
    invalid(&error);
    let nothing: &[SocketAddr] = &[];
    let error = endpoint.connect(nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = ReliableUdpSocket::connect(nothing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// A segment with the plain sum, from one virtual port to another.
fn segment(src: u16, dst: u16, flags: u8, options: &[u8]) -> Vec<u8> {
    assert!(options.len().is_multiple_of(4));
    let offset = u8::try_from(5 + options.len() / 4).unwrap() << 4;
    let mut bytes = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 9, 0, 0, 0, 9, offset, flags, 1, 0, 0, 0, 0, 0]);
    bytes.extend(options);
    let sum: u32 = bytes
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    bytes[16..18].copy_from_slice(&(!sum).to_be_bytes());
    bytes
}

const RST: u8 = 4;
const ACK: u8 = 16;

/// What an alien datagram must change in the statistics, and whether it is answered.
type Effect = (fn(&EndpointStats) -> u64, bool);

#[tokio::test(start_paused = true)]
async fn alien_datagrams_are_counted_by_cause_and_the_connection_lives() {
    const MALFORMED: Effect = (|stats| stats.dropped_malformed, false);
    const CHECKSUM: Effect = (|stats| stats.dropped_checksum, false);
    const NOBODY: Effect = (|stats| stats.dropped_no_connection, false);
    const REFUSED: Effect = (|stats| stats.resets_sent, true);
    const FOREIGN: Effect = (|stats| stats.dropped_foreign_address, false);
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    let peer = pair.server.peer_addr().unwrap();
    let stranger: SocketAddr = "10.9.9.9:9".parse().unwrap();
    let (remote, local) = (
        pair.server.peer_port().unwrap(),
        pair.server.local_port().unwrap(),
    );
    pair.client.write_all(b"a live segment").await.unwrap();
    pair.server.read_exact(&mut [0; 14]).await.unwrap();
    let mut live = pair.client_line.latest();
    *live.last_mut().unwrap() ^= 1;
    let mut bad_offset = segment(remote, local, ACK, &[]);
    bad_offset[12] = 4 << 4;
    let mut long_offset = segment(remote, local, ACK, &[]);
    long_offset[12] = 15 << 4;
    let mut bad_sum = segment(7, 8, ACK, &[]);
    bad_sum[16] ^= 1;

    let cases: [(&str, SocketAddr, Vec<u8>, Effect); 14] = [
        ("empty", peer, vec![], MALFORMED),
        ("one byte", peer, vec![0], MALFORMED),
        (
            "half a header",
            peer,
            segment(remote, local, ACK, &[])[..19].to_vec(),
            MALFORMED,
        ),
        ("header shorter than itself", peer, bad_offset, MALFORMED),
        ("header longer than all", peer, long_offset, MALFORMED),
        (
            "option of no length",
            peer,
            segment(remote, local, ACK, &[8, 0, 0, 0]),
            MALFORMED,
        ),
        (
            "option beyond the header",
            peer,
            segment(remote, local, ACK, &[8, 10, 0, 0]),
            MALFORMED,
        ),
        ("port 0", stranger, segment(0, 8, ACK, &[]), MALFORMED),
        ("wrong sum", stranger, bad_sum, CHECKSUM),
        ("a live segment with one bit changed", peer, live, CHECKSUM),
        (
            "the sum where the CRC was agreed",
            peer,
            segment(remote, local, RST, &[]),
            CHECKSUM,
        ),
        (
            "a reset for nobody",
            stranger,
            segment(7, 8, RST, &[]),
            NOBODY,
        ),
        (
            "an ACK for nobody",
            stranger,
            segment(7, 8, ACK, &[]),
            REFUSED,
        ),
        (
            "a live port pair of a stranger",
            stranger,
            segment(remote, local, ACK, &[]),
            FOREIGN,
        ),
    ];
    for (name, from, datagram, (counter, is_answered)) in cases {
        let before = pair.server_endpoint.stats();
        pair.server_line.inject(from, &datagram);
        settle().await;
        let after = pair.server_endpoint.stats();
        assert_eq!(counter(&after), counter(&before) + 1, "{name}");
        assert_eq!(dropped(&after), dropped(&before) + 1, "{name}: one cause");
        assert_eq!(after.datagrams_received, before.datagrams_received + 1);
        let answers = pair.server_line.take_strays();
        assert_eq!(answers.len(), usize::from(is_answered), "{name}");
        assert!(answers.iter().all(|(to, _)| *to == from));
    }
    assert_lives(&mut pair).await;
}

/// Datagrams dropped, whatever the cause.
fn dropped(stats: &EndpointStats) -> u64 {
    stats.dropped_malformed
        + stats.dropped_checksum
        + stats.dropped_no_connection
        + stats.dropped_foreign_address
        + stats.dropped_backlog
        + stats.dropped_time_wait
}

async fn assert_lives(pair: &mut MemoryPair) {
    pair.client.write_all(b"still").await.unwrap();
    pair.server.read_exact(&mut [0; 5]).await.unwrap();
    pair.server.write_all(b"here").await.unwrap();
    pair.client.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(pair.client.stats().state, State::Established);
}

#[tokio::test(start_paused = true)]
async fn noise_at_a_live_endpoint_is_all_counted() {
    const DATAGRAMS: u64 = 20_000;
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    let peer = pair.server.peer_addr().unwrap();
    let stranger: SocketAddr = "10.9.9.9:9".parse().unwrap();
    let before = pair.server_endpoint.stats();
    let mut random = Random(6);
    for index in 0..DATAGRAMS {
        let len = usize::try_from(random.next() % 200).unwrap();
        let mut noise: Vec<u8> = (0..len).map(|_| random.next().to_le_bytes()[0]).collect();
        if index.is_multiple_of(2) && len >= 20 {
            // Looks more like a segment of the connection.
            noise[..2].copy_from_slice(&pair.server.peer_port().unwrap().to_be_bytes());
            noise[2..4].copy_from_slice(&1_u16.to_be_bytes());
            noise[12] = 5 << 4;
        }
        let from = if index.is_multiple_of(4) {
            stranger
        } else {
            peer
        };
        pair.server_line.inject(from, &noise);
    }
    settle().await;
    let after = pair.server_endpoint.stats();
    assert_eq!(
        after.datagrams_received,
        before.datagrams_received + DATAGRAMS
    );
    assert_eq!(dropped(&after), dropped(&before) + DATAGRAMS);
    assert!(after.dropped_malformed > 0 && after.dropped_checksum > 0);
    assert_lives(&mut pair).await;
}
