//! Whole endpoints over the simulated network of the feature `sim`, in tokio's paused time.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests may"
)]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reliable_udp::sim::{self, Impaired, LinkConfig, SimNetwork, SimTransport};
use reliable_udp::{Config, Endpoint, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 1;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A path with a little of everything: 5 MB/s, 20 ms each way.
fn rough() -> LinkConfig {
    LinkConfig::builder()
        .delay(ms(20))
        .jitter(ms(5))
        .rate(5_000_000)
        .queue_bytes(200_000)
        .loss(0.03)
        .burst_loss(0.002, 0.3, 0.9)
        .duplicate(0.02)
        .reorder(0.05, ms(10))
        .corrupt(0.01)
        .build()
        .unwrap()
}

fn endpoint(transport: SimTransport) -> io::Result<Endpoint> {
    Endpoint::with_transport(Arc::new(transport), Config::default())
}

/// Bytes that depend on `key`, and repeat with no power of two.
fn pattern(key: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i % 251).unwrap_or(0) ^ key)
        .collect()
}

/// Sends everything and ends, while it reads to the end.
async fn exchange(socket: ReliableUdpSocket, data: &[u8]) -> io::Result<Vec<u8>> {
    let (mut reader, mut writer) = socket.into_split();
    let mut received = Vec::new();
    let writing = async {
        writer.write_all(data).await?;
        writer.shutdown().await
    };
    tokio::try_join!(writing, reader.read_to_end(&mut received))?;
    Ok(received)
}

#[tokio::test(start_paused = true)]
async fn a_rough_path_carries_every_byte() -> io::Result<()> {
    let (a, b) = sim::pair(7, rough(), rough());
    let (client, server) = (endpoint(a)?, endpoint(b)?);
    let listener = server.listen(PORT)?;
    let (data, answer) = (pattern(1, 1_000_000), pattern(2, 500_000));
    let serving = async {
        let (socket, _) = listener.accept().await?;
        exchange(socket, &answer).await
    };
    let connecting = async {
        let socket = client.connect(server.local_addr()?).await?;
        exchange(socket, &data).await
    };
    let (got, returned) = tokio::try_join!(serving, connecting)?;
    assert!(got == data, "the stream differs");
    assert!(returned == answer, "the answer differs");
    assert!(server.stats().dropped_checksum > 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn many_clients_share_a_network() -> io::Result<()> {
    let network = SimNetwork::new(11);
    let addr = |last| SocketAddr::from(([10, 0, 0, last], 7));
    let server = endpoint(network.attach(addr(100), rough(), LinkConfig::default()))?;
    let listener = server.listen(PORT)?;
    let mut clients = Vec::new();
    for key in 1..=8 {
        let up = LinkConfig::builder().delay(ms(u64::from(key) * 3));
        let up = up.build().map_err(io::Error::from)?;
        let transport = network.attach(addr(key), up, rough());
        clients.push(tokio::spawn(async move {
            let client = endpoint(transport)?;
            let socket = client.connect(addr(100)).await?;
            exchange(socket, &pattern(key, 100_000)).await
        }));
    }
    for _ in 0..clients.len() {
        let (socket, remote) = listener.accept().await?;
        let IpAddr::V4(ip) = remote.ip() else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let key = ip.octets()[3];
        tokio::spawn(async move {
            let answer = pattern(key.wrapping_add(100), 100_000);
            let got = exchange(socket, &answer).await;
            let is_right = got.is_ok_and(|got| got == pattern(key, 100_000));
            assert!(is_right, "client {key}");
        });
    }
    for (client, key) in clients.into_iter().zip(101_u8..) {
        let answer = client.await.map_err(io::Error::other)??;
        assert!(answer == pattern(key, 100_000), "answer {key}");
    }
    server.wait_idle().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_cut_path_ends_in_a_time_out() -> io::Result<()> {
    let (a, b) = sim::pair(7, LinkConfig::default(), LinkConfig::default());
    let (cut, server) = (Arc::new(a), endpoint(b)?);
    let config = Config::builder()
        .user_timeout(Some(Duration::from_secs(20)))
        .build()?;
    let client = Endpoint::with_transport(cut.clone(), config)?;
    let listener = server.listen(PORT)?;
    let mut socket = client.connect(server.local_addr()?).await?;
    let (_accepted, _) = listener.accept().await?;
    let dead = LinkConfig::builder().loss(1.0).build()?;
    cut.set_links(dead.clone(), dead);
    socket.write_all(b"anybody there?").await?;
    let error = socket.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("user_timeout"), "{error}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn any_transport_can_be_impaired() -> io::Result<()> {
    let lossy = LinkConfig::builder()
        .loss(0.02)
        .reorder(0.05, ms(2))
        .build()?;
    let (a, b) = sim::pair(3, LinkConfig::default(), LinkConfig::default());
    let client = Impaired::new(a, lossy.clone(), lossy, 9);
    let client = Endpoint::with_transport(Arc::new(client), Config::default())?;
    let server = endpoint(b)?;
    let listener = server.listen(PORT)?;
    let data = pattern(5, 300_000);
    let serving = async {
        let (socket, _) = listener.accept().await?;
        exchange(socket, &[]).await
    };
    let connecting = async {
        let socket = client.connect(server.local_addr()?).await?;
        exchange(socket, &data).await
    };
    let (got, _) = tokio::try_join!(serving, connecting)?;
    assert!(got == data, "the stream differs");
    Ok(())
}
