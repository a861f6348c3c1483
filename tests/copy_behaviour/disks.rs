//! Disks that are full, read-only, or lie.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use reliable_udp::copy::{Event, Receiver, Sender};
use tokio::io::duplex;

use crate::fixture::{MIB, Trees, failures, leftovers, noise};

/// Names the directory of a small file system of its own, in the process that was made for it.
const SMALL_DISK: &str = "RELIABLE_UDP_SMALL_DISK";

/// The directory to use, or `None` where the test runs in another process instead: one with a mount
/// namespace of its own, and there a file system of 8 MiB. Needs root.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return Some(disk.into());
    }
    let directory = tempfile::tempdir().unwrap();
    let has_root = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(directory.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !has_root {
        eprintln!("skipped: no right to mount a small disk");
        return None;
    }
    let mount =
        "mount -t tmpfs -o size=8m tmpfs \"$RELIABLE_UDP_SMALL_DISK\" && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", mount])
        .arg(std::env::current_exe().unwrap())
        .args([&format!("disks::{test}"), "--exact", "--nocapture"])
        .env(SMALL_DISK, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{complained}"
    );
    None
}

#[tokio::test]
async fn a_full_disk_is_named_and_what_fits_arrives() {
    let Some(disk) = small_disk("a_full_disk_is_named_and_what_fits_arrives") else {
        return;
    };
    let trees = Trees::new();
    trees.write("a", &noise(1, 2 * MIB));
    trees.write("b", &noise(2, 20 * MIB));
    trees.write("c", &noise(3, 100_000));
    let (mut near, mut far) = duplex(64 * 1024);
    let receiver = Receiver::builder(&disk).build().unwrap();
    let sender = Sender::new();
    let (sent, received) = tokio::join!(
        sender.send(&mut near, [trees.source()]),
        receiver.receive(&mut far)
    );
    for report in [sent.unwrap(), received.unwrap()] {
        let failures = failures(&report);
        assert_eq!(failures.keys().collect::<Vec<_>>(), ["tree/b"]);
        assert!(failures["tree/b"].contains("No space"), "{failures:?}");
        assert_eq!(report.totals.files_verified, 2);
    }
    for name in ["a", "c"] {
        let there = fs::read(disk.join("tree").join(name)).unwrap();
        assert!(there == fs::read(trees.source().join(name)).unwrap());
    }
    // What came of it waits for a larger disk.
    assert!(!disk.join("tree/b").exists());
    assert!(leftovers(&disk.join("tree")).len() <= 2);
}

#[tokio::test]
async fn a_full_disk_fails_small_files_one_by_one() {
    let Some(disk) = small_disk("a_full_disk_fails_small_files_one_by_one") else {
        return;
    };
    let trees = Trees::new();
    for n in 0..150_u64 {
        trees.write(format!("{n:03}"), &noise(n, 100_000));
    }
    let (mut near, mut far) = duplex(64 * 1024);
    let receiver = Receiver::builder(&disk).build().unwrap();
    let sender = Sender::new();
    let (sent, received) = tokio::join!(
        sender.send(&mut near, [trees.source()]),
        receiver.receive(&mut far)
    );
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(sent.totals.files_verified, received.totals.files_verified);
    assert!(
        (40..84).contains(&sent.totals.files_verified),
        "{:?}",
        sent.totals
    );
    let failures = failures(&sent);
    assert_eq!(failures.len() as u64 + sent.totals.files_verified, 150);
    assert!(
        failures.values().all(|error| error.contains("No space")),
        "{failures:?}"
    );
    assert!(leftovers(&disk.join("tree")).is_empty());
    let mut exact = 0;
    for n in 0..150_u64 {
        let there = fs::read(disk.join(format!("tree/{n:03}")));
        if let Ok(there) = there {
            assert!(there == noise(n, 100_000), "{n}");
            exact += 1;
        }
    }
    assert_eq!(exact, sent.totals.files_verified);
}

#[tokio::test]
async fn a_target_made_read_only_in_the_middle_is_named_and_what_was_there_stays() {
    let test = "a_target_made_read_only_in_the_middle_is_named_and_what_was_there_stays";
    let Some(disk) = small_disk(test) else {
        return;
    };
    let trees = Trees::new();
    for name in ["a", "b", "c"] {
        trees.write(name, name.as_bytes());
    }
    let (mut near, mut far) = duplex(64 * 1024);
    let receiver = Receiver::builder(&disk).build().unwrap();
    // One at a time: when the first is verified, nothing else is open.
    let sender = Sender::builder().window(1).build().unwrap();
    let at = disk.clone();
    let watch = move |event| {
        if matches!(event, Event::Verified { .. }) {
            let mount = Command::new("mount")
                .args(["-o", "remount,ro"])
                .arg(&at)
                .output()
                .unwrap();
            assert!(mount.status.success(), "{mount:?}");
        }
    };
    let (sent, received) = tokio::join!(
        sender.send(&mut near, [trees.source()]),
        receiver.receive_with(&mut far, watch)
    );
    for report in [sent.unwrap(), received.unwrap()] {
        let failures = failures(&report);
        assert_eq!(report.totals.files_verified, 1);
        // The other two, and the directory's own attributes.
        assert_eq!(failures.len(), 3, "{failures:?}");
        assert!(
            failures.values().all(|error| error.contains("Read-only")),
            "{failures:?}"
        );
    }
    assert_eq!(fs::read_dir(disk.join("tree")).unwrap().count(), 1);
}

