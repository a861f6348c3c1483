//! The endpoint: many connections, rendezvous, closing, and what the transport below may do.

mod support;

use std::io::ErrorKind;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use reliable_udp::{Config, ConnectionError, Endpoint, ReliableUdpSocket, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::support::{Memory, MemoryPair, loopback, pattern, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_share_one_endpoint() {
    const CONNECTIONS: usize = 200;
    let server = loopback().await;
    let client = loopback().await;
    let listener = server.listen(1).unwrap();
    let addr = server.local_addr().unwrap();
    let serve = tokio::spawn(async move {
        let mut tasks = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut socket, _) = listener.accept().await.unwrap();
            tasks.push(tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
    let ask = async |index: usize| {
        let mut socket = client.connect(addr).await.unwrap();
        let sent = pattern(5_000 + index);
        socket.write_all(&sent).await.unwrap();
        socket.finish().unwrap();
        let mut received = Vec::new();
        socket.read_to_end(&mut received).await.unwrap();
        assert!(received == sent, "connection {index}");
    };
    join_all((0..CONNECTIONS).map(ask)).await;
    serve.await.unwrap();
    assert_eq!(client.stats().connections_opened, 200);
    assert_eq!(server.stats().connections_accepted, 200);
    tokio::join!(client.wait_idle(), server.wait_idle());
    assert_eq!(
        (client.stats().connections, server.stats().connections),
        (0, 0)
    );
}

#[tokio::test]
async fn rendezvous_makes_one_connection_of_two_attempts() {
    let (a, b) = (loopback().await, loopback().await);
    let (a_addr, b_addr) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let config = Config::builder().nodelay(true).build().unwrap();
    let (left, right) = tokio::join!(
        a.rendezvous(b_addr, 9),
        b.rendezvous_with(a_addr, 9, config)
    );
    let (mut left, mut right) = (left.unwrap(), right.unwrap());
    assert_eq!(
        (left.nodelay().unwrap(), right.nodelay().unwrap()),
        (false, true)
    );
    assert_eq!(
        (left.local_port().unwrap(), left.peer_port().unwrap()),
        (9, 9)
    );
    left.write_all(b"met").await.unwrap();
    right.read_exact(&mut [0; 3]).await.unwrap();
    assert_eq!((a.stats().connections, b.stats().connections), (1, 1));
}

#[tokio::test]
async fn an_endpoint_takes_over_a_bound_socket() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let endpoint = Endpoint::from_socket(socket, Config::default()).unwrap();
    assert_eq!(endpoint.local_addr().unwrap(), addr);
    let listener = endpoint.listen(1).unwrap();
    let (client, server) = tokio::join!(ReliableUdpSocket::connect(addr), listener.accept());
    client.unwrap();
    server.unwrap();
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(Endpoint::from_socket(socket, Config::default()).is_err());
}

#[tokio::test]
async fn the_port_is_free_after_the_last_handle() {
    let endpoint = loopback().await;
    let addr = endpoint.local_addr().unwrap();
    let listener = endpoint.listen(1).unwrap();
    let clone = endpoint.clone();
    let (client, server) = tokio::join!(ReliableUdpSocket::connect(addr), listener.accept());
    let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
    drop((endpoint, listener));
    tokio::task::yield_now().await;
    assert!(
        std::net::UdpSocket::bind(addr).is_err(),
        "in use by a socket and a handle"
    );
    let (a, b) = tokio::join!(client.shutdown(), server.shutdown());
    a.unwrap();
    b.unwrap();
    drop((clone, server));
    let free = async {
        while std::net::UdpSocket::bind(addr).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), free)
        .await
        .unwrap();
}

#[tokio::test]
async fn addresses_that_the_socket_cannot_reach_are_invalid_input() {
    let endpoint = loopback().await;
    for addr in ["[::1]:9", "127.0.0.1:0", "0.0.0.0:9"] {
        let error = endpoint.connect(addr).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{addr}");
    }
}

#[tokio::test(start_paused = true)]
async fn wait_idle_waits_for_what_lingers_and_not_for_time_wait() {
    let (a, b) = Memory::line();
    let client = Endpoint::with_transport(a.clone(), Config::default()).unwrap();
    let server = Endpoint::with_transport(b, Config::default()).unwrap();
    let listener = server.listen(1).unwrap();
    let addr = server.local_addr().unwrap();
    let (socket, accepted) = tokio::join!(client.connect(addr), listener.accept());
    let (mut socket, mut accepted) = (socket.unwrap(), accepted.unwrap().0);
    socket.write_all(b"to be delivered").await.unwrap();
    a.cut(true);
    drop(socket);
    assert!(client.wait_idle().now_or_never().is_none());
    a.cut(false);
    let mut received = String::new();
    accepted.read_to_string(&mut received).await.unwrap();
    accepted.shutdown().await.unwrap();
    drop(accepted);
    let idle = async { tokio::join!(client.wait_idle(), server.wait_idle()) };
    tokio::time::timeout(Duration::from_secs(5), idle)
        .await
        .expect("does not wait for TIME-WAIT");
    assert_eq!(received, "to be delivered");
}

#[tokio::test(start_paused = true)]
async fn close_lets_connections_end_and_takes_no_new_ones() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    let (line, _far) = Memory::line();
    let endpoint = Endpoint::with_transport(line, Config::default()).unwrap();
    endpoint.close(Duration::from_secs(1)).await.unwrap();
    let error = endpoint.connect("10.0.0.2:2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(
        endpoint.listen(1).unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
    // Others are not concerned.
    pair.client.write_all(b"x").await.unwrap();
    pair.server.read_exact(&mut [0; 1]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded_when_the_peer_is_gone() {
    let (a, b) = Memory::line();
    let client = Endpoint::with_transport(a, Config::default()).unwrap();
    let server = Endpoint::with_transport(b.clone(), Config::default()).unwrap();
    let listener = server.listen(1).unwrap();
    let addr = server.local_addr().unwrap();
    let (socket, accepted) = tokio::join!(client.connect(addr), listener.accept());
    let (mut socket, _accepted) = (socket.unwrap(), accepted.unwrap());
    socket.write_all(b"unheard").await.unwrap();
    b.cut(true);
    let close = client.close(Duration::from_secs(10));
    let closed = tokio::time::timeout(Duration::from_secs(11), close)
        .await
        .expect("is bounded");
    let error = closed.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let error = socket.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    assert_eq!(reason(&error), ConnectionError::Aborted);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_given_up_leaves_nothing_behind() {
    let (line, _far) = Memory::line();
    let endpoint = Endpoint::with_transport(line, Config::default()).unwrap();
    {
        let mut connect = tokio_test::task::spawn(endpoint.connect("10.0.0.2:2"));
        assert!(connect.poll().is_pending());
        assert_eq!(endpoint.stats().connections, 1);
    }
    endpoint.wait_idle().await;
    assert_eq!(endpoint.stats().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_transport_delays_and_loses_nothing() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.client_line.fill(true);
    let sent = pattern(30_000);
    pair.client.write_all(&sent).await.unwrap();
    pair.client.finish().unwrap();
    assert!(pair.server.read(&mut [0; 1]).now_or_never().is_none());
    let stats = pair.client.stats();
    assert_eq!((stats.state, stats.rto_count), (State::FinWait1, 0));
    pair.client_line.fill(false);
    let mut received = Vec::new();
    pair.server.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);
    assert_eq!(pair.client.stats().segments_retransmitted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuttering_transport_keeps_the_order_of_many_senders() {
    const STREAMS: u16 = 8;
    const LEN: usize = 300_000;
    let (a, b) = Memory::line();
    a.stutter();
    b.stutter();
    let client = Endpoint::with_transport(a, Config::default()).unwrap();
    let server = Endpoint::with_transport(b, Config::default()).unwrap();
    let addr = server.local_addr().unwrap();
    let mut tasks = Vec::new();
    for port in 1..=STREAMS {
        let listener = server.listen(port).unwrap();
        let connect = client.connect_with(addr, port, Config::default());
        let (socket, accepted) = tokio::join!(connect, listener.accept());
        let (mut socket, mut accepted) = (socket.unwrap(), accepted.unwrap().0);
        tasks.push(tokio::spawn(async move {
            socket.write_all(&pattern(LEN)).await.unwrap();
            socket.shutdown().await.unwrap();
            socket.stats()
        }));
        tasks.push(tokio::spawn(async move {
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).await.unwrap();
            assert!(received == pattern(LEN));
            accepted.stats()
        }));
    }
    for task in tasks {
        let stats = task.await.unwrap();
        assert_eq!((stats.segments_out_of_order, stats.segments_lost), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn receive_errors_end_nothing_and_cost_no_core() {
    let mut pair = MemoryPair::new(Config::default(), Config::default()).await;
    pair.server_line.fail(100);
    let turns = pair.server_line.turns();
    pair.client.write_all(b"through").await.unwrap();
    pair.server.read_exact(&mut [0; 7]).await.unwrap();
    assert_eq!(pair.server_line.failures_left(), 0);
    assert!(pair.server_line.turns() - turns < 300);
}
