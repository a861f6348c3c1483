//! One source file on its way: read and hashed piece by piece, straight into data frames.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::progress::Digest;
use super::protocol::{Attributes, MAX_DATA_LEN, begin_data, end_frame};
use super::tree::{Opened, attributes_of_file};

/// How full a buffer gets before it goes out. Small files share one; a large file fills many.
pub(super) const BATCH_LEN: usize = 256 * 1024;

/// The file being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: u64,
    pub(super) shown: Arc<Path>,
    file: File,
    pub(super) size: u64,
    attributes: Attributes,
    pub(super) read: u64,
    hasher: Box<blake3::Hasher>,
}

impl Reading {
    pub(super) fn new(id: u64, shown: Arc<Path>, opened: Opened) -> Self {
        let hasher = Box::default();
        let Opened {
            file,
            size,
            attributes,
        } = opened;
        Self {
            id,
            shown,
            file,
            size,
            attributes,
            read: 0,
            hasher,
        }
    }

    /// The hash of everything read so far.
    pub(super) fn digest(&self) -> Digest {
        Digest::new(self.hasher.finalize().into())
    }

    /// Reads the next piece into a data frame of its own; 0 if the file ended before its size.
    pub(super) fn piece(&mut self, output: &mut Vec<u8>) -> io::Result<u64> {
        let room = BATCH_LEN
            .saturating_sub(output.len())
            .clamp(4096, MAX_DATA_LEN);
        let left = usize::try_from(self.size - self.read).unwrap_or(usize::MAX);
        let start = begin_data(output);
        let data = output.len();
        output.resize(data + room.min(left), 0);
        let mut filled = data;
        let result = loop {
            match self.file.read(output.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break Ok(()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // A frame without data is not allowed: its header goes too.
        output.truncate(if filled == data { start } else { filled });
        let read = output.get(data..).unwrap_or_default();
        self.hasher.update(read);
        let read = u64::try_from(read.len()).unwrap_or(u64::MAX);
        self.read += read;
        if read > 0 {
            end_frame(output, start);
        }
        result.map(|()| read)
    }

    /// Whether the file still has the size and modification time that the offer named.
    pub(super) fn is_unchanged(&self) -> io::Result<bool> {
        let (size, attributes) = attributes_of_file(&self.file)?;
        Ok(size == self.size && attributes == self.attributes)
    }
}
