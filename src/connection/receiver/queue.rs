//! `ReceiveQueue`: in-order bytes that the application has not read yet.
//!
//! Large payloads are queued as slices of the datagram that they arrived in, so that a caller who
//! takes [`Bytes`] gets them without a copy. A slice keeps its whole receive buffer alive, however;
//! so small payloads, and every payload once enough buffers are pinned, are copied into chunks of our
//! own that grow with the backlog and are used again. Nothing is allocated per segment.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

/// Payloads below this are copied: the slice would pin far more than it holds.
const ZERO_COPY_MIN: usize = 512;
/// Size of the largest receive buffer that a slice may keep alive: one datagram or one GRO train.
const PIN_SPAN: usize = 64 * 1024;
/// Receive buffers kept alive together, in bytes, beyond what is in proportion to the bytes queued there.
const PIN_LIMIT: usize = 4 * PIN_SPAN;
/// Smallest chunk of our own.
const CHUNK_MIN: usize = 2 * 1024;
/// A datagram or train below this has memory of its own size; the driver sees to that. A larger one is
/// charged as a whole receive buffer.
const COMPACT_MAX: usize = PIN_SPAN / 4;
/// Largest chunk of our own.
const CHUNK_MAX: usize = 64 * 1024;

/// In-order bytes waiting for the reader. An empty queue holds no memory.
///
/// Invariants:
/// - there is a backlog if and only if it has bytes;
/// - there is none once discarding.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    backlog: Option<Box<Backlog>>,
    is_discarding: bool,
}

/// What a queue holds that is not empty.
///
/// Invariants:
/// - `bytes` is the sum of all entries and the tail; no entry is empty;
/// - the tail's bytes follow the last entry's;
/// - `pinned` and `owned` are the sums of the entries' costs of either kind, `pinned_bytes` that of the pinned
///   entries' bytes;
/// - `pinned` grows only up to [`PIN_LIMIT`] and five quarters of `pinned_bytes`: full trains, of which nearly
///   all is payload, may be kept as far as the window goes, and others may not;
/// - the first slice of each datagram or train bears the cost of what it keeps alive, the others cost 0;
///   when it is read, the next slice of that datagram inherits the cost.
#[derive(Debug, Default)]
struct Backlog {
    entries: VecDeque<Entry>,
    /// The chunk being filled.
    tail: BytesMut,
    /// What the tail's chunk takes in memory, in bytes.
    tail_cost: usize,
    /// A chunk read to its end, kept for the next tail.
    spare: Option<BytesMut>,
    bytes: usize,
    pinned: usize,
    pinned_bytes: usize,
    owned: usize,
    /// Addresses of the rest of the last entry's datagram; empty if the last entry is not pinned.
    span: Range<usize>,
}

#[derive(Debug)]
struct Entry {
    data: Bytes,
    /// Bytes of memory accounted for this entry.
    cost: usize,
    is_pinned: bool,
}

impl ReceiveQueue {
    /// Bytes that can be read.
    pub(super) fn len(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_none()
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn is_discarding(&self) -> bool {
        self.is_discarding
    }

    /// Bytes of memory held: own chunks, pinned receive buffers and the entries themselves.
    pub(super) fn memory(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.memory())
    }

    /// Appends a payload that arrived in `datagram`; returns how many bytes became readable.
    pub(super) fn push(&mut self, payload: &[u8], datagram: &Bytes) -> u64 {
        self.append(payload.len(), |backlog| backlog.push(payload, datagram))
    }

    /// Appends a copy of `payload`; returns how many bytes became readable.
    pub(super) fn copy(&mut self, payload: &[u8]) -> u64 {
        self.append(payload.len(), |backlog| backlog.copy(payload))
    }

    /// Appends a buffer of our own without copying it; `cost` is what it takes in memory. Returns how
    /// many bytes became readable.
    pub(super) fn push_owned(&mut self, data: Bytes, cost: usize) -> u64 {
        self.append(data.len(), |backlog| backlog.push_owned(data, cost))
    }

