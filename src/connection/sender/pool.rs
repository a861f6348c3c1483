//! Memory of send buffers that have run empty, for whoever of an endpoint's connections writes next.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

/// Chunks kept, at most: 4 MiB.
const MAX_CHUNKS: usize = 64;

/// Empty chunks of one size. An idle connection holds no memory, and yet one that empties its buffer again and
/// again, because its peer is near, asks nothing of the system.
#[derive(Debug, Default)]
pub struct ChunkPool {
    chunks: Mutex<Vec<BytesMut>>,
}

impl ChunkPool {
    /// Takes the chunk that was put last: it may still be in a cache.
    pub(super) fn take(&self) -> Option<BytesMut> {
        self.with(Vec::pop)
    }

    /// Keeps `chunk`, which nothing else refers to, unless there are enough.
    pub(super) fn put(&self, chunk: BytesMut) {
        let excess = self.with(|chunks| {
            if chunks.len() < MAX_CHUNKS {
                chunks.push(chunk);
                None
            } else {
                Some(chunk)
            }
        });
        drop(excess);
    }

    fn with<R>(&self, f: impl FnOnce(&mut Vec<BytesMut>) -> R) -> R {
        f(&mut self.chunks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
