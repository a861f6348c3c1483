//! Sources that change while they are copied.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use reliable_udp::copy::{Event, Report, RetryCause, Sender};

use crate::fixture::{MIB, Trees, failures, leftovers, noise};

/// Copies a large file and two others, and does something to the large one after its first block.
async fn copy_and(change: impl Fn(&PathBuf) + Send + 'static) -> (Trees, Report, u64) {
    let trees = Trees::new();
    trees.write("a", b"before");
    let large = trees.write("large", &noise(1, 12 * MIB));
    trees.write("z", b"behind");
    let (retries, changed) = std::sync::mpsc::channel();
    let mut is_done = false;
    let watch = move |event| match event {
        Event::Progress { path, .. } if path.ends_with("large") && !is_done => {
            is_done = true;
            change(&large);
        }
        Event::Retrying { cause, .. } => {
            assert_eq!(cause, RetryCause::Changed);
            retries.send(()).unwrap();
        }
        _ => {}
    };
    let (sent, _) = trees
        .copy_watched(Sender::builder(), trees.receiver(), watch)
        .await;
    for name in ["a", "z"] {
        let there = fs::read(trees.target(name)).unwrap();
        assert_eq!(there, fs::read(trees.source().join(name)).unwrap());
    }
    (trees, sent, changed.iter().count() as u64)
}

#[tokio::test]
async fn a_file_that_grows_is_sent_again_as_it_is_then() {
    let (trees, sent, retries) = copy_and(|path| {
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(b"more").unwrap();
    })
    .await;
    assert!(sent.is_complete());
    assert_eq!((sent.totals.retries, retries), (1, 1));
    trees.expect_equal();
}

#[tokio::test]
async fn a_file_that_shrinks_is_sent_again_as_it_is_then() {
    let (trees, sent, retries) = copy_and(|path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(MIB + 1).unwrap();
    })
    .await;
    assert!(sent.is_complete());
    assert_eq!(retries, 1);
    trees.expect_equal();
}

#[tokio::test]
async fn a_file_that_shrinks_to_nothing_is_sent_again_as_it_is_then() {
    let (trees, sent, _) = copy_and(|path| fs::write(path, b"").unwrap()).await;
    assert!(sent.is_complete());
    assert!(leftovers(&trees.target("")).is_empty(), "cleared away");
    trees.expect_equal();
}

#[tokio::test]
async fn a_file_that_is_replaced_is_sent_again() {
    let (trees, sent, retries) = copy_and(|path| {
        let other = path.with_file_name("../other");
        fs::write(&other, noise(2, 12 * MIB)).unwrap();
        fs::rename(other, path).unwrap();
    })
    .await;
    assert!(sent.is_complete());
    assert_eq!(retries, 1);
    // The directory changed too, after it was looked at: only the content has to be equal.
    assert!(fs::read(trees.target("large")).unwrap() == noise(2, 12 * MIB));
}

#[tokio::test]
async fn a_file_that_vanishes_is_named_and_leaves_no_final_name() {
    let (trees, sent, _) = copy_and(|path| fs::remove_file(path).unwrap()).await;
    let failures = failures(&sent);
    assert_eq!(failures.len(), 1);
    assert_eq!(failures["tree/large"], "cannot be read");
    assert!(!trees.target("large").exists());
}

#[tokio::test]
async fn a_file_that_never_holds_still_is_given_up() {
    let trees = Trees::new();
    let path = trees.write("log", &noise(1, 3 * MIB));
    trees.write("other", b"arrives");
    let watch = move |event| {
        if let Event::Progress { path: at, .. } = event
            && at.ends_with("log")
        {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(b"line\n").unwrap();
        }
    };
    let (sent, _) = trees
        .copy_watched(Sender::builder(), trees.receiver(), watch)
        .await;
    assert_eq!(
        failures(&sent)["tree/log"],
        "changed while it was read, 5 times"
    );
    assert_eq!((sent.totals.failed, sent.totals.files_verified), (1, 1));
    assert!(!trees.target("log").exists());
}
