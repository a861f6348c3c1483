//! Captures (feature `capture`): what went over the wire, as a pcapng file that Wireshark shows as TCP, and
//! as a text log in the form of tcpdump.
//!
//! A [`Capture`] goes into the [configuration](crate::ConfigBuilder::tap) of an endpoint, a socket or a
//! listener, or into a running [`Endpoint`](crate::Endpoint::set_tap):
//!
//! ```no_run
//! use std::fs::File;
//! use reliable_udp::capture::Capture;
//! use reliable_udp::{Config, ReliableUdpSocket};
//! use tokio::io::AsyncWriteExt;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let capture = Capture::builder()
//!     .pcapng(File::create("segments.pcapng")?)
//!     .text(File::create("segments.log")?)
//!     .start()?;
//! let config = Config::builder().tap(capture.clone()).build()?;
//! let mut socket = ReliableUdpSocket::connect_with("192.0.2.1:4000", config).await?;
//! socket.write_all(b"hello").await?;
//! socket.shutdown().await?;
//! let stats = tokio::task::spawn_blocking(move || capture.finish()).await??;
//! assert_eq!(stats.dropped, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # What stands in it
//!
//! Every segment that leaves an endpoint, whether or not the system then takes it, and every one that arrives
//! and passes its integrity check. Each becomes an IP packet that carries TCP: UDP's addresses, the
//! virtual ports as TCP's, a valid TCP checksum in place of ours, and no urgent pointer. [`PcapngWriter`]
//! says how connections that differ in nothing but a UDP port are kept apart. A connection whose peer
//! moves to another UDP address goes on as a new one.
//!
//! One capture should see one side of a connection only: Wireshark takes a segment that it sees twice for a
//! retransmission. It counts retransmissions as we do
//! ([`segments_retransmitted`](crate::ConnectionStats::segments_retransmitted)) where the sender is
//! captured; behind a lossy link it cannot see what was sent twice.
//!
//! A capture of UDP traffic made elsewhere, by `tcpdump -i any -w FILE udp`, is converted by the example
//! `capture_convert`, with [`PcapngWriter`] and [`check_segment`] as its parts.
//!
//! # What it costs
//!
//! The endpoint copies each segment into a queue of at most [`queue_bytes`](CaptureBuilder::queue_bytes);
//! a thread takes it from there, formats and writes. What finds the queue full is dropped and counted, in
//! [`CaptureStats`] and in the file's statistics (`isb_ifdrop`); the connections never wait. The writers
//! are flushed whenever the queue is empty.

mod frame;
mod names;
mod pcapng;
mod recent;
mod record;
#[cfg(test)]
mod tests;
mod text;
mod worker;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

pub use self::pcapng::PcapngWriter;
pub use self::record::{SegmentError, SegmentRecord, check_segment};
pub use self::text::TextLog;

use self::worker::{CaptureTap, Counters, Message, Sink, Worker};
use crate::tap::{Tap, TapFactory};
use crate::timestamp::Timestamp;

/// 500 ms at 1 Gbit/s.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that are handed to a file at once.
const BUFFER: usize = 256 * 1024;

/// A capture that is being written. Clones are handles to the same one.
///
/// It ends with [`finish`](Self::finish), or when the last handle, configuration and endpoint that knows of it
/// is gone. A process that exits before that may lose what was not yet written.
#[derive(Clone)]
pub struct Capture {
    queue: Sender<Message>,
    counters: Arc<Counters>,
    limit: usize,
    origin: Option<SystemTime>,
    thread: Arc<Mutex<Option<JoinHandle<io::Result<()>>>>>,
}

impl Capture {
    /// Begins to describe a capture.
    pub fn builder() -> CaptureBuilder {
        CaptureBuilder {
            sinks: Vec::new(),
            queue_bytes: QUEUE_BYTES,
            origin: None,
        }
    }

    /// Returns what has been counted so far.
    pub fn stats(&self) -> CaptureStats {
        self.counters.stats()
    }

