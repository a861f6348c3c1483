//! Both ends against each other with what public API cannot do: disks that lie or are full, and
//! streams that lose verdicts.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::disk::{Disk, PlainDisk};
use super::protocol::{Decoder, Frame, GREETING_LEN, Item, Verdict};
use super::*;

/// What the faulty disk does, and how often still.
#[derive(Debug, Default)]
struct FaultyDisk {
    flip_writes: AtomicU32,
    flip_reads: AtomicU32,
    /// Bytes that fit before it is full.
    room: Option<AtomicU64>,
}

impl FaultyDisk {
    fn take(counter: &AtomicU32) -> bool {
        counter
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            })
            .is_ok()
    }
}

impl Disk for FaultyDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if let Some(room) = &self.room {
            let len = u64::try_from(bytes.len()).unwrap();
            if room
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(len)
                })
                .is_err()
            {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        if !Self::take(&self.flip_writes) {
            return PlainDisk.write_at(file, bytes, offset);
        }
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] ^= 0x10;
        PlainDisk.write_at(file, &flipped, offset)
    }

    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = PlainDisk.read_at(file, buf, offset)?;
        if read > 0 && Self::take(&self.flip_reads) {
            buf[read - 1] ^= 1;
        }
        Ok(read)
    }
}

/// Two directories and what goes between them.
struct CopyTest {
    from: TempDir,
    to: TempDir,
    disk: FaultyDisk,
    sender: SenderBuilder,
}

