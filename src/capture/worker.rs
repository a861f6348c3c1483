//! The thread that writes, and the queue to it: a tap runs inside an endpoint's lock and must wait for
//! nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::SystemTime;

use super::names::Locals;
use super::record::{SegmentError, SegmentRecord};
use super::{CaptureStats, PcapngWriter, TextLog};
use crate::tap::{Direction, Tap, TappedSegment};
use crate::timestamp::Timestamp;
use crate::wire::peek_ports;

/// What a segment in the queue is charged for beside its bytes: more than its entry takes.
const OVERHEAD: usize = 160;

/// Something that writes segments.
pub(super) trait Sink: Send {
    fn write(&mut self, record: &SegmentRecord<'_>) -> io::Result<()>;
    fn flush(&mut self) -> io::Result<()>;
    /// Writes what stands at the end.
    fn end(&mut self, stats: &CaptureStats) -> io::Result<()>;
}

impl<W: io::Write + Send> Sink for PcapngWriter<W> {
    fn write(&mut self, record: &SegmentRecord<'_>) -> io::Result<()> {
        Self::write(self, record)
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::flush(self)
    }

    fn end(&mut self, stats: &CaptureStats) -> io::Result<()> {
        Self::end(self, stats.dropped)
    }
}

impl<W: io::Write + Send> Sink for TextLog<W> {
    fn write(&mut self, record: &SegmentRecord<'_>) -> io::Result<()> {
        Self::write(self, record)
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::flush(self)
    }

    fn end(&mut self, _: &CaptureStats) -> io::Result<()> {
        Self::flush(self)
    }
}

/// What taps, handle and thread count together.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// What the queue is charged for now.
    queued: AtomicUsize,
    /// Whether the capture has ended: what comes later is not part of it.
    is_over: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> CaptureStats {
        CaptureStats {
            written: self.written.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Takes room in the queue; without it the segment is counted as dropped.
    fn reserve(&self, charge: usize, limit: usize) -> bool {
        let before = self.queued.fetch_add(charge, Ordering::Relaxed);
        let has_room = before.saturating_add(charge) <= limit;
        if !has_room {
            self.release(charge);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    fn release(&self, charge: usize) {
        self.queued.fetch_sub(charge, Ordering::Relaxed);
    }
}

/// What comes out of the queue.
#[derive(Debug)]
pub(super) enum Message {
    Segment(Seen),
    Finish,
}

/// A segment on its way to the thread.
#[derive(Debug)]
pub(super) struct Seen {
    time: SystemTime,
    direction: Direction,
    remote: SocketAddr,
    local: SocketAddr,
    segment: Box<[u8]>,
}

impl Seen {
    fn charge(&self) -> usize {
        self.segment.len().saturating_add(OVERHEAD)
    }
}

/// Copies the segments of one endpoint into the queue.
#[derive(Debug)]
pub(super) struct CaptureTap {
    pub(super) queue: Sender<Message>,
    pub(super) counters: Arc<Counters>,
    /// Bytes that the queue may hold.
    pub(super) limit: usize,
    /// The time of day when the endpoint began.
    pub(super) origin: SystemTime,
}

impl Tap for CaptureTap {
    fn on_segment(&mut self, now: Timestamp, tapped: &TappedSegment<'_>) {
        if self.counters.is_over.load(Ordering::Relaxed) {
            return;
        }
        let charge = tapped.segment.len().saturating_add(OVERHEAD);
        if !self.counters.reserve(charge, self.limit) {
            return;
        }
        let since = now.saturating_since(Timestamp::ZERO);
        let seen = Seen {
            time: self.origin.checked_add(since).unwrap_or(self.origin),
            direction: tapped.direction,
            remote: tapped.remote,
            local: tapped.local,
            segment: tapped.segment.into(),
        };
        if self.queue.send(Message::Segment(seen)).is_err() {
            // It has ended in this moment.
            self.counters.release(charge);
        }
    }
}

/// A sink, until it fails.
struct Output {
    sink: Box<dyn Sink>,
    error: Option<io::Error>,
}

/// The thread's state.
pub(super) struct Worker {
    outputs: Vec<Output>,
    counters: Arc<Counters>,
    locals: Locals,
}

impl Worker {
    pub(super) fn new(sinks: Vec<Box<dyn Sink>>, counters: Arc<Counters>) -> Self {
        Self {
            outputs: sinks
                .into_iter()
                .map(|sink| Output { sink, error: None })
                .collect(),
            counters,
            locals: Locals::new(),
        }
    }

    /// Writes until the end is asked for or nobody is left who could; returns the first error.
    pub(super) fn run(mut self, queue: &Receiver<Message>) -> io::Result<()> {
        loop {
            let message = match queue.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Empty) => {
                    // Idle: whoever looks at the file sees all that there is.
                    self.each(|sink| sink.flush());
                    match queue.recv() {
                        Ok(message) => message,
                        Err(_) => break,
                    }
                }
                Err(TryRecvError::Disconnected) => break,
            };
            match message {
                Message::Segment(seen) => {
                    self.write(&seen);
                    self.counters.release(seen.charge());
                }
                Message::Finish => break,
            }
        }
        self.counters.is_over.store(true, Ordering::Relaxed);
        let stats = self.counters.stats();
        self.each(|sink| sink.end(&stats));
        let error = self.outputs.into_iter().find_map(|output| output.error);
        error.map_or(Ok(()), Err)
    }

    fn write(&mut self, seen: &Seen) {
        let ports = peek_ports(&seen.segment).map(|(from, to)| match seen.direction {
            Direction::Incoming => (from, to),
            Direction::Outgoing => (to, from),
        });
        let (remote_port, local_port) = ports.unwrap_or_default();
        let local = self
            .locals
            .resolve((seen.remote, remote_port), (seen.local, local_port));
        let (from, to) = match seen.direction {
            Direction::Incoming => (seen.remote, local),
            Direction::Outgoing => (local, seen.remote),
        };
        let record =
            SegmentRecord::new(seen.time, from, to, &seen.segment).with_direction(seen.direction);
        let is_whole = self.each(|sink| sink.write(&record));
        let counter = if is_whole {
            &self.counters.written
        } else {
            &self.counters.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Does something with each sink that has not failed; returns whether all did it.
    fn each(&mut self, mut act: impl FnMut(&mut dyn Sink) -> io::Result<()>) -> bool {
        let mut is_whole = true;
        for output in &mut self.outputs {
            if output.error.is_some() {
                is_whole = false;
                continue;
            }
            if let Err(error) = act(&mut *output.sink) {
                is_whole = false;
                // A segment that cannot be shown says nothing of the next one.
                if SegmentError::from_io(&error).is_none() {
                    tracing::warn!(%error, "the capture ends early");
                    output.error = Some(error);
                }
            }
        }
        is_whole
    }
}
