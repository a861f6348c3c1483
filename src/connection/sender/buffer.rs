//! `SendBuffer`: the bytes that the application wrote and the peer has not yet acknowledged.
//!
//! Written slices are copied once, into chunks of up to 64 KiB that are recycled; a `Bytes` handed over
//! by the application is kept as it is. A segment's payload is copied straight from here into the
//! datagram, at any offset, so nothing is copied twice and a retransmission needs no memory of its own.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use crate::connection::Offset;

/// Largest chunk for copied bytes.
const CHUNK: usize = 64 * 1024;
/// Smallest chunk: an idle or chatty connection should not hold more.
const MIN_CHUNK: usize = 4 * 1024;
/// Below this a `Bytes` is copied: it may pin a much larger allocation.
const SHARE_FROM: usize = 2 * 1024;
/// Emptied chunks kept for reuse while data flows.
const MAX_SPARE: usize = 16;

/// Bytes written and not yet acknowledged, addressed by stream offset.
///
/// Invariants:
/// - chunks are contiguous: each begins where the one before it ends, the last ends at `end`;
/// - no chunk is empty, and the first one reaches beyond `start`;
/// - `end - start` never exceeds `capacity`, which never shrinks;
/// - `memory` is the sum over all chunks.
#[derive(Debug)]
pub struct SendBuffer {
    chunks: VecDeque<Chunk>,
    /// Oldest byte held: everything below is acknowledged.
    start: Offset,
    /// One past the newest byte.
    end: Offset,
    capacity: usize,
    /// What `capacity` may grow to.
    max_capacity: usize,
    /// Bytes of memory of the chunks, spare ones not included.
    memory: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Chunk {
    start: Offset,
    data: Data,
}

enum Data {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Copied(_) => "Copied",
            Self::Shared(_) => "Shared",
        };
        write!(f, "{kind}({} bytes)", self.as_slice().len())
    }
}

impl Data {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Copied(data) => data,
            Self::Shared(data) => data,
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Copied(data) => data.capacity(),
            Self::Shared(data) => data.len(),
        }
    }
}

impl Chunk {
    fn end(&self) -> Offset {
        self.start + self.data.as_slice().len() as u64
    }
}

