//! Receive buffers: lent to the readers as slices, copied where a slice would pin too much, and taken
//! back when nobody holds a slice any more, so that a steady stream allocates nothing.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::transport::{RecvBuffer, RecvMeta};

/// A receive buffer holds the largest datagram and the largest run that GRO makes.
const BUFFER_LEN: usize = 65_536;
/// Buffers of the first receive. A full batch doubles them.
const INITIAL_BATCH: usize = 4;
/// Buffers of one receive at most.
const MAX_BATCH: usize = 32;
/// Payloads up to this size are copied out by the receiver in any case, so that the buffer is free
/// again after the turn.
const SMALL_DATAGRAM: usize = 512;
/// Trains below this size are copied: a slice of one must not pin a whole buffer.
const SMALL_TRAIN: usize = BUFFER_LEN / 4;
/// Buffers that readers still hold slices of and that are taken back when they are done.
const MAX_LENT: usize = 16;

/// The buffers of one endpoint.
///
/// Invariants, between calls: at most [`MAX_BATCH`] are free and at most [`MAX_LENT`] on loan; every
/// free one is [`BUFFER_LEN`] long.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Vec<RecvBuffer>,
    /// On loan to readers, oldest first.
    lent: VecDeque<Bytes>,
    /// Whether the latest receive filled them all.
    was_full: bool,
}

impl Buffers {
    /// Returns the buffers to receive into.
    pub(super) fn free(&mut self) -> &mut [RecvBuffer] {
        let len = if self.was_full {
            (self.free.len() * 2).clamp(INITIAL_BATCH, MAX_BATCH)
        } else {
            self.free.len().max(INITIAL_BATCH)
        };
        self.was_full = false;
        self.free.resize_with(len, || RecvBuffer::new(BUFFER_LEN));
        &mut self.free
    }

    /// Moves what the first `count` buffers received to `batch`, as slices or copies.
    pub(super) fn take(&mut self, count: usize, batch: &mut Vec<(Bytes, RecvMeta)>) {
        self.was_full = count >= self.free.len();
        for buffer in self.free.iter_mut().take(count) {
            let Some((bytes, meta)) = buffer.received() else {
                continue;
            };
            if bytes.len() < SMALL_TRAIN && meta.stride > SMALL_DATAGRAM {
                batch.push((Bytes::copy_from_slice(bytes), meta));
                continue;
            }
            let empty = RecvBuffer::from_storage(BytesMut::new());
            let whole = std::mem::replace(buffer, empty).into_storage().freeze();
            batch.push((whole.slice(..meta.len), meta));
            self.lent.push_back(whole);
        }
    }

    /// Takes back the buffers that nobody holds a slice of; to be called when the batch was dropped.
    pub(super) fn refill(&mut self) {
        self.free
            .retain_mut(|buffer| !buffer.storage_mut().is_empty());
        for _ in 0..self.lent.len() {
            let Some(whole) = self.lent.pop_front() else {
                break;
            };
            match whole.try_into_mut() {
                Ok(storage) if self.free.len() < MAX_BATCH => {
                    self.free.push(RecvBuffer::from_storage(storage));
                }
                Ok(_) => {}
                Err(whole) => self.lent.push_back(whole),
            }
        }
        // Those who hold slices keep the memory of what is forgotten here.
        let excess = self.lent.len().saturating_sub(MAX_LENT);
        self.lent.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives one train into the first buffer and returns the slice with the buffer's address.
    fn receive(buffers: &mut Buffers, len: usize, stride: usize) -> (Bytes, *const u8) {
        let buffer = &mut buffers.free()[0];
        let address = buffer.storage_mut().as_ptr();
        buffer.storage_mut()[..len].fill(7);
        let mut meta = RecvMeta::new("127.0.0.1:1".parse().unwrap(), len);
        meta.stride = stride;
        buffer.fill(meta);
        let mut batch = Vec::new();
        buffers.take(1, &mut batch);
        (batch.remove(0).0, address)
    }

    #[test]
    fn a_large_train_is_lent_and_its_buffer_comes_back_when_it_is_dropped() {
        let mut buffers = Buffers::default();
        let (train, address) = receive(&mut buffers, 60_000, 1_200);
        assert_eq!(
            (train.len(), train.as_ptr()),
            (60_000, address),
            "not copied"
        );
        buffers.refill();
        assert_eq!(
            (buffers.free.len(), buffers.lent.len()),
            (INITIAL_BATCH - 1, 1)
        );
        drop(train);
        buffers.refill();
        assert_eq!((buffers.free.len(), buffers.lent.len()), (INITIAL_BATCH, 0));
        let addresses = buffers
            .free()
            .iter_mut()
            .map(|buffer| buffer.storage_mut().as_ptr());
        assert!(
            addresses.collect::<Vec<_>>().contains(&address),
            "the same memory"
        );
        assert!(
            buffers
                .free()
                .iter_mut()
                .all(|buffer| buffer.storage_mut().len() == BUFFER_LEN)
        );
    }

    #[test]
    fn a_small_train_pins_only_its_own_bytes() {
        let mut buffers = Buffers::default();
        let (train, address) = receive(&mut buffers, 2_400, 1_200);
        assert_ne!(train.as_ptr(), address);
        assert_eq!(&train[..], &[7; 2_400]);
        assert!(buffers.lent.is_empty());
    }

    #[test]
    fn acknowledgments_are_not_copied() {
        let mut buffers = Buffers::default();
        let (train, address) = receive(&mut buffers, 52, 52);
        assert_eq!(train.as_ptr(), address);
    }

    #[test]
    fn full_batches_grow_and_held_slices_do_not_hold_the_pool() {
        let mut buffers = Buffers::default();
        let mut held = Vec::new();
        for _ in 0..100 {
            let count = buffers.free().len();
            for buffer in buffers.free() {
                buffer.fill(RecvMeta::new("127.0.0.1:1".parse().unwrap(), BUFFER_LEN));
            }
            buffers.take(count, &mut held);
            buffers.refill();
            held.truncate(200);
            assert!(buffers.lent.len() <= MAX_LENT);
        }
        drop(held);
        buffers.refill();
        assert!(buffers.free.len() <= MAX_BATCH);
        assert!(buffers.lent.is_empty());
    }
}
