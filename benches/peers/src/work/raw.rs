//! UDP with GSO and GRO and nothing above it: what arrived counts, and nobody asks for the rest. The limit.

use std::io::{self, IoSliceMut};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Sides;
use crate::figures::{Figures, Usage};

/// The payload of every datagram, in bytes.
const DATAGRAM: usize = 1_452;

/// The longest payload of UDP over IPv4, and so the most that one send takes.
const LONGEST: usize = 65_507;

/// Asked for both ways, as reliable-udp does.
const SOCKET_BUFFER: usize = 4 << 20;

/// What is on its way when the sender stops has arrived by then.
const DRAIN: Duration = Duration::from_millis(50);

pub(crate) fn goodput(sides: &Sides) -> io::Result<Figures> {
    let length = sides.settings.length();
    let arrived = Arc::new(AtomicU64::new(0));
    let receiver = sides.block_on_server(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let to = receiver.local_addr()?;
    // Before the flood: this can take its time while the socket is busy.
    let state = UdpSocketState::new((&receiver).into())?;
    state.set_recv_buffer_size((&receiver).into(), SOCKET_BUFFER)?;
    let counter = Arc::clone(&arrived);
    let receiving =
        sides.spawn_on_server(async move { receive(&receiver, &state, &counter).await });
    sides.run(async move {
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let state = UdpSocketState::new((&sender).into())?;
        state.set_send_buffer_size((&sender).into(), SOCKET_BUFFER)?;
        let segments = state.max_gso_segments().min(LONGEST / DATAGRAM);
        let contents = vec![0x5a; segments * DATAGRAM];
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: &contents,
            segment_size: (segments > 1).then_some(DATAGRAM),
            src_ip: None,
        };
        let (before, started) = (Usage::now()?, Instant::now());
        while started.elapsed() < length {
            sender.writable().await?;
            let sent = sender.try_io(Interest::WRITABLE, || {
                state.try_send((&sender).into(), &transmit)
            });
            match sent {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        let took = started.elapsed();
        tokio::time::sleep(DRAIN).await;
        receiving.abort();
        let bytes = arrived.load(Ordering::Relaxed);
        Ok(Usage::now()?.since(&before).transfer(bytes, took))
    })
}

async fn receive(
    socket: &UdpSocket,
    state: &UdpSocketState,
    arrived: &AtomicU64,
) -> io::Result<()> {
    let mut storage = vec![0; BATCH_SIZE << 16];
    let mut bufs: Vec<_> = storage.chunks_mut(1 << 16).map(IoSliceMut::new).collect();
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        socket.readable().await?;
        let received = socket.try_io(Interest::READABLE, || {
            state.recv(socket.into(), &mut bufs, &mut metas)
        });
        match received {
            Ok(count) => {
                let bytes: usize = metas[..count].iter().map(|meta| meta.len).sum();
                arrived.fetch_add(bytes as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
