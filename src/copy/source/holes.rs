//! Where a file holds bytes, and where only zeros that the file system does not store.

use std::fs::File;

use cap_std::fs::Metadata;

/// Shorter holes are read as the zeros that they are: below this, telling costs more than it saves.
pub(super) const MIN_HOLE_LEN: u64 = 64 * 1024;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// So many bytes to be read.
    Data(u64),
    /// So many zeros.
    Hole(u64),
}

/// Whether the file system stores less than the file's size, so that asking for holes is worth it.
pub(super) fn may_have_holes(metadata: &Metadata) -> bool {
    #[cfg(unix)]
    {
        /// What `st_blocks` counts, whatever the file system's own blocks are.
        const UNIT: u64 = 512;
        let stored = cap_std::fs::MetadataExt::blocks(metadata).saturating_mul(UNIT);
        stored < metadata.len() && metadata.len() >= MIN_HOLE_LEN
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        false
    }
}

/// Tells the extents of `len` bytes from `offset`, all within the file. Where the system does not
/// say, all is data.
pub(super) fn extents(file: &File, offset: u64, len: u64) -> Vec<Extent> {
    let mut extents = Vec::new();
    let end = offset.saturating_add(len);
    let mut at = offset;
    while at < end {
        let data = next_data(file, at).unwrap_or(at).clamp(at, end);
        let is_hole = data - at >= MIN_HOLE_LEN;
        let next = if is_hole {
            data
        } else {
            // At least one byte, so that this ends whatever the system says.
            let hole = next_hole(file, data).unwrap_or(end);
            hole.clamp(at.saturating_add(1), end)
        };
        let part = next - at;
        match extents.last_mut() {
            Some(Extent::Data(len)) if !is_hole => *len += part,
            _ if is_hole => extents.push(Extent::Hole(part)),
            _ => extents.push(Extent::Data(part)),
        }
        at = next;
    }
    extents
}

/// The first byte of data at or after `offset`, `u64::MAX` if there is only a hole; `None` if the
/// system does not say.
fn next_data(file: &File, offset: u64) -> Option<u64> {
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    ))]
    {
        use rustix::fs::{SeekFrom, seek};
        // This moves the handle's own position, which nobody uses: all reads name theirs.
        match seek(file, SeekFrom::Data(offset)) {
            Ok(data) => Some(data),
            Err(rustix::io::Errno::NXIO) => Some(u64::MAX),
            Err(_) => None,
        }
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    )))]
    {
        let _ = (file, offset);
        None
    }
}

/// The first byte of a hole at or after `offset`, the end of the file at last; `None` if the system
/// does not say.
fn next_hole(file: &File, offset: u64) -> Option<u64> {
    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    ))]
    {
        use rustix::fs::{SeekFrom, seek};
        seek(file, SeekFrom::Hole(offset)).ok()
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "android",
        target_os = "freebsd",
        target_vendor = "apple"
    )))]
    {
        let _ = (file, offset);
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const KIB: u64 = 1024;

    /// A sparse file of 1 MiB with data where `written` says, in KiB.
    fn sparse(written: &[(u64, u64)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1024 * KIB).unwrap();
        for (at, len) in written {
            let bytes = vec![7; usize::try_from(len * KIB).unwrap()];
            file.write_all_at(&bytes, at * KIB).unwrap();
        }
        file
    }

    #[test]
    fn extents_follow_what_is_stored() {
        use Extent::{Data, Hole};
        type Case<'a> = (&'a str, &'a [(u64, u64)], u64, u64, &'a [Extent]);
        let cases: &[Case<'_>] = &[
            ("nothing stored", &[], 0, 1024, &[Hole(1024 * KIB)]),
            ("a part of it", &[], 100, 200, &[Hole(200 * KIB)]),
            ("all stored", &[(0, 1024)], 0, 1024, &[Data(1024 * KIB)]),
            (
                "data in the middle",
                &[(256, 128)],
                0,
                1024,
                &[Hole(256 * KIB), Data(128 * KIB), Hole(640 * KIB)],
            ),
            (
                "a short hole is data",
                &[(0, 128), (160, 64)],
                0,
                1024,
                &[Data(224 * KIB), Hole(800 * KIB)],
            ),
            (
                "a hole that is cut short by the range is data",
                &[(0, 128)],
                64,
                96,
                &[Data(96 * KIB)],
            ),
        ];
        for (name, written, offset, len, expected) in cases {
            let file = sparse(written);
            assert_eq!(extents(&file, offset * KIB, len * KIB), *expected, "{name}");
        }
    }

    #[test]
    fn dense_files_are_not_asked() {
        let ask = |file: &File| may_have_holes(&Metadata::from_file(file).unwrap());
        assert!(ask(&sparse(&[(0, 4)])));
        assert!(!ask(&sparse(&[(0, 1024)])));
    }
}
