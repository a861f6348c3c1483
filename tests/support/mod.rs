//! What the end-to-end tests share: connected sockets over loopback, and over an in-memory transport
//! for those that need paused time, a cut line or a count of wake-ups.

#![allow(dead_code, unreachable_pub, reason = "every test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code, outside the test functions"
)]

pub mod relay;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use reliable_udp::{
    Config, DatagramTransport, Endpoint, RecvBuffer, RecvMeta, ReliableUdpListener,
    ReliableUdpSocket, Transmit,
};

/// Two connected sockets over loopback, each on an endpoint of its own.
pub async fn pair() -> (ReliableUdpSocket, ReliableUdpSocket) {
    pair_with(Config::default(), Config::default()).await
}

/// The same with configurations: the connecting side's, the accepting side's.
pub async fn pair_with(client: Config, server: Config) -> (ReliableUdpSocket, ReliableUdpSocket) {
    let listener = ReliableUdpListener::bind_with("127.0.0.1:0", server)
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(
        ReliableUdpSocket::connect_with(addr, client),
        listener.accept()
    );
    (client.unwrap(), accepted.unwrap().0)
}

/// An endpoint on a free port of the loopback address.
pub async fn loopback() -> Endpoint {
    Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap()
}

/// Bytes that repeat with no power of two, so that a misplaced block shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// Turns until something has happened.
#[track_caller]
pub fn until(happened: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let turn = async {
            while !happened() {
                tokio::task::yield_now().await;
            }
        };
        let limit = Duration::from_secs(60);
        let outcome = tokio::time::timeout(limit, turn).await;
        assert!(outcome.is_ok(), "not within {limit:?}: {caller}");
    }
}

/// The typed reason inside an error.
#[track_caller]
pub fn reason(error: &io::Error) -> reliable_udp::ConnectionError {
    reliable_udp::ConnectionError::from_io(error)
        .cloned()
        .expect("a typed reason")
}

/// One end of an in-memory line.
#[derive(Debug)]
pub struct Memory {
    local: SocketAddr,
    peer: SocketAddr,
    inbox: Arc<Inbox>,
    outbox: Arc<Inbox>,
    /// Whether what is sent is lost.
    is_cut: AtomicBool,
    /// Whether `try_send` finds no room.
    is_full: AtomicBool,
    /// Whether every third `try_send` finds no room.
    stutters: AtomicBool,
    attempts: AtomicUsize,
    room: Mutex<Option<Waker>>,
    /// Receives that fail before the next one works.
    failures: AtomicUsize,
    /// Turns of the driver.
    turns: AtomicUsize,
    /// Datagrams sent.
    sent: AtomicUsize,
    /// The latest of them.
    latest: Mutex<Vec<u8>>,
    /// Datagrams sent to others than the peer, all lost.
    strays: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
}

#[derive(Debug, Default)]
struct Inbox {
    /// With their senders.
    datagrams: Mutex<VecDeque<(SocketAddr, Vec<u8>)>>,
    receiver: Mutex<Option<Waker>>,
}

impl Memory {
    /// Makes both ends of a line.
    pub fn line() -> (Arc<Self>, Arc<Self>) {
        let (a, b): (Arc<Inbox>, Arc<Inbox>) = Default::default();
        let end = |local: &str, peer: &str, inbox: &Arc<Inbox>, outbox: &Arc<Inbox>| {
            Arc::new(Self {
                local: local.parse().unwrap(),
                peer: peer.parse().unwrap(),
                inbox: Arc::clone(inbox),
                outbox: Arc::clone(outbox),
                is_cut: AtomicBool::new(false),
                is_full: AtomicBool::new(false),
                stutters: AtomicBool::new(false),
                attempts: AtomicUsize::new(0),
                room: Mutex::default(),
                failures: AtomicUsize::new(0),
                turns: AtomicUsize::new(0),
                sent: AtomicUsize::new(0),
                latest: Mutex::default(),
                strays: Mutex::default(),
            })
        };
        (
            end("10.0.0.1:1", "10.0.0.2:2", &a, &b),
            end("10.0.0.2:2", "10.0.0.1:1", &b, &a),
        )
    }