    /// Moves bytes to `buf`; returns how many.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        let Some(backlog) = &mut self.backlog else {
            return 0;
        };
        let filled = backlog.read(buf);
        self.settle();
        filled
    }

    /// Takes the next contiguous bytes, at most `max`, without copying; `None` if there are none or
    /// `max` is 0.
    pub(super) fn read_chunk(&mut self, max: usize) -> Option<Bytes> {
        let backlog = self.backlog.as_mut().filter(|_| max > 0)?;
        let chunk = backlog.read_chunk(max);
        self.settle();
        Some(chunk)
    }

    /// Copies the next bytes to `buf` and leaves them in the queue; returns how many.
    pub(super) fn peek(&self, buf: &mut [u8]) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.peek(buf))
    }

    /// Drops everything, now and in future.
    pub(super) fn discard(&mut self) {
        *self = Self {
            backlog: None,
            is_discarding: true,
        };
    }

    fn append(&mut self, len: usize, append: impl FnOnce(&mut Backlog)) -> u64 {
        if self.is_discarding || len == 0 {
            return 0;
        }
        append(self.backlog.get_or_insert_default());
        len as u64
    }

    /// Once all is read, gives back what an idle connection should not hold.
    fn settle(&mut self) {
        self.backlog.take_if(|backlog| backlog.bytes == 0);
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub(super) fn check_invariants(&self) {
        assert!(
            !self.is_discarding || self.backlog.is_none(),
            "memory held after discard"
        );
        if let Some(backlog) = &self.backlog {
            assert!(backlog.bytes > 0, "a backlog of nothing");
            backlog.check_invariants();
        }
    }
}

impl Backlog {
    fn memory(&self) -> usize {
        let spare = if self.spare.is_some() { CHUNK_MAX } else { 0 };
        let entries = self.entries.capacity().saturating_mul(size_of::<Entry>());
        self.pinned + self.owned + self.tail_cost + spare + entries
    }

    fn push(&mut self, payload: &[u8], datagram: &Bytes) {
        if payload.len() < ZERO_COPY_MIN || !self.pin(payload, datagram) {
            self.copy(payload);
        }
    }

    fn copy(&mut self, payload: &[u8]) {
        let mut rest = payload;
        while !rest.is_empty() {
            if self.tail.len() == self.tail.capacity() {
                self.renew_tail();
            }
            let room = self.tail.capacity() - self.tail.len();
            let (piece, left) = rest.split_at(room.min(rest.len()));
            self.tail.extend_from_slice(piece);
            self.bytes += piece.len();
            rest = left;
        }
        self.span = 0..0;
    }

    fn push_owned(&mut self, data: Bytes, cost: usize) {
        self.seal_tail();
        self.bytes += data.len();
        self.owned += cost;
        self.span = 0..0;
        self.entries.push_back(Entry {
            data,
            cost,
            is_pinned: false,
        });
    }

    fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut filled = 0;
        while let Some(target) = buf.get_mut(filled..).filter(|target| !target.is_empty()) {
            if let Some(entry) = self.entries.front_mut() {
                let n = entry.data.len().min(target.len());
                entry.data.copy_to_slice(&mut target[..n]);
                if entry.is_pinned {
                    self.pinned_bytes -= n;
                }
                filled += n;
                if entry.data.is_empty() {
                    self.pop_entry();
                }
            } else {
                let n = self.tail.len().min(target.len());
                if n == 0 {
                    break;
                }
                self.tail.copy_to_slice(&mut target[..n]);
                filled += n;
            }
        }
        self.bytes -= filled;
        filled
    }

    fn read_chunk(&mut self, max: usize) -> Bytes {
        let chunk = match self.entries.front_mut() {
            Some(entry) if entry.data.len() > max => {
                if entry.is_pinned {
                    self.pinned_bytes -= max;
                }
                entry.data.split_to(max)
            }
            Some(entry) => {
                let data = mem::take(&mut entry.data);
                if entry.is_pinned {
                    self.pinned_bytes -= data.len();
                }
                self.pop_entry();
                data
            }
            None => self.tail.split_to(self.tail.len().min(max)).freeze(),
        };
        self.bytes -= chunk.len();
        chunk
    }

    fn peek(&self, buf: &mut [u8]) -> usize {
        let mut filled = 0;
        let entries = self.entries.iter().map(|entry| &entry.data[..]);
        for source in entries.chain([&self.tail[..]]) {
            let Some(target) = buf.get_mut(filled..).filter(|target| !target.is_empty()) else {
                break;
            };
            let n = source.len().min(target.len());
            target[..n].copy_from_slice(&source[..n]);
            filled += n;
        }
        filled
    }

    /// Queues `payload` as a slice of `datagram`, if it lies there and the receive buffer that the slice
    /// keeps alive may be pinned.
    fn pin(&mut self, payload: &[u8], datagram: &Bytes) -> bool {
        let start = payload.as_ptr().addr();
        let end = start.saturating_add(payload.len());
        // The rest of a datagram or train whose first slice is charged costs nothing more. While that
        // slice is held, nothing else can stand at these addresses.
        let continues = start >= self.span.start && end <= self.span.end;
        let cost = if continues { 0 } else { pinned_by(datagram) };
        let proportion = self.pinned_bytes + self.pinned_bytes / 4;
        if cost > 0 && self.pinned + cost > PIN_LIMIT + proportion {
            return false;
        }
        let Some(data) = slice_within(datagram, payload) else {
            return false;
        };
        let span_end = if continues {
            self.span.end
        } else {
            datagram.as_ptr().addr().saturating_add(datagram.len())
        };
        self.seal_tail();
        self.span = end..span_end;
        self.bytes += data.len();
        self.pinned += cost;
        self.pinned_bytes += data.len();
        self.entries.push_back(Entry {
            data,
            cost,
            is_pinned: true,
        });
        true
    }

    /// Turns the tail's bytes into an entry, so that something else can follow them.
    fn seal_tail(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        let data = self.tail.split().freeze();
        // Pieces of one chunk are accounted by length: only the chunk at the front can have been read
        // in part, so the sum is less than one chunk short.
        let cost = data.len();
        self.owned += cost;
        self.tail_cost = self.tail_cost.saturating_sub(cost);
        self.entries.push_back(Entry {
            data,
            cost,
            is_pinned: false,
        });
    }

    /// Makes room in a full tail: a chunk read meanwhile, or a new one whose size follows the backlog.
    fn renew_tail(&mut self) {
        let size = self.bytes.next_power_of_two().clamp(CHUNK_MIN, CHUNK_MAX);
        if self.tail.is_empty() {
            // Takes the same memory again if no reader holds a part of it.
            self.tail.reserve(size);
        } else {
            self.seal_tail();
            self.tail = self.spare.take().unwrap_or_default();
            self.tail.clear();
            self.tail.reserve(size);
        }
        self.tail_cost = self.tail.capacity();
    }

    /// Forgets the entry at the front, which was read to its end.
    fn pop_entry(&mut self) {
        let Some(entry) = self.entries.pop_front() else {
            return;
        };
        if entry.is_pinned {
            match self.entries.front_mut() {
                Some(next) if next.is_pinned && next.cost == 0 => next.cost = entry.cost,
                _ => self.pinned -= entry.cost,
            }
        } else {
            self.owned -= entry.cost;
            if entry.cost == CHUNK_MAX && self.spare.is_none() {
                self.spare = entry.data.try_into_mut().ok();
            }
        }
    }

    #[cfg(any(test, fuzzing, feature = "__internals"))]
    fn check_invariants(&self) {
        let entries: usize = self.entries.iter().map(|entry| entry.data.len()).sum();
        assert_eq!(self.bytes, entries + self.tail.len(), "bytes");
        assert!(
            self.entries.iter().all(|entry| !entry.data.is_empty()),
            "an entry is empty"
        );
        let cost = |pinned: bool| -> usize {
            self.entries
                .iter()
                .filter(|e| e.is_pinned == pinned)
                .map(|e| e.cost)
                .sum()
        };
        assert_eq!(self.pinned, cost(true), "pinned");
        assert_eq!(self.owned, cost(false), "owned");
        let pinned = self.entries.iter().filter(|entry| entry.is_pinned);
        let pinned_bytes: usize = pinned.map(|entry| entry.data.len()).sum();
        assert_eq!(self.pinned_bytes, pinned_bytes, "pinned bytes");
        assert!(
            self.tail.len() <= self.tail_cost,
            "the tail is larger than its cost"
        );
        if let Some(first) = self.entries.front() {
            assert!(
                !first.is_pinned || first.cost > 0,
                "a span at the front bears no cost"
            );
        }
    }
}

/// Returns the bytes of memory that a slice of `datagram` keeps alive.
fn pinned_by(datagram: &Bytes) -> usize {
    if datagram.len() < COMPACT_MAX {
        datagram.len()
    } else {
        PIN_SPAN
    }
}

/// Returns the part of `datagram` that `payload` is, or `None` if it lies elsewhere in memory.
fn slice_within(datagram: &Bytes, payload: &[u8]) -> Option<Bytes> {
    let begin = payload
        .as_ptr()
        .addr()
        .checked_sub(datagram.as_ptr().addr())?;
    let end = begin.checked_add(payload.len())?;
    (end <= datagram.len()).then(|| datagram.slice(begin..end))
}

#[cfg(test)]
mod tests;