impl CopyTest {
    fn new() -> Self {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Self {
            from,
            to,
            disk: FaultyDisk::default(),
            sender: Sender::builder(),
        }
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.from.path().join(name), content).unwrap();
    }

    /// Sends every entry of the source directory; yields both reports and the sender's events.
    async fn run(self) -> (Report, Report, Vec<Event>, TempDir) {
        let mut paths: Vec<_> = fs::read_dir(self.from.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let receiver = Receiver::builder(self.to.path())
            .disk(Arc::new(self.disk))
            .build()
            .unwrap();
        let (mut near, mut far) = duplex(10_000);
        let events = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&events);
        let sender = self.sender.build().unwrap();
        let (sent, received) = tokio::join!(
            sender.send_with(&mut near, paths, move |event| log
                .lock()
                .unwrap()
                .push(event)),
            receiver.receive(&mut far)
        );
        let events = events.lock().unwrap().clone();
        (sent.unwrap(), received.unwrap(), events, self.to)
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_bit_flipped_on_write_is_found_and_the_file_sent_again() {
    let mut test = CopyTest::new();
    test.write("a", b"content");
    test.disk.flip_writes = 2.into();
    let (sent, received, events, to) = test.run().await;
    assert!(sent.is_complete() && received.is_complete());
    assert_eq!((sent.totals.retries, received.totals.retries), (2, 2));
    assert_eq!(sent.totals.bytes_transferred, 3 * 7);
    assert_eq!(sent.totals.bytes_verified, 7);
    assert_eq!(fs::read(to.path().join("a")).unwrap(), b"content");
    let retries = events.iter().filter(|event| {
        matches!(
            event,
            Event::Retrying {
                cause: RetryCause::Mismatch,
                ..
            }
        )
    });
    assert_eq!(retries.count(), 2);
}

#[tokio::test]
async fn a_bit_flipped_on_read_back_is_found_too() {
    let mut test = CopyTest::new();
    test.write("a", &vec![1; 300_000]);
    test.disk.flip_reads = 1.into();
    let (sent, _, _, to) = test.run().await;
    assert!(sent.is_complete());
    assert_eq!(sent.totals.retries, 1);
    assert_eq!(fs::read(to.path().join("a")).unwrap(), vec![1; 300_000]);
}

#[tokio::test]
async fn a_file_that_never_verifies_is_given_up_by_name_and_the_others_arrive() {
    let mut test = CopyTest::new();
    // One at a time, so that the bad disk meets one file only.
    test.sender = Sender::builder().window(1);
    test.write("bad", b"content");
    test.write("good", b"content");
    test.disk.flip_writes = 5.into();
    let (sent, received, events, to) = test.run().await;
    let expected = FileError::Mismatch { attempts: 5 };
    for report in [&sent, &received] {
        assert_eq!(
            report.failures().collect::<Vec<_>>(),
            [(Path::new("bad"), &expected)]
        );
        assert_eq!(report.totals.files_verified, 1);
        assert_eq!(report.totals.retries, 4, "sent again 4 times");
    }
    assert_eq!(
        expected.to_string(),
        "read back from disk with another hash, 5 times"
    );
    assert_eq!(names(to.path()), ["good"], "nothing of the bad one is left");
    assert_each_ends_once(&events);
}

#[tokio::test]
async fn what_was_there_stays_when_its_replacement_does_not_verify() {
    let mut test = CopyTest::new();
    test.sender = Sender::builder().attempts(1).overwrite(true);
    test.write("a", b"new");
    fs::write(test.to.path().join("a"), b"older").unwrap();
    test.disk.flip_writes = 1.into();
    let (sent, _, _, to) = test.run().await;
    assert_eq!(sent.totals.failed, 1);
    assert_eq!(fs::read(to.path().join("a")).unwrap(), b"older");
}

#[tokio::test]
async fn a_full_disk_fails_the_file_early_and_leaves_no_temporary() {
    let mut test = CopyTest::new();
    test.sender = Sender::builder().window(1);
    test.write("big", &vec![7; 20_000_000]);
    test.write("small", b"fits");
    test.disk.room = Some(500_000.into());
    let (sent, received, events, to) = test.run().await;
    for report in [&sent, &received] {
        let (path, error) = report.failures().next().unwrap();
        assert_eq!(path, Path::new("big"));
        assert!(
            matches!(
                error,
                FileError::Store {
                    kind: io::ErrorKind::StorageFull,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!((report.totals.files_verified, report.totals.failed), (1, 1));
    }
    assert!(
        sent.totals.bytes_transferred < 10_000_000,
        "the rest of the file was not sent"
    );
    assert_eq!(names(to.path()), ["small"]);
    assert_each_ends_once(&events);
}

/// Every file that was started ends exactly once.
#[track_caller]
fn assert_each_ends_once(events: &[Event]) {
    let mut ends: HashMap<&Path, u32> = HashMap::new();
    for event in events {
        match event {
            Event::Started { path, .. } => _ = ends.entry(path).or_default(),
            Event::Verified { path, .. }
            | Event::DirectoryDone { path }
            | Event::Present { path, .. }
            | Event::Failed { path, .. } => *ends.entry(path).or_default() += 1,
            _ => {}
        }
    }
    assert!(ends.values().all(|count| *count == 1), "{ends:?}");
}

/// Plays a receiver whose verdicts on `lost` get lost the first `times` times, in front of a real
/// one.
async fn relay_losing_verdicts(near: DuplexStream, far: DuplexStream, lost: u64, mut times: u32) {
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = tokio::io::split(far);
    let forward = tokio::io::copy(&mut near_read, &mut far_write);
    let backward = async {
        let mut greeting = [0; GREETING_LEN];
        far_read.read_exact(&mut greeting).await?;
        near_write.write_all(&greeting).await?;
        let (mut decoder, mut buf) = (Decoder::default(), vec![0; 4096]);
        loop {
            let read = far_read.read(&mut buf).await?;
            let mut bytes = &buf[..read];
            while let Some(Item::Frame(frame)) = decoder.next(&mut bytes).unwrap() {
                if matches!(&frame, Frame::Verdict(id, _) if *id == lost) && times > 0 {
                    times -= 1;
                    continue;
                }
                let mut out = Vec::new();
                frame.encode(&mut out);
                near_write.write_all(&out).await?;
                if frame == Frame::Bye {
                    return Ok::<_, io::Error>(());
                }
            }
            if read == 0 {
                return Ok(());
            }
        }
    };
    tokio::select! {
        _ = forward => {}
        result = backward => result.unwrap(),
    }
}

async fn send_with_lost_verdicts(times: u32) -> (Report, Report) {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let paths = ["a", "b", "c"].map(|name| {
        let path = from.path().join(name);
        fs::write(&path, name).unwrap();
        path
    });
    let receiver = Receiver::builder(to.path()).build().unwrap();
    let sender = Sender::builder()
        .verdict_timeout(Duration::from_millis(100))
        .build()
        .unwrap();
    let (mut near, near_relay) = duplex(10_000);
    let (far_relay, mut far) = duplex(10_000);
    let relay = tokio::spawn(relay_losing_verdicts(near_relay, far_relay, 1, times));
    let (sent, received) = tokio::join!(sender.send(&mut near, paths), receiver.receive(&mut far));
    relay.await.unwrap();
    (sent.unwrap(), received.unwrap())
}

#[tokio::test]
async fn a_lost_verdict_is_asked_for_again() {
    let (sent, received) = send_with_lost_verdicts(5).await;
    assert!(sent.is_complete() && received.is_complete());
    assert_eq!(sent.totals.files_verified, 3);
    // At least: on a slow machine the other files may be asked for too.
    assert!(sent.totals.asks >= 5, "{}", sent.totals.asks);
    assert_eq!(received.totals.files_verified, 3, "nothing was sent twice");
}

#[tokio::test]
async fn a_verdict_that_never_comes_is_given_up_after_five_questions() {
    let (sent, received) = send_with_lost_verdicts(6).await;
    let expected = FileError::NoVerdict { asks: 5 };
    assert_eq!(
        sent.failures().collect::<Vec<_>>(),
        [(Path::new("b"), &expected)]
    );
    assert_eq!(sent.totals.files_verified, 2);
    assert_eq!(received.totals.files_verified, 3);
}

#[tokio::test]
async fn a_verified_verdict_with_another_hash_ends_the_session() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a"), b"content").unwrap();
    let (mut near, mut far) = duplex(10_000);
    let lying = async {
        let mut greeting = [0; GREETING_LEN];
        far.read_exact(&mut greeting).await.unwrap();
        far.write_all(&greeting).await.unwrap();
        // Options and offer.
        let mut sent = [0; (5 + 4) + (5 + 51 + 1)];
        far.read_exact(&mut sent).await.unwrap();
        let mut need = Vec::new();
        Frame::Need {
            id: 0,
            from: 0,
            stack: vec![],
        }
        .encode(&mut need);
        far.write_all(&need).await.unwrap();
        let mut reply = Vec::new();
        Frame::Verdict(0, Verdict::Verified(Digest::new([0; 32]))).encode(&mut reply);
        // Once the file has been sent, whatever its digest is: begin, data, end.
        let mut sent = [0; (5 + 16) + (5 + 7) + (5 + 32)];
        far.read_exact(&mut sent).await.unwrap();
        far.write_all(&reply).await.unwrap();
        let _ = far.read_to_end(&mut Vec::new()).await;
    };
    let sending = async {
        let result = Sender::new().send(&mut near, [from.path().join("a")]).await;
        drop(near);
        result
    };
    let (result, ()) = tokio::join!(sending, lying);
    let file = Some("a".into());
    assert_eq!(
        result,
        Err(CopyError::Protocol {
            file,
            source: ProtocolError::Verdict(0)
        })
    );
}

#[test]
fn one_blocking_thread_is_enough() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content: Vec<u8> = (0..20_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    fs::write(from.path().join("a"), &content).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let receiver = Receiver::builder(to.path())
        .stall_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let (mut near, mut far) = duplex(100_000);
    let (sender, paths) = (Sender::new(), [from.path().join("a")]);
    let copying = async {
        let (sending, receiving) = (sender.send(&mut near, paths), receiver.receive(&mut far));
        let both = async { tokio::join!(sending, receiving) };
        timeout(Duration::from_secs(60), both).await
    };
    let copied = runtime.block_on(copying);
    runtime.shutdown_background();
    let (sent, received) = copied.expect("both sides wait");
    assert!(sent.unwrap().is_complete() && received.unwrap().is_complete());
    assert_eq!(fs::read(to.path().join("a")).unwrap(), content);
}

/// A disk that does not answer until the sender of this channel is dropped.
#[derive(Debug)]
struct HangingDisk(Mutex<std::sync::mpsc::Receiver<()>>);

impl Disk for HangingDisk {
    fn read_at(&self, _: &File, _: &mut [u8], _: u64) -> io::Result<usize> {
        let _ = self.0.lock().unwrap().recv();
        Err(io::ErrorKind::TimedOut.into())
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let _ = self.0.lock().unwrap().recv();
        PlainDisk.write_at(file, bytes, offset)
    }
}

#[tokio::test]
async fn a_disk_that_hangs_is_told_of() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(from.path().join("a"), b"content").unwrap();
    for is_senders in [false, true] {
        let (hanging, disk) = std::sync::mpsc::channel::<()>();
        let disk = Arc::new(HangingDisk(Mutex::new(disk)));
        let stall = Duration::from_millis(300);
        let mut receiver = Receiver::builder(to.path());
        let mut source = Source::builder([from.path().join("a")]);
        let mut sender = Sender::builder();
        if is_senders {
            source = source.disk(disk);
            sender = sender.stall_timeout(stall);
        } else {
            receiver = receiver.disk(disk).stall_timeout(stall);
        }
        let (receiver, sender) = (receiver.build().unwrap(), sender.build().unwrap());
        let source = source.build().await.unwrap();
        let (mut near, mut far) = duplex(10_000);
        let sending =
            tokio::spawn(async move { sender.send_source(&mut near, &source, |_| ()).await });
        let receiving = tokio::spawn(async move { receiver.receive(&mut far).await });
        let hung = if is_senders { sending } else { receiving };
        let ended = timeout(Duration::from_secs(20), hung).await;
        drop(hanging);
        let error = ended.expect("it hangs too").unwrap().unwrap_err();
        let text = "waiting for this side's disk";
        assert!(error.to_string().contains(text), "{error}");
    }
}

/// A disk that takes its time for each reading.
#[derive(Debug)]
struct SlowDisk;

impl Disk for SlowDisk {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        std::thread::sleep(Duration::from_millis(50));
        PlainDisk.read_at(file, buf, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        PlainDisk.write_at(file, bytes, offset)
    }
}

#[tokio::test]
async fn a_session_that_waits_for_the_hash_of_another_does_not_stall() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("a"), vec![7; 40 << 20]).unwrap();
    let source = Source::builder([from.path().join("a")]).disk(Arc::new(SlowDisk));
    let source = source.build().await.unwrap();
    let sender = Sender::builder()
        .checksum(true)
        .dry_run(true)
        .stall_timeout(Duration::from_millis(600))
        .build()
        .unwrap();
    let session = async || {
        let to = tempfile::tempdir().unwrap();
        let receiver = Receiver::builder(to.path()).build().unwrap();
        let (mut near, mut far) = duplex(10_000);
        let sending = sender.send_source(&mut near, &source, |_| ());
        let (sent, received) = tokio::join!(sending, receiver.receive(&mut far));
        received?;
        sent
    };
    let (one, other) = tokio::join!(session(), session());
    assert!(one.unwrap().is_complete() && other.unwrap().is_complete());
    assert_eq!(source.bytes_read(), 40 << 20);
}
