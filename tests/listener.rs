//! The listener: accepting, several waiters, dropping.

mod support;

use std::io::ErrorKind;

use futures::{FutureExt, StreamExt};
use reliable_udp::{Config, Endpoint, ReliableUdpListener, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn accept_names_the_peer() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = ReliableUdpSocket::connect(addr).await.unwrap();
    let (server, peer) = listener.accept().await.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(server.peer_addr().unwrap(), peer);
    assert_eq!(listener.local_port(), 1);
}

#[tokio::test]
async fn the_listener_is_a_stream_of_sockets() {
    let mut listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    for _ in 0..3 {
        let (client, next) = tokio::join!(ReliableUdpSocket::connect(addr), listener.next());
        let mut server = next.unwrap().unwrap().0;
        client.unwrap().write_all(b"hi").await.unwrap();
        server.read_exact(&mut [0; 2]).await.unwrap();
    }
}

#[tokio::test]
async fn a_waiting_accept_is_woken_and_a_dropped_one_loses_nothing() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    {
        let mut given_up = tokio_test::task::spawn(listener.accept());
        assert!(given_up.poll().is_pending());
        let _client = ReliableUdpSocket::connect(addr).await.unwrap();
    }
    let (_first, _) = listener.accept().await.unwrap();
    let accept = listener.accept();
    let (_second, client) = tokio::join!(accept, ReliableUdpSocket::connect(addr));
    client.unwrap();
}

#[tokio::test]
async fn several_tasks_can_accept_at_once() {
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = futures::future::join_all((0..5).map(|_| listener.accept()));
    let connected = futures::future::join_all((0..5).map(|_| ReliableUdpSocket::connect(addr)));
    let (accepted, connected) = tokio::join!(accepted, connected);
    assert!(accepted.iter().all(Result::is_ok));
    assert!(connected.iter().all(Result::is_ok));
}

#[tokio::test]
async fn accepted_sockets_outlive_their_listener() {
    let (mut client, mut server) = support::pair().await;
    // The listener of `pair` is gone by now.
    client.write_all(b"alone").await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn dropping_the_listener_resets_what_was_not_accepted() {
    let endpoint = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let listener = endpoint.listen(1).unwrap();
    let mut client = ReliableUdpSocket::connect(endpoint.local_addr().unwrap())
        .await
        .unwrap();
    // The connection waits in the accept queue once its data has been acknowledged.
    client.write_all(b"x").await.unwrap();
    client.shutdown().await.unwrap();
    drop(listener);
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_port_is_listened_on_once_and_free_after_the_listener() {
    let endpoint = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let listener = endpoint.listen(7).unwrap();
    assert_eq!(endpoint.listen(7).unwrap_err().kind(), ErrorKind::AddrInUse);
    let other = endpoint.listen(8).unwrap();
    drop(listener);
    let listener = endpoint.listen(7).unwrap();
    assert_eq!((listener.local_port(), other.local_port()), (7, 8));
}

#[tokio::test]
async fn ipv6_and_dual_stack_listeners_accept() {
    let Ok(listener) = ReliableUdpListener::bind("[::]:0").await else {
        return;
    };
    let port = listener.local_addr().unwrap().port();
    for (host, shown) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let Ok(mut client) = ReliableUdpSocket::connect((host, port)).await else {
            continue;
        };
        let (mut server, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_string(), shown);
        assert_eq!(client.peer_addr().unwrap().ip().to_string(), shown);
        client.write_all(b"hello").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(server.local_addr().unwrap().ip().to_string(), shown);
    }
}

#[tokio::test]
async fn a_closed_endpoint_ends_accept_and_the_stream() {
    let endpoint = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let mut listener = endpoint.listen(1).unwrap();
    let mut accept = tokio_test::task::spawn(listener.accept());
    assert!(accept.poll().is_pending());
    endpoint
        .close(std::time::Duration::from_secs(1))
        .await
        .unwrap();
    assert!(accept.is_woken());
    assert_eq!(
        accept.await.unwrap_err().kind(),
        ErrorKind::ConnectionAborted
    );
    assert!(listener.next().now_or_never().unwrap().unwrap().is_err());
    assert!(listener.next().now_or_never().unwrap().is_none());
}
