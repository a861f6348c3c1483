//! What the walk finds, and in which order.

use super::*;
use crate::copy::error::{FileError, FileKind, Refusal};

/// One line for each thing found.
fn walk(session: &SourceSession) -> Vec<String> {
    session.tree().map(|found| line(&found)).collect()
}

fn line(found: &Found) -> String {
    let show = |path: &crate::copy::path::WirePath| path.to_path().display().to_string();
    let inside =
        |parent: &Option<DirectoryId>| parent.map_or_else(String::new, |id| format!(" in {id}"));
    match found {
        Found::Directory {
            id, parent, path, ..
        } => format!("dir {} {id}{}", show(path), inside(parent)),
        Found::File { parent, source } => {
            format!("file {}{}", show(source.path()), inside(parent))
        }
        Found::Link {
            parent,
            path,
            target,
            ..
        } => {
            let target = String::from_utf8_lossy(target);
            format!("link {} -> {target}{}", show(path), inside(parent))
        }
        Found::Skipped { path, error } => format!("skipped {}: {error}", path.display()),
        Found::Left(id) => format!("left {id}"),
    }
}

#[cfg(target_os = "linux")]
pub(super) fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn everything_is_found_once_and_in_order() {
    let test = SourceTest::new();
    for path in ["z", "b/y", "b/x", "a/deep/er/file", "c/f"] {
        test.write(path, b"x");
    }
    fs::create_dir(test.tree().join("empty")).unwrap();
    let link = |target: &str, path: &str| {
        std::os::unix::fs::symlink(target, test.tree().join(path)).unwrap();
    };
    link("b/x", "within");
    link("../b/x", "a/across");
    link("nowhere", "dangling");
    link("b", "to a directory");
    link("../other", "out");
    link("/etc/passwd", "absolute");
    link("../../other", "a/out");
    make_fifo(&test.tree().join("fifo"));
    let _listener = std::os::unix::net::UnixListener::bind(test.tree().join("socket")).unwrap();
    let source = test.source();
    let session = source.session(alone());
    let refused = "refused: the symbolic link leads out of the tree";
    let expected = [
        "dir tree 0",
        "skipped tree/fifo: a named pipe is not copied",
        "skipped tree/socket: a socket is not copied",
        "file tree/z in 0",
        &format!("skipped tree/absolute: {refused}"),
        "link tree/dangling -> nowhere in 0",
        &format!("skipped tree/out: {refused}"),
        "link tree/to a directory -> b in 0",
        "link tree/within -> b/x in 0",
        "dir tree/a 1 in 0",
        "link tree/a/across -> ../b/x in 1",
        &format!("skipped tree/a/out: {refused}"),
        "dir tree/a/deep 2 in 1",
        "dir tree/a/deep/er 3 in 2",
        "file tree/a/deep/er/file in 3",
        "left 3",
        "left 2",
        "left 1",
        "dir tree/b 4 in 0",
        "file tree/b/x in 4",
        "file tree/b/y in 4",
        "left 4",
        "dir tree/c 5 in 0",
        "file tree/c/f in 5",
        "left 5",
        "dir tree/empty 6 in 0",
        "left 6",
        "left 0",
    ];
    let found = walk(&session);
    assert_eq!(found, expected);
    assert_eq!(walk(&source.session(alone())), found, "a walk of its own");
    let orders: Vec<_> = files(&test_of_files(&test))
        .iter()
        .map(FileSource::order)
        .collect();
    assert_eq!(orders, [0, 1]);

    let survey = survey(&[test.tree()]).unwrap();
    assert_eq!(
        (survey.files, survey.directories, survey.links, survey.bytes),
        (5, 7, 4, 5)
    );
}

/// A session over the files of one directory.
#[cfg(target_os = "linux")]
fn test_of_files(test: &SourceTest) -> SourceSession {
    let source = Source::builder([test.tree().join("b")]).open().unwrap();
    source.session(alone())
}

#[cfg(unix)]
#[test]
fn a_link_that_was_asked_for_is_refused() {
    let test = SourceTest::new();
    test.write("file", b"x");
    let link = test.tree().join("link");
    std::os::unix::fs::symlink("file", &link).unwrap();
    let source = Source::builder([&link, &test.tree().join("file")])
        .open()
        .unwrap();
    let mut tree = source.session(alone()).tree();
    let Some(Found::Skipped { path, error }) = tree.next() else {
        panic!("the link");
    };
    assert_eq!(path, Path::new("link"));
    assert_eq!(error, FileError::Unsupported(FileKind::Symlink));
    assert!(matches!(tree.next(), Some(Found::File { .. })));
    assert!(tree.next().is_none());
}

#[cfg(unix)]
#[test]
fn links_keep_their_attributes_and_long_targets_are_refused() {
    let test = SourceTest::new();
    let target = "0123456789abcdef/".repeat(100) + "x";
    std::os::unix::fs::symlink(&target, test.tree().join("deep")).unwrap();
    std::os::unix::fs::symlink("x".repeat(256), test.tree().join("long")).unwrap();
    let source = test.source();
    let mut tree = source.session(alone()).tree().skip(1);
    let Some(Found::Link {
        target: found,
        attributes,
        ..
    }) = tree.next()
    else {
        panic!("the link");
    };
    assert_eq!(found, target.as_bytes());
    let metadata = fs::symlink_metadata(test.tree().join("deep")).unwrap();
    let mtime = std::os::unix::fs::MetadataExt::mtime(&metadata);
    assert_eq!((attributes.mtime_secs, attributes.mode), (mtime, 0o777));
    let Some(Found::Skipped { error, .. }) = tree.next() else {
        panic!("the other link");
    };
    assert_eq!(error, Refusal::TooLong.into());
}

#[test]
fn what_vanishes_during_the_walk_is_named_and_the_others_go_on() {
    let test = SourceTest::new();
    test.write("a/file", b"x");
    test.write("b/file", b"x");
    let source = test.source();
    let session = source.session(alone());
    let mut tree = session.tree();
    assert_eq!(line(&tree.next().unwrap()), "dir tree 0");
    fs::remove_dir_all(test.tree().join("a")).unwrap();
    let Some(Found::Skipped { path, error }) = tree.next() else {
        panic!("the directory that is gone");
    };
    assert_eq!(path, Path::new("tree/a"));
    let gone = FileError::Read(Arc::new(io::ErrorKind::NotFound.into()));
    assert_eq!(error, gone);
    assert_eq!(line(&tree.next().unwrap()), "dir tree/b 1 in 0");
    fs::remove_dir_all(test.tree().join("b")).unwrap();
    let Some(Found::File { source, .. }) = tree.next() else {
        panic!("the file that was listed");
    };
    assert_eq!(session.open(&source).unwrap_err(), gone);
    let rest: Vec<_> = tree.map(|found| line(&found)).collect();
    assert_eq!(rest, ["left 1", "left 0"]);
}

#[test]
fn a_top_that_vanishes_is_named_and_the_others_go_on() {
    let test = SourceTest::new();
    let [a, b] = ["a", "b"].map(|name| test.write(name, b"x"));
    let source = Source::builder([&a, &b]).open().unwrap();
    fs::remove_file(&a).unwrap();
    let session = source.session(alone());
    let found: Vec<_> = walk(&session);
    assert_eq!(found, ["skipped a: cannot be read", "file b"]);
}
