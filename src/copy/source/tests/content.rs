//! What blocks hold: bytes, holes, hashes, and the truth where the disk lies.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

#[test]
fn blocks_hold_the_file_and_its_hash() {
    let test = SourceTest::new();
    let sizes = [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 5 * MIB + 77];
    for (i, len) in sizes.into_iter().enumerate() {
        test.write(i.to_string(), &content(i as u64, len));
    }
    let source = test.source();
    let session = source.session(threads());
    for (i, file) in files(&session).iter().enumerate() {
        let opened = session.open(file).unwrap();
        assert_eq!(opened.size(), sizes[i] as u64);
        assert!(opened.block(opened.blocks()).is_err(), "past the end");
        expect_read(&session, file, &test);
    }
    let one = session.open(&find(&session, "3")).unwrap();
    assert!(matches!(one.block(0).unwrap().hash(), BlockHash::Root(_)));
    let two = session.open(&find(&session, "4")).unwrap();
    assert!(matches!(two.block(1).unwrap().hash(), BlockHash::Cv(_)));
}

#[cfg(target_os = "linux")]
#[test]
fn holes_stay_holes_and_are_not_read() {
    let test = SourceTest::new();
    let path = test.write("sparse", b"");
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(4 * MIB as u64 + 1000).unwrap();
    let data = content(1, 100 * 1024);
    file.write_all_at(&data, 2 * MIB as u64 + 512 * 1024)
        .unwrap();
    let source = test.source();
    let session = source.session(alone());
    let file = find(&session, "sparse");
    expect_read(&session, &file, &test);
    let opened = session.open(&file).unwrap();
    let runs = |index| opened.block(index).unwrap().runs().to_vec();
    assert_eq!(runs(0), [Run::Hole(MIB as u64)]);
    assert_eq!(
        runs(2),
        [
            Run::Hole(512 * 1024),
            Run::Data(data.into()),
            Run::Hole(412 * 1024)
        ]
    );
    assert_eq!(
        runs(4),
        [Run::Data(vec![0; 1000].into())],
        "too short to tell"
    );
    assert_eq!(source.bytes_read(), 2 * (100 * 1024 + 1000));
}

#[test]
fn sessions_share_the_hash_of_a_file() {
    let test = SourceTest::new();
    test.write("a", &content(1, 3 * MIB + 9));
    test.write("b", &content(2, 9));
    test.write("c", b"");
    let source = test.source();
    let sessions = [(); 3].map(|()| source.session(alone()));
    for session in &sessions {
        for file in files(session) {
            let digest = session.open(&file).unwrap().digest(&|| true).unwrap();
            let bytes = fs::read(test.from.path().join(file.path().to_path())).unwrap();
            assert_eq!(digest.as_bytes(), blake3::hash(&bytes).as_bytes());
        }
    }
    assert_eq!(source.bytes_read(), 3 * MIB as u64 + 18);
    assert_eq!(source.shared.cache.usage().0, 0, "all have it");
    // The content is still to be taken.
    for session in &sessions {
        expect_read(session, &find(session, "a"), &test);
    }
    assert_eq!(source.bytes_read(), 2 * (3 * MIB as u64 + 9) + 9);
}

#[test]
fn hashing_can_be_stopped() {
    let test = SourceTest::new();
    test.write("a", &content(1, 5 * MIB));
    let source = test.source();
    let session = source.session(alone());
    let opened = session.open(&find(&session, "a")).unwrap();
    let asked = AtomicUsize::new(0);
    let stopped = opened.digest(&|| asked.fetch_add(1, Ordering::Relaxed) < 2);
    assert!(stopped.unwrap_err().is_interrupted());
    assert_eq!(source.bytes_read(), 2 << 20);
    assert!(opened.digest(&|| true).is_ok(), "and begun again");
}

/// Flips a bit in every seventh reading.
#[derive(Debug, Default)]
struct Liar {
    reads: AtomicU64,
    forgets: AtomicU64,
}

impl Disk for Liar {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = PlainDisk.read_at(file, buf, offset)?;
        let turn = self.reads.fetch_add(1, Ordering::Relaxed);
        if turn.is_multiple_of(7) && read > 0 {
            buf[usize::try_from(turn).unwrap() * 13 % read] ^= 0x20;
        }
        Ok(read)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        PlainDisk.write_at(file, bytes, offset)
    }

    fn forget(&self, _: &File, _: u64, _: u64) {
        self.forgets.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn votes_find_the_truth_on_a_disk_that_lies() {
    let test = SourceTest::new();
    test.write("a", &content(1, 5 * MIB + 3));
    let disk = Arc::new(Liar::default());
    let builder = test.builder().disk(Arc::clone(&disk) as _);
    let source = builder.read_votes(1).open().unwrap();
    let session = source.session(alone());
    expect_read(&session, &find(&session, "a"), &test);
    let size = 5 * MIB as u64 + 3;
    assert_eq!(source.bytes_read(), size, "each block counts once");
    assert!(
        source.disk_bytes_read() >= 3 * size,
        "three readings of each"
    );
    assert!(
        disk.forgets.load(Ordering::Relaxed) >= 2 * 6,
        "off the disk"
    );

    let builder = test.builder().disk(Arc::new(Liar::default()));
    let session = builder.open().unwrap().session(alone());
    let read = read(&session, &find(&session, "a")).unwrap();
    assert!(
        read != content(1, 5 * MIB + 3),
        "without votes the lie goes"
    );
}

#[test]
fn looking_tells_what_opening_will() {
    let test = SourceTest::new();
    let path = test.write("a", b"abc");
    let source = test.source();
    let session = source.session(alone());
    let file = find(&session, "a");
    let look = session.look(&file).unwrap();
    let opened = session.open(&file).unwrap();
    assert_eq!(
        (look.size, look.attributes, look.tag),
        (opened.size(), opened.attributes(), opened.tag())
    );
    assert_eq!(look.attributes.mtime_secs, 1_000_000_000);
    let mut writer = File::options().append(true).open(path).unwrap();
    writer.write_all(b"d").unwrap();
    assert_ne!(session.look(&file).unwrap().tag, look.tag);
    assert_ne!(session.open(&file).unwrap().tag(), look.tag);
}
