//! Waiting for a socket by tokio's own, which knows every platform.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The socket as the system's calls take it.
pub(in crate::driver::udp) type Socket = Arc<UdpSocket>;

/// What a task waits by.
pub(in crate::driver::udp) struct Readiness {
    socket: Socket,
}

impl Readiness {
    /// Registers a socket that does not block. Needs a runtime.
    pub(in crate::driver::udp) fn new(socket: std::net::UdpSocket) -> io::Result<(Self, Socket)> {
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let registered = Arc::clone(&socket);
        Ok((Self { socket: registered }, socket))
    }

    pub(in crate::driver::udp) fn poll_arrival(
        &self,
        cx: &mut Context<'_>,
        mut receive: impl FnMut() -> io::Result<(usize, bool)>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let mut count = 0;
            let outcome = self.socket.try_io(Interest::READABLE, || {
                let (received, is_drained) = receive()?;
                count = received;
                if is_drained {
                    Err(io::ErrorKind::WouldBlock.into())
                } else {
                    Ok(())
                }
            });
            match outcome {
                _ if count > 0 => return Poll::Ready(Ok(count)),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    pub(in crate::driver::udp) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_send_ready(cx))?;
        // The caller tries to send now; if that fails, the next signal counts. Forgotten any earlier, a signal that
        // came since the caller was refused would be lost.
        let refused = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = self.socket.try_io(Interest::WRITABLE, refused);
        Poll::Ready(Ok(()))
    }

    #[expect(clippy::unused_self, reason = "Unix has something to give back")]
    pub(in crate::driver::udp) fn on_room(&self) {}

    #[expect(clippy::unused_self, reason = "Linux has an error queue")]
    pub(in crate::driver::udp) fn error(
        &self,
    ) -> impl Future<Output = io::Result<()>> + Send + use<> {
        std::future::pending()
    }
}
