//! What lies between a file's bytes and the disk, and reading that trusts neither.
//!
//! Everything that the copy reads from or writes to a regular file goes through a [`Disk`], so that
//! the tests can put one in between that flips bits, is full, or counts. Reads and writes name their
//! position: one handle serves several tasks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;

/// A page of the systems that we know, in bytes: what a disk is taken to get wrong at once.
pub(super) const PAGE_LEN: usize = 4096;

/// How many times over a page is read before its bytes count as unreadable: votes for a byte come
/// in at nearly the speed of reading where the disk is right more often than not.
const VOTE_PATIENCE: u32 = 8;

/// What lies between a file's bytes and the disk.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// Reads a prefix of what lies at `offset`; 0 at the end of the file.
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes a prefix of `bytes` to `offset`; returns its length.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes content and attributes durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Makes content durable.
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Makes everything on the file system that holds `file` durable.
    #[cfg(target_os = "linux")]
    fn sync_file_system(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(file)?)
    }

    /// Drops what was synced from the page cache, so that the next read reaches the disk. Only a
    /// hint: a file system that keeps it (tmpfs has nothing else) still reads right.
    fn forget(&self, file: &File, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        {
            let (start, len) = whole_pages(offset, len);
            let _ = rustix::fs::fadvise(file, start, len, rustix::fs::Advice::DontNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (file, offset, len);
    }

    /// Returns how many bytes an unprivileged user may still write to the file system that holds
    /// `file`; `None` where the system does not say.
    fn free(&self, file: &File) -> io::Result<Option<u64>> {
        #[cfg(target_os = "linux")]
        {
            let stat = rustix::fs::fstatvfs(file)?;
            Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = file;
            Ok(None)
        }
    }
}

/// Returns the start and length of the pages that hold a range, since the system leaves alone those
/// that it covers in part. No length: to the end of the file, also where it would overflow the
/// system's type.
#[cfg(target_os = "linux")]
fn whole_pages(offset: u64, len: u64) -> (u64, Option<std::num::NonZeroU64>) {
    const MASK: u64 = 4095;
    let start = offset & !MASK;
    let end = offset
        .checked_add(len)
        .and_then(|end| end.checked_add(MASK));
    let end = end.filter(|end| i64::try_from(*end).is_ok());
    let len = end.map(|end| (end & !MASK).saturating_sub(start));
    (start, len.and_then(std::num::NonZeroU64::new))
}

/// The file system as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainDisk;

impl Disk for PlainDisk {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        {
            std::os::unix::fs::FileExt::read_at(file, buf, offset)
        }
        #[cfg(windows)]
        {
            match std::os::windows::fs::FileExt::seek_read(file, buf, offset) {
                // ERROR_HANDLE_EOF, where other systems say 0.
                Err(error) if error.raw_os_error() == Some(38) => Ok(0),
                result => result,
            }
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        {
            std::os::unix::fs::FileExt::write_at(file, bytes, offset)
        }
        #[cfg(windows)]
        {
            std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
        }
    }
}

/// Reads until `buf` is full or the file ends; returns how much that is.
pub(super) fn read_full(
    disk: &dyn Disk,
    file: &File,
    buf: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match disk.read_at(file, rest, offset.saturating_add(to_u64(filled))) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of `bytes`.
pub(super) fn write_full(
    disk: &dyn Disk,
    file: &File,
    mut bytes: &[u8],
    mut offset: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.write_at(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset = offset.saturating_add(to_u64(written));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads as [`read_full`] does, and again from the disk until each byte had one value `2 * votes + 1`
/// times. `votes` of 0 is one read.
///
/// The buffer is read again as a whole; where a page differs from the first reading, its bytes are
/// counted one by one.
///
/// # Errors
/// Besides those of reading: `InvalidData` if the length changed between two readings, or the bytes of
/// a page found no majority in 8 times the readings that agreement takes.
pub(super) fn read_voted(
    disk: &dyn Disk,
    file: &File,
    buf: &mut [u8],
    offset: u64,
    votes: u8,
    scratch: &mut Vec<u8>,
) -> io::Result<usize> {
    let len = read_full(disk, file, buf, offset)?;
    let needed = 2 * u32::from(votes) + 1;
    let Some(first) = buf.get_mut(..len).filter(|first| !first.is_empty()) else {
        return Ok(len);
    };
    if needed == 1 {
        return Ok(len);
    }
    // By page: none yet that disagreed.
    let mut doubted: BTreeMap<usize, Ballot> = BTreeMap::new();
    for round in 1..needed {
        reread(disk, file, scratch, len, offset)?;
        let pages = first.chunks(PAGE_LEN).zip(scratch.chunks(PAGE_LEN));
        for (index, (page, again)) in pages.enumerate() {
            if let Some(ballot) = doubted.get_mut(&index) {
                ballot.count(page, again);
            } else if page != again {
                let mut ballot = Ballot::new(page.len(), round);
                ballot.count(page, again);
                doubted.insert(index, ballot);
            }
        }
    }
    for (index, mut ballot) in doubted {
        let start = index * PAGE_LEN;
        let Some(page) = first.get_mut(start..(start + PAGE_LEN).min(len)) else {
            continue;
        };
        let offset = offset.saturating_add(to_u64(start));
        let mut readings = needed;
        while !ballot.is_decided(needed) {
            if readings >= needed.saturating_mul(VOTE_PATIENCE) {
                let text = format!("no majority for the bytes at {offset} in {readings} readings");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            reread(disk, file, scratch, page.len(), offset)?;
            ballot.count(page, scratch);
            readings += 1;
        }
        ballot.apply(page, needed);
    }
    Ok(len)
}

/// Fills `scratch` with exactly `len` bytes from behind the page cache.
fn reread(
    disk: &dyn Disk,
    file: &File,
    scratch: &mut Vec<u8>,
    len: usize,
    offset: u64,
) -> io::Result<()> {
    scratch.resize(len, 0);
    disk.forget(file, offset, to_u64(len));
    if read_full(disk, file, scratch, offset)? == len {
        return Ok(());
    }
    let text = "the length changed between two readings";
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// The votes for the bytes of one page.
#[derive(Debug)]
struct Ballot {
    /// How often each byte had its first value.
    first: Vec<u32>,
    /// How often a byte had another value.
    others: BTreeMap<(usize, u8), u32>,
}

impl Ballot {
    /// A page that was read `readings` times and never differed.
    fn new(len: usize, readings: u32) -> Self {
        Self {
            first: vec![readings; len],
            others: BTreeMap::new(),
        }
    }

    fn count(&mut self, page: &[u8], again: &[u8]) {
        let bytes = page.iter().zip(again).zip(&mut self.first);
        for (at, ((before, now), votes)) in bytes.enumerate() {
            if before == now {
                *votes += 1;
            } else {
                *self.others.entry((at, *now)).or_default() += 1;
            }
        }
    }

    fn is_decided(&self, needed: u32) -> bool {
        let other = |at| {
            let mut values = self.others.range((at, 0)..=(at, u8::MAX));
            values.any(|(_, votes)| *votes >= needed)
        };
        let mut bytes = self.first.iter().enumerate();
        bytes.all(|(at, votes)| *votes >= needed || other(at))
    }

    /// Puts the values in that won.
    fn apply(&self, page: &mut [u8], needed: u32) {
        for ((at, value), votes) in &self.others {
            // Two values may have got there in the extra readings of other bytes.
            let before = self.first.get(*at).copied().unwrap_or(u32::MAX);
            if *votes >= needed
                && *votes > before
                && let Some(byte) = page.get_mut(*at)
            {
                *byte = *value;
            }
        }
    }
}

pub(super) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    /// Flips one bit of the byte at `at` in the readings listed, and counts what happens.
    #[derive(Debug)]
    struct Liar {
        at: u64,
        wrong: Vec<usize>,
        log: Mutex<(usize, usize)>,
    }

    impl Disk for Liar {
        fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            // Short reads, as any disk may give.
            let len = buf.len().min(5000);
            let read = PlainDisk.read_at(file, &mut buf[..len], offset)?;
            if (offset..offset + to_u64(read)).contains(&self.at) {
                let mut log = self.log.lock().unwrap();
                if self.wrong.contains(&log.0) {
                    buf[usize::try_from(self.at - offset).unwrap()] ^= 4;
                }
                log.0 += 1;
            }
            Ok(read)
        }

        fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
            PlainDisk.write_at(file, bytes, offset)
        }

        fn forget(&self, _: &File, _: u64, _: u64) {
            self.log.lock().unwrap().1 += 1;
        }
    }

    fn voted(wrong: &[usize], votes: u8) -> (io::Result<bool>, usize, usize) {
        let content: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let disk = Liar {
            at: 7000,
            wrong: wrong.to_vec(),
            log: Mutex::default(),
        };
        let mut buf = vec![0; 12_000];
        let result = read_voted(&disk, &file, &mut buf, 0, votes, &mut Vec::new());
        let (reads, forgets) = *disk.log.lock().unwrap();
        let result = result.map(|len| {
            assert_eq!(len, content.len());
            buf[..len] == content
        });
        (result, reads, forgets)
    }

    #[test]
    fn each_byte_needs_one_value_2n_plus_1_times() {
        let cases: &[(&str, &[usize], u8, bool, usize)] = &[
            ("one read believes anything", &[0], 0, false, 1),
            ("one read of a good disk", &[], 0, true, 1),
            ("three that agree", &[], 1, true, 3),
            ("the first was wrong", &[0], 1, true, 4),
            ("the second was wrong", &[1], 1, true, 4),
            ("two of five were wrong", &[0, 1], 1, true, 5),
            ("three wrong ones win", &[0, 1, 2], 1, false, 3),
            ("three wrong ones of more", &[0, 1, 3], 2, true, 8),
        ];
        for (name, wrong, votes, is_right, reads) in cases {
            let (result, counted, forgets) = voted(wrong, *votes);
            assert_eq!(result.unwrap(), *is_right, "{name}");
            assert_eq!(counted, *reads, "{name}");
            assert_eq!(
                forgets,
                reads - 1,
                "{name}: each further reading is the disk's"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn whole_pages_are_forgotten() {
        let pages = |offset, len| {
            let (start, len) = whole_pages(offset, len);
            (start, len.map_or(0, std::num::NonZeroU64::get))
        };
        assert_eq!(pages(0, 1), (0, 4096));
        assert_eq!(pages(4095, 2), (0, 8192));
        assert_eq!(pages(8192, 4096), (8192, 4096));
        assert_eq!(pages(5000, u64::MAX), (4096, 0), "to the end");
        assert_eq!(pages(0, u64::MAX), (0, 0));
        assert_eq!(pages(0, u64::MAX / 2), (0, 0));
    }

    #[test]
    fn a_disk_that_never_agrees_is_given_up() {
        #[derive(Debug)]
        struct Noise(Mutex<u8>);
        impl Disk for Noise {
            fn read_at(&self, _: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                let mut count = self.0.lock().unwrap();
                *count = count.wrapping_add(1);
                buf.fill(*count);
                Ok(if offset == 0 { buf.len() } else { 0 })
            }
            fn write_at(&self, _: &File, bytes: &[u8], _: u64) -> io::Result<usize> {
                Ok(bytes.len())
            }
        }
        let file = tempfile::tempfile().unwrap();
        let mut buf = [0; 100];
        let disk = Noise(Mutex::new(0));
        let error = read_voted(&disk, &file, &mut buf, 0, 1, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("no majority"), "{error}");
        assert_eq!(*disk.0.lock().unwrap(), 24, "bounded");
    }

    #[test]
    fn writing_goes_on_after_a_short_write() {
        #[derive(Debug)]
        struct Short;
        impl Disk for Short {
            fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
                PlainDisk.read_at(file, buf, offset)
            }
            fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
                PlainDisk.write_at(file, &bytes[..bytes.len().min(3)], offset)
            }
        }
        let file = tempfile::tempfile().unwrap();
        write_full(&Short, &file, b"0123456789", 2).unwrap();
        let mut buf = [9; 20];
        assert_eq!(read_full(&Short, &file, &mut buf, 0).unwrap(), 12);
        assert_eq!(&buf[..12], b"\0\x000123456789");
    }
}
