//! A later session continues what an earlier one left, and only that.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use reliable_udp::copy::{Receiver, Report, Sender};
use reliable_udp::{Config, ReliableUdpListener, ReliableUdpSocket};
use tokio::io::duplex;

use crate::fixture::{MIB, Trees, leftovers, noise};

const LEN: u64 = 24 * MIB;
const CUT: u64 = 15 * MIB;
/// What may be sent again after a break, by the promise of the protocol.
const AGAIN: u64 = 8 * MIB;

fn trees() -> Trees {
    let trees = Trees::new();
    trees.write("large", &noise(1, LEN));
    trees
}

async fn broken() -> Trees {
    let trees = trees();
    trees
        .copy_cut(&Sender::new(), &trees.receiver().build().unwrap(), CUT)
        .await;
    trees
}

#[track_caller]
fn expect_continued(sent: &Report, received: &Report) {
    assert!(sent.is_complete() && received.is_complete());
    assert_eq!(sent.totals, received.totals);
    let totals = &sent.totals;
    assert_eq!(totals.bytes_resumed + totals.bytes_transferred, LEN);
    assert!(totals.bytes_transferred <= LEN - CUT + AGAIN, "{totals:?}");
}

#[track_caller]
fn expect_from_the_start(sent: &Report) {
    assert!(sent.is_complete());
    assert_eq!(sent.totals.bytes_resumed, 0);
    assert_eq!(sent.totals.bytes_transferred, LEN);
}

fn partial(trees: &Trees) -> PathBuf {
    let found = leftovers(&trees.target(""));
    let is_partial = |path: &&PathBuf| path.extension().is_some_and(|end| end == "part");
    found.iter().find(is_partial).unwrap().clone()
}

#[tokio::test]
async fn a_cut_line_costs_no_more_than_eight_mebibytes() {
    let trees = broken().await;
    assert!(!trees.target("large").exists(), "no final name yet");
    assert_eq!(
        leftovers(&trees.target("")).len(),
        2,
        "a partial and its journal"
    );
    let (sent, received) = trees.copy().await;
    expect_continued(&sent, &received);
    trees.expect_equal();
}

#[tokio::test]
async fn a_second_break_goes_on_from_the_first() {
    let trees = broken().await;
    let receiver = trees.receiver().build().unwrap();
    trees.copy_cut(&Sender::new(), &receiver, 6 * MIB).await;
    let (sent, _) = trees.copy().await;
    let most = LEN - CUT - 6 * MIB + 2 * AGAIN;
    assert!(sent.totals.bytes_transferred <= most, "{:?}", sent.totals);
    trees.expect_equal();
}

#[tokio::test]
async fn a_sender_that_is_dropped_in_the_middle_can_go_on() {
    let trees = trees();
    let receiver = trees.receiver().build().unwrap();
    let (mut near, mut far) = duplex(64 * 1024);
    let (passed, mut middle) = tokio::sync::mpsc::unbounded_channel();
    let sending = async {
        let sender = Sender::new();
        let mut sent = 0;
        let watch = move |event| {
            if let reliable_udp::copy::Event::Progress { bytes, .. } = event {
                sent += bytes;
                if sent >= CUT {
                    let _ = passed.send(());
                }
            }
        };
        tokio::select! {
            _ = sender.send_with(&mut near, [trees.source()], watch) => panic!("too late"),
            _ = middle.recv() => {}
        }
        drop(near);
    };
    let (received, ()) = tokio::join!(receiver.receive(&mut far), sending);
    assert!(received.is_err());
    let (sent, received) = trees.copy().await;
    expect_continued(&sent, &received);
    trees.expect_equal();
}

#[tokio::test]
async fn a_receiver_that_is_dropped_in_the_middle_can_go_on() {
    let trees = trees();
    let receiver = trees.receiver().build().unwrap();
    let (mut near, mut far) = duplex(64 * 1024);
    let (passed, mut middle) = tokio::sync::mpsc::unbounded_channel();
    let receiving = async {
        let mut taken = 0;
        let watch = move |event| {
            if let reliable_udp::copy::Event::Progress { bytes, .. } = event {
                taken += bytes;
                if taken >= CUT {
                    let _ = passed.send(());
                }
            }
        };
        tokio::select! {
            _ = receiver.receive_with(&mut far, watch) => panic!("too late"),
            _ = middle.recv() => {}
        }
        drop(far);
    };
    let sender = Sender::new();
    let (sent, ()) = tokio::join!(sender.send(&mut near, [trees.source()]), receiving);
    assert!(sent.is_err());
    // The same receiver: its next session takes over what the dropped one may still hold.
    let (mut near, mut far) = duplex(64 * 1024);
    let (sent, received) = tokio::join!(
        sender.send(&mut near, [trees.source()]),
        receiver.receive(&mut far)
    );
    expect_continued(&sent.unwrap(), &received.unwrap());
    trees.expect_equal();
}

