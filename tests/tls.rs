//! TLS over a socket.

mod support;

use std::time::Duration;

use reliable_udp::ReliableUdpSocket;
use reliable_udp::tls::{Acceptor, Connector, TlsError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::support::{pair, pattern};

#[expect(clippy::unwrap_used, reason = "a fixture")]
fn acceptor() -> Acceptor {
    let made = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
    Acceptor::from_pem(made.cert.pem(), made.signing_key.serialize_pem()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_carries_tls_both_ways() {
    let (client, server): (ReliableUdpSocket, ReliableUdpSocket) = pair().await;
    let acceptor = acceptor();
    let connector = Connector::pinned(acceptor.fingerprint()).unwrap();
    let sent = pattern(3_000_000);
    let expected = sent.clone();
    let echo = tokio::spawn(async move {
        let mut stream = acceptor.accept(server).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.binding()
    });
    let mut stream = connector.connect("server", client).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
    assert_eq!(echo.await.unwrap(), stream.binding());
    assert!(stream.get_ref().stats().bytes_sent > 3_000_000);
}

/// A server that goes away without a word of TLS is no end of the data, though its FIN is in order.
#[tokio::test]
async fn a_fin_without_close_notify_is_an_error() {
    let (client, server) = pair().await;
    let acceptor = acceptor();
    let connector = Connector::pinned(acceptor.fingerprint()).unwrap();
    let serve = async {
        let mut stream = acceptor.accept(server).await.unwrap();
        stream.write_all(b"half").await.unwrap();
        stream.flush().await.unwrap();
        let mut socket = stream.into_inner();
        socket.shutdown().await.unwrap();
        socket
    };
    let ask = async {
        let mut stream = connector.connect("server", client).await.unwrap();
        let mut bytes = Vec::new();
        let error = stream.read_to_end(&mut bytes).await.unwrap_err();
        (error.kind(), bytes)
    };
    let (_server, (kind, bytes)) = tokio::join!(serve, ask);
    assert_eq!(kind, std::io::ErrorKind::UnexpectedEof);
    assert_eq!(bytes, b"half");
}

/// The client's reason reaches the server, whose log can say it.
#[tokio::test]
async fn a_wrong_pin_is_known_to_both_sides() {
    let (client, server) = pair().await;
    let (served, other) = (acceptor(), acceptor());
    let connector = Connector::pinned(other.fingerprint()).unwrap();
    let both = async { tokio::join!(connector.connect("server", client), served.accept(server)) };
    let (connected, accepted) = tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .unwrap();
    let expected = TlsError::WrongPin {
        pinned: vec![other.fingerprint()],
        seen: served.fingerprint(),
    };
    assert_eq!(connected.unwrap_err(), expected);
    assert!(accepted.is_err(), "{accepted:?}");
}
