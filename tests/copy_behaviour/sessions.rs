//! Peers that stall, bounds on speed, many targets, and two sessions for one path.

use std::fs;
use std::time::Duration;

use reliable_udp::copy::{CopyError, Event, Outcome, RateLimit, Receiver, Refusal, Sender, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use crate::fixture::{MIB, Trees, describe, failures, noise, temp};
use crate::link::Link;

#[expect(
    clippy::disallowed_methods,
    reason = "the clock of the test, which may be paused"
)]
fn now() -> Instant {
    Instant::now()
}

async fn greet(stream: &mut DuplexStream, as_sender: bool) {
    let greeting = *b"rudpcopy\0\x02\0\x02\0\0\0\0";
    let mut theirs = [0; 16];
    if as_sender {
        stream.write_all(&greeting).await.unwrap();
        stream.read_exact(&mut theirs).await.unwrap();
    } else {
        stream.read_exact(&mut theirs).await.unwrap();
        stream.write_all(&greeting).await.unwrap();
    }
    assert_eq!(theirs, greeting);
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &len[..], body].concat()
}

/// Takes all that comes, and never answers.
async fn swallow(stream: &mut DuplexStream) {
    let mut buf = vec![0; 64 * 1024];
    while stream.read(&mut buf).await.is_ok_and(|read| read > 0) {}
}

