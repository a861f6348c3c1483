//! What is passed over, replaced, refused.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use reliable_udp::copy::Sender;

use crate::fixture::{MIB, Trees, describe, failures, leftovers, mtime, noise, set_mtime};

#[tokio::test]
async fn an_equal_file_is_told_by_size_and_time_and_not_read() {
    let trees = Trees::new();
    let here = trees.write("file", b"content");
    trees.copy().await;
    // Other content with the same size and time: what comparing hashes is for.
    fs::write(trees.target("file"), b"CONTENT").unwrap();
    set_mtime(&here, 1_000_000_000);
    set_mtime(&trees.target("file"), 1_000_000_000);
    let (sent, received) = trees.copy().await;
    for report in [sent, received] {
        assert!(report.is_complete());
        assert_eq!(
            (report.totals.files_present, report.totals.files_verified),
            (1, 0)
        );
        assert_eq!(report.totals.bytes_transferred, 0);
    }
    assert_eq!(fs::read(trees.target("file")).unwrap(), b"CONTENT");

    let sender = || Sender::builder().checksum(true);
    let (sent, _) = trees.copy_with(sender(), trees.receiver()).await;
    assert_eq!(
        failures(&sent)["tree/file"],
        "refused: it exists already and differs; overwriting is off"
    );
    let (sent, _) = trees
        .copy_with(sender().overwrite(true), trees.receiver())
        .await;
    assert_eq!(
        (sent.totals.files_present, sent.totals.files_verified),
        (0, 1)
    );
    trees.expect_equal();
}

#[tokio::test]
async fn an_equal_file_is_told_by_its_hash_and_gets_the_time_and_mode() {
    let trees = Trees::new();
    let here = trees.write("small", b"content");
    trees.write("large", &noise(1, 3 * MIB));
    trees.copy().await;
    set_mtime(&here, 1_000_000_000);
    fs::set_permissions(&here, fs::Permissions::from_mode(0o600)).unwrap();
    let sender = Sender::builder().checksum(true);
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    assert!(sent.is_complete());
    assert_eq!(
        (sent.totals.files_present, sent.totals.bytes_transferred),
        (2, 0)
    );
    trees.expect_equal();
}