    /// Writes what has been seen until now and ends the capture. Endpoints go on without it.
    ///
    /// It waits for the writers: in async code, call it by
    /// [`spawn_blocking`](tokio::task::spawn_blocking).
    ///
    /// # Errors
    ///
    /// The first error of a writer, which then wrote nothing more while the others went on. Only the first
    /// call returns it.
    pub fn finish(&self) -> io::Result<CaptureStats> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // It fails if the thread has ended already, of a writer that panicked.
            let _ = self.queue.send(Message::Finish);
            let outcome = thread.join();
            outcome.map_err(|_| io::Error::other("a writer of the capture panicked"))??;
        }
        Ok(self.stats())
    }
}

impl TapFactory for Capture {
    fn tap(&self, now: Timestamp, _local: SocketAddr) -> Box<dyn Tap> {
        let origin = self.origin.unwrap_or_else(|| {
            let elapsed = now.saturating_since(Timestamp::ZERO);
            let now = time_of_day();
            now.checked_sub(elapsed).unwrap_or(now)
        });
        Box::new(CaptureTap {
            queue: self.queue.clone(),
            counters: Arc::clone(&self.counters),
            limit: self.limit,
            origin,
        })
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a [`Capture`] has counted, in segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CaptureStats {
    /// Written by every writer.
    pub written: u64,
    /// Dropped because the queue was full.
    pub dropped: u64,
    /// Missing in at least one writer's output, because it failed or the segment fits into no IP packet.
    pub failed: u64,
}

/// Describes a [`Capture`]; made by [`Capture::builder`].
#[must_use]
pub struct CaptureBuilder {
    sinks: Vec<NewSink>,
    queue_bytes: usize,
    origin: Option<SystemTime>,
}

type NewSink = Box<dyn FnOnce() -> io::Result<Box<dyn Sink>> + Send>;

impl CaptureBuilder {
    /// Writes a pcapng file, by [`PcapngWriter`]. It is buffered here.
    pub fn pcapng(mut self, writer: impl Write + Send + 'static) -> Self {
        self.sinks.push(Box::new(|| {
            let writer = PcapngWriter::new(BufWriter::with_capacity(BUFFER, writer))?;
            Ok(Box::new(writer))
        }));
        self
    }

    /// Writes a text log, by [`TextLog`]. It is buffered here.
    pub fn text(mut self, writer: impl Write + Send + 'static) -> Self {
        self.sinks.push(Box::new(|| {
            let writer = TextLog::new(BufWriter::with_capacity(BUFFER, writer));
            Ok(Box::new(writer))
        }));
        self
    }

    /// Sets how many bytes of segments wait for the writers, overhead included; what finds no room is dropped
    /// and counted. Default: 64 MiB, half a second at 1 Gbit/s.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets the time of day at which each endpoint begins. Default: that of the system's clock, asked once
    /// per endpoint. With a fixed one, a capture under simulated or paused time is the same in each run.
    pub fn origin(mut self, origin: SystemTime) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Begins the capture, with a thread that writes it.
    ///
    /// # Errors
    ///
    /// Whatever the system says of the thread.
    pub fn start(self) -> io::Result<Capture> {
        let sinks = self.sinks.into_iter().map(|sink| sink());
        let sinks = sinks.collect::<io::Result<Vec<_>>>()?;
        let counters = Arc::<Counters>::default();
        let (queue, receiver) = mpsc::channel();
        let worker = Worker::new(sinks, Arc::clone(&counters));
        let thread = thread::Builder::new()
            .name("reliable-udp-capture".into())
            .spawn(move || worker.run(&receiver))?;
        Ok(Capture {
            queue,
            counters,
            limit: self.queue_bytes,
            origin: self.origin,
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }
}

impl fmt::Debug for CaptureBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureBuilder")
            .field("queue_bytes", &self.queue_bytes)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time of day is asked for once per endpoint; the core counts from there"
)]
fn time_of_day() -> SystemTime {
    SystemTime::now()
}
