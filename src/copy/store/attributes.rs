//! Mode and modification time of what is placed.

use std::fs::{File, FileTimes};
use std::io;

use cap_std::fs::{Dir, Metadata};

use crate::copy::attributes::{attributes_of, join_time};
use crate::copy::protocol::Attributes;

/// The set-user-id and set-group-id bits are left out: a peer that may write files here does not
/// thereby get to say as whom they run.
const MODE_MASK: u32 = 0o1777;

/// Gives a file or directory its mode and modification time.
pub(super) fn apply(file: &File, attributes: &Attributes) -> io::Result<()> {
    apply_mode(file, attributes)?;
    let mtime = join_time(attributes.mtime_secs, attributes.mtime_nanos).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "modification time out of range")
    })?;
    file.set_times(FileTimes::new().set_modified(mtime))
}

/// Gives a file or directory its mode.
pub(super) fn apply_mode(file: &File, attributes: &Attributes) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(attributes.mode & MODE_MASK))
    }
    #[cfg(not(unix))]
    {
        let _ = (file, attributes, MODE_MASK);
        Ok(())
    }
}

/// Returns whether the modification times are the same to the nanosecond.
pub(super) fn has_mtime(existing: &Metadata, attributes: &Attributes) -> bool {
    let existing = attributes_of(existing);
    (existing.mtime_secs, existing.mtime_nanos) == (attributes.mtime_secs, attributes.mtime_nanos)
}

/// Returns whether [`apply_mode`] would change nothing.
pub(super) fn has_mode(existing: &Metadata, attributes: &Attributes) -> bool {
    !cfg!(unix) || attributes_of(existing).mode == attributes.mode & MODE_MASK
}

/// A [`Dir`] is a handle for lookups only; attributes and sync need one that was opened for reading.
pub(super) fn directory_file(dir: &Dir) -> io::Result<File> {
    #[cfg(unix)]
    {
        Ok(dir.open(".")?.into_std())
    }
    #[cfg(not(unix))]
    {
        Ok(dir.try_clone()?.into_std_file())
    }
}