    /// Loses everything that is sent from now on, or no longer.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Takes nothing from now on, or again.
    pub fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
        if let Some(waker) = self.room.lock().unwrap().take() {
            waker.wake();
        }
    }

    /// Takes only two of three sends at once from now on.
    pub fn stutter(&self) {
        self.stutters.store(true, Ordering::SeqCst);
    }

    /// Makes the next receives fail.
    pub fn fail(&self, receives: usize) {
        self.failures.store(receives, Ordering::SeqCst);
        if let Some(waker) = self.inbox.receiver.lock().unwrap().take() {
            waker.wake();
        }
    }

    pub fn turns(&self) -> usize {
        self.turns.load(Ordering::SeqCst)
    }

    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// The address of the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The datagram sent last.
    pub fn latest(&self) -> Vec<u8> {
        self.latest.lock().unwrap().clone()
    }

    /// Takes what was sent to others than the peer.
    pub fn take_strays(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.strays.lock().unwrap())
    }

    /// Lets a datagram arrive at this end that the other one has not sent.
    pub fn inject(&self, remote: SocketAddr, datagram: &[u8]) {
        let entry = (remote, datagram.to_vec());
        self.inbox.datagrams.lock().unwrap().push_back(entry);
        if let Some(waker) = self.inbox.receiver.lock().unwrap().take() {
            waker.wake();
        }
    }

    pub fn failures_left(&self) -> usize {
        self.failures.load(Ordering::SeqCst)
    }
}

impl DatagramTransport for Memory {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        let hesitates = self.stutters.load(Ordering::SeqCst) && attempt.is_multiple_of(3);
        if hesitates || self.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = transmit
            .contents
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        for datagram in bytes.chunks(transmit.segment_size.unwrap_or(bytes.len())) {
            if transmit.remote != self.peer {
                let stray = (transmit.remote, datagram.to_vec());
                self.strays.lock().unwrap().push(stray);
                continue;
            }
            self.sent.fetch_add(1, Ordering::SeqCst);
            *self.latest.lock().unwrap() = datagram.to_vec();
            if !self.is_cut.load(Ordering::SeqCst) {
                let entry = (self.local, datagram.to_vec());
                self.outbox.datagrams.lock().unwrap().push_back(entry);
            }
        }
        if let Some(waker) = self.outbox.receiver.lock().unwrap().take() {
            waker.wake();
        }
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        *self.room.lock().unwrap() = Some(cx.waker().clone());
        match self.try_send(transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.is_full.load(Ordering::SeqCst) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            outcome => Poll::Ready(outcome),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>> {
        self.turns.fetch_add(1, Ordering::SeqCst);
        *self.inbox.receiver.lock().unwrap() = Some(cx.waker().clone());
        let left = self.failures.load(Ordering::SeqCst);
        if left > 0 {
            self.failures.store(left - 1, Ordering::SeqCst);
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut datagrams = self.inbox.datagrams.lock().unwrap();
        let mut count = 0;
        for buffer in buffers {
            let Some((remote, datagram)) = datagrams.pop_front() else {
                break;
            };
            buffer.storage_mut()[..datagram.len()].copy_from_slice(&datagram);
            buffer.fill(RecvMeta::new(remote, datagram.len()));
            count += 1;
        }
        if count == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(count))
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// Two connected sockets over an in-memory line.
pub struct MemoryPair {
    pub client: ReliableUdpSocket,
    pub server: ReliableUdpSocket,
    pub client_endpoint: Endpoint,
    /// It listens on port 1 no longer.
    pub server_endpoint: Endpoint,
    pub client_line: Arc<Memory>,
    pub server_line: Arc<Memory>,
}

impl MemoryPair {
    pub async fn new(client: Config, server: Config) -> Self {
        let (client_line, server_line) = Memory::line();
        let connecting = Endpoint::with_transport(client_line.clone(), client).unwrap();
        let accepting = Endpoint::with_transport(server_line.clone(), server).unwrap();
        let listener = accepting.listen(1).unwrap();
        let remote = accepting.local_addr().unwrap();
        let (client, accepted) = tokio::join!(connecting.connect(remote), listener.accept());
        Self {
            client: client.unwrap(),
            server: accepted.unwrap().0,
            client_endpoint: connecting,
            server_endpoint: accepting,
            client_line,
            server_line,
        }
    }
}