#[tokio::test]
async fn a_file_of_another_time_is_no_equal_one() {
    let trees = Trees::new();
    let here = trees.write("file", b"content");
    trees.copy().await;
    set_mtime(&here, 1_000_000_000);
    let (sent, _) = trees.copy().await;
    assert_eq!(
        failures(&sent)["tree/file"],
        "refused: it exists already and differs; overwriting is off"
    );
    let sender = Sender::builder().overwrite(true);
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    assert_eq!(sent.totals.files_verified, 1);
    trees.expect_equal();
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_would_be() {
    let trees = Trees::new();
    trees.write("new/file", b"1234567");
    trees.write("new/large", &noise(1, 3 * MIB));
    trees.write("equal", b"same");
    trees.write("other", b"mine");
    symlink("equal", trees.source().join("link")).unwrap();
    trees.put("equal", b"same");
    trees.put("other", b"theirs");
    set_mtime(&trees.source().join("equal"), 1_000_000_000);
    set_mtime(&trees.target("equal"), 1_000_000_000);
    fs::set_permissions(trees.target("equal"), fs::Permissions::from_mode(0o600)).unwrap();
    let before = describe(trees.to.path());
    for overwrite in [false, true] {
        let sender = Sender::builder().dry_run(true).overwrite(overwrite);
        let (sent, received) = trees.copy_with(sender, trees.receiver()).await;
        assert!(
            describe(trees.to.path()) == before,
            "overwrite: {overwrite}"
        );
        for report in [&sent, &received] {
            let totals = &report.totals;
            // Two directories, the link, and the files.
            assert_eq!(totals.planned, 5 + u64::from(overwrite), "{totals:?}");
            let bytes = 7 + 3 * MIB + if overwrite { 4 } else { 0 };
            assert_eq!(totals.bytes_planned, bytes);
            assert_eq!((totals.files_present, totals.bytes_transferred), (1, 0));
            let refused = failures(report);
            assert_eq!(
                refused.contains_key("tree/other"),
                !overwrite,
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_is_left_of_a_partial_and_keeps_it() {
    let trees = Trees::new();
    trees.write("large", &noise(1, 24 * MIB));
    trees
        .copy_cut(&Sender::new(), &trees.receiver().build().unwrap(), 15 * MIB)
        .await;
    let before = describe(trees.to.path());
    let sender = Sender::builder().dry_run(true);
    let (_, received) = trees.copy_with(sender, trees.receiver()).await;
    assert!(
        received.totals.bytes_planned < 20 * MIB,
        "{:?}",
        received.totals
    );
    assert!(describe(trees.to.path()) == before);
}

#[tokio::test]
async fn without_preserving_modes_and_times_are_those_of_new_files() {
    let trees = Trees::new();
    let small = trees.write("directory/small", b"x");
    let large = trees.write("directory/large", &noise(1, 2 * MIB));
    for path in [&small, &large] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o751)).unwrap();
        set_mtime(path, 1_000_000_000);
    }
    let directory = trees.source().join("directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).unwrap();
    set_mtime(&directory, 1_000_000_000);
    let sender = Sender::builder().preserve(false);
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    assert!(sent.is_complete());
    // What anybody gets who makes one here.
    fs::write(trees.to.path().join("probe"), b"").unwrap();
    fs::create_dir(trees.to.path().join("probes")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode();
    for name in ["directory/small", "directory/large"] {
        let there = trees.target(name);
        assert_eq!(mode(&there), mode(&trees.to.path().join("probe")), "{name}");
        assert!(mtime(&there) > mtime(&small), "{name}");
    }
    let there = trees.target("directory");
    assert_eq!(mode(&there), mode(&trees.to.path().join("probes")));
    assert!(mtime(&there) > mtime(&small));
}

#[tokio::test]
async fn a_directory_and_a_file_never_replace_each_other() {
    let trees = Trees::new();
    trees.write("a", b"file");
    trees.write("b/file", b"in a directory");
    trees.write("c", b"arrives");
    fs::create_dir_all(trees.target("a")).unwrap();
    trees.put("b", b"file");
    let sender = Sender::builder().overwrite(true);
    let (sent, received) = trees.copy_with(sender, trees.receiver()).await;
    for report in [sent, received] {
        let failures = failures(&report);
        assert_eq!(
            failures["tree/a"],
            "refused: the name is taken by something that is not a regular file"
        );
        for path in ["tree/b", "tree/b/file"] {
            assert_eq!(
                failures[path],
                "refused: a part of the path is taken by something that is not a directory"
            );
        }
        assert_eq!(failures.len(), 3);
    }
    assert!(trees.target("a").is_dir());
    assert_eq!(fs::read(trees.target("b")).unwrap(), b"file");
    assert_eq!(fs::read(trees.target("c")).unwrap(), b"arrives");
}

#[tokio::test]
async fn links_inside_the_tree_arrive_as_links_and_others_are_refused() {
    let trees = Trees::new();
    trees.write("directory/file", b"x");
    let link = |target: &str, name: &str| symlink(target, trees.source().join(name)).unwrap();
    link("directory", "to a directory");
    link("directory/file", "to a file");
    link("../directory/file", "directory/up");
    link("nothing", "dangling");
    link("/etc/passwd", "absolute");
    link("../outside", "leaving");
    link("directory/../../outside", "winding");
    let (sent, _) = trees.copy().await;
    let failures = failures(&sent);
    let names: Vec<_> = failures.keys().map(String::as_str).collect();
    assert_eq!(names, ["tree/absolute", "tree/leaving", "tree/winding"]);
    for name in ["to a directory", "to a file", "directory/up", "dangling"] {
        let there = fs::read_link(trees.target(name)).unwrap();
        assert_eq!(there, fs::read_link(trees.source().join(name)).unwrap());
    }
    assert!(fs::symlink_metadata(trees.target("leaving")).is_err());

    // The same again: all is there.
    let (sent, _) = trees.copy().await;
    assert_eq!((sent.totals.links, sent.totals.failed), (4, 3));
}

#[tokio::test]
async fn a_link_from_before_1970_keeps_its_time() {
    let trees = Trees::new();
    let link = trees.source().join("link");
    symlink("nothing", &link).unwrap();
    let touch = std::process::Command::new("touch")
        .args(["-h", "-d", "1950-01-01 00:00:00.5 UTC"])
        .arg(&link)
        .status();
    assert!(touch.unwrap().success());
    let (sent, _) = trees.copy().await;
    assert!(sent.is_complete());
    let time = |path: &Path| fs::symlink_metadata(path).unwrap().modified().unwrap();
    assert_eq!(time(&trees.target("link")), time(&link));
}

#[tokio::test]
async fn another_link_of_the_name_is_replaced_only_if_asked_to() {
    let trees = Trees::new();
    trees.write("a", b"a");
    symlink("a", trees.source().join("link")).unwrap();
    fs::create_dir(trees.target("")).unwrap();
    symlink("b", trees.target("link")).unwrap();
    let (sent, _) = trees.copy().await;
    assert_eq!(
        failures(&sent)["tree/link"],
        "refused: it exists already and differs; overwriting is off"
    );
    assert_eq!(fs::read_link(trees.target("link")).unwrap(), Path::new("b"));
    let sender = Sender::builder().overwrite(true);
    let forbidding = trees.receiver().may_overwrite(false);
    let (sent, _) = trees.copy_with(sender.clone(), forbidding).await;
    assert_eq!(
        failures(&sent)["tree/link"],
        "refused: it exists already and differs; overwriting is off"
    );
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    assert!(sent.is_complete(), "{:?}", failures(&sent));
    assert_eq!(fs::read_link(trees.target("link")).unwrap(), Path::new("a"));
}

/// A file with data only here and there, or `None` where the file system does not tell.
fn sparse(path: &Path) -> Option<u64> {
    let file = File::create(path).unwrap();
    for at in [0, 9, 33, 62] {
        file.write_all_at(&noise(at, MIB), at * MIB + 4096).unwrap();
    }
    file.set_len(64 * MIB).unwrap();
    let stored = file.metadata().unwrap().blocks() * 512;
    if stored > 10 * MIB {
        eprintln!("skipped: holes take space here");
        return None;
    }
    Some(stored)
}

#[tokio::test]
async fn a_sparse_file_stays_sparse_and_its_holes_do_not_cross_the_stream() {
    let trees = Trees::new();
    let Some(stored) = sparse(&trees.source().join("sparse")) else {
        return;
    };
    let (sent, _) = trees.copy().await;
    assert!(sent.is_complete());
    assert!(
        sent.totals.bytes_transferred <= 6 * MIB,
        "{:?}",
        sent.totals
    );
    let there = fs::metadata(trees.target("sparse")).unwrap().blocks() * 512;
    assert!(there <= stored + MIB, "{there} of {stored}");
    trees.expect_equal();
}

#[tokio::test]
async fn a_sparse_file_goes_on_as_one() {
    let trees = Trees::new();
    let Some(stored) = sparse(&trees.source().join("sparse")) else {
        return;
    };
    let receiver = trees.receiver().build().unwrap();
    trees.copy_cut(&Sender::new(), &receiver, 3 * MIB).await;
    let (sent, _) = trees.copy().await;
    assert!(sent.is_complete());
    assert!(sent.totals.bytes_resumed >= 16 * MIB, "{:?}", sent.totals);
    let there = fs::metadata(trees.target("sparse")).unwrap().blocks() * 512;
    assert!(there <= stored + MIB, "{there} of {stored}");
    trees.expect_equal();
}

#[tokio::test]
async fn a_file_that_is_one_hole_arrives() {
    let trees = Trees::new();
    for (name, len) in [
        ("small", 1000),
        ("one", MIB),
        ("more", MIB + 1),
        ("many", 40 * MIB),
    ] {
        File::create(trees.source().join(name))
            .unwrap()
            .set_len(len)
            .unwrap();
    }
    let (sent, _) = trees.copy().await;
    assert!(sent.is_complete());
    trees.expect_equal();
}

#[tokio::test]
async fn portable_names_are_those_that_every_system_keeps_apart() {
    let trees = Trees::new();
    for name in ["README", "dir/x", "fine"] {
        trees.put(name, b"was there");
    }
    for name in [
        "readme",
        "Dir/y",
        "aux",
        "com1.txt",
        "what?",
        "end.",
        "new",
        "more/nul/z",
    ] {
        trees.write(name, b"comes");
    }
    let portable = trees.receiver().portable_names(true);
    let (sent, _) = trees.copy_with(Sender::builder(), portable).await;
    let failures = failures(&sent);
    let collides = "refused: a name that differs only in case exists already";
    let reserved = "refused: the name is reserved on this system";
    for (path, expected) in [
        ("tree/readme", collides),
        ("tree/Dir/y", collides),
        ("tree/Dir", collides),
        ("tree/aux", reserved),
        ("tree/com1.txt", reserved),
        ("tree/what?", reserved),
        ("tree/end.", reserved),
        ("tree/more/nul/z", reserved),
        ("tree/more/nul", reserved),
    ] {
        assert_eq!(
            failures.get(path).map(String::as_str),
            Some(expected),
            "{path}"
        );
    }
    assert_eq!(failures.len(), 9, "{failures:?}");
    assert_eq!(fs::read(trees.target("new")).unwrap(), b"comes");
    assert!(!trees.target("more/nul").exists() && !trees.target("Dir").exists());

    // Without the rule this system takes what it can.
    let sender = Sender::builder().overwrite(true);
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    assert!(sent.is_complete());
}

#[tokio::test]
async fn two_spellings_in_one_copy_collide_too() {
    let trees = Trees::new();
    trees.write("a", b"1");
    trees.write("A", b"2");
    trees.write("d/x", b"1");
    trees.write("D/x", b"2");
    let portable = trees.receiver().portable_names(true);
    let (sent, _) = trees.copy_with(Sender::builder(), portable).await;
    assert_eq!(sent.totals.files_verified, 2, "{:?}", failures(&sent));
    let names = fs::read_dir(trees.target("")).unwrap().count();
    assert_eq!(names, 2, "one of each");
    assert!(leftovers(&trees.target("")).is_empty());
}

#[tokio::test]
async fn no_more_files_than_allowed_arrive_and_the_rest_is_named() {
    let trees = Trees::new();
    for n in 0..10 {
        trees.write(format!("{n}"), b"1234567890");
    }
    let receiver = trees.receiver().max_files(4);
    let (sent, received) = trees.copy_with(Sender::builder(), receiver).await;
    for report in [sent, received] {
        assert_eq!(report.totals.files_verified, 4);
        // The directory is one too many as well.
        assert_eq!(report.totals.failed, 7);
        let failures = failures(&report);
        assert!(
            failures.values().all(|error| error.contains("files")),
            "{failures:?}"
        );
    }
}

#[tokio::test]
async fn no_more_bytes_than_allowed_arrive_and_smaller_files_still_do() {
    let trees = Trees::new();
    trees.write("a", &noise(1, 600_000));
    trees.write("b", &noise(2, 600_000));
    trees.write("c", &noise(3, 300_000));
    let receiver = trees.receiver().max_bytes(1_000_000);
    let (sent, _) = trees.copy_with(Sender::builder(), receiver).await;
    let failures = failures(&sent);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures.values().all(|error| error.contains("bytes")),
        "{failures:?}"
    );
    assert_eq!(sent.totals.files_verified, 2);
}

#[tokio::test]
async fn what_would_leave_too_little_space_is_named() {
    let trees = Trees::new();
    trees.write("a", b"x");
    trees.write("empty", b"");
    let receiver = trees.receiver().min_free_space(u64::MAX / 2);
    let (sent, _) = trees.copy_with(Sender::builder(), receiver).await;
    let failures = failures(&sent);
    assert!(failures["tree/a"].contains("free"), "{failures:?}");
    assert!(!trees.target("a").exists());
}
