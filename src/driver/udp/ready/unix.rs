//! Waiting for a socket that is watched for arrivals alone.
//!
//! Registered for room too, as tokio's own sockets are, it
//! would wake its task up after every datagram that has left: UDP signals room whenever a buffer comes back,
//! and not, as TCP does, only to somebody who was refused. For room a duplicate of the descriptor is
//! registered while somebody waits.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The socket as the system's calls take it.
pub(in crate::driver::udp) type Socket = Arc<std::net::UdpSocket>;

/// What a task waits by.
pub(in crate::driver::udp) struct Readiness {
    arrivals: Arc<AsyncFd<Socket>>,
    /// Registered while somebody waits for room.
    room: Mutex<Option<AsyncFd<std::net::UdpSocket>>>,
}

impl Readiness {
    /// Registers a socket that does not block. Needs a runtime.
    pub(in crate::driver::udp) fn new(socket: std::net::UdpSocket) -> io::Result<(Self, Socket)> {
        let socket = Arc::new(socket);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = Interest::READABLE | Interest::ERROR;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let interest = Interest::READABLE;
        let arrivals = Arc::new(watch(Arc::clone(&socket), interest)?);
        let room = Mutex::default();
        Ok((Self { arrivals, room }, socket))
    }

    /// Calls `receive`, which says how much it took and whether it saw the socket empty, once something has
    /// arrived.
    pub(in crate::driver::udp) fn poll_arrival(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut() -> io::Result<(usize, bool)>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.arrivals.poll_read_ready(cx))?;
            match receive() {
                Ok((count, is_drained)) => {
                    // As of before the receive: what came since signals itself. Saves the call that finds
                    // nothing.
                    if is_drained {
                        guard.clear_ready();
                    }
                    if count > 0 {
                        return Poll::Ready(Ok(count));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Waits until the socket may have room again. To be called until it is ready, and [`on_room`](Self::on_room)
    /// once nobody waits any more.
    pub(in crate::driver::udp) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = match &mut *room {
            Some(registered) => registered,
            none => none.insert(watch(
                self.arrivals.get_ref().try_clone()?,
                Interest::WRITABLE,
            )?),
        };
        let mut guard = ready!(registered.poll_write_ready(cx))?;
        // The caller tries to send now; if that fails, the next signal counts.
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Somebody sent: nobody waits for room.
    pub(in crate::driver::udp) fn on_room(&self) {
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Resolves when the system signals an error on the socket.
    pub(in crate::driver::udp) fn error(
        &self,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let arrivals = Arc::clone(&self.arrivals);
        async move {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            {
                let mut guard = arrivals.ready(Interest::ERROR).await?;
                guard.clear_ready();
                Ok(())
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            {
                let _ = arrivals;
                std::future::pending().await
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for the sake of descriptors that change; a std socket keeps its own"
)]
fn watch<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
}
