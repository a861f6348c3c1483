//! Receive buffers: lent to the readers as slices, copied where a slice would pin too much, and used again as soon
//! as the last slice is gone, so that a steady stream allocates no buffer.
//!
//! How many are kept follows what the latest turns have needed, so that an endpoint gives back what a burst took:
//! one that has only seen handshakes holds two buffers.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};

use super::transport::{RecvBuffer, RecvMeta};

/// A receive buffer holds the largest datagram and the largest run that GRO makes.
const BUFFER_LEN: usize = 65_536;
/// Buffers of one receive at most. A full batch doubles them.
const MAX_BATCH: usize = 32;
/// Buffers of one receive at least: the second one left empty tells that nothing more waits.
const MIN_BATCH: usize = 2;
/// Buffers kept beside those at most.
const MAX_SPARE: usize = 64;
/// A buffer without which that many receives have managed is given back.
const PATIENCE: usize = 16;
/// Payloads up to this size are copied out by the receiver in any case, so that what they arrived in is free again
/// after the turn.
const SMALL_DATAGRAM: usize = 512;
/// Trains below this size are copied: a slice of one must not pin a whole buffer.
const SMALL_TRAIN: usize = BUFFER_LEN / 4;
/// Size of the memory that small datagrams of one turn share, and how little of it is left when it is used from its
/// start again.
const SCRATCH: usize = 8 * 1024;
const SCRATCH_LEFT: usize = SCRATCH / 2;

/// The buffers of one endpoint.
///
/// Invariants, between calls: at most [`MAX_BATCH`] are ready and [`MAX_SPARE`] spare; each of them is [`BUFFER_LEN`]
/// long, but for ready ones that were lent since, which are empty.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// What the next receive fills.
    ready: Vec<RecvBuffer>,
    spare: Arc<Spare>,
    /// What small datagrams are copied to.
    scratch: BytesMut,
    /// Whether the latest receive filled all that were ready.
    was_full: bool,
    /// Buffers in use together of late, times [`PATIENCE`]: rises at once, falls by one per receive.
    needed: usize,
}

/// Buffers that nobody holds a slice of any more.
#[derive(Debug, Default)]
struct Spare {
    stock: Mutex<Stock>,
}

#[derive(Debug, Default)]
struct Stock {
    buffers: Vec<Vec<u8>>,
    /// How many are kept.
    limit: usize,
}

/// A buffer on loan; goes back with the last slice of it, or to the allocator if its endpoint is no more.
#[derive(Debug)]
struct Lent {
    storage: Vec<u8>,
    home: Weak<Spare>,
}

impl Buffers {
    /// Returns the buffers to receive into.
    pub(super) fn free(&mut self) -> &mut [RecvBuffer] {
        let len = if self.was_full {
            (self.ready.len() * 2).min(MAX_BATCH)
        } else {
            self.ready.len()
        };
        self.was_full = false;
        for buffer in &mut self.ready {
            if buffer.storage_mut().is_empty() {
                *buffer = self.spare.take();
            }
        }
        let spare = &self.spare;
        self.ready.resize_with(len.max(MIN_BATCH), || spare.take());
        &mut self.ready
    }

    /// Moves what the first `count` buffers received to `batch`, as slices or copies.
    pub(super) fn take(&mut self, count: usize, batch: &mut Vec<(Bytes, RecvMeta)>) {
        self.was_full = count >= self.ready.len();
        if self.scratch.capacity() < SCRATCH_LEFT {
            // Nobody holds a slice of it between two turns: this allocates nothing but the first time.
            self.scratch.reserve(SCRATCH);
        }
        for buffer in self.ready.iter_mut().take(count) {
            let Some((bytes, meta)) = buffer.received() else {
                continue;
            };
            if bytes.len() >= SMALL_TRAIN {
                let empty = RecvBuffer::from_storage(Vec::new());
                let lent = Lent {
                    storage: mem::replace(buffer, empty).into_storage(),
                    home: Arc::downgrade(&self.spare),
                };
                let mut train = Bytes::from_owner(lent);
                train.truncate(meta.len);
                batch.push((train, meta));
            } else if meta.stride > SMALL_DATAGRAM || meta.stride == 0 && meta.len > SMALL_DATAGRAM
            {
                batch.push((Bytes::copy_from_slice(bytes), meta));
                buffer.clear();
            } else {
                self.scratch.extend_from_slice(bytes);
                batch.push((self.scratch.split().freeze(), meta));
                buffer.clear();
            }
        }
        let in_use = count + Arc::weak_count(&self.spare);
        let in_use = in_use.min(MAX_BATCH + MAX_SPARE);
        self.needed = (self.needed.saturating_sub(1)).max(in_use * PATIENCE);
    }

