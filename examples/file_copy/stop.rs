//! Ctrl-C, and what it does to a connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::secure::Channel;

/// Whether the user wants an end; clones see the same.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for SIGINT, and on Unix for SIGTERM and SIGHUP, from now on.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        let mut signals = signals()?;
        tokio::spawn(async move {
            signals.recv().await;
            // Whoever is left to hear it hears it.
            let _ = sender.send(true);
            // A second one, from somebody who will not wait.
            signals.recv().await;
            std::process::exit(i32::from(crate::exit::Exit::Interrupted.number()));
        });
        Ok(Self(receiver))
    }

    pub(crate) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the user wants an end.
    pub(crate) async fn requested(&self) {
        let mut receiver = self.0.clone();
        if receiver
            .wait_for(|is_requested| *is_requested)
            .await
            .is_err()
        {
            // The runtime ends, and this with it.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
fn signals() -> io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals([
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ]))
}

#[cfg(unix)]
impl Signals {
    async fn recv(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
fn signals() -> io::Result<Signals> {
    Ok(Signals)
}

#[cfg(not(unix))]
impl Signals {
    async fn recv(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

type Requested = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A channel that breaks when the user wants an end. The peer is told by a reset at once, and the copy ends with
/// the error of a lost connection, as which it keeps what can be continued.
pub(crate) struct Stoppable {
    channel: Channel,
    /// One for each direction, since two tasks may wait.
    reading: Option<Requested>,
    writing: Option<Requested>,
}

impl Stoppable {
    pub(crate) fn new(channel: Channel, stop: &Stop) -> Self {
        let requested = || -> Option<Requested> {
            let stop = stop.clone();
            Some(Box::pin(async move { stop.requested().await }))
        };
        Self {
            channel,
            reading: requested(),
            writing: requested(),
        }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// The channel, broken if the user wants an end.
    fn look(
        &mut self,
        requested: fn(&mut Self) -> &mut Option<Requested>,
        cx: &mut Context<'_>,
    ) -> Pin<&mut Channel> {
        let waiting = requested(self);
        if let Some(future) = waiting
            && future.as_mut().poll(cx).is_ready()
        {
            *waiting = None;
            self.channel.socket().abort();
        }
        Pin::new(&mut self.channel)
    }
}

impl AsyncRead for Stoppable {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut()
            .look(|this| &mut this.reading, cx)
            .poll_read(cx, buf)
    }
}

impl AsyncWrite for Stoppable {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .look(|this| &mut this.writing, cx)
            .poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .look(|this| &mut this.writing, cx)
            .poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.channel.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .look(|this| &mut this.writing, cx)
            .poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut()
            .look(|this| &mut this.writing, cx)
            .poll_shutdown(cx)
    }
}
