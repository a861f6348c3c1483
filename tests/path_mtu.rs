//! Path MTU discovery over real sockets: what the loopback interface takes, and what it refuses.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests may"
)]

mod support;

use std::net::SocketAddr;

use reliable_udp::{Config, ConnectionStats, Endpoint, EndpointStats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::support::pattern;

/// Sends `bytes` from one endpoint to another on `ip`, and returns what the sender has counted.
async fn transfer(ip: &str, config: &Config, bytes: usize) -> (ConnectionStats, EndpointStats) {
    let any = SocketAddr::new(ip.parse().unwrap(), 0);
    let server = Endpoint::bind(any, Config::default()).await.unwrap();
    let client = Endpoint::bind(any, config.clone()).await.unwrap();
    let listener = server.listen(1).unwrap();
    let receive = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        socket.read_to_end(&mut received).await.unwrap();
        received
    });
    let mut socket = client.connect(server.local_addr().unwrap()).await.unwrap();
    let sent = pattern(bytes);
    socket.write_all(&sent).await.unwrap();
    socket.flush().await.unwrap();
    socket.shutdown().await.unwrap();
    let stats = socket.stats();
    assert!(receive.await.unwrap() == sent, "the bytes");
    (stats, client.stats())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_loopback_the_largest_datagram_of_ipv4_is_found() {
    let (stats, endpoint) = transfer("127.0.0.1", &Config::default(), 4_000_000).await;
    assert_eq!(stats.datagram_size, 65_507, "{stats:?}");
    assert_eq!(stats.black_holes, 0, "{stats:?}");
    assert_eq!(
        (endpoint.black_holes, endpoint.transport_send_errors),
        (0, 0)
    );
}

/// Loopback's MTU is 65,536: less 40 bytes of IPv6 and 8 of UDP, the largest datagram of IPv4 is refused.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_interface_refuses_is_not_waited_for() {
    let (stats, endpoint) = transfer("::1", &Config::default(), 4_000_000).await;
    assert_eq!(stats.datagram_size, 65_487, "{stats:?}");
    assert!(stats.path_probes_lost >= 1, "{stats:?}");
    assert_eq!((stats.rto_count, stats.black_holes), (0, 0), "{stats:?}");
    assert_eq!(
        (endpoint.black_holes, endpoint.transport_send_errors),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_size_is_kept() {
    let config = Config::builder().datagram_size(1_452).build().unwrap();
    let (stats, _) = transfer("127.0.0.1", &config, 1_000_000).await;
    assert_eq!((stats.datagram_size, stats.path_probes_sent), (1_452, 0));
    let config = Config::builder().max_datagram_size(8_952).build().unwrap();
    let (stats, _) = transfer("127.0.0.1", &config, 1_000_000).await;
    assert_eq!(stats.datagram_size, 8_952);
}

#[tokio::test]
async fn an_echo_of_a_few_bytes_is_never_probed() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let server = Endpoint::bind(any, Config::default()).await.unwrap();
    let client = Endpoint::bind(any, Config::default()).await.unwrap();
    let listener = server.listen(1).unwrap();
    let addr = server.local_addr().unwrap();
    let (socket, accepted) = tokio::join!(client.connect(addr), listener.accept());
    let (mut socket, (mut other, _)) = (socket.unwrap(), accepted.unwrap());
    let mut buf = [0; 64];
    for _ in 0..100 {
        socket.write_all(&[7; 64]).await.unwrap();
        other.read_exact(&mut buf).await.unwrap();
        other.write_all(&buf).await.unwrap();
        socket.read_exact(&mut buf).await.unwrap();
    }
    for stats in [socket.stats(), other.stats()] {
        assert_eq!(stats.path_probes_sent, 0, "{stats:?}");
        assert_eq!(stats.bytes_sent, 6_400, "no byte that only fills");
    }
}
