//! What is placed together: one sync for many small files, then their names, then one sync for those.

use super::partial::Incoming;
use super::storage::Storage;
use super::{Placed, Placer, Rejection, Settled};
use crate::copy::progress::Digest;

/// How many files wait at most: each is an open handle.
const MAX_FILES: usize = 64;

/// How many bytes wait at most: what a kill makes the sender send again.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How many things without a handle wait at most.
const MAX_PLACED: usize = 1024;

/// How many directories wait at most: each is an open handle too.
const MAX_TOUCHED: usize = 32;

/// What waits for the next commit.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Small files, complete under their temporary names.
    files: Vec<Waiting>,
    bytes: u64,
    /// What has its final name, which is not durable yet.
    placed: Vec<(u64, Placed)>,
}

#[derive(Debug)]
struct Waiting {
    token: u64,
    incoming: Incoming,
    root: Digest,
}

impl Group {
    pub(super) fn push_file(&mut self, token: u64, incoming: Incoming, root: Digest) {
        self.bytes = self.bytes.saturating_add(incoming.size);
        self.files.push(Waiting {
            token,
            incoming,
            root,
        });
    }

    pub(super) fn push_placed(&mut self, token: u64, placed: Placed) {
        self.placed.push((token, placed));
    }

    pub(super) fn is_due(&self, touched: usize) -> bool {
        self.files.len() >= MAX_FILES
            || self.bytes >= MAX_BYTES
            || self.placed.len() >= MAX_PLACED
            || touched >= MAX_TOUCHED
    }
}

impl Placer {
    /// Makes everything that waits durable, and tells what became of it.
    ///
    /// A file gets its final name only if its hash, as read back after the sync, is the sender's.
    pub(in crate::copy) fn commit(&mut self) -> Vec<Settled> {
        let Group {
            files,
            bytes: _,
            mut placed,
        } = std::mem::take(&mut self.group);
        let mut settled = Vec::new();
        let handles: Vec<_> = files
            .iter()
            .filter_map(|waiting| waiting.incoming.file.as_deref())
            .collect();
        let synced = self.storage.sync_all(&handles);
        for (waiting, synced) in files.into_iter().zip(synced) {
            let Waiting {
                token,
                mut incoming,
                root,
            } = waiting;
            let result = synced
                .map_err(Rejection::from)
                .and_then(|()| read_back(&self.storage, &incoming, root))
                .and_then(|()| self.give_name(&mut incoming));
            match result {
                Ok(()) => placed.push((token, Placed::File(root))),
                Err(rejection) => settled.push(Settled {
                    token,
                    result: Err(rejection),
                }),
            }
        }
        let synced = self.directories.sync(&self.storage);
        settled.extend(placed.into_iter().map(|(token, placed)| Settled {
            token,
            result: match &synced {
                Ok(()) => Ok(placed),
                Err(error) => Err(std::io::Error::new(error.kind(), error.to_string()).into()),
            },
        }));
        settled
    }
}

/// Reads the file back and compares. It stays open, and so locked, until it has its final name:
/// nobody may take it for a leftover.
fn read_back(storage: &Storage, incoming: &Incoming, root: Digest) -> Result<(), Rejection> {
    let file = incoming.file.as_ref().ok_or(Rejection::Changed)?;
    if storage.hash(file)? == root {
        Ok(())
    } else {
        Err(Rejection::Mismatch)
    }
}
