//! A source file that a session has open: its blocks, through what all sessions share.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_std::fs::Metadata;

use super::block::{Block, BlockHash};
use super::cache::{BlockId, DIGEST, SessionId, cost_of};
use super::holes::may_have_holes;
use super::reader::room_for;
use super::session::Helper;
use super::version::Version;
use super::walk::FileSource;
use super::{ReadError, Shared};
use crate::copy::attributes::attributes_of;
use crate::copy::progress::Digest;
use crate::copy::protocol::Attributes;
use crate::copy::tree_hash::BLOCK_LEN_U64;

/// A source file, open for reading, as it was at that moment.
#[derive(Debug)]
pub(in crate::copy) struct Opened {
    shared: Arc<Shared>,
    session: SessionId,
    helper: Helper,
    file: Arc<OpenFile>,
}

/// The handle, and what the file was when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    handle: File,
    source: FileSource,
    version: Version,
    attributes: Attributes,
    may_have_holes: bool,
    /// The session has let go of it: nothing need be read ahead any more.
    is_closed: AtomicBool,
}

impl OpenFile {
    pub(super) fn new(source: &FileSource, handle: File, metadata: &Metadata) -> Self {
        Self {
            handle,
            source: source.clone(),
            version: Version::of(metadata),
            attributes: attributes_of(metadata),
            may_have_holes: may_have_holes(metadata),
            is_closed: AtomicBool::new(false),
        }
    }

    pub(super) fn handle(&self) -> &File {
        &self.handle
    }

    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    pub(super) fn may_have_holes(&self) -> bool {
        self.may_have_holes
    }

    /// How many blocks the file has; an empty file has an empty one.
    pub(super) fn blocks(&self) -> u64 {
        self.version.size().div_ceil(BLOCK_LEN_U64).max(1)
    }

    /// Where a block begins, and its length; both in bytes.
    pub(super) fn range(&self, index: u64) -> (u64, u64) {
        let offset = index.saturating_mul(BLOCK_LEN_U64);
        let len = self.version.size().saturating_sub(offset);
        (offset, len.min(BLOCK_LEN_U64))
    }

    fn id(&self, index: u64) -> BlockId {
        BlockId {
            path: self.source.path().clone(),
            version: self.version,
            order: self.source.order(),
            index,
        }
    }
}

impl Opened {
    pub(super) fn new(
        shared: Arc<Shared>,
        session: SessionId,
        helper: Helper,
        file: OpenFile,
    ) -> Self {
        Self {
            shared,
            session,
            helper,
            file: Arc::new(file),
        }
    }

    /// Size in bytes.
    pub(in crate::copy) fn size(&self) -> u64 {
        self.file.version.size()
    }

    pub(in crate::copy) fn attributes(&self) -> Attributes {
        self.file.attributes
    }

    /// What a receiver remembers, to tell whether it may go on with what it has of the file.
    pub(in crate::copy) fn tag(&self) -> [u8; 16] {
        self.file.version.tag()
    }

    /// How many blocks there are, at least one.
    pub(in crate::copy) fn blocks(&self) -> u64 {
        self.file.blocks()
    }

    /// Takes the block `index`, counted from 0, and has the next one read ahead.
    ///
    /// Blocks while this or another session reads it, and never for anything else.
    pub(in crate::copy) fn block(&self, index: u64) -> Result<Arc<Block>, ReadError> {
        if index >= self.blocks() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        }
        let id = self.file.id(index);
        let (shared, file) = (&self.shared, &self.file);
        let read = || shared.reader.block(file, index);
        let room = room_for(&id);
        let block = (shared.cache).take(self.session, &id, room, &|| true, read)?;
        if index + 1 < self.blocks() {
            self.read_ahead(index + 1);
        }
        Ok(block)
    }

    fn read_ahead(&self, index: u64) {
        let (shared, file) = (Arc::clone(&self.shared), Arc::clone(&self.file));
        let session = self.session;
        self.helper.run(move || {
            let id = file.id(index);
            let is_open = || !file.is_closed.load(Ordering::Acquire);
            if !is_open() {
                return;
            }
            let read = || shared.reader.block(&file, index);
            let room = room_for(&id);
            shared.cache.read_ahead(session, &id, room, is_open, read);
        });
    }

    /// Computes the file's hash. Reads the whole file once for all sessions, and keeps no content.
    /// `may_go_on` is asked before each block, whichever session reads it; `false` ends it with
    /// `Interrupted`.
    pub(in crate::copy) fn digest(
        &self,
        may_go_on: &dyn Fn() -> bool,
    ) -> Result<Digest, ReadError> {
        let id = self.file.id(DIGEST);
        let (shared, file) = (&self.shared, &self.file);
        loop {
            let read = || {
                let digest = shared.reader.digest(file, may_go_on)?;
                Ok(Block {
                    runs: Vec::new(),
                    hash: BlockHash::Root(digest),
                })
            };
            let room = cost_of(&id, 0);
            // Only if something moves meanwhile: a disk that hangs is to be found.
            let seen = Cell::new(shared.reader.blocks_hashed());
            let while_waiting = || {
                let hashed = shared.reader.blocks_hashed();
                seen.replace(hashed) == hashed || may_go_on()
            };
            let taken = (shared.cache).take(self.session, &id, room, &while_waiting, read);
            match taken {
                Ok(block) => match block.hash() {
                    BlockHash::Root(digest) => return Ok(digest),
                    BlockHash::Cv(cv) => return Ok(Digest::new(cv)),
                },
                // Another session was told to stop, and not this one.
                Err(error) if error.is_interrupted() && may_go_on() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the file is still the version that was opened, and still the one under its name.
    pub(in crate::copy) fn is_unchanged(&self) -> Result<bool, ReadError> {
        if Version::of_file(&self.file.handle)? != self.file.version {
            return Ok(false);
        }
        // Whatever keeps it from being found will be named when it is opened again.
        let found = self.file.source.metadata();
        Ok(found.is_ok_and(|found| Version::of(&found) == self.file.version))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.file.is_closed.store(true, Ordering::Release);
    }
}