#[cfg(feature = "sim")]
mod nasty {
    use std::collections::HashMap;
    use std::path::Path;

    use reliable_udp::copy::{Outcome, Report, Source};

    use super::*;

    /// Files of up to 32 KiB, and some of several blocks.
    fn many(count: u64) -> (Trees, HashMap<String, Vec<u8>>) {
        let trees = Trees::new();
        let mut all = HashMap::new();
        for n in 0..count {
            let len = match n {
                0 => 3 * MIB + 17,
                1 => 9 * MIB,
                n => n * 7919 % 32_768,
            };
            let name = format!("{}/{n:04}", n % 16);
            let content = noise(n, len);
            trees.write(&name, &content);
            all.insert(name, content);
        }
        (trees, all)
    }

    async fn copy(trees: &Trees, source: &Source, receiver: &Receiver) -> (Report, Report) {
        let (mut near, mut far) = duplex(256 * 1024);
        let sender = Sender::new();
        let (sent, received) = tokio::join!(
            sender.send_source(&mut near, source, |_| ()),
            receiver.receive(&mut far)
        );
        assert!(trees.target("").exists());
        (sent.unwrap(), received.unwrap())
    }

    async fn with_every_care(level: u8) {
        let (trees, all) = many(1000);
        let source = Source::builder([trees.source()])
            .nastiness(level, 1)
            .read_votes(1);
        let receiver = trees
            .receiver()
            .nastiness(level, 2)
            .read_votes(1)
            .verify_writes(true);
        let source = source.build().await.unwrap();
        let (sent, _) = copy(&trees, &source, &receiver.build().unwrap()).await;
        assert!(sent.is_complete(), "{:?}", failures(&sent));
        assert_eq!(sent.totals.files_verified, 1000);
        for (name, content) in &all {
            let there = fs::read(trees.target(name)).unwrap();
            assert!(there == *content, "{name}");
        }
    }

    #[tokio::test]
    async fn a_thousand_files_arrive_exact_on_a_disk_of_level_1() {
        with_every_care(1).await;
    }

    #[tokio::test]
    async fn a_thousand_files_arrive_exact_on_a_disk_of_level_3() {
        with_every_care(3).await;
    }

    #[tokio::test]
    async fn a_thousand_files_arrive_exact_on_a_disk_of_level_5() {
        with_every_care(5).await;
    }

    /// The receiver's disk lies and nobody minds: the end-to-end check has to find all of it.
    async fn without_care(level: u8) -> Report {
        let (trees, all) = many(300);
        let source = Source::builder([trees.source()]).build().await.unwrap();
        let receiver = trees.receiver().nastiness(level, 3).build().unwrap();
        let (sent, received) = copy(&trees, &source, &receiver).await;
        let mut verified = 0;
        for entry in &sent.entries {
            let name = entry.path.strip_prefix("tree").unwrap_or(Path::new(""));
            let name = name.to_str().unwrap();
            match &entry.outcome {
                Outcome::Verified { .. } => {
                    assert!(fs::read(trees.target(name)).unwrap() == all[name], "{name}");
                    verified += 1;
                }
                Outcome::Failed(error) => {
                    let expected = "read back from disk with another hash, 5 times";
                    assert_eq!(error.to_string(), expected, "{name}");
                    assert!(!trees.target(name).exists(), "{name}");
                }
                _ => {}
            }
        }
        assert_eq!(verified, sent.totals.files_verified);
        assert_eq!(verified + sent.totals.failed, 300);
        assert_eq!(sent.totals.failed, received.totals.failed);
        assert!(sent.totals.retries > 0);
        sent
    }

    #[tokio::test]
    async fn without_care_bad_copies_are_found_and_made_again_at_level_1() {
        let sent = without_care(1).await;
        assert!(sent.totals.files_verified > 290, "{:?}", sent.totals);
    }

    #[tokio::test]
    async fn without_care_bad_copies_are_found_and_made_again_at_level_3() {
        without_care(3).await;
    }

    #[tokio::test]
    async fn without_care_bad_copies_are_found_and_given_up_by_name_at_level_5() {
        let sent = without_care(5).await;
        // Hundreds of pages are never right all at once.
        assert!(failures(&sent).contains_key("tree/1/0001"));
    }
}
