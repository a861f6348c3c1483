//! `SendBuffer`: the bytes that the application wrote and the peer has not yet acknowledged.
//!
//! Written slices are copied once, into chunks of up to 64 KiB whose memory is used again; a `Bytes` handed
//! over by the application is kept as it is. A bulk run of segments refers to the bytes where they lie
//! ([`share`](SendBuffer::share)); small runs are copied out, at any offset, so a retransmission needs no
//! memory of its own.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::connection::Offset;
use crate::connection::on_demand::{Blank, OnDemand};

/// Largest chunk for copied bytes.
const CHUNK: usize = 64 * 1024;
/// Smallest chunk.
const MIN_CHUNK: usize = 256;
/// Chunks kept to be used again, at most.
const MAX_SPARE: usize = 64;
/// Below this a `Bytes` is copied: it may pin a much larger allocation.
const SHARE_FROM: usize = 2 * 1024;

/// Bytes written and not yet acknowledged, addressed by stream offset.
///
/// Invariants:
/// - chunks are contiguous: each begins where the one before it ends; the tail follows the last, up to `end`;
/// - no chunk is empty, and the first one reaches beyond `start`;
/// - `end - start` never exceeds `capacity`, which never shrinks;
/// - `shared` is the sum over the application's own chunks, `copied` over `used`.
#[derive(Debug)]
pub struct SendBuffer {
    /// What does not fit one small chunk.
    bulk: OnDemand<Bulk>,
    /// The newest bytes, in a chunk that has room for more.
    tail: BytesMut,
    /// Capacity of the tail's whole chunk, of which the front may be among `chunks`.
    tail_memory: usize,
    /// Oldest byte held: everything below is acknowledged.
    start: Offset,
    /// One past the newest byte.
    end: Offset,
    capacity: usize,
    /// What `capacity` may grow to.
    max_capacity: usize,
}

/// The chunks beside the tail; nothing is left of them once all is acknowledged.
#[derive(Debug)]
struct Bulk {
    /// What is not written to any more.
    chunks: VecDeque<Chunk>,
    /// Full chunks, oldest first: their memory is used again once nothing refers to it.
    used: VecDeque<Used>,
    /// Memory to be used next, the newest first: that may still be in a cache.
    spare: Vec<BytesMut>,
    /// Bytes of the application's own chunks.
    shared: usize,
    /// Bytes of memory of the full chunks.
    copied: usize,
}

impl Bulk {
    const EMPTY: Self = Self {
        chunks: VecDeque::new(),
        used: VecDeque::new(),
        spare: Vec::new(),
        shared: 0,
        copied: 0,
    };

    /// Forgets everything below `start`, which was acknowledged.
    fn release_below(&mut self, start: Offset) {
        while let Some(chunk) = self.chunks.front()
            && chunk.end() <= start
        {
            if chunk.is_shared {
                self.shared -= chunk.data.len();
            }
            self.chunks.pop_front();
        }
        self.recycle(start);
    }

    /// Takes back the memory of full chunks that are acknowledged and no longer on their way out; what is read
    /// by somebody still is left to them.
    fn recycle(&mut self, start: Offset) {
        while let Some(oldest) = self.used.front()
            && oldest.end <= start
            && let Some(mut oldest) = self.used.pop_front()
        {
            self.copied -= oldest.capacity;
            let is_wanted = oldest.capacity == CHUNK && self.spare.len() < MAX_SPARE;
            if is_wanted && oldest.memory.try_reclaim(CHUNK) {
                self.spare.push(oldest.memory);
            }
        }
    }
}

impl Blank for Bulk {
    fn new() -> Self {
        Self::EMPTY
    }

    fn blank() -> &'static Self {
        static BLANK: Bulk = Bulk::EMPTY;
        &BLANK
    }
}

#[derive(Debug)]
struct Chunk {
    start: Offset,
    data: Bytes,
    /// Whether it is the application's own and not a part of a chunk of ours.
    is_shared: bool,
}

/// A full chunk of ours.
#[derive(Debug)]
struct Used {
    /// Without bytes of its own; keeps hold of the memory.
    memory: BytesMut,
    capacity: usize,
    /// One past its newest byte.
    end: Offset,
}

impl Chunk {
    fn end(&self) -> Offset {
        self.start + self.data.len() as u64
    }
}

