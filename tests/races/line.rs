//! An in-memory transport whose other end answers at once: everything beyond the driver is one
//! indivisible step, under one lock.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use loom::sync::{Mutex, MutexGuard};
use reliable_udp::internals::{Arrival, ConnectionId, Endpoint, EndpointLocal, ReadError, Secrets};
use reliable_udp::{Config, DatagramTransport, RecvBuffer, RecvMeta, Timestamp, Transmit};

/// The virtual port that the peer listens on.
pub const PORT: u16 = 1;

/// A line to a [`Peer`].
#[derive(Debug)]
pub struct Line {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    peer: Peer,
    inbox: VecDeque<Vec<u8>>,
    /// Answers that are held back.
    held: VecDeque<Vec<u8>>,
    is_holding: bool,
    is_full: bool,
    is_cut: bool,
    /// Datagrams sent.
    sent: usize,
    receiver: Option<Waker>,
    room: Option<Waker>,
}

/// The other end: reads all that arrives, ends its streams when ours end.
#[derive(Debug)]
pub struct Peer {
    pub endpoint: Endpoint,
    /// Its connections, oldest first.
    pub connections: Vec<ConnectionId>,
    /// What arrived, over all connections.
    pub received: usize,
}

impl Line {
    pub fn new() -> Arc<Self> {
        let config = Config::builder().ack_delay(Duration::ZERO).build().unwrap();
        let secrets = Secrets {
            isn: [1; 16],
            port: [2; 16],
            cookie: [3; 16],
            hash_seed: 4,
        };
        let local = EndpointLocal { addr: peer_addr() };
        let mut endpoint = Endpoint::new(Timestamp::ZERO, config, secrets, local);
        endpoint.listen(PORT, None).unwrap();
        Arc::new(Self {
            state: Mutex::new(State {
                peer: Peer {
                    endpoint,
                    connections: Vec::new(),
                    received: 0,
                },
                inbox: VecDeque::new(),
                held: VecDeque::new(),
                is_holding: false,
                is_full: false,
                is_cut: false,
                sent: 0,
                receiver: None,
                room: None,
            }),
        })
    }

    /// Lets the peer do something, and takes what it sends.
    pub fn peer<R>(&self, act: impl FnOnce(&mut Peer) -> R) -> R {
        let (result, waker) = {
            let state = &mut *self.lock();
            let result = act(&mut state.peer);
            (result, state.take_answers())
        };
        wake(waker);
        result
    }

    /// Lets the peer write on its oldest connection.
    pub fn peer_writes(&self, data: &[u8]) {
        let written = self.peer(|peer| {
            let id = peer.connections[0];
            peer.endpoint
                .with_connection(Timestamp::ZERO, id, |connection| {
                    connection.write(Timestamp::ZERO, data)
                })
        });
        assert_eq!(written, Some(Ok(data.len())));
    }

    /// Holds the answers back from now on.
    pub fn hold(&self) {
        self.lock().is_holding = true;
    }

    /// Lets go of the answers that were held back.
    pub fn release(&self) {
        let waker = {
            let state = &mut *self.lock();
            state.is_holding = false;
            state.inbox.append(&mut state.held);
            state.receiver.take()
        };
        wake(waker);
    }

    /// Loses all that is sent from now on.
    pub fn cut(&self) {
        self.lock().is_cut = true;
    }

    /// Takes nothing from now on.
    pub fn fill(&self) {
        self.lock().is_full = true;
    }

    /// Has room again.
    pub fn make_room(&self) {
        let waker = {
            let state = &mut *self.lock();
            state.is_full = false;
            state.room.take()
        };
        wake(waker);
    }

    pub fn received(&self) -> usize {
        self.lock().peer.received
    }

    pub fn sent(&self) -> usize {
        self.lock().sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn take_answers(&mut self) -> Option<Waker> {
        let mut buf = vec![0; 65_536];
        let sink = if self.is_holding {
            &mut self.held
        } else {
            &mut self.inbox
        };
        let endpoint = &mut self.peer.endpoint;
        while let Some(departure) = endpoint.poll_transmit(Timestamp::ZERO, 1, &mut buf) {
            sink.push_back(buf[..departure.len].to_vec());
        }
        if self.inbox.is_empty() {
            None
        } else {
            self.receiver.take()
        }
    }
}

impl Peer {
    fn handle(&mut self, datagram: Vec<u8>) {
        let now = Timestamp::ZERO;
        let bytes = Bytes::from(datagram);
        self.endpoint.handle_arrival(
            now,
            &Arrival {
                remote: local_addr(),
                local_ip: None,
                ecn: None,
                bytes: &bytes,
                stride: bytes.len(),
            },
        );
        while let Some((id, _)) = self.endpoint.accept(PORT) {
            self.connections.push(id);
        }
        while self.endpoint.poll_event().is_some() {}
        for &id in &self.connections {
            let received = &mut self.received;
            self.endpoint.with_connection(now, id, |connection| {
                let mut buf = [0; 4_096];
                loop {
                    match connection.read(now, &mut buf) {
                        Ok(0) => {
                            let _ = connection.finish(now);
                            return;
                        }
                        Ok(len) => *received += len,
                        Err(ReadError::Blocked | ReadError::Closed(_)) => return,
                    }
                }
            });
        }
    }
}

impl DatagramTransport for Line {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let waker = {
            let state = &mut *self.lock();
            if state.is_full {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            state.sent += 1;
            if state.is_cut {
                return Ok(());
            }
            let slices = transmit.contents.iter();
            let datagram = slices.flat_map(|slice| slice.to_vec()).collect();
            state.peer.handle(datagram);
            state.take_answers()
        };
        wake(waker);
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        {
            let state = &mut *self.lock();
            if state.is_full {
                state.room = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Poll::Ready(self.try_send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.lock();
        let mut count = 0;
        for buffer in buffers {
            let Some(datagram) = state.inbox.pop_front() else {
                break;
            };
            buffer.storage_mut()[..datagram.len()].copy_from_slice(&datagram);
            buffer.fill(RecvMeta::new(peer_addr(), datagram.len()));
            count += 1;
        }
        if count == 0 {
            state.receiver = Some(cx.waker().clone());
            Poll::Pending
        } else {
            Poll::Ready(Ok(count))
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(local_addr())
    }
}

pub fn local_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1))
}

pub fn peer_addr() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 2))
}

/// Wakes without the line's lock.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
