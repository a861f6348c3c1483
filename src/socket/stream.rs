//! One connection as the socket and its halves see it: every operation, in poll form.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::task::coop::poll_proceed;

use crate::config::DropPolicy;
use crate::connection::{Connection, ReadError, WriteError};
use crate::driver::{Direction, Handle, canonical};
use crate::endpoint::ConnectionId;
use crate::{ConnectionError, ConnectionStats, State, Timestamp};

/// A connection in use by a socket or its halves. Dropping it releases the connection, which goes on in
/// the background until everything is acknowledged.
#[derive(Debug)]
pub(crate) struct Stream {
    handle: Handle,
    id: ConnectionId,
    drop_policy: DropPolicy,
    /// Whether the application ended its direction by `shutdown`, `finish` or `abort`.
    is_finished: AtomicBool,
}

impl Stream {
    pub(crate) fn new(handle: Handle, id: ConnectionId, drop_policy: DropPolicy) -> Self {
        Self {
            handle,
            id,
            drop_policy,
            is_finished: AtomicBool::new(false),
        }
    }

    /// Waits until the handshake is over.
    pub(crate) async fn connected(&self) -> io::Result<()> {
        self.wait_state(|state, error| match (state, error) {
            (_, Some(error)) => Some(Err(error.into())),
            (State::SynSent | State::SynReceived, None) => None,
            _ => Some(Ok(())),
        })
        .await?
    }

    /// Waits until the connection is over.
    pub(crate) async fn closed(&self) -> io::Result<()> {
        self.wait_state(|state, error| match (state, error) {
            (_, Some(error)) => Some(Err(error.into())),
            (State::TimeWait | State::Closed, None) => Some(Ok(())),
            _ => None,
        })
        .await?
    }