#[track_caller]
fn expect_stall(error: &CopyError, began: Instant, patience: u64, reason: &str) {
    let CopyError::Stalled {
        after, waiting_for, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (*after, *waiting_for),
        (Duration::from_secs(patience), reason)
    );
    let took = (now() - began).as_secs();
    assert!(
        (patience..=patience * 5 / 4 + 2).contains(&took),
        "{took} s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_stops_reading_stalls_the_sender() {
    let trees = Trees::new();
    trees.write("large", &noise(1, 3 * MIB));
    let (mut near, mut far) = duplex(64 * 1024);
    let sender = Sender::builder()
        .stall_timeout(Duration::from_secs(40))
        .build()
        .unwrap();
    let began = now();
    let (sent, ()) = tokio::join!(sender.send(&mut near, [trees.source()]), async {
        greet(&mut far, false).await;
        // The file is number 0, once it was offered. What is asked for is never taken.
        far.read_exact(&mut [0; 5 + 4 + 5]).await.unwrap();
        far.write_all(&frame(0x84, &[0; 16])).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    });
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("tree/large"), "{error}");
    let CopyError::Stalled { waiting_for, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*waiting_for, "the stream to take more");
    assert!(now() - began <= Duration::from_secs(600) + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_never_answers_stalls_the_sender() {
    let trees = Trees::new();
    trees.write("file", b"x");
    let (mut near, mut far) = duplex(64 * 1024);
    let sender = Sender::builder()
        .verdict_timeout(Duration::from_secs(120))
        .stall_timeout(Duration::from_secs(40))
        .build()
        .unwrap();
    let began = now();
    let sending = async {
        let sent = sender.send(&mut near, [trees.source()]).await;
        drop(near);
        sent
    };
    let (sent, ()) = tokio::join!(sending, async {
        greet(&mut far, false).await;
        swallow(&mut far).await;
    });
    expect_stall(&sent.unwrap_err(), began, 40, "the other side");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_stays_silent_is_asked_and_its_files_given_up() {
    let trees = Trees::new();
    trees.write("file", b"x");
    let (mut near, mut far) = duplex(64 * 1024);
    let sender = Sender::new();
    let asks = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&asks);
    let sending = async {
        let watch = move |event| match event {
            Event::AskedAgain { asks, .. } => seen.lock().unwrap().push(asks.to_string()),
            Event::Failed { error, .. } => seen.lock().unwrap().push(error.to_string()),
            _ => {}
        };
        let sent = sender.send_with(&mut near, [trees.source()], watch).await;
        drop(near);
        sent
    };
    let (sent, ()) = tokio::join!(sending, async {
        greet(&mut far, false).await;
        swallow(&mut far).await;
    });
    assert!(
        matches!(sent, Err(CopyError::Connection { .. })),
        "{sent:?}"
    );
    let given_up = "no verdict after asking again 5 times";
    let expected = [&["1", "2", "3", "4", "5", given_up][..]; 2].concat();
    assert_eq!(
        *asks.lock().unwrap(),
        expected,
        "the file, then its directory"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_stops_sending_stalls_the_receiver() {
    let trees = Trees::new();
    let receiver = trees
        .receiver()
        .stall_timeout(Duration::from_secs(40))
        .build()
        .unwrap();
    let (mut near, mut far) = duplex(64 * 1024);
    let began = now();
    let (received, last) = tokio::join!(receiver.receive(&mut far), async {
        greet(&mut near, true).await;
        near.write_all(&frame(1, &[0; 4])).await.unwrap();
        let mut last = vec![0; 1000];
        let read = near.read(&mut last).await.unwrap();
        last.truncate(read);
        last
    });
    expect_stall(&received.unwrap_err(), began, 40, "the other side");
    // FATAL, stalled, and the words.
    assert_eq!((last[0], last[5]), (0xff, 5));
    let words = String::from_utf8_lossy(&last[6..]);
    assert!(words.starts_with("no progress for 40s"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_takes_no_answers_stalls_the_receiver() {
    let trees = Trees::new();
    let receiver = trees
        .receiver()
        .stall_timeout(Duration::from_secs(40))
        .build()
        .unwrap();
    // The answers do not fit.
    let (mut near, mut far) = duplex(64);
    let receiving = async {
        let received = receiver.receive(&mut far).await;
        drop(far);
        received
    };
    let (received, ()) = tokio::join!(receiving, async {
        greet(&mut near, true).await;
        near.write_all(&frame(1, &[0; 4])).await.unwrap();
        for id in 0..4000_u64 {
            let offer = [&id.to_be_bytes()[..], &[0; 16], b"../x"].concat();
            if near.write_all(&frame(4, &offer)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_secs(600)).await;
    });
    let error = received.unwrap_err();
    let CopyError::Stalled { waiting_for, .. } = &error else {
        panic!("{error}");
    };
    // Which of the two it is depends on how many batches the offers came in.
    assert!(
        ["the stream to take more", "the other side"].contains(waiting_for),
        "{waiting_for}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_or_a_slow_line_is_no_stall() {
    let trees = Trees::new();
    trees.write("large", &noise(1, 3 * MIB));
    let link = Link {
        rate: Some(10_000),
        delay: Duration::from_secs(3),
        ..Link::default()
    };
    let (mut near, mut far) = link.join(1000);
    let patience = Duration::from_secs(20);
    let sender = Sender::builder().stall_timeout(patience).build().unwrap();
    let receiver = trees.receiver().stall_timeout(patience).build().unwrap();
    let (sent, received) = tokio::join!(
        sender.send(&mut near, [trees.source()]),
        receiver.receive(&mut far)
    );
    assert!(sent.unwrap().is_complete() && received.unwrap().is_complete());
    trees.expect_equal();
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_bounds_a_copy() {
    let trees = Trees::new();
    trees.write("large", &noise(1, 2_000_000));
    for n in 0..100 {
        trees.write(format!("{n}"), &noise(n, 10_000));
    }
    let limit = RateLimit::new(100_000).unwrap();
    let began = now();
    let sender = Sender::builder().rate_limit(limit);
    let (sent, _) = trees.copy_with(sender, trees.receiver()).await;
    assert!(sent.is_complete());
    // 3 MB and the frames at 100 kB/s.
    let took = (now() - began).as_secs_f64();
    assert!((29.5..31.5).contains(&took), "{took} s");
}

fn large_tree(files: u64, len: u64) -> Trees {
    let trees = Trees::new();
    for n in 0..files {
        trees.write(format!("{n:03}"), &noise(n, len));
    }
    trees
}

/// Sends one source over three links; returns when each was done, and whether.
async fn fan_out(
    source: &Source,
    links: [Link; 3],
    roots: &[std::path::PathBuf; 3],
) -> [(f64, bool); 3] {
    let began = now();
    let one = |link: Link, root: std::path::PathBuf| async move {
        let (mut near, mut far) = link.join(64 * 1024);
        let receiver = Receiver::builder(root).build().unwrap();
        let sender = Sender::builder()
            .stall_timeout(Duration::from_secs(600))
            .build()
            .unwrap();
        let (sent, _) = tokio::join!(
            async {
                let sent = sender.send_source(&mut near, source, |_| ()).await;
                let took = (now() - began).as_secs_f64();
                drop(near);
                (took, sent.is_ok_and(|report| report.is_complete()))
            },
            async {
                let received = receiver.receive(&mut far).await;
                drop(far);
                received
            }
        );
        sent
    };
    let target = |index: usize| one(links[index], roots[index].clone());
    <[_; 3]>::from(tokio::join!(target(0), target(1), target(2)))
}

#[tokio::test(start_paused = true)]
async fn a_dead_and_a_slow_target_neither_slow_the_fast_one_nor_cost_reading_again() {
    let trees = large_tree(40, MIB);
    let rate = |rate| Link {
        delay: Duration::from_millis(20),
        rate: Some(rate),
        ..Link::default()
    };
    let dead = Link {
        cut: Some(3 * MIB),
        ..rate(12_500_000)
    };
    let temps = [temp(), temp(), temp()];
    let roots = temps.each_ref().map(|temp| temp.path().to_path_buf());
    let source = Source::builder([trees.source()]).build().await.unwrap();
    let links = [rate(12_500_000), rate(2_500_000), dead];
    let [fast, slow, lost] = Box::pin(fan_out(&source, links, &roots)).await;
    assert!(fast.1 && slow.1 && !lost.1);
    // 42 MB at 12.5 MB/s; the lag of the other fits into the cache.
    assert!((3.3..4.5).contains(&fast.0), "{} s", fast.0);
    assert!((16.7..20.0).contains(&slow.0), "{} s", slow.0);
    assert_eq!(source.bytes_read(), 40 * MIB);
    for root in &roots[..2] {
        assert!(describe(&root.join("tree")) == describe(&trees.source()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_lags_beyond_the_cache_reads_again_and_slows_nobody() {
    let trees = large_tree(40, MIB);
    let rate = |rate| Link {
        rate: Some(rate),
        ..Link::default()
    };
    let temps = [temp(), temp(), temp()];
    let roots = temps.each_ref().map(|temp| temp.path().to_path_buf());
    let source = Source::builder([trees.source()])
        .cache(4 * MIB)
        .build()
        .await
        .unwrap();
    let links = [rate(12_500_000), rate(12_500_000), rate(1_000_000)];
    let [fast, second, slow] = Box::pin(fan_out(&source, links, &roots)).await;
    assert!(fast.1 && second.1 && slow.1);
    assert!(
        fast.0 < 4.5 && second.0 < 4.5,
        "{} s, {} s",
        fast.0,
        second.0
    );
    let read = source.bytes_read();
    assert!((40 * MIB..=100 * MIB).contains(&read), "{read}");
    for root in &roots {
        assert!(describe(&root.join("tree")) == describe(&trees.source()));
    }
}

#[tokio::test]
async fn the_later_of_two_sessions_takes_a_file_over() {
    let trees = Trees::new();
    trees.write("large", &noise(1, 24 * MIB));
    let receiver = trees.receiver().build().unwrap();
    let (half, mut is_half) = tokio::sync::mpsc::unbounded_channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let first = async {
        let (mut near, mut far) = duplex(64 * 1024);
        let mut taken = 0;
        let mut is_told = false;
        let watch = move |event| {
            if let Event::Progress { bytes, .. } = event {
                taken += bytes;
                if taken >= 12 * MIB && !is_told {
                    is_told = true;
                    half.send(()).unwrap();
                    // Until the other session is through.
                    wait.recv().unwrap();
                }
            }
        };
        let sender = Sender::new();
        let (sent, received) = tokio::join!(
            sender.send_with(&mut near, [trees.source()], watch),
            receiver.receive(&mut far)
        );
        (sent.unwrap(), received.unwrap())
    };
    let second = async {
        is_half.recv().await.unwrap();
        let (mut near, mut far) = duplex(64 * 1024);
        let sender = Sender::new();
        let (sent, received) = tokio::join!(
            sender.send(&mut near, [trees.source()]),
            receiver.receive(&mut far)
        );
        go.send(()).unwrap();
        (sent.unwrap(), received.unwrap())
    };
    let (first, second) = tokio::join!(first, second);
    for report in [&first.0, &first.1] {
        let outcome = report
            .entries
            .iter()
            .find(|entry| entry.path.ends_with("large"));
        let expected = Outcome::Failed(Refusal::Superseded.into());
        assert_eq!(outcome.unwrap().outcome, expected);
    }
    assert!(second.0.is_complete() && second.1.is_complete());
    assert!(second.0.totals.bytes_resumed > 0, "{:?}", second.0.totals);
    assert!(fs::read(trees.target("large")).unwrap() == noise(1, 24 * MIB));
}

/// Two servers for one directory know nothing of each other but the lock on the file.
#[tokio::test]
async fn a_file_that_another_receiver_works_on_starts_over_under_a_name_of_its_own() {
    let trees = Trees::new();
    trees.write("large", &noise(1, 24 * MIB));
    let (half, mut is_half) = tokio::sync::mpsc::unbounded_channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let first = async {
        let mut taken = 0;
        let mut is_told = false;
        let watch = move |event| {
            if let Event::Progress { bytes, .. } = event {
                taken += bytes;
                if taken >= 12 * MIB && !is_told {
                    is_told = true;
                    half.send(()).unwrap();
                    wait.recv().unwrap();
                }
            }
        };
        trees
            .copy_watched(Sender::builder(), trees.receiver(), watch)
            .await
    };
    let second = async {
        is_half.recv().await.unwrap();
        let reports = trees.copy().await;
        go.send(()).unwrap();
        reports
    };
    let (first, second) = tokio::join!(first, second);
    assert!(second.0.is_complete(), "{:?}", failures(&second.0));
    assert_eq!(second.0.totals.bytes_transferred, 24 * MIB);
    assert_eq!(
        failures(&first.0)["tree/large"],
        "refused: it exists already and differs; overwriting is off"
    );
    assert!(fs::read(trees.target("large")).unwrap() == noise(1, 24 * MIB));
}

/// An offer of a file of five blocks.
fn offer(id: u64, path: &[u8]) -> Vec<u8> {
    let size = (5 * MIB).to_be_bytes();
    let offer = [&id.to_be_bytes()[..], &[1, 1], &size, &[0; 33], path];
    frame(2, &offer.concat())
}

#[tokio::test]
async fn what_stays_of_files_that_were_withdrawn_counts_against_the_limit() {
    use blake3::hazmat::HasherExt;
    let trees = Trees::new();
    let receiver = trees.receiver().max_bytes(8 * MIB).build().unwrap();
    let (mut near, mut far) = duplex(64 * 1024);
    let receiving = async {
        let _ = receiver.receive(&mut far).await;
        drop(far);
    };
    let ((), verdicts) = tokio::join!(receiving, async {
        greet(&mut near, true).await;
        let mut frames = [frame(1, &[0; 4]), offer(0, b"a"), frame(5, &[0; 16])].concat();
        for index in 0..5 {
            let mut hasher = blake3::Hasher::new();
            hasher.set_input_offset(index * MIB);
            hasher.update(&vec![0; usize::try_from(MIB).unwrap()]);
            frames.extend(frame(7, &MIB.to_be_bytes()));
            frames.extend(frame(8, &hasher.finalize_non_root()));
        }
        frames.extend(frame(10, &[0, 0, 0, 0, 0, 0, 0, 0, 2]));
        frames.extend(offer(1, b"b"));
        near.write_all(&frames).await.unwrap();
        near.shutdown().await.unwrap();
        let mut answers = Vec::new();
        near.read_to_end(&mut answers).await.unwrap();
        drop(near);
        answers
    });
    // NEED for the first, from 0; for the second REFUSED, too many bytes.
    let refused = frame(0x81, &[0, 0, 0, 0, 0, 0, 0, 1, 3, 16]);
    assert!(verdicts.ends_with(&refused), "{verdicts:x?}");
}

/// Virtual seconds for the source of `trees` over 100 Mbit/s and 50 ms each way.
async fn over_a_long_line(trees: &Trees) -> f64 {
    let link = Link {
        delay: Duration::from_millis(50),
        rate: Some(12_500_000),
        ..Link::default()
    };
    let (mut near, mut far) = link.join(64 * 1024);
    let (sender, receiver) = (Sender::new(), trees.receiver().build().unwrap());
    let began = now();
    let (sent, received) = tokio::join!(
        sender.send(&mut near, [trees.source()]),
        receiver.receive(&mut far)
    );
    let took = (now() - began).as_secs_f64();
    assert!(sent.unwrap().is_complete() && received.unwrap().is_complete());
    took
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_small_files_take_little_longer_than_one_large_one() {
    let small = Trees::new();
    let content = noise(1, 4096);
    for n in 0..20_000 {
        small.write(format!("{}/{n}", n % 20), &content);
    }
    let large = Trees::new();
    large.write("one", &noise(1, 20_000 * 4096));
    let (small, large) = (
        over_a_long_line(&small).await,
        over_a_long_line(&large).await,
    );
    eprintln!("20,000 files: {small:.1} s, one file: {large:.1} s");
    assert!(large > 6.5 && small < 3.0 * large, "{small} s, {large} s");
}
