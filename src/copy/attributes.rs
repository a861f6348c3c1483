//! Mode and modification time, between the file system and the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::Metadata;

use super::protocol::Attributes;

/// Reads the attributes off a file's or directory's metadata. Systems without permission bits have
/// the usual ones.
pub(super) fn attributes_of(metadata: &Metadata) -> Attributes {
    let (mtime_secs, mtime_nanos) = metadata
        .modified()
        .map_or((0, 0), |time| split_time(time.into_std()));
    #[cfg(unix)]
    let mode = cap_std::fs::MetadataExt::mode(metadata) & 0o7777;
    #[cfg(not(unix))]
    let mode = match (metadata.is_dir(), metadata.permissions().readonly()) {
        (true, _) => 0o755,
        (false, true) => 0o444,
        (false, false) => 0o644,
    };
    Attributes {
        mode,
        mtime_secs,
        mtime_nanos,
    }
}

/// Splits a time into whole seconds since 1970, rounded down, and the rest in nanoseconds.
pub(super) fn split_time(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            since.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let secs = i64::try_from(before.as_secs())
                .unwrap_or(i64::MAX)
                .saturating_neg();
            match before.subsec_nanos() {
                0 => (secs, 0),
                nanos => (secs.saturating_sub(1), 1_000_000_000 - nanos),
            }
        }
    }
}

/// The inverse of [`split_time`]; `None` where this system cannot express the time.
pub(super) fn join_time(secs: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(secs.unsigned_abs());
    let base = if secs < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    base?.checked_add(Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_split() {
        for (secs, nanos) in [
            (0, 0),
            (1, 5),
            (-1, 0),
            (-1, 999_999_999),
            (4_000_000_000, 1),
        ] {
            let time = join_time(secs, nanos).unwrap();
            assert_eq!(split_time(time), (secs, nanos));
        }
        let before = UNIX_EPOCH - Duration::from_millis(250);
        assert_eq!(split_time(before), (-1, 750_000_000), "rounded down");
    }
}
