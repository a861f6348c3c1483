//! Which state of a file is meant: what has to stay as it is for its bytes to be one content.

use std::fs::File;
use std::io;

use cap_std::fs::Metadata;

use crate::copy::attributes::split_time;

/// A state of a source file. Writing to the file, and putting another in its place, makes another.
///
/// Systems that do not tell device, inode and time of change have zeros there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::copy) struct Version {
    size: u64,
    modified: (i64, u32),
    /// When content or attributes changed last: nobody can set it back.
    changed: (i64, i64),
    device: u64,
    inode: u64,
}

impl Version {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata
            .modified()
            .map_or((0, 0), |time| split_time(time.into_std()));
        #[cfg(unix)]
        let (changed, device, inode) = {
            use cap_std::fs::MetadataExt;
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            (changed, metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let (changed, device, inode) = ((0, 0), 0, 0);
        Self {
            size: metadata.len(),
            modified,
            changed,
            device,
            inode,
        }
    }

    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        Metadata::from_file(file).map(|metadata| Self::of(&metadata))
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What a receiver remembers of the version, to tell whether it may go on where it was.
    pub(super) fn tag(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.device.to_be_bytes());
        hasher.update(&self.inode.to_be_bytes());
        hasher.update(&self.changed.0.to_be_bytes());
        hasher.update(&self.changed.1.to_be_bytes());
        hasher.update(&self.modified.0.to_be_bytes());
        hasher.update(&self.modified.1.to_be_bytes());
        hasher.update(&self.size.to_be_bytes());
        let mut tag = [0; 16];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }
}
