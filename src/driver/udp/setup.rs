//! A UDP socket with the buffers that were asked for.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::config::SocketBuffers;

/// `getsockopt(2)` on Linux says twice what was set, for the kernel's own records of what it holds.
const GRANTED_PER_ASKED: usize = if cfg!(any(target_os = "linux", target_os = "android")) {
    2
} else {
    1
};

/// Binds a socket; one on an unspecified IPv6 address takes IPv4 too.
pub(super) fn bind(addr: SocketAddr, buffers: SocketBuffers) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "socket is not dual stack");
    }
    let socket_ref = SockRef::from(&socket);
    for (direction, bytes) in directions(buffers) {
        ask(&socket_ref, direction, bytes);
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Enlarges the buffers of a socket that was made elsewhere, where they are smaller than asked for.
pub(super) fn enlarge(socket: &SockRef<'_>, buffers: SocketBuffers) {
    for (direction, bytes) in directions(buffers) {
        if granted(socket, direction).is_some_and(|size| size < bytes * GRANTED_PER_ASKED) {
            ask(socket, direction, bytes);
        }
    }
}

/// Says what the system grants for sending and receiving.
pub(super) fn sizes(socket: &SockRef<'_>) -> [Option<usize>; 2] {
    [Direction::Send, Direction::Receive].map(|direction| granted(socket, direction))
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Send,
    Receive,
}

fn directions(buffers: SocketBuffers) -> impl Iterator<Item = (Direction, usize)> {
    let asked = [
        (Direction::Send, buffers.send),
        (Direction::Receive, buffers.receive),
    ];
    asked
        .into_iter()
        .filter_map(|(direction, bytes)| Some((direction, bytes?)))
}

/// Asks for a size, and by force if the limit of those without privileges is lower.
fn ask(socket: &SockRef<'_>, direction: Direction, bytes: usize) {
    let outcome = match direction {
        Direction::Send => socket.set_send_buffer_size(bytes),
        Direction::Receive => socket.set_recv_buffer_size(bytes),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, ?direction, bytes, "socket buffer refused");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if granted(socket, direction).is_some_and(|size| size < bytes * GRANTED_PER_ASKED) {
        use nix::sys::socket::{setsockopt, sockopt};
        let outcome = match direction {
            Direction::Send => setsockopt(&**socket, sockopt::SndBufForce, &bytes),
            Direction::Receive => setsockopt(&**socket, sockopt::RcvBufForce, &bytes),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, ?direction, bytes, "socket buffer smaller than asked for");
        }
    }
}

fn granted(socket: &SockRef<'_>, direction: Direction) -> Option<usize> {
    match direction {
        Direction::Send => socket.send_buffer_size().ok(),
        Direction::Receive => socket.recv_buffer_size().ok(),
    }
}
