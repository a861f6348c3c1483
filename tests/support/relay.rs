//! A UDP relay on loopback that loses, duplicates, reorders, damages and delays what it carries, and that
//! can change its own port as a NAT does.
//!
//! Each direction draws from a generator of its own, so that the fate of its n-th datagram is a function
//! of the seed; which datagram is the n-th is the kernel's business.

#![allow(
    clippy::disallowed_methods,
    reason = "between real sockets time is real"
)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Datagrams taken in one turn, before those that wait are looked at.
const BATCH: usize = 64;
/// What the system grants at most, as an endpoint's own sockets ask for.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// What happens to datagrams, the same in both directions. Probabilities are per mille.
#[derive(Debug, Clone, Copy, Default)]
pub struct Impairments {
    pub loss: u64,
    pub duplication: u64,
    /// A reordered datagram takes 3 ms longer than the others.
    pub reordering: u64,
    pub corruption: u64,
    pub delay: Duration,
}

/// What has happened, both directions together.
#[derive(Debug, Default)]
pub struct Counts {
    pub forwarded: AtomicU64,
    pub lost: AtomicU64,
    pub duplicated: AtomicU64,
    pub reordered: AtomicU64,
    pub corrupted: AtomicU64,
}

/// A relay between one client socket and a server. Ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    impairments: Impairments,
    /// Clients send here.
    front: UdpSocket,
    /// The way to the server at present.
    back: Mutex<Arc<UdpSocket>>,
    is_rebound: Notify,
    /// Copies of all that goes to the server leave from here too.
    shadow: Mutex<Option<Arc<UdpSocket>>>,
    /// The latest address that a client has sent from.
    client: Mutex<Option<SocketAddr>>,
    is_cut: AtomicBool,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Relay {
    pub async fn start(server: SocketAddr, impairments: Impairments, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            server,
            impairments,
            front: socket().await,
            back: Mutex::new(Arc::new(socket().await)),
            is_rebound: Notify::new(),
            shadow: Mutex::default(),
            client: Mutex::default(),
            is_cut: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let tasks = [Direction::ToServer, Direction::ToClient].map(|direction| {
            let line = Line {
                shared: Arc::clone(&shared),
                direction,
                random: Random(seed ^ direction as u64),
                waiting: BTreeMap::new(),
                taken: 0,
            };
            tokio::spawn(line.run())
        });
        Self { shared, tasks }
    }

    /// Where clients send to.
    pub fn addr(&self) -> SocketAddr {
        self.shared.front.local_addr().unwrap()
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// Loses everything from now on, or no longer.
    pub fn cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Uses another source port towards the server from now on, and returns the present one's socket:
    /// while it lives nobody reads what arrives there.
    pub async fn rebind(&self) -> Arc<UdpSocket> {
        self.rebind_to(Arc::new(socket().await))
    }

    /// Goes back to a source port of before.
    pub fn rebind_to(&self, back: Arc<UdpSocket>) -> Arc<UdpSocket> {
        let old = std::mem::replace(&mut *self.shared.back.lock().unwrap(), back);
        self.shared.is_rebound.notify_one();
        old
    }

    /// Sends the server a copy of everything from another port too, whose socket it returns.
    pub async fn shadow(&self) -> Arc<UdpSocket> {
        let shadow = Arc::new(socket().await);
        *self.shared.shadow.lock().unwrap() = Some(Arc::clone(&shadow));
        shadow
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let buffers = socket2::SockRef::from(&socket);
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    socket
}

/// One direction of a relay.
struct Line {
    shared: Arc<Shared>,
    direction: Direction,
    random: Random,
    /// What is delayed, by when it leaves and the order in which it came.
    waiting: BTreeMap<(Instant, u64), Vec<u8>>,
    taken: u64,
}

impl Line {
    async fn run(mut self) {
        let mut buffer = vec![0; 65_536];
        let shared = Arc::clone(&self.shared);
        loop {
            let back = Arc::clone(&shared.back.lock().unwrap());
            let next = self.waiting.first_key_value().map(|(&(at, _), _)| at);
            let source = match self.direction {
                Direction::ToServer => &shared.front,
                Direction::ToClient => &*back,
            };
            tokio::select! {
                ready = source.readable() => ready.unwrap(),
                () = shared.is_rebound.notified(),
                    if self.direction == Direction::ToClient => continue,
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)),
                    if next.is_some() => {}
            }
            for _ in 0..BATCH {
                match source.try_recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        if self.direction == Direction::ToServer {
                            *shared.client.lock().unwrap() = Some(from);
                        }
                        self.take(&back, &mut buffer[..len]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // What an ICMP error left behind.
                    Err(_) => {}
                }
            }
            let now = Instant::now();
            while let Some(entry) = self.waiting.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                let datagram = entry.remove();
                self.forward(&back, &datagram);
            }
            // Busy sockets must not keep the other direction from its turn.
            tokio::task::yield_now().await;
        }
    }

    fn take(&mut self, back: &UdpSocket, datagram: &mut [u8]) {
        let Impairments {
            loss,
            duplication,
            reordering,
            corruption,
            mut delay,
        } = self.shared.impairments;
        self.taken += 1;
        let counts = &self.shared.counts;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        if self.shared.is_cut.load(Ordering::SeqCst) || self.random.hits(loss) {
            count(&counts.lost);
            return;
        }
        if self.random.hits(corruption) {
            count(&counts.corrupted);
            self.random.damage(datagram);
        }
        if self.random.hits(reordering) {
            count(&counts.reordered);
            delay += Duration::from_millis(3);
        }
        let copies = if self.random.hits(duplication) {
            count(&counts.duplicated);
            2
        } else {
            1
        };
        for copy in 0..copies {
            if delay.is_zero() {
                self.forward(back, datagram);
            } else {
                let key = (Instant::now() + delay, self.taken * 2 + copy);
                self.waiting.insert(key, datagram.to_vec());
            }
        }
    }

    /// A full or broken socket is a loss like any other.
    fn forward(&self, back: &UdpSocket, datagram: &[u8]) {
        let shared = &self.shared;
        shared.counts.forwarded.fetch_add(1, Ordering::Relaxed);
        match self.direction {
            Direction::ToServer => {
                let _ = back.try_send_to(datagram, shared.server);
                if let Some(shadow) = &*shared.shadow.lock().unwrap() {
                    let _ = shadow.try_send_to(datagram, shared.server);
                }
            }
            Direction::ToClient => {
                let client = *shared.client.lock().unwrap();
                let _ = client.map(|client| shared.front.try_send_to(datagram, client));
            }
        }
    }
}

/// `SplitMix64`.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn hits(&mut self, per_mille: u64) -> bool {
        self.next() % 1_000 < per_mille
    }

    /// Changes a byte; or, in what is too long for a SYN, swaps two words, which no sum of words notices.
    fn damage(&mut self, datagram: &mut [u8]) {
        if datagram.is_empty() {
            return;
        }
        let (a, b) = (self.below(datagram.len()), self.below(datagram.len()));
        let (a, b) = (a & !1, b & !1);
        let can_swap = datagram.len() > 100 && a.max(b) + 2 <= datagram.len();
        if can_swap && self.hits(500) && datagram[a..a + 2] != datagram[b..b + 2] {
            datagram.swap(a, b);
            datagram.swap(a + 1, b + 1);
        } else {
            datagram[a] ^= u8::try_from(1 + self.next() % 255).unwrap();
        }
    }
}
