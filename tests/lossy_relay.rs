//! Real sockets on loopback with a relay between them that loses, duplicates, reorders and damages
//! datagrams, and moves to another port.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, outside the test functions"
)]

mod support;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::try_join_all;
use reliable_udp::{Config, Endpoint, ReliableUdpSocket, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::support::relay::{Impairments, Random, Relay};
use self::support::{loopback, pattern, until};

const MIB: usize = 1024 * 1024;

/// A client's and a server's endpoint with a relay between them.
struct Network {
    client: Endpoint,
    server: Endpoint,
    relay: Relay,
}

impl Network {
    async fn new(impairments: Impairments, seed: u64) -> Self {
        let (client, server) = (loopback().await, loopback().await);
        let relay = Relay::start(server.local_addr().unwrap(), impairments, seed).await;
        Self {
            client,
            server,
            relay,
        }
    }

    async fn connect(&self, config: Config) -> (ReliableUdpSocket, ReliableUdpSocket) {
        let listener = self.server.listen(1).unwrap();
        let connect = self.client.connect_with(self.relay.addr(), 1, config);
        let (client, accepted) = tokio::join!(connect, listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_comes_back_whole_through_every_impairment() {
    const LEN: usize = 512 * 1024;
    let impairments = Impairments {
        loss: 50,
        duplication: 20,
        reordering: 50,
        corruption: 10,
        delay: Duration::from_millis(2),
    };
    let network = Network::new(impairments, 1).await;
    let (mut client, mut server) = network.connect(Config::default()).await;
    let echo = tokio::spawn(async move {
        let (mut reader, mut writer) = server.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let sent = pattern(LEN);
    let mut received = Vec::new();
    {
        let (mut reader, mut writer) = client.split();
        let write = async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        };
        let (wrote, read) = tokio::join!(write, reader.read_to_end(&mut received));
        wrote.unwrap();
        read.unwrap();
    }
    assert!(received == sent);
    echo.await.unwrap();

    let counts = network.relay.counts();
    for (name, count) in [
        ("lost", &counts.lost),
        ("duplicated", &counts.duplicated),
        ("reordered", &counts.reordered),
        ("corrupted", &counts.corrupted),
    ] {
        assert!(count.load(Ordering::Relaxed) > 0, "none {name}");
    }
    let dropped = network.client.stats().dropped_checksum
        + network.server.stats().dropped_checksum
        + network.client.stats().dropped_malformed
        + network.server.stats().dropped_malformed;
    assert!(dropped > 0, "damage is noticed");
}

/// A stream that nobody else sends: its key, then bytes drawn from it.
struct Keyed {
    random: Random,
    word: [u8; 8],
    /// How much of `word` is used up.
    used: usize,
}

impl Keyed {
    fn new(key: u64) -> Self {
        Self {
            random: Random(key),
            word: key.to_le_bytes(),
            used: 0,
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.used == self.word.len() {
                self.word = self.random.next().to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }
}

/// Sends the stream of `key` and takes another in at the same time; returns the other's key.
async fn exchange(socket: ReliableUdpSocket, key: u64, len: usize) -> u64 {
    const BLOCK: usize = 16 * 1024;
    let (mut reader, mut writer) = socket.into_split();
    let write = tokio::spawn(async move {
        let (mut stream, mut block) = (Keyed::new(key), [0; BLOCK]);
        for _ in 0..len / BLOCK {
            stream.fill(&mut block);
            writer.write_all(&block).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    });
    let mut head = [0; 8];
    reader.read_exact(&mut head).await.unwrap();
    let other = u64::from_le_bytes(head);
    let mut stream = Keyed::new(other);
    stream.fill(&mut head);
    let (mut block, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut total = head.len();
    loop {
        let taken = reader.read(&mut block).await.unwrap();
        if taken == 0 {
            break;
        }
        stream.fill(&mut expected[..taken]);
        assert!(
            block[..taken] == expected[..taken],
            "stream {other} near byte {total}"
        );
        total += taken;
    }
    assert_eq!(total, len, "stream {other}");
    write.await.unwrap();
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_simultaneous_connections_share_one_endpoint_through_loss() {
    const CONNECTIONS: u64 = 200;
    /// The first key of what the server sends.
    const SERVER: u64 = 1 << 32;
    let (len, limit) = if cfg!(debug_assertions) {
        (64 * 1024, Duration::from_secs(300))
    } else {
        (MIB, Duration::from_secs(60))
    };
    let impairments = Impairments {
        loss: 50,
        ..Impairments::default()
    };
    let network = Network::new(impairments, 2).await;
    let listener = network.server.listen(1).unwrap();
    let addr = network.relay.addr();
    let serve = tokio::spawn(async move {
        let mut exchanges = Vec::new();
        for key in SERVER..SERVER + CONNECTIONS {
            let (socket, _) = listener.accept().await.unwrap();
            exchanges.push(tokio::spawn(exchange(socket, key, len)));
        }
        try_join_all(exchanges).await.unwrap()
    });
    let ask = (0..CONNECTIONS).map(|key| {
        let client = network.client.clone();
        tokio::spawn(async move {
            let socket = client.connect(addr).await.unwrap();
            exchange(socket, key, len).await
        })
    });
    let all = async { tokio::join!(try_join_all(ask), serve) };
    let (received, served) = tokio::time::timeout(limit, all).await.expect("in time");
    let (received, served): (HashSet<u64>, HashSet<u64>) = (
        received.unwrap().into_iter().collect(),
        served.unwrap().into_iter().collect(),
    );
    assert!(received == (SERVER..SERVER + CONNECTIONS).collect());
    assert!(served == (0..CONNECTIONS).collect());
    let idle = async { tokio::join!(network.client.wait_idle(), network.server.wait_idle()) };
    tokio::time::timeout(limit, idle)
        .await
        .expect("nothing lingers");
    let counts = network.relay.counts();
    let (lost, all) = (&counts.lost, &counts.forwarded);
    assert!(lost.load(Ordering::Relaxed) * 25 > all.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_a_nat_that_changes_its_port_for_a_while() {
    // Less than the server's first window, for it reads at the end.
    const LEN: usize = MIB / 8;
    let network = Network::new(Impairments::default(), 3).await;
    let (mut client, mut server) = network.connect(Config::default()).await;
    client.write_all(&pattern(LEN)).await.unwrap();
    let mut received = vec![0; LEN];
    server.read_exact(&mut received).await.unwrap();
    assert!(received == pattern(LEN));

    let peer = server.peer_addr().unwrap();
    let old = network.relay.rebind().await;
    client.write_all(&pattern(LEN)).await.unwrap();
    until(|| network.server.stats().dropped_foreign_address > 0).await;
    assert_eq!(server.peer_addr().unwrap(), peer, "not taken over");
    assert_eq!(network.server.stats().resets_sent, 0);
    for socket in [&client, &server] {
        assert_eq!(socket.stats().state, State::Established);
    }

    let moved = network.relay.rebind_to(old);
    client.shutdown().await.unwrap();
    received.clear();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(LEN));
    let answer = moved.try_recv(&mut [0; 2_000]).unwrap_err();
    assert_eq!(answer.kind(), ErrorKind::WouldBlock, "no answer at all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_from_another_address_get_no_answer_and_change_nothing() {
    // Less than the server's first window, for it reads at the end.
    const LEN: usize = MIB / 8;
    let network = Network::new(Impairments::default(), 4).await;
    let (mut client, mut server) = network.connect(Config::default()).await;
    client.write_all(b"known").await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
    let shadow = network.relay.shadow().await;
    client.write_all(&pattern(LEN)).await.unwrap();
    client.shutdown().await.unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert!(received == pattern(LEN));
    until(|| network.server.stats().dropped_foreign_address > 0).await;
    // On a busy machine the client may repeat a segment itself; nothing else arrives twice.
    let own = client.stats().segments_retransmitted;
    let duplicate = server.stats().segments_duplicate;
    assert!(duplicate <= own, "{duplicate} of {own}");
    assert_eq!(network.server.stats().resets_sent, 0);
    let answer = shadow.try_recv(&mut [0; 2_000]).unwrap_err();
    assert_eq!(answer.kind(), ErrorKind::WouldBlock);
}
