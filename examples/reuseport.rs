//! A server that uses several cores: endpoints that share a UDP port by `SO_REUSEPORT`, each with a socket, a driver and
//! a thread of its own. It serves 64 clients of its own, prints how the system has spread them, and ends.
//!
//! ```sh
//! cargo run --release --example reuseport
//! ```
//!
//! The kernel picks the socket by a hash over both UDP addresses, so all datagrams of a client's socket meet the same
//! endpoint for as long as the set of sockets does not change: bind all of them before the first client comes, and
//! keep them. A client's connections over one socket share one core.
//!
//! The endpoints share nothing. Sequence numbers, cookies and TIME-WAIT belong to a pair of addresses, which one
//! endpoint sees, so each draws secrets of its own; limits such as the backlog count for each. A client whose NAT gives
//! it another port may meet an endpoint that does not know its connections: it answers by a reset, within its rate
//! limit, where one that knows them would have dropped the segments. Where that matters, and for long-lived connections
//! through NATs in general, use one endpoint, or steer by something else than addresses.

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;

use reliable_udp::{Config, Endpoint, ReliableUdpListener, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// Endpoints on the port; as many as cores should serve it.
const ENDPOINTS: usize = 2;
const CLIENTS: usize = 64;

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos")))))]
fn bind(_: SocketAddr) -> io::Result<UdpSocket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Answers a greeting with the number of the endpoint.
async fn greet(mut socket: ReliableUdpSocket, number: u8) -> io::Result<()> {
    socket.read_u8().await?;
    socket.write_u8(number).await?;
    socket.shutdown().await
}

async fn accept(listener: ReliableUdpListener, number: u8) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(greet(socket, number));
    }
}

/// Serves until told to stop. Everything of this endpoint runs on this thread.
fn serve(socket: UdpSocket, number: u8, stop: &Notify) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = Endpoint::from_socket(socket, Config::default())?.listen(1)?;
        tokio::select! {
            outcome = accept(listener, number) => outcome,
            () = stop.notified() => Ok(()),
        }
    })
}

#[tokio::main]
async fn main() -> io::Result<()> {
    // The first socket draws the port; all of them are bound before the first datagram arrives.
    let mut addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut sockets = Vec::new();
    for number in 0..ENDPOINTS {
        let socket = bind(addr)?;
        addr = socket.local_addr()?;
        sockets.push((socket, u8::try_from(number).unwrap_or(u8::MAX)));
    }
    let stop = Arc::new(Notify::new());
    let serve = |(socket, number)| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || serve(socket, number, &stop))
    };
    let servers: Vec<_> = sockets.into_iter().map(serve).collect();

    let mut served = [0; ENDPOINTS];
    for _ in 0..CLIENTS {
        // A UDP socket of its own, and so a port of its own.
        let mut socket = ReliableUdpSocket::connect(addr).await?;
        socket.write_u8(0).await?;
        let number = usize::from(socket.read_u8().await?);
        served[number] += 1;
        socket.shutdown().await?;
    }
    for _ in &servers {
        stop.notify_one();
    }
    for server in servers {
        server
            .join()
            .map_err(|_| io::Error::other("a server panicked"))??;
    }
    writeln!(io::stdout(), "{addr}: connections per endpoint {served:?}")
}