    /// Gives back what the latest turns had no need of; to be called when the batch was dropped.
    pub(super) fn refill(&mut self) {
        let needed = self.needed.div_ceil(PATIENCE);
        self.spare.keep(needed.min(MAX_SPARE));
        for mut buffer in self
            .ready
            .drain(needed.max(MIN_BATCH).min(self.ready.len())..)
        {
            if !buffer.storage_mut().is_empty() {
                self.spare.put(buffer.into_storage());
            }
        }
    }
}

impl Spare {
    fn take(&self) -> RecvBuffer {
        match self.lock(|stock| stock.buffers.pop()) {
            Some(storage) => RecvBuffer::from_storage(storage),
            None => RecvBuffer::new(BUFFER_LEN),
        }
    }

    fn put(&self, storage: Vec<u8>) {
        let excess = self.lock(|stock| {
            if stock.buffers.len() < stock.limit {
                stock.buffers.push(storage);
                None
            } else {
                Some(storage)
            }
        });
        drop(excess);
    }

    fn keep(&self, limit: usize) {
        self.lock(|stock| {
            stock.limit = limit;
            stock.buffers.truncate(limit);
        });
    }

    fn lock<R>(&self, f: impl FnOnce(&mut Stock) -> R) -> R {
        f(&mut self.stock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.storage
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.put(mem::take(&mut self.storage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives trains of `len` bytes into the first `count` buffers and returns the slices with the buffers'
    /// addresses.
    fn receive(
        buffers: &mut Buffers,
        count: usize,
        len: usize,
        stride: usize,
    ) -> Vec<(Bytes, *const u8)> {
        let mut addresses = Vec::new();
        for buffer in buffers.free().iter_mut().take(count) {
            addresses.push(buffer.storage_mut().as_ptr());
            buffer.storage_mut()[..len].fill(7);
            let mut meta = RecvMeta::new("127.0.0.1:1".parse().unwrap(), len);
            meta.stride = stride;
            buffer.fill(meta);
        }
        let mut batch = Vec::new();
        buffers.take(addresses.len(), &mut batch);
        let trains = batch.into_iter().map(|(bytes, _)| bytes);
        trains.zip(addresses).collect()
    }

    fn spare(buffers: &Buffers) -> usize {
        buffers.spare.lock(|stock| stock.buffers.len())
    }

    /// Bytes that the endpoint holds and nobody reads.
    fn held(buffers: &mut Buffers) -> usize {
        let ready: usize = buffers
            .ready
            .iter_mut()
            .map(|buffer| buffer.storage_mut().len())
            .sum();
        ready + spare(buffers) * BUFFER_LEN + buffers.scratch.capacity()
    }

    #[test]
    fn a_large_train_is_lent_and_its_buffer_is_used_again_when_it_is_dropped() {
        let mut buffers = Buffers::default();
        let mut received = receive(&mut buffers, 1, 60_000, 1_200);
        let (train, address) = received.remove(0);
        assert_eq!(
            (train.len(), train.as_ptr()),
            (60_000, address),
            "not copied"
        );
        buffers.refill();
        let part = train.slice(1_200..2_400);
        drop(train);
        assert_eq!(spare(&buffers), 0, "a slice is held");
        drop(part);
        assert_eq!(spare(&buffers), 1);
        let (_, again) = receive(&mut buffers, 1, 60_000, 1_200).remove(0);
        assert_eq!(again, address, "the same memory");
        assert_eq!(buffers.free()[0].storage_mut().len(), BUFFER_LEN);
    }

    #[test]
    fn a_small_train_pins_only_its_own_bytes() {
        let mut buffers = Buffers::default();
        let (train, address) = receive(&mut buffers, 1, 2_400, 1_200).remove(0);
        assert_ne!(train.as_ptr(), address);
        assert_eq!(&train[..], &[7; 2_400]);
        assert_eq!(buffers.free()[0].storage_mut().as_ptr(), address);
    }

    #[test]
    fn a_datagram_pins_only_its_own_bytes_however_its_transport_says_that_it_is_one() {
        for stride in [0, 1_200] {
            let mut buffers = Buffers::default();
            let (datagram, _) = receive(&mut buffers, 1, 1_200, stride).remove(0);
            assert_eq!(&datagram[..], &[7; 1_200]);
            assert_eq!(buffers.scratch.capacity(), SCRATCH, "stride {stride}");
        }
    }

    #[test]
    fn acknowledgments_share_memory_that_is_used_again() {
        let mut buffers = Buffers::default();
        let mut chunks = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            for (datagram, _) in receive(&mut buffers, 32, 52, 52) {
                assert_eq!(&datagram[..], &[7; 52]);
                chunks.insert(datagram.as_ptr() as usize / (2 * SCRATCH));
            }
            buffers.refill();
        }
        assert!(chunks.len() <= 2, "{chunks:?}");
    }

    #[test]
    fn full_batches_grow() {
        let mut buffers = Buffers::default();
        for expected in [2, 4, 8, 16, 32, 32] {
            assert_eq!(receive(&mut buffers, 99, 52, 52).len(), expected);
            buffers.refill();
        }
    }

    #[test]
    fn a_steady_stream_with_a_slow_reader_allocates_no_buffer() {
        let mut buffers = Buffers::default();
        let mut reader = std::collections::VecDeque::new();
        let mut addresses = std::collections::BTreeSet::new();
        for round in 0..1_000 {
            let received = receive(&mut buffers, 2, 60_000, 1_200);
            buffers.refill();
            for (train, address) in received {
                reader.push_back(train);
                if round > 100 {
                    addresses.insert(address as usize);
                }
            }
            // Reads eight at a time once twenty wait.
            if reader.len() >= 20 {
                reader.drain(..8);
            }
        }
        assert!(addresses.len() <= 30, "{}", addresses.len());
    }

    #[test]
    fn what_a_full_batch_made_room_for_is_kept_in_stock() {
        let mut buffers = Buffers::default();
        for round in 0..10 {
            // All four that are ready, so that the next receive has eight, of which one is filled.
            while receive(&mut buffers, 4, 52, 52).len() < 4 {
                buffers.refill();
            }
            buffers.refill();
            assert_eq!(receive(&mut buffers, 1, 52, 52).len(), 1);
            buffers.refill();
            assert!(held(&mut buffers) >= 8 * BUFFER_LEN, "{round}");
        }
    }

    #[test]
    fn what_a_burst_took_is_given_back() {
        let mut buffers = Buffers::default();
        assert_eq!(receive(&mut buffers, 1, 52, 52).len(), 1);
        buffers.refill();
        let least = MIN_BATCH * BUFFER_LEN + SCRATCH;
        assert!(held(&mut buffers) <= least, "before it");
        let mut reader = Vec::new();
        for _ in 0..10 {
            reader.extend(receive(&mut buffers, 99, BUFFER_LEN, 1_200));
            buffers.refill();
        }
        assert!(reader.len() > 100);
        drop(reader);
        assert!(held(&mut buffers) <= (MAX_BATCH + MAX_SPARE) * BUFFER_LEN + SCRATCH);
        for _ in 0..(MAX_BATCH + MAX_SPARE) * PATIENCE {
            receive(&mut buffers, 1, 52, 52);
            buffers.refill();
        }
        assert!(held(&mut buffers) <= least + BUFFER_LEN, "after it");
    }

    #[test]
    fn a_slice_outlives_its_endpoint() {
        let mut buffers = Buffers::default();
        let (train, _) = receive(&mut buffers, 1, 60_000, 1_200).remove(0);
        drop(buffers);
        assert!(train.iter().all(|&byte| byte == 7));
    }
}