#[tokio::test]
async fn a_socket_that_is_aborted_can_be_followed_by_another() {
    let trees = trees();
    let receiver = trees.receiver().build().unwrap();
    let listener = ReliableUdpListener::bind_with("127.0.0.1:0", Config::default())
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = receiver.receive(&mut stream).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        }
    });
    let sender = Sender::new();
    let mut stream = ReliableUdpSocket::connect(addr).await.unwrap();
    let (passed, mut middle) = tokio::sync::mpsc::unbounded_channel();
    let mut sent = 0;
    let watch = move |event| {
        if let reliable_udp::copy::Event::Progress { bytes, .. } = event {
            sent += bytes;
            if sent >= CUT {
                let _ = passed.send(());
            }
        }
    };
    tokio::select! {
        _ = sender.send_with(&mut stream, [trees.source()], watch) => panic!("too late"),
        _ = middle.recv() => stream.abort(),
    }
    drop(stream);
    let mut stream = ReliableUdpSocket::connect(addr).await.unwrap();
    let sent = sender.send(&mut stream, [trees.source()]).await.unwrap();
    assert!(sent.is_complete());
    // What was on its way in buffers did not arrive.
    assert!(sent.totals.bytes_resumed >= 4 * MIB, "{:?}", sent.totals);
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
    drop(stream);
    serving.await.unwrap();
    trees.expect_equal();
}

#[tokio::test]
async fn a_source_that_changed_meanwhile_starts_over() {
    let trees = broken().await;
    trees.write("large", &noise(2, LEN));
    let (sent, _) = trees.copy().await;
    expect_from_the_start(&sent);
    trees.expect_equal();
}

#[tokio::test]
async fn a_partial_that_was_cut_short_starts_over() {
    let trees = broken().await;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(partial(&trees))
        .unwrap();
    file.set_len(5 * MIB).unwrap();
    let (sent, _) = trees.copy().await;
    expect_from_the_start(&sent);
    trees.expect_equal();
}

fn damage(trees: &Trees) {
    let path = partial(trees);
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 3 * MIB + 5).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 3 * MIB + 5).unwrap();
}

#[tokio::test]
async fn rechecking_finds_what_the_disk_did_meanwhile() {
    let trees = broken().await;
    damage(&trees);
    let sender = Sender::builder().recheck(true);
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    expect_from_the_start(&sent);
    trees.expect_equal();
}

#[tokio::test]
async fn rechecking_a_good_partial_goes_on() {
    let trees = broken().await;
    let sender = Sender::builder().recheck(true);
    let (sent, received) = trees.copy_with(sender, trees.receiver()).await;
    expect_continued(&sent, &received);
    trees.expect_equal();
}

/// The price of not reading again what was read back once: see "Going on" in docs/COPY.md.
#[tokio::test]
async fn without_rechecking_the_journal_is_believed() {
    let trees = broken().await;
    damage(&trees);
    let (sent, received) = trees.copy().await;
    expect_continued(&sent, &received);
    let mut expected = noise(1, LEN);
    expected[3 * 1024 * 1024 + 5] ^= 1;
    assert!(fs::read(trees.target("large")).unwrap() == expected);
}

#[tokio::test]
async fn a_damaged_journal_vouches_for_nothing() {
    let trees = broken().await;
    let partial = partial(&trees);
    fs::write(partial.with_extension("journal"), noise(3, 20_000)).unwrap();
    let (sent, _) = trees.copy().await;
    expect_from_the_start(&sent);
    trees.expect_equal();
}

#[tokio::test]
async fn a_link_in_the_place_of_a_partial_is_not_followed() {
    let trees = broken().await;
    let outside = trees.from.path().join("outside");
    fs::write(&outside, b"not yours").unwrap();
    let partial = partial(&trees);
    fs::remove_file(&partial).unwrap();
    std::os::unix::fs::symlink(&outside, &partial).unwrap();
    let (sent, _) = trees.copy().await;
    expect_from_the_start(&sent);
    assert_eq!(fs::read(outside).unwrap(), b"not yours");
    assert!(fs::read(trees.target("large")).unwrap() == noise(1, LEN));
}

#[tokio::test]
async fn small_files_that_were_complete_are_not_sent_again() {
    let trees = Trees::new();
    for n in 0..400_u64 {
        trees.write(format!("{n:03}"), &noise(n, 16 * 1024));
    }
    let receiver: Receiver = trees.receiver().build().unwrap();
    trees.copy_cut(&Sender::new(), &receiver, 4 * MIB).await;
    let (sent, _) = trees.copy().await;
    assert!(sent.is_complete());
    let totals = &sent.totals;
    assert_eq!(totals.files_present + totals.files_verified, 400);
    assert!(totals.files_present >= 160, "{totals:?}");
    trees.expect_equal();
}