    async fn wait_state<R>(
        &self,
        check: impl Fn(State, Option<ConnectionError>) -> Option<R>,
    ) -> io::Result<R> {
        let notify = self.handle.update(|core, _, _| core.state_notify(self.id));
        let outcome = loop {
            let mut notified = std::pin::pin!(notify.notified());
            notified.as_mut().enable();
            let outcome = self.handle.inspect(|core| {
                let connection = core.connection(self.id)?;
                Ok::<_, ConnectionError>(check(connection.state(), connection.error().cloned()))
            })?;
            if let Some(outcome) = outcome {
                break outcome;
            }
            notified.await;
        };
        // An idle connection is to hold little.
        drop(notify);
        self.handle
            .update(|core, _, _| core.drop_idle_notifies(self.id));
        Ok(outcome)
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let coop = ready!(poll_proceed(cx));
        let outcome = self.handle.enter(|core, now, wakeups| {
            let read = core.with_connection(now, self.id, |connection| {
                connection.read(now, buf.initialize_unfilled())
            })?;
            if matches!(read, Err(ReadError::Blocked)) {
                core.wait(self.id, Direction::Read, cx, wakeups);
            }
            Ok::<_, ConnectionError>(read)
        })?;
        let len = ready!(read_outcome(outcome))?;
        buf.advance(len);
        coop.made_progress();
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_read_chunk(
        &self,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        if max == 0 {
            return Poll::Ready(Ok(Some(Bytes::new())));
        }
        let coop = ready!(poll_proceed(cx));
        let outcome = self.handle.enter(|core, now, wakeups| {
            let read =
                core.with_connection(now, self.id, |connection| connection.read_chunk(now, max))?;
            if matches!(read, Err(ReadError::Blocked)) {
                core.wait(self.id, Direction::Read, cx, wakeups);
            }
            Ok::<_, ConnectionError>(read)
        })?;
        let chunk = ready!(read_outcome(outcome))?;
        coop.made_progress();
        Poll::Ready(Ok(chunk))
    }

    pub(crate) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        tokio::task::consume_budget().await;
        let notify = self
            .handle
            .update(|core, _, _| core.readable_notify(self.id));
        loop {
            let mut notified = std::pin::pin!(notify.notified());
            notified.as_mut().enable();
            let outcome = self
                .handle
                .inspect(|core| Ok::<_, ConnectionError>(core.connection(self.id)?.peek(buf)))?;
            match outcome {
                Ok(len) => return Ok(len),
                Err(ReadError::Blocked) => notified.await,
                Err(ReadError::Closed(error)) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_write_with(cx, len, |connection, now| {
            let mut written = 0;
            for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
                match connection.write(now, buf) {
                    Ok(taken) => {
                        written += taken;
                        if taken < buf.len() {
                            break;
                        }
                    }
                    Err(error) if written == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            if len == 0 {
                connection.write(now, &[])
            } else {
                Ok(written)
            }
        })
    }

    /// Writes a prefix of `chunk` and removes it from there.
    pub(crate) fn poll_write_chunk(
        &self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<io::Result<usize>> {
        let len = chunk.len();
        self.poll_write_with(cx, len, |connection, now| {
            connection.write_chunk(now, chunk)
        })
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        len: usize,
        write: impl FnOnce(&mut Connection, Timestamp) -> Result<usize, WriteError>,
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(poll_proceed(cx));
        let outcome = self.handle.enter(|core, now, wakeups| {
            let written =
                core.with_connection(now, self.id, |connection| write(connection, now))?;
            let is_full = matches!(written, Ok(0) | Err(WriteError::Blocked)) && len > 0;
            if is_full {
                core.wait(self.id, Direction::Write, cx, wakeups);
                return Ok(Err(WriteError::Blocked));
            }
            Ok::<_, ConnectionError>(written)
        })?;
        let written = match outcome {
            Ok(written) => written,
            Err(WriteError::Blocked) if len > 0 => return Poll::Pending,
            Err(WriteError::Blocked) => 0,
            Err(error) => return Poll::Ready(Err(write_error(error))),
        };
        coop.made_progress();
        Poll::Ready(Ok(written))
    }

    /// Pushes out what Nagle's algorithm holds back; does not wait.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let error = self.handle.enter(|core, now, _| {
            core.with_connection(now, self.id, |connection| {
                connection.flush(now);
                connection.error().cloned()
            })
        })?;
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Queues the FIN; does not wait.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.is_finished.store(true, Ordering::Relaxed);
        let outcome = self.handle.enter(|core, now, _| {
            core.with_connection(now, self.id, |connection| {
                match (connection.finish(now), connection.finish_status()) {
                    // What was finished and acknowledged stays so, whatever became of the connection.
                    (_, Ok(true)) => Ok(()),
                    (outcome, _) => outcome,
                }
            })
        })?;
        match outcome {
            Ok(()) | Err(WriteError::Finished | WriteError::Blocked) => Ok(()),
            Err(error) => Err(write_error(error)),
        }
    }

    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_finished.store(true, Ordering::Relaxed);
        let status = self.handle.enter(|core, now, wakeups| {
            let status = core.with_connection(now, self.id, |connection| {
                // What it may refuse, `finish_status` says too.
                let _ = connection.finish(now);
                connection.finish_status()
            })?;
            if matches!(status, Ok(false)) {
                core.wait(self.id, Direction::Shutdown, cx, wakeups);
            }
            status
        });
        match status {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    pub(crate) fn abort(&self) {
        self.is_finished.store(true, Ordering::Relaxed);
        self.handle.enter(|core, now, wakeups| {
            let _ = core.with_connection(now, self.id, |connection| connection.abort(now));
            core.wake_all(self.id, wakeups);
        });
    }

    /// The write half is dropped: ends the stream, or cuts it where the configuration says so.
    pub(crate) fn drop_write(&self) {
        if self.is_finished.load(Ordering::Relaxed) {
            return;
        }
        match self.drop_policy {
            DropPolicy::Finish => drop(self.finish()),
            DropPolicy::Reset => self.abort(),
        }
    }

    pub(crate) fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.handle.enter(|core, now, _| {
            core.with_connection(now, self.id, |connection| {
                connection.set_nodelay(now, nodelay);
            })
        })?;
        Ok(())
    }

    pub(crate) fn nodelay(&self) -> io::Result<bool> {
        Ok(self
            .handle
            .inspect(|core| core.connection(self.id).map(Connection::nodelay))?)
    }

    pub(crate) fn set_notsent_lowat(&self, limit: Option<usize>) -> io::Result<()> {
        self.handle.enter(|core, now, _| {
            core.with_connection(now, self.id, |connection| {
                connection.set_notsent_lowat(now, limit);
            })
        })?;
        Ok(())
    }

    pub(crate) fn notsent_lowat(&self) -> io::Result<Option<usize>> {
        Ok(self
            .handle
            .inspect(|core| core.connection(self.id).map(Connection::notsent_lowat))?)
    }

    pub(crate) fn local_port(&self) -> io::Result<u16> {
        Ok(self
            .handle
            .inspect(|core| core.connection(self.id).map(Connection::local_port))?)
    }

    pub(crate) fn peer_port(&self) -> io::Result<u16> {
        Ok(self
            .handle
            .inspect(|core| core.connection(self.id).map(Connection::remote_port))?)
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        // A connection stays in the endpoint until its handle, this one, is dropped.
        let now = self.handle.clock().now();
        self.handle
            .inspect(|core| {
                let connection = core.endpoint.connection(self.id)?;
                Some(connection.stats_at(now))
            })
            .unwrap_or_default()
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        let addr = self
            .handle
            .inspect(|core| core.endpoint.remote_addr(self.id));
        addr.map(canonical)
            .ok_or_else(|| ConnectionError::EndpointClosed.into())
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        let mut addr = self.handle.transport().local_addr()?;
        // A socket bound to the unspecified address learns its address from what the peer sends to.
        if addr.ip().is_unspecified()
            && let Some(ip) = self.handle.inspect(|core| core.endpoint.local_ip(self.id))
        {
            addr.set_ip(ip);
        }
        Ok(addr)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Wakers are dropped here, after the lock.
        drop(self.handle.enter(|core, now, _| core.release(now, self.id)));
    }
}

fn read_outcome<T>(outcome: Result<T, ReadError>) -> Poll<io::Result<T>> {
    match outcome {
        Ok(read) => Poll::Ready(Ok(read)),
        Err(ReadError::Blocked) => Poll::Pending,
        Err(ReadError::Closed(error)) => Poll::Ready(Err(error.into())),
    }
}

fn write_error(error: WriteError) -> io::Error {
    match error {
        WriteError::Finished => io::Error::new(
            io::ErrorKind::BrokenPipe,
            "write after shutdown of this direction",
        ),
        WriteError::Blocked => io::ErrorKind::WouldBlock.into(),
        WriteError::Closed(error) => error.into(),
    }
}