impl SendBuffer {
    /// Makes an empty buffer for at most `capacity` bytes, which may grow to `max_capacity`; its first byte
    /// has offset 1.
    pub fn new(capacity: usize, max_capacity: usize) -> Self {
        Self {
            bulk: OnDemand::new(),
            tail: BytesMut::new(),
            tail_memory: 0,
            start: Offset::FIRST,
            end: Offset::FIRST,
            capacity,
            max_capacity,
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

    /// Returns the bytes of memory held, chunks that wait to be used again included.
    pub fn memory(&self) -> usize {
        self.bulk.shared + self.bulk.copied + self.tail_memory + self.bulk.spare.len() * CHUNK
    }

    /// Copies a prefix of `data` in, as much as there is room for, and returns its length.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(self.room());
        let mut rest = &data[..taken];
        while !rest.is_empty() {
            let room = self.tail.capacity() - self.tail.len();
            if room == 0 {
                self.renew_tail(rest.len());
                continue;
            }
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.tail.extend_from_slice(now);
            self.end += now.len() as u64;
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
        self.seal_tail();
        self.bulk.chunks.push_back(Chunk {
            start: self.end,
            data: data.split_to(taken),
            is_shared: true,
        });
        self.bulk.shared += taken;
        self.end += taken as u64;
        taken
    }

    /// Copies the bytes of `range` into `out`, which has the range's length.
    ///
    /// Bytes outside the buffer are left as they are; callers ask only for what they know is held.
    pub fn copy_to(&self, range: &Range<Offset>, out: &mut [u8]) {
        debug_assert!(self.start <= range.start && range.end <= self.end);
        let mut out = out;
        for source in self.slices(range) {
            let len = source.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&source[..len]);
            out = later;
        }
        debug_assert!(out.is_empty());
    }

    /// Appends the bytes of `range` to `pieces` in order, by reference. What they refer to stays as it is
    /// for as long as they live, whatever becomes of the buffer.
    pub fn share(&mut self, range: &Range<Offset>, pieces: &mut Vec<Bytes>) {
        debug_assert!(self.start <= range.start && range.end <= self.end);
        if range.end > self.tail_start() {
            self.seal_tail();
        }
        for chunk in self.bulk.chunks.range(self.first_chunk(range.start)..) {
            let from = distance(chunk.start, range.start);
            let to = distance(chunk.start, range.end).min(chunk.data.len());
            if from >= to {
                break;
            }
            pieces.push(chunk.data.slice(from..to));
        }
    }

    /// Forgets everything below `una`, which was acknowledged.
    pub fn release_below(&mut self, una: Offset) {
        self.start = self.start.max(una.min(self.end));
        if let Some(bulk) = self.bulk.existing() {
            bulk.release_below(self.start);
        }
        if self.start == self.end {
            self.release_memory();
        }
    }

    /// Drops all data and memory; the offsets stay.
    pub fn clear(&mut self) {
        let end = self.end;
        *self = Self {
            start: end,
            end,
            ..Self::new(self.capacity, self.max_capacity)
        };
    }

    /// Nothing is held: keeps no memory.
    fn release_memory(&mut self) {
        self.bulk.release();
        self.tail = BytesMut::new();
        self.tail_memory = 0;
    }

    /// The stretches of memory that hold `range`, in order.
    fn slices(&self, range: &Range<Offset>) -> impl Iterator<Item = &[u8]> {
        let range = range.clone();
        let chunks = self.bulk.chunks.range(self.first_chunk(range.start)..);
        chunks
            .map(|chunk| (chunk.start, &chunk.data[..]))
            .chain([(self.tail_start(), &self.tail[..])])
            .filter_map(move |(start, data)| {
                let to = distance(start, range.end).min(data.len());
                data.get(distance(start, range.start)..to)
            })
            .filter(|slice| !slice.is_empty())
    }

    fn tail_start(&self) -> Offset {
        self.end.saturating_back(self.tail.len() as u64)
    }

    /// Index of the first chunk that reaches beyond `at`.
    fn first_chunk(&self, at: Offset) -> usize {
        self.bulk.chunks.partition_point(|chunk| chunk.end() <= at)
    }

    /// Turns the tail's bytes into a chunk; what follows goes to the rest of its memory.
    fn seal_tail(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        let start = self.tail_start();
        if self.end > self.start {
            self.bulk.chunks.push_back(Chunk {
                start,
                data: self.tail.split().freeze(),
                is_shared: false,
            });
        }
    }

    /// Gives the full tail away and begins a new one for `wanted` bytes and more.
    fn renew_tail(&mut self, wanted: usize) {
        self.seal_tail();
        if self.tail_memory > 0 {
            self.bulk.copied += self.tail_memory;
            self.bulk.used.push_back(Used {
                memory: std::mem::take(&mut self.tail),
                capacity: self.tail_memory,
                end: self.end,
            });
        }
        let size = wanted
            .saturating_add(self.len())
            .clamp(MIN_CHUNK, CHUNK)
            .next_power_of_two();
        let spare = self.bulk.existing().and_then(|bulk| bulk.spare.pop());
        let recycled = spare.filter(|_| size == CHUNK);
        self.tail = recycled.unwrap_or_else(|| BytesMut::with_capacity(size));
        self.tail_memory = self.tail.capacity();
    }

    /// Panics if an invariant of the struct does not hold.
    #[cfg(any(test, fuzzing, feature = "__internals"))]
    pub fn check_invariants(&self) {
        let tail_start = self.tail_start();
        let mut at = self
            .bulk
            .chunks
            .front()
            .map_or(tail_start, |chunk| chunk.start);
        assert!(
            at <= self.start,
            "the first chunk begins after the oldest byte"
        );
        for chunk in &self.bulk.chunks {
            assert_eq!(chunk.start, at, "a gap between chunks");
            assert!(chunk.end() > chunk.start, "an empty chunk");
            at = chunk.end();
        }
        assert_eq!(at, tail_start, "the last chunk ends elsewhere");
        assert!(self.len() <= self.capacity, "more bytes than the capacity");
        let shared = self.bulk.chunks.iter().filter(|chunk| chunk.is_shared);
        let shared: usize = shared.map(|chunk| chunk.data.len()).sum();
        assert_eq!(self.bulk.shared, shared, "shared");
        let copied: usize = self.bulk.used.iter().map(|used| used.capacity).sum();
        assert_eq!(self.bulk.copied, copied, "copied");
        assert!(
            self.tail.capacity() <= self.tail_memory,
            "the tail's memory"
        );
        if let Some(first) = self.bulk.chunks.front() {
            assert!(first.end() > self.start, "an acknowledged chunk is kept");
        }
        if self.len() == 0 {
            assert_eq!(self.memory(), 0, "an empty buffer holds memory");
        }
    }
}

/// How far `to` lies behind `from`, 0 if it lies before.
fn distance(from: Offset, to: Offset) -> usize {
    usize::try_from(to.saturating_since(from)).unwrap_or(usize::MAX)
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
        assert_eq!(
            (buffer.bulk.chunks.len(), buffer.bulk.chunks[0].is_shared),
            (1, true)
        );
        assert_eq!(&buffer.tail[..], b"abc");
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

    /// Addresses of the chunks that hold everything.
    fn places(buffer: &mut SendBuffer) -> Vec<*const u8> {
        let mut pieces = Vec::new();
        buffer.share(&(buffer.start..buffer.end), &mut pieces);
        pieces.iter().map(|piece| piece.as_ptr()).collect()
    }

    #[test]
    fn memory_is_used_again_once_it_is_acknowledged_and_nobody_reads_it() {
        let mut buffer = SendBuffer::new(8 * CHUNK, 8 * CHUNK);
        let data = vec![0; 4 * CHUNK];
        buffer.write(&data);
        let before = places(&mut buffer);
        let mut departing = Vec::new();
        let second = Offset::FIRST + CHUNK as u64;
        buffer.share(&(second..second + CHUNK as u64), &mut departing);
        buffer.release_below(Offset::FIRST + 2 * CHUNK as u64);
        // The second is still on its way, and left to who sends it.
        assert_eq!(buffer.memory(), 3 * CHUNK);
        buffer.write(&data[..2 * CHUNK]);
        let after = places(&mut buffer);
        assert_eq!(after[2], before[0], "the first chunk's memory");
        assert_ne!(after[3], before[1]);
        assert_eq!(departing[0], data[..CHUNK]);
        buffer.release_below(buffer.end());
        assert!(buffer.memory() <= MIN_CHUNK, "nothing is held for nothing");
        buffer.check_invariants();
    }

    #[test]
    fn what_is_small_takes_one_chunk_until_it_is_acknowledged() {
        let mut buffer = SendBuffer::new(CHUNK, CHUNK);
        for round in 0..100_u8 {
            buffer.write(&[round; 64]);
            buffer.write(&[round; 64]);
            assert_eq!(buffer.memory(), MIN_CHUNK);
            assert!(buffer.bulk.existing().is_none());
            buffer.release_below(buffer.end());
            buffer.check_invariants();
        }
    }

    #[test]
    fn what_is_shared_outlives_the_buffer_and_the_tail_goes_on_behind_it() {
        let mut buffer = SendBuffer::new(CHUNK, CHUNK);
        buffer.write(&[1; 5_000]);
        let mut pieces = Vec::new();
        buffer.share(&(Offset::new(1)..Offset::new(4_001)), &mut pieces);
        buffer.write(&[2; 1_000]);
        buffer.check_invariants();
        assert_eq!(read(&buffer, 5_000..5_003), [1, 2, 2]);
        buffer.clear();
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), 4_000);
        assert!(pieces.iter().flatten().all(|&byte| byte == 1));
    }

    proptest! {
        #[test]
        fn any_mix_of_writes_and_releases_reads_back(
            ops in proptest::collection::vec((0..4_u8, 0..10_000_usize, any::<bool>()), 1..60),
        ) {
            let mut buffer = SendBuffer::new(40_000, 40_000);
            let mut model: Vec<u8> = Vec::new();
            let mut una = 0_usize;
            for (op, size, share) in ops {
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
                if share {
                    let mut pieces = Vec::new();
                    let range = Offset::new(1 + una as u64)..Offset::new(1 + middle as u64);
                    buffer.share(&range, &mut pieces);
                    prop_assert_eq!(&pieces.concat(), &model[una..middle]);
                    buffer.check_invariants();
                }
            }
        }
    }
}
