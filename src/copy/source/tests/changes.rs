//! Files that do not stay as they were.

use std::os::unix::fs::FileExt;

use super::*;
use crate::copy::error::{FileError, FileKind};

type Change = fn(&Path);

fn writer(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

/// Everything that can happen to a file of 2 MiB after its first block was read.
const CHANGES: [(&str, Change); 6] = [
    ("grows", |path| {
        writer(path).set_len(3 * MIB as u64).unwrap();
    }),
    ("shrinks", |path| writer(path).set_len(5).unwrap()),
    ("is emptied", |path| writer(path).set_len(0).unwrap()),
    ("is written to", |path| {
        writer(path).write_all_at(b"x", 7).unwrap();
    }),
    ("vanishes", |path| fs::remove_file(path).unwrap()),
    ("is replaced", |path| {
        let other = path.with_extension("new");
        fs::copy(path, &other).unwrap();
        age(&other);
        fs::rename(other, path).unwrap();
    }),
];

#[test]
fn changes_are_found_after_the_file_was_read() {
    for (name, change) in CHANGES {
        let test = SourceTest::new();
        let path = test.write("a", &content(1, 2 * MIB));
        let source = test.source();
        let session = source.session(alone());
        let opened = session.open(&find(&session, "a")).unwrap();
        opened.block(0).unwrap();
        opened.block(1).unwrap();
        assert!(opened.is_unchanged().unwrap());
        change(&path);
        assert!(!opened.is_unchanged().unwrap(), "{name}");
    }
}

#[test]
fn a_file_that_moved_away_with_its_directory_is_not_the_one_any_more() {
    let test = SourceTest::new();
    let path = test.write("sub/a", b"x");
    let source = test.source();
    let session = source.session(alone());
    let opened = session.open(&find(&session, "sub/a")).unwrap();
    assert!(opened.is_unchanged().unwrap());
    fs::rename(path.parent().unwrap(), test.tree().join("elsewhere")).unwrap();
    assert!(opened.block(0).is_ok());
    assert!(!opened.is_unchanged().unwrap());
}

#[test]
fn changes_are_found_while_the_file_is_read() {
    for (name, change) in &CHANGES[..4] {
        let test = SourceTest::new();
        let path = test.write("a", &content(1, 2 * MIB));
        let source = test.source();
        let [session, other] = [(); 2].map(|()| source.session(alone()));
        let file = find(&session, "a");
        let opened = session.open(&file).unwrap();
        opened.block(0).unwrap();
        change(&path);
        let error = opened.block(1).unwrap_err();
        assert!(matches!(error, ReadError::Changed), "{name}: {error}");
        let error = opened.digest(&|| true).unwrap_err();
        assert!(matches!(error, ReadError::Changed), "{name}: {error}");
        // Again from the start, as what it is now.
        expect_read(&session, &file, &test);
        expect_read(&other, &file, &test);
        source.shared.cache.check_invariants();
    }
}

#[test]
fn what_vanished_is_named_when_it_is_opened() {
    let test = SourceTest::new();
    let path = test.write("a", b"x");
    let source = test.source();
    let session = source.session(alone());
    let file = find(&session, "a");
    fs::remove_file(&path).unwrap();
    let gone = FileError::Read(Arc::new(io::ErrorKind::NotFound.into()));
    assert_eq!(session.open(&file).unwrap_err(), gone);
    assert_eq!(session.look(&file).unwrap_err(), gone);
}

#[test]
fn what_took_a_files_name_is_named() {
    let test = SourceTest::new();
    let path = test.write("a", b"x");
    let source = test.source();
    let session = source.session(alone());
    let file = find(&session, "a");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let other = FileError::Unsupported(FileKind::Other);
    assert_eq!(session.look(&file).unwrap_err(), other);
    assert_eq!(session.open(&file).unwrap_err(), other);
    fs::remove_dir(&path).unwrap();
    let beside = test.write("b", b"x");
    std::os::unix::fs::symlink(beside.file_name().unwrap(), &path).unwrap();
    let link = FileError::Unsupported(FileKind::Symlink);
    assert_eq!(session.look(&file).unwrap_err(), link);
    assert!(matches!(session.open(&file), Err(FileError::Read(_))));
    #[cfg(target_os = "linux")]
    {
        fs::remove_file(&path).unwrap();
        walk::make_fifo(&path);
        let fifo = FileError::Unsupported(FileKind::Fifo);
        assert_eq!(session.look(&file).unwrap_err(), fifo);
        assert_eq!(session.open(&file).unwrap_err(), fifo, "and nobody hangs");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_with_more_in_them_than_their_size_are_not_taken_for_empty() {
    let source = Source::builder(["/proc/self/status"]).open().unwrap();
    let session = source.session(alone());
    let file = files(&session).remove(0);
    let opened = session.open(&file).unwrap();
    assert_eq!(opened.size(), 0);
    assert!(matches!(opened.block(0), Err(ReadError::Changed)));
}

/// Cannot read files of 5 bytes.
#[derive(Debug)]
struct BadSectors;

impl Disk for BadSectors {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if file.metadata()?.len() == 5 {
            return Err(io::Error::from_raw_os_error(5));
        }
        PlainDisk.read_at(file, buf, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        PlainDisk.write_at(file, bytes, offset)
    }
}

#[test]
fn what_cannot_be_read_says_why_and_the_others_go_on() {
    let test = SourceTest::new();
    test.write("a", b"bytes");
    test.write("b", b"others");
    let source = test.builder().disk(Arc::new(BadSectors)).open().unwrap();
    let session = source.session(alone());
    let error = read(&session, &find(&session, "a")).unwrap_err();
    let ReadError::Io(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.raw_os_error(), Some(5));
    expect_read(&session, &find(&session, "b"), &test);
    assert_eq!(source.bytes_read(), 6);
}
