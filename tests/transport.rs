//! A datagram transport as somebody outside would write it: runs of datagrams in both directions, small
//! datagrams, ICMP errors; with the public types alone.

#![allow(clippy::unwrap_used, reason = "test code, outside the test functions")]

mod support;

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use reliable_udp::{
    Config, ConnectionError, DatagramTransport, Endpoint, RecvBuffer, RecvMeta, Transmit,
    Unreachable,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::support::{pattern, reason};

const DATAGRAM: usize = 1_000;
const RUN: usize = 16;

/// Joins all ports of one test.
#[derive(Debug, Default)]
struct Hub {
    ports: Mutex<HashMap<SocketAddr, Arc<Port>>>,
}

#[derive(Debug)]
struct Port {
    addr: SocketAddr,
    hub: Arc<Hub>,
    /// Sender, bytes, bytes per datagram.
    inbox: Mutex<VecDeque<(SocketAddr, Vec<u8>, usize)>>,
    errors: Mutex<VecDeque<Unreachable>>,
    receiver: Mutex<Option<Waker>>,
    longest_run: AtomicUsize,
    /// Sends and receives that fail before the next one works.
    failing_sends: AtomicUsize,
    failing_receives: AtomicUsize,
}

impl Hub {
    fn port(self: &Arc<Self>, addr: &str) -> Arc<Port> {
        let addr = addr.parse().unwrap();
        let port = Arc::new(Port {
            addr,
            hub: Arc::clone(self),
            inbox: Mutex::default(),
            errors: Mutex::default(),
            receiver: Mutex::default(),
            longest_run: AtomicUsize::new(0),
            failing_sends: AtomicUsize::new(0),
            failing_receives: AtomicUsize::new(0),
        });
        self.ports.lock().unwrap().insert(addr, Arc::clone(&port));
        port
    }
}

impl Port {
    fn fails(failures: &AtomicUsize) -> bool {
        failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }

    fn wake(&self) {
        if let Some(waker) = self.receiver.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl DatagramTransport for Port {
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let bytes: Vec<u8> = transmit
            .contents
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        let size = transmit.segment_size.unwrap_or(bytes.len());
        let run = bytes.len().div_ceil(size);
        assert!(size <= DATAGRAM && run <= RUN, "{run} datagrams of {size}");
        if Self::fails(&self.failing_sends) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.longest_run.fetch_max(run, Ordering::Relaxed);
        let peer = self
            .hub
            .ports
            .lock()
            .unwrap()
            .get(&transmit.remote)
            .cloned();
        let Some(peer) = peer else {
            let quoted = Bytes::copy_from_slice(&bytes[..bytes.len().min(28)]);
            let mut errors = self.errors.lock().unwrap();
            errors.push_back(Unreachable::new(transmit.remote, quoted));
            drop(errors);
            self.wake();
            return Ok(());
        };
        // A single datagram needs no stride.
        let stride = if run > 1 { size } else { 0 };
        peer.inbox
            .lock()
            .unwrap()
            .push_back((self.addr, bytes, stride));
        peer.wake();
        Ok(())
    }

    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.try_send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [RecvBuffer],
    ) -> Poll<io::Result<usize>> {
        *self.receiver.lock().unwrap() = Some(cx.waker().clone());
        if Self::fails(&self.failing_receives) {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        let mut inbox = self.inbox.lock().unwrap();
        let mut count = 0;
        for buffer in buffers {
            let Some((remote, bytes, stride)) = inbox.pop_front() else {
                break;
            };
            buffer.storage_mut()[..bytes.len()].copy_from_slice(&bytes);
            let mut meta = RecvMeta::new(remote, bytes.len());
            meta.local_ip = Some(self.addr.ip());
            meta.stride = stride;
            buffer.fill(meta);
            count += 1;
        }
        if count == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(count))
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn max_send_segments(&self) -> usize {
        RUN
    }

    fn max_datagram_size(&self) -> usize {
        DATAGRAM
    }

    fn take_unreachable(&self) -> Option<Unreachable> {
        self.errors.lock().unwrap().pop_front()
    }
}

#[tokio::test]
async fn runs_of_datagrams_carry_a_stream_both_ways() {
    let hub = Arc::<Hub>::default();
    let (a, b) = (hub.port("10.0.0.1:1"), hub.port("10.0.0.2:2"));
    let client = Endpoint::with_transport(a.clone(), Config::default()).unwrap();
    let server = Endpoint::with_transport(b.clone(), Config::default()).unwrap();
    let listener = server.listen(1).unwrap();
    let (socket, accepted) = tokio::join!(client.connect(b.addr), listener.accept());
    let (mut socket, mut accepted) = (socket.unwrap(), accepted.unwrap().0);
    assert_eq!(accepted.local_addr().unwrap(), b.addr);

    let sent = pattern(1 << 20);
    let echo = async {
        let (mut reader, mut writer) = accepted.split();
        tokio::io::copy(&mut reader, &mut writer).await?;
        writer.shutdown().await
    };
    let ask = async {
        let (mut reader, mut writer) = socket.split();
        let write = async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        };
        let mut received = Vec::new();
        let (wrote, read) = tokio::join!(write, reader.read_to_end(&mut received));
        wrote.and(read).map(|_| received)
    };
    let (echoed, received) = tokio::join!(echo, ask);
    echoed.unwrap();
    assert!(received.unwrap() == sent);
    assert!(a.longest_run.load(Ordering::Relaxed) > 1);
    for stats in [client.stats(), server.stats()] {
        assert_eq!((stats.dropped_malformed, stats.dropped_checksum), (0, 0));
        assert_eq!(stats.transport_send_errors, 0);
    }
}

#[tokio::test]
async fn an_unreachable_port_refuses_at_once() {
    let port = Arc::<Hub>::default().port("10.0.0.1:1");
    let endpoint = Endpoint::with_transport(port, Config::default()).unwrap();
    let error = endpoint.connect("10.0.0.9:9").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(reason(&error), ConnectionError::Refused);
    assert_eq!(endpoint.stats().connections_refused, 1);
}

#[tokio::test]
async fn failures_of_the_transport_are_counted_and_repaired() {
    let hub = Arc::<Hub>::default();
    let (a, b) = (hub.port("10.0.0.1:1"), hub.port("10.0.0.2:2"));
    let client = Endpoint::with_transport(a.clone(), Config::default()).unwrap();
    let server = Endpoint::with_transport(b.clone(), Config::default()).unwrap();
    let listener = server.listen(1).unwrap();
    let (socket, accepted) = tokio::join!(client.connect(b.addr), listener.accept());
    let (mut socket, mut accepted) = (socket.unwrap(), accepted.unwrap().0);
    a.failing_sends.store(1, Ordering::Relaxed);
    b.failing_receives.store(3, Ordering::Relaxed);
    socket.write_all(b"once more").await.unwrap();
    accepted.read_exact(&mut [0; 9]).await.unwrap();
    assert_eq!(socket.stats().segments_retransmitted, 1);
    let (client, server) = (client.stats(), server.stats());
    assert_eq!(client.transport_send_errors, 1);
    assert_eq!(client.transport_receive_errors, 0);
    assert_eq!(server.transport_send_errors, 0);
    assert_eq!(server.transport_receive_errors, 3);
    assert!(server.bytes_sent >= 20 * server.datagrams_sent);
}

#[tokio::test]
async fn the_socket_has_the_buffers_that_were_asked_for() {
    /// Linux says twice what it was asked for.
    const ASKED: usize = 64 * 1024;
    let sizes = |endpoint: &Endpoint| {
        let stats = endpoint.stats().transport;
        [stats.send_buffer.unwrap(), stats.receive_buffer.unwrap()]
    };
    let small = Config::builder()
        .send_socket_buffer(Some(ASKED))
        .receive_socket_buffer(Some(ASKED))
        .build()
        .unwrap();
    let by_default = Endpoint::bind("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let bound = Endpoint::bind("127.0.0.1:0", small.clone()).await.unwrap();
    for (size, default) in sizes(&bound).into_iter().zip(sizes(&by_default)) {
        assert!((ASKED..=2 * ASKED).contains(&size), "{size}");
        assert!(default > size, "{default}");
    }
    // What a socket brings along is not made smaller.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let none = Config::builder()
        .send_socket_buffer(None)
        .receive_socket_buffer(None)
        .build()
        .unwrap();
    let untouched = Endpoint::from_socket(socket.try_clone().unwrap(), none).unwrap();
    let before = sizes(&untouched);
    let taken_over = Endpoint::from_socket(socket, small).unwrap();
    for (after, before) in sizes(&taken_over).into_iter().zip(before) {
        assert!(after >= before, "{after} of {before}");
    }
    assert_eq!(taken_over.stats().transport.kernel_drops, 0);
}
