//! The kernel's TCP through tokio: its defaults, and Nagle's algorithm off.
//!
//! The side that closes first keeps the port in TIME-WAIT for a minute. Linux gives it away again after a second
//! to a connection over loopback (`tcp_tw_reuse`), and a pair of addresses has some 28,000 ports. So that the ports
//! of one second last, connections go to [`ADDRESSES`] addresses of loopback in turn, all of them one listener's.

use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{Incoming, Peer, Role, Side};

/// How many addresses of loopback are connected to in turn.
const ADDRESSES: u8 = 64;

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 4_096;

/// The option for timestamps in every segment.
const TIMESTAMPS: u32 = 12;

pub(crate) struct Kernel {
    /// The payload of every segment; without one, what loopback's MTU gives.
    pub(crate) segment: Option<u32>,
}

pub(crate) struct Served {
    segment: Option<u32>,
    listener: Option<TcpListener>,
    turn: AtomicU8,
}

impl Served {
    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(segment) = self.segment {
            socket.set_tcp_mss(segment + TIMESTAMPS)?;
        }
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// The kernel did hold the segments to the size that was asked for.
    fn check(&self, stream: &TcpStream) -> io::Result<()> {
        let is_held = match self.segment {
            Some(segment) => SockRef::from(stream).tcp_mss()? == segment,
            None => true,
        };
        if is_held {
            Ok(())
        } else {
            Err(io::Error::other("segments have another size"))
        }
    }
}

impl Peer for Kernel {
    type Side = Served;

    async fn bind(&self, role: Role) -> io::Result<Served> {
        let mut side = Served {
            segment: self.segment,
            listener: None,
            turn: AtomicU8::new(0),
        };
        if role == Role::Server {
            let socket = side.socket()?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
            socket.listen(BACKLOG)?;
            side.listener = Some(TcpListener::from_std(socket.into())?);
        }
        Ok(side)
    }
}

impl Side for Served {
    type Stream = TcpStream;

    fn addr(&self) -> io::Result<SocketAddr> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        listener.local_addr()
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
        let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + turn), to.port()));
        let stream = TcpSocket::from_std_stream(self.socket()?.into())
            .connect(to)
            .await?;
        self.check(&stream)?;
        Ok(stream)
    }

    async fn accept(&self) -> io::Result<Incoming<TcpStream>> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        self.check(&stream)?;
        Ok(Box::pin(ready(Ok(stream))))
    }
}