impl SendBuffer {
    /// Makes an empty buffer for at most `capacity` bytes, which may grow to `max_capacity`; its first byte
    /// has offset 1.
    pub fn new(capacity: usize, max_capacity: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            start: Offset::FIRST,
            end: Offset::FIRST,
            capacity,
            max_capacity,
            memory: 0,
            spare: Vec::new(),
        }
    }

    /// Returns one past the newest byte.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Returns the number of bytes held.
    pub fn len(&self) -> usize {
        usize::try_from(self.end.saturating_since(self.start)).unwrap_or(usize::MAX)
    }

    /// Returns how many bytes may be written now.
    pub fn room(&self) -> usize {
        self.capacity.saturating_sub(self.len())
    }

    /// Returns the largest number of bytes that may be held now.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Grows to `wanted` bytes, as far as is allowed.
    pub fn grow_to(&mut self, wanted: u64) {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        self.capacity = self.capacity.max(wanted.min(self.max_capacity));
    }

    /// Returns the bytes of memory held, spare chunks included.
    pub fn memory(&self) -> usize {
        self.memory + self.spare.iter().map(Vec::capacity).sum::<usize>()
    }

    /// Copies a prefix of `data` in, as much as there is room for, and returns its length.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(self.room());
        let mut rest = &data[..taken];
        while !rest.is_empty() {
            let room = match self.chunks.back() {
                Some(Chunk {
                    data: Data::Copied(tail),
                    ..
                }) => tail.capacity() - tail.len(),
                _ => 0,
            };
            if room == 0 {
                let chunk = self.fresh_chunk(rest.len());
                self.memory += chunk.capacity();
                self.chunks.push_back(Chunk {
                    start: self.end,
                    data: Data::Copied(chunk),
                });
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            if let Some(Chunk {
                data: Data::Copied(tail),
                ..
            }) = self.chunks.back_mut()
            {
                tail.extend_from_slice(now);
                self.end += now.len() as u64;
            }
            rest = later;
        }
        taken
    }

    /// Takes a prefix of `data`, as much as there is room for and at most `max`, without copying it unless
    /// it is small, and returns its length.
    pub fn write_chunk(&mut self, data: &mut Bytes, max: usize) -> usize {
        let taken = data.len().min(self.room()).min(max);
        if taken < SHARE_FROM {
            let written = self.write(&data[..taken]);
            bytes::Buf::advance(data, written);
            return written;
        }
        let piece = data.split_to(taken);
        self.memory += taken;
        self.chunks.push_back(Chunk {
            start: self.end,
            data: Data::Shared(piece),
        });
        self.end += taken as u64;
        taken
    }

    /// Copies the bytes of `range` into `out`, which has the range's length.
    ///
    /// Bytes outside the buffer are left as they are; callers ask only for what they know is held.
    pub fn copy_to(&self, range: &Range<Offset>, out: &mut [u8]) {
        debug_assert!(self.start <= range.start && range.end <= self.end);
        let mut at = range.start;
        let mut out = out;
        let first = self.chunks.partition_point(|chunk| chunk.end() <= at);
        for chunk in self.chunks.range(first.min(self.chunks.len())..) {
            if out.is_empty() {
                break;
            }
            let skip = usize::try_from(at.saturating_since(chunk.start)).unwrap_or(usize::MAX);
            let Some(source) = chunk.data.as_slice().get(skip..) else {
                break;
            };
            let len = source.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&source[..len]);
            out = later;
            at += len as u64;
        }
        debug_assert!(out.is_empty());
    }

    /// Forgets everything below `una`, which was acknowledged.
    pub fn release_below(&mut self, una: Offset) {
        self.start = self.start.max(una.min(self.end));
        while self
            .chunks
            .front()
            .is_some_and(|chunk| chunk.end() <= self.start)
        {
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            self.memory -= chunk.data.memory();
            if let Data::Copied(mut data) = chunk.data
                && self.spare.len() < MAX_SPARE
                && data.capacity() >= CHUNK
            {
                data.clear();
                self.spare.push(data);
            }
        }
        if self.chunks.is_empty() {
            // Memory only while there is data, but for one chunk that the next burst will want.
            self.spare.truncate(1);
        }
    }

    /// Drops all data and memory; the offsets stay.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.memory = 0;
        self.spare = Vec::new();
        self.start = self.end;
    }

    /// Returns an empty chunk, sized by what is being written and what is already waiting.
    fn fresh_chunk(&mut self, wanted: usize) -> Vec<u8> {
        let size = wanted.saturating_add(self.len()).clamp(MIN_CHUNK, CHUNK);
        if size == CHUNK
            && let Some(spare) = self.spare.pop()
        {
            return spare;
        }
        Vec::with_capacity(size)
    }

    /// Panics if an invariant of the struct does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        let mut at = self.chunks.front().map_or(self.end, |chunk| chunk.start);
        assert!(
            at <= self.start,
            "the first chunk begins after the oldest byte"
        );
        for chunk in &self.chunks {
            assert_eq!(chunk.start, at, "a gap between chunks");
            assert!(chunk.end() > chunk.start, "an empty chunk");
            at = chunk.end();
        }
        assert_eq!(at, self.end, "the last chunk ends elsewhere");
        assert!(self.len() <= self.capacity, "more bytes than the capacity");
        let memory: usize = self.chunks.iter().map(|chunk| chunk.data.memory()).sum();
        assert_eq!(self.memory, memory, "memory");
        if let Some(first) = self.chunks.front() {
            assert!(first.end() > self.start, "an acknowledged chunk is kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(buffer: &SendBuffer, range: Range<u64>) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(range.end - range.start).unwrap()];
        buffer.copy_to(
            &(Offset::new(range.start)..Offset::new(range.end)),
            &mut out,
        );
        out
    }

    #[test]
    fn a_write_takes_only_what_fits() {
        let mut buffer = SendBuffer::new(10, 10);
        assert_eq!(buffer.write(b"0123456"), 7);
        assert_eq!(buffer.write(b"789ab"), 3);
        assert_eq!(buffer.write(b"c"), 0);
        assert_eq!(read(&buffer, 1..11), b"0123456789");
        buffer.release_below(Offset::new(5));
        assert_eq!(buffer.room(), 4);
        assert_eq!(read(&buffer, 5..11), b"456789");
        buffer.check_invariants();
    }

    #[test]
    fn a_large_chunk_is_shared_and_a_small_one_copied() {
        let mut buffer = SendBuffer::new(1 << 20, 1 << 20);
        let mut large = Bytes::from(vec![7; SHARE_FROM]);
        assert_eq!(buffer.write_chunk(&mut large, usize::MAX), SHARE_FROM);
        assert!(large.is_empty());
        let mut small = Bytes::from_static(b"abc");
        assert_eq!(buffer.write_chunk(&mut small, usize::MAX), 3);
        assert!(matches!(buffer.chunks[0].data, Data::Shared(_)));
        assert!(matches!(buffer.chunks[1].data, Data::Copied(_)));
        let end = 1 + SHARE_FROM as u64 + 3;
        assert_eq!(read(&buffer, end - 5..end), [7, 7, b'a', b'b', b'c']);
        buffer.check_invariants();
    }

    #[test]
    fn a_chunk_beyond_the_room_keeps_its_rest() {
        let mut buffer = SendBuffer::new(SHARE_FROM, SHARE_FROM);
        let mut data = Bytes::from(vec![1; SHARE_FROM + 9]);
        assert_eq!(buffer.write_chunk(&mut data, usize::MAX), SHARE_FROM);
        assert_eq!(data.len(), 9);
        assert_eq!(buffer.write_chunk(&mut data, usize::MAX), 0);
        assert_eq!(data.len(), 9);
    }

    #[test]
    fn the_capacity_grows_to_its_limit_and_never_shrinks() {
        let mut buffer = SendBuffer::new(10, 100);
        for (wanted, capacity) in [(5, 10), (50, 50), (20, 50), (u64::MAX, 100)] {
            buffer.grow_to(wanted);
            assert_eq!(buffer.capacity(), capacity, "{wanted}");
        }
        assert_eq!(buffer.write(&[0; 200]), 100);
    }

    #[test]
    fn full_chunks_are_recycled() {
        let mut buffer = SendBuffer::new(8 * CHUNK, 8 * CHUNK);
        let data = vec![0; 4 * CHUNK];
        buffer.write(&data);
        buffer.release_below(Offset::FIRST + 2 * CHUNK as u64);
        assert_eq!(buffer.spare.len(), 2);
        buffer.write(&data[..2 * CHUNK]);
        assert_eq!(buffer.spare.len(), 0);
        buffer.release_below(buffer.end());
        assert!(
            buffer.memory() <= CHUNK,
            "an empty buffer holds one spare chunk at most"
        );
    }

    proptest! {
        #[test]
        fn any_mix_of_writes_and_releases_reads_back(
            ops in proptest::collection::vec((0..4_u8, 0..10_000_usize), 1..60),
        ) {
            let mut buffer = SendBuffer::new(40_000, 40_000);
            let mut model: Vec<u8> = Vec::new();
            let mut una = 0_usize;
            for (op, size) in ops {
                let data: Vec<u8> = (0..size).map(|i| u8::try_from((model.len() + i) % 251).unwrap()).collect();
                match op {
                    0 | 1 => {
                        let n = buffer.write(&data);
                        model.extend_from_slice(&data[..n]);
                    }
                    2 => {
                        let n = buffer.write_chunk(&mut Bytes::from(data.clone()), usize::MAX);
                        model.extend_from_slice(&data[..n]);
                    }
                    _ => {
                        una = (una + size).min(model.len());
                        buffer.release_below(Offset::new(1 + una as u64));
                    }
                }
                buffer.check_invariants();
                prop_assert_eq!(buffer.len(), model.len() - una);
                let middle = usize::midpoint(una, model.len());
                let got = read(&buffer, 1 + middle as u64..1 + model.len() as u64);
                prop_assert_eq!(&got, &model[middle..]);
            }
        }
    }
}
