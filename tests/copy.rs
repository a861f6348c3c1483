//! The file copy over streams in memory and over TCP: trees of all kinds, hostile peers, broken
//! links.
#![cfg(feature = "copy")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use reliable_udp::copy::{
    CopyError, Event, FileError, FileKind, ProtocolError, Receiver, Refusal, Report, Sender,
    Source, survey,
};
use reliable_udp::{ReliableUdpListener, ReliableUdpSocket};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinSet;

#[path = "support/example.rs"]
mod example;

use example::example;

struct CopyTest {
    from: TempDir,
    to: TempDir,
}

impl CopyTest {
    fn new() -> Self {
        Self {
            from: tempfile::tempdir().unwrap(),
            to: tempfile::tempdir().unwrap(),
        }
    }

    fn source(&self) -> PathBuf {
        let source = self.from.path().join("tree");
        fs::create_dir_all(&source).unwrap();
        source
    }

    fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Copies the source tree with default settings.
    async fn copy(&self) -> (Report, Report) {
        self.copy_with(&Sender::new(), &self.receiver()).await
    }

    fn receiver(&self) -> Receiver {
        Receiver::builder(self.to.path()).build().unwrap()
    }

    async fn copy_with(&self, sender: &Sender, receiver: &Receiver) -> (Report, Report) {
        let (mut near, mut far) = duplex(10_000);
        let source = self.source();
        let (sent, received) =
            tokio::join!(sender.send(&mut near, [source]), receiver.receive(&mut far));
        (sent.unwrap(), received.unwrap())
    }

    #[track_caller]
    fn expect_equal_trees(&self) {
        assert_eq!(
            describe(&self.to.path().join("tree")),
            describe(&self.source())
        );
    }
}

/// Every path below `root` with all that a copy keeps.
fn describe(root: &Path) -> BTreeMap<PathBuf, (u32, std::time::SystemTime, Option<Vec<u8>>)> {
    fn visit(
        root: &Path,
        path: &Path,
        all: &mut BTreeMap<PathBuf, (u32, std::time::SystemTime, Option<Vec<u8>>)>,
    ) {
        let metadata = fs::symlink_metadata(path).unwrap();
        #[cfg(unix)]
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        #[cfg(not(unix))]
        let mode = 0;
        let content = metadata.is_file().then(|| fs::read(path).unwrap());
        let relative = path.strip_prefix(root).unwrap().to_path_buf();
        all.insert(relative, (mode, metadata.modified().unwrap(), content));
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                visit(root, &entry.unwrap().path(), all);
            }
        }
    }
    let mut all = BTreeMap::new();
    visit(root, root, &mut all);
    all
}

fn set_mtime(path: &Path, secs: u64, nanos: u32) {
    let time = UNIX_EPOCH + Duration::new(secs, nanos);
    File::open(path)
        .unwrap()
        .set_times(FileTimes::new().set_modified(time))
        .unwrap();
}

#[tokio::test]
async fn a_tree_arrives_with_contents_modes_and_times() {
    let test = CopyTest::new();
    test.write("empty", b"");
    test.write("deep/er/and/deeper/file", b"x");
    test.write("sizes/exactly one buffer", &vec![1; 256 * 1024]);
    test.write(
        "sizes/big",
        &(0..3_000_000_u32)
            .map(|n| n.to_le_bytes()[1])
            .collect::<Vec<_>>(),
    );
    for n in 0..300 {
        test.write(format!("many/{n}"), format!("{n}").repeat(n).as_bytes());
    }
    fs::create_dir_all(test.source().join("empty directory/inside")).unwrap();
    set_mtime(&test.source().join("many/7"), 1_000_000_000, 123_456_789);
    set_mtime(&test.source().join("empty"), 0, 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &str, mode| {
            let path = test.source().join(path);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("many/1", 0o755);
        mode("many/2", 0o400);
        mode("many", 0o555);
        mode("empty directory/inside", 0o1777);
    }
    set_mtime(&test.source().join("many"), 1_234_567_890, 5);
    set_mtime(&test.source(), 1_222_222_222, 0);

    let (sent, received) = test.copy().await;
    assert!(sent.is_complete());
    assert_eq!(sent.totals, received.totals);
    assert_eq!(sent.totals.files_verified, 304);
    assert_eq!(sent.totals.directories, 9);
    assert_eq!(sent.totals.bytes_verified, sent.totals.bytes_transferred);
    test.expect_equal_trees();

    let survey = survey(&[test.source()]).unwrap();
    assert_eq!((survey.files, survey.directories), (304, 9));
    assert_eq!(survey.bytes, sent.totals.bytes_verified);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for root in [test.source(), test.to.path().join("tree")] {
            fs::set_permissions(root.join("many"), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_second_copy_replaces_the_first_if_asked_to() {
    let test = CopyTest::new();
    test.write("a", b"first");
    test.copy().await;
    test.write("a", b"second");
    let sender = Sender::builder().overwrite(true).build().unwrap();
    let (sent, _) = test.copy_with(&sender, &test.receiver()).await;
    assert!(sent.is_complete());
    assert_eq!(sent.totals.files_verified, 1);
    test.expect_equal_trees();
}

#[tokio::test]
async fn without_overwriting_what_exists_is_left_alone() {
    let test = CopyTest::new();
    test.write("a", b"first");
    test.copy().await;
    test.write("a", b"second");
    test.write("b", b"new");
    let forbidding = Receiver::builder(test.to.path())
        .may_overwrite(false)
        .build()
        .unwrap();
    let asking = Sender::builder().overwrite(true).build().unwrap();
    for (sender, receiver) in [(asking, forbidding), (Sender::new(), test.receiver())] {
        let (sent, received) = test.copy_with(&sender, &receiver).await;
        for report in [&sent, &received] {
            let expected = FileError::Refused(Refusal::Exists);
            assert_eq!(
                report.failures().collect::<Vec<_>>(),
                [(Path::new("tree/a"), &expected)]
            );
            let totals = &report.totals;
            assert_eq!(totals.files_verified + totals.files_present, 1);
        }
    }
    let tree = test.to.path().join("tree");
    assert_eq!(fs::read(tree.join("a")).unwrap(), b"first");
    assert_eq!(fs::read(tree.join("b")).unwrap(), b"new");
    assert_eq!(
        fs::read_dir(tree).unwrap().count(),
        2,
        "no temporary file is left"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn names_that_are_not_utf8_survive() {
    use std::os::unix::ffi::OsStrExt;
    let test = CopyTest::new();
    let odd: &[&[u8]] = &[
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"a:b",
        b"con",
        b"back\\slash",
        &[b'x'; 255],
        b"-rf",
    ];
    for name in odd {
        test.write(Path::new(std::ffi::OsStr::from_bytes(name)), name);
    }
    let (sent, _) = test.copy().await;
    assert!(sent.is_complete());
    assert_eq!(sent.totals.files_verified, odd.len() as u64);
    test.expect_equal_trees();
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_regular_file_is_refused_by_name_and_the_rest_arrives() {
    use std::os::unix::fs::symlink;
    let test = CopyTest::new();
    test.write("file", b"x");
    symlink("file", test.source().join("link")).unwrap();
    symlink("/etc", test.source().join("outside")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(test.source().join("socket")).unwrap();
    let fifo = test.source().join("fifo");
    let made = Command::new("mkfifo").arg(fifo).status().unwrap();
    assert!(made.success());
    let (sent, _) = test.copy().await;
    let failures: Vec<_> = sent
        .failures()
        .map(|(path, error)| (path.to_str().unwrap(), error.clone()))
        .collect();
    assert_eq!(
        failures,
        [
            ("tree/fifo", FileError::Unsupported(FileKind::Fifo)),
            ("tree/socket", FileError::Unsupported(FileKind::Socket)),
            ("tree/outside", FileError::Refused(Refusal::LinkLeaves)),
        ]
    );
    assert_eq!((sent.totals.files_verified, sent.totals.links), (1, 1));
    let link = fs::read_link(test.to.path().join("tree/link")).unwrap();
    assert_eq!(link, Path::new("file"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_tree_deeper_than_a_path_may_be_long_arrives() {
    use cap_std::ambient_authority;
    use cap_std::fs::Dir;
    let test = CopyTest::new();
    let open = |path: &Path| Dir::open_ambient_dir(path, ambient_authority()).unwrap();
    let name = "d".repeat(200);
    let descend = |mut dir: Dir, make: bool| {
        for _ in 0..50 {
            if make {
                dir.create_dir(&name).unwrap();
            }
            dir = dir.open_dir(&name).unwrap();
        }
        dir
    };
    descend(open(&test.source()), true)
        .write("file", b"bottom")
        .unwrap();
    let (sent, _) = test.copy().await;
    assert!(sent.is_complete(), "{:?}", sent.failures().next());
    assert_eq!(sent.totals.directories, 51);
    let bottom = descend(open(&test.to.path().join("tree")), false);
    assert_eq!(bottom.read("file").unwrap(), b"bottom");
}

#[tokio::test]
async fn missing_and_doubled_arguments_are_named() {
    let test = CopyTest::new();
    let missing = test.from.path().join("missing");
    let (mut near, _far) = duplex(100);
    let error = Sender::new().send(&mut near, [&missing]).await.unwrap_err();
    let source = Arc::new(io::Error::from(io::ErrorKind::NotFound));
    assert_eq!(
        error,
        CopyError::Source {
            path: missing,
            source
        }
    );

    let file = test.write("a/same", b"x");
    let other = test.write("b/same", b"x");
    let error = Sender::new()
        .send(&mut near, [&file, &other])
        .await
        .unwrap_err();
    let source = Arc::new(io::Error::from(io::ErrorKind::AlreadyExists));
    assert_eq!(
        error,
        CopyError::Source {
            path: other,
            source
        }
    );
}

#[test]
fn values_out_of_range_are_named() {
    let name = |error| match error {
        Err(CopyError::InvalidArgument { argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        name(Sender::builder().attempts(0).build().map(|_| ())),
        "attempts"
    );
    assert_eq!(
        name(Sender::builder().window(0).build().map(|_| ())),
        "window"
    );
    assert_eq!(
        name(Sender::builder().window(4097).build().map(|_| ())),
        "window"
    );
    let zero = Sender::builder().verdict_timeout(Duration::ZERO).build();
    assert_eq!(name(zero.map(|_| ())), "verdict_timeout");
    let missing = Receiver::builder("/missing/root")
        .build()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cannot open the root directory /missing/root"
    );
}

#[tokio::test]
async fn a_source_that_keeps_changing_is_given_up_and_one_that_settles_arrives() {
    let test = CopyTest::new();
    let growing = test.write("1 growing", &vec![1; 1_000_000]);
    let settling = test.write("2 settling", &vec![2; 1_000_000]);
    let vanishing = test.write("3 vanishing", &vec![3; 1_000_000]);
    test.write("4 quiet", b"x");
    let (mut near, mut far) = duplex(10_000);
    let mut settled = false;
    // The callback runs while a file is being read, so what it does to the file is noticed.
    let meddle = move |event: Event| match event {
        Event::Progress { path, .. } if path.ends_with("1 growing") => {
            let mut file = File::options().append(true).open(&growing).unwrap();
            file.write_all(b"more").unwrap();
        }
        Event::Progress { path, .. } if path.ends_with("2 settling") && !settled => {
            settled = true;
            fs::write(&settling, b"shorter").unwrap();
        }
        Event::Started {
            path, attempt: 1, ..
        } if path.ends_with("3 vanishing") => {
            // Changed, and gone by the time it is to be read again.
            fs::write(&vanishing, b"").unwrap();
            fs::remove_file(&vanishing).unwrap();
        }
        _ => {}
    };
    let (sender, receiver) = (Sender::new(), test.receiver());
    let source = test.source();
    let (sent, received) = tokio::join!(
        sender.send_with(&mut near, [source], meddle),
        receiver.receive(&mut far)
    );
    let (sent, received) = (sent.unwrap(), received.unwrap());
    let failures: BTreeMap<_, _> = sent.failures().collect();
    assert_eq!(failures.len(), 2);
    assert_eq!(
        failures[Path::new("tree/1 growing")],
        &FileError::Changed { attempts: 5 }
    );
    let vanished = failures[Path::new("tree/3 vanishing")];
    assert!(
        matches!(vanished, FileError::Read(source) if source.kind() == io::ErrorKind::NotFound),
        "{vanished:?}"
    );
    assert_eq!(received.totals.files_verified, 2);
    let tree = test.to.path().join("tree");
    assert_eq!(fs::read(tree.join("2 settling")).unwrap(), b"shorter");
    assert_eq!(
        fs::read_dir(tree).unwrap().count(),
        2,
        "nothing else, no temporary file"
    );
}

#[tokio::test]
async fn a_source_keeps_what_was_read_for_sessions_to_come() {
    let test = CopyTest::new();
    test.write("small", &[1; 5_000]);
    test.write("large", &vec![2; 3_000_000]);
    for (sessions, readings) in [(2, 1), (0, 2)] {
        let source = Source::builder([test.source()]).sessions(sessions);
        let source = source.build().await.unwrap();
        for _ in 0..2 {
            let to = tempfile::tempdir().unwrap();
            let receiver = Receiver::builder(to.path()).build().unwrap();
            let (mut near, mut far) = duplex(10_000);
            let sender = Sender::new();
            let (sent, received) = tokio::join!(
                sender.send_source(&mut near, &source, |_| ()),
                receiver.receive(&mut far)
            );
            assert_eq!(sent.unwrap().totals.files_verified, 2);
            received.unwrap();
        }
        assert_eq!(source.bytes_read(), readings * 3_005_000);
    }
}

#[tokio::test]
async fn sixteen_clients_at_once() {
    const CLIENTS: usize = 16;
    let test = CopyTest::new();
    for n in 0..40 {
        test.write(format!("{n}"), &vec![n; usize::from(n) * 1000]);
    }
    let listener = ReliableUdpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let receiver = test.receiver();
    let server = tokio::spawn(async move {
        let mut sessions = JoinSet::new();
        for _ in 0..CLIENTS {
            let (mut socket, _) = listener.accept().await.unwrap();
            let receiver = receiver.clone();
            sessions.spawn(async move {
                let report = receiver.receive(&mut socket).await.unwrap();
                socket.shutdown().await.unwrap();
                report
            });
        }
        sessions.join_all().await
    });
    let mut clients = JoinSet::new();
    for n in 0..CLIENTS {
        // Half of them write the same files at the same time.
        let source = if n < CLIENTS / 2 {
            test.source()
        } else {
            let copy = test.from.path().join(format!("tree {n}"));
            fs::create_dir(&copy).unwrap();
            for entry in fs::read_dir(test.source()).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
            copy
        };
        clients.spawn(async move {
            let mut socket = ReliableUdpSocket::connect(addr).await.unwrap();
            let sender = Sender::builder().overwrite(true).build().unwrap();
            let report = sender.send(&mut socket, [source]).await.unwrap();
            socket.shutdown().await.unwrap();
            report
        });
    }
    let reports = clients.join_all().await;
    for report in reports.into_iter().chain(server.await.unwrap()) {
        assert!(report.is_complete(), "{:?}", report.failures().next());
        assert_eq!(report.totals.files_verified, 40);
    }
    let contents = |root: PathBuf| -> Vec<_> {
        let tree = describe(&root).into_iter();
        tree.map(|(path, (_, _, content))| (path, content))
            .collect()
    };
    for n in CLIENTS / 2..CLIENTS {
        let copy = test.to.path().join(format!("tree {n}"));
        assert_eq!(contents(copy), contents(test.source()));
    }
    assert_eq!(
        contents(test.to.path().join("tree")),
        contents(test.source())
    );
}

// ---- the examples, as processes ----

/// Starts a server that ends after one client; yields its address too.
fn start_server(root: &Path) -> (Child, String) {
    let mut server = example("file_copy_server")
        .args(["--listen", "127.0.0.1:0", "--once", "--root"])
        .arg(root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    io::BufReader::new(server.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let addr = line
        .strip_prefix("listening on ")
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    (server, addr.to_owned())
}

#[test]
fn two_processes_copy_a_tree() {
    let test = CopyTest::new();
    for n in 0..100 {
        test.write(format!("{}/{n}", n % 7), &vec![1; n * n]);
    }
    test.write("big", &vec![7; 5_000_000]);
    fs::create_dir(test.source().join("empty")).unwrap();
    set_mtime(&test.source().join("3"), 1_000_000_000, 999_999_999);
    let (mut server, addr) = start_server(test.to.path());
    let client = example("file_copy_client")
        .args(["--to", &addr])
        .arg(test.source())
        .output()
        .unwrap();
    let output = String::from_utf8(client.stdout).unwrap();
    assert!(
        client.status.success(),
        "{output}{}",
        String::from_utf8_lossy(&client.stderr)
    );
    let says = |label: &str, value: &str| {
        output.lines().any(|line| {
            line.trim()
                .strip_prefix(label)
                .is_some_and(|rest| rest.trim() == value)
        })
    };
    assert!(
        says("hashes verified", "101") && says("failed", "0"),
        "{output}"
    );
    assert!(server.wait().unwrap().success());
    test.expect_equal_trees();
}

#[cfg(unix)]
#[test]
fn a_process_that_could_not_copy_everything_says_so_in_its_exit_code() {
    let test = CopyTest::new();
    test.write("file", b"x");
    std::os::unix::fs::symlink("/etc", test.source().join("link")).unwrap();
    let (mut server, addr) = start_server(test.to.path());
    let client = example("file_copy_client")
        .args(["--to", &addr])
        .arg(test.source())
        .output()
        .unwrap();
    let complaint = String::from_utf8(client.stderr).unwrap();
    assert_eq!(client.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("tree/link: refused: the symbolic link leads out of the tree"),
        "{complaint}"
    );
    assert!(server.wait().unwrap().success(), "what it was sent arrived");
    assert!(test.to.path().join("tree/file").exists());
}

#[test]
fn a_client_whose_server_is_missing_names_its_address() {
    let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = unused.local_addr().unwrap().to_string();
    drop(unused);
    let client = example("file_copy_client")
        .args(["--to", &addr, "Cargo.toml"])
        .output()
        .unwrap();
    let complaint = String::from_utf8(client.stderr).unwrap();
    assert_eq!(client.status.code(), Some(3), "{complaint}");
    assert!(
        complaint.contains(&format!("{addr} cannot connect: ")),
        "{complaint}"
    );
}

#[test]
fn a_client_whose_server_is_killed_ends_with_an_error_that_names_the_file() {
    let test = CopyTest::new();
    test.write("big", &vec![7; 50_000_000]);
    let (mut server, addr) = start_server(test.to.path());
    let mut client = example("file_copy_client")
        .args(["--timeout", "2", "--reconnects", "0", "--to", &addr])
        .arg(test.source())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The first line of progress says that the copy is under way.
    let mut complaints = io::BufReader::new(client.stderr.take().unwrap());
    complaints.read_line(&mut String::new()).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let mut rest = String::new();
    complaints.read_to_string(&mut rest).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(3), "{rest}");
    assert!(rest.contains("connection lost during tree/big: "), "{rest}");
    assert!(
        !test.to.path().join("tree/big").exists(),
        "nothing unverified has its final name"
    );
}

#[tokio::test]
async fn a_receiver_that_vanishes_names_the_file_and_ends_every_event() {
    let test = CopyTest::new();
    test.write("1", &vec![1; 5_000_000]);
    let (mut near, mut far) = duplex(10_000);
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&events);
    let source = test.source();
    let sender = Sender::new();
    let sending = sender.send_with(&mut near, [source], move |event| {
        log.lock().unwrap().push(event);
    });
    let vanishing = async {
        let mut start = vec![0; 100_016];
        far.read_exact(&mut start[..16]).await.unwrap();
        far.write_all(&greeting(2, 2)).await.unwrap();
        // Options, and the offer of "tree/1".
        far.read_exact(&mut start[..9 + 5 + 52 + 6]).await.unwrap();
        // It needs that from its first byte on.
        far.write_all(&[&[0x84, 0, 0, 0, 16][..], &[0; 16]].concat())
            .await
            .unwrap();
        far.read_exact(&mut start[16..]).await.unwrap();
        drop(far);
    };
    let (result, ()) = tokio::join!(sending, vanishing);
    let error = result.unwrap_err();
    let named = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("tree/1"));
    assert!(
        matches!(&error, CopyError::Connection { file, .. } if named(file)),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "connection lost during tree/1");
    let events = events.lock().unwrap();
    let interrupted = events.iter().filter(|event| {
        matches!(
            event,
            Event::Failed {
                error: FileError::Interrupted,
                ..
            }
        )
    });
    assert_eq!(interrupted.count(), 2, "the file and its directory");
}

#[tokio::test]
async fn a_sender_that_vanishes_leaves_no_temporary_and_no_half_file() {
    let mut session = Session::begin_with(0).await;
    session.open(0, b"half", 1000);
    session.data(b"the first bytes");
    let (result, root) = session.end().await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "connection lost during half");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_receiver_that_is_dropped_leaves_no_temporary() {
    let mut session = Session::begin_with(0).await;
    session.open(0, b"half", 1000);
    session.data(b"the first bytes");
    session.stream.write_all(&session.output).await.unwrap();
    let entries = || fs::read_dir(session.root.path()).unwrap().count();
    while entries() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    session.receiving.abort();
    while entries() != 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_peer_that_never_greets_is_let_go() {
    let test = CopyTest::new();
    let (mut near, mut far) = duplex(100);
    let short = Duration::from_millis(10);
    let receiver = Receiver::builder(test.to.path())
        .handshake_timeout(short)
        .build()
        .unwrap();
    assert_eq!(
        receiver.receive(&mut far).await,
        Err(CopyError::HandshakeTimeout(short))
    );
    let sender = Sender::builder().handshake_timeout(short).build().unwrap();
    let path = test.write("a", b"x");
    assert_eq!(
        sender.send(&mut near, [path]).await,
        Err(CopyError::HandshakeTimeout(short))
    );
}

// ---- hostile peers, byte by byte as docs/COPY.md has them ----

fn greeting(min: u16, max: u16) -> Vec<u8> {
    let mut bytes = b"rudpcopy".to_vec();
    bytes.extend_from_slice(&min.to_be_bytes());
    bytes.extend_from_slice(&max.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// A sender made by hand, facing a real receiver.
struct Session {
    receiving: tokio::task::JoinHandle<Result<Report, CopyError>>,
    stream: DuplexStream,
    root: TempDir,
    output: Vec<u8>,
}

impl Session {
    async fn begin() -> Self {
        Self::begin_in(tempfile::tempdir().unwrap()).await
    }

    async fn begin_in(root: TempDir) -> Self {
        let receiver = Receiver::builder(root.path()).build().unwrap();
        let (mut stream, mut far) = duplex(1 << 20);
        let receiving = tokio::spawn(async move { receiver.receive(&mut far).await });
        stream.write_all(&greeting(2, 2)).await.unwrap();
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..], greeting(2, 2));
        let output = Vec::new();
        Self {
            receiving,
            stream,
            root,
            output,
        }
    }

    /// Begins, and tells the options.
    async fn begin_with(options: u32) -> Self {
        let mut session = Self::begin().await;
        session.options(options);
        session
    }

    fn options(&mut self, options: u32) {
        self.frame(1, &options.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, body: &[u8]) {
        self.output.push(kind);
        self.output
            .extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
        self.output.extend_from_slice(body);
    }

    fn offer(&mut self, id: u64, path: &[u8], size: u64) {
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&[1, 1]);
        body.extend_from_slice(&size.to_be_bytes());
        body.extend_from_slice(&attributes());
        body.extend_from_slice(&[7; 16]);
        body.push(0);
        body.extend_from_slice(path);
        self.frame(2, &body);
    }

    fn content(&mut self, id: u64, from: u64) {
        self.frame(5, &[id.to_be_bytes(), from.to_be_bytes()].concat());
    }

    /// Offers a file and begins its content at once.
    fn open(&mut self, id: u64, path: &[u8], size: u64) {
        self.offer(id, path, size);
        self.content(id, 0);
    }

    fn data(&mut self, bytes: &[u8]) {
        self.frame(6, bytes);
    }

    fn link(&mut self, id: u64, path: &[u8], target: &[u8]) {
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&attributes());
        body.extend_from_slice(&u16::try_from(target.len()).unwrap().to_be_bytes());
        body.extend_from_slice(target);
        body.extend_from_slice(path);
        self.frame(3, &body);
    }

    /// Ends the file with the right hash of `content`.
    fn finish(&mut self, content: &[u8]) {
        let hash = blake3::hash(content);
        self.frame(9, hash.as_bytes());
    }

    fn seal(&mut self, id: u64, path: &[u8]) {
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&attributes());
        body.extend_from_slice(path);
        self.frame(4, &body);
    }

    /// Sends all this and closes the stream.
    async fn end(self) -> (Result<Report, CopyError>, TempDir) {
        let Self {
            receiving,
            mut stream,
            root,
            output,
        } = self;
        stream.write_all(&output).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut replies = Vec::new();
        let _ = stream.read_to_end(&mut replies).await;
        (receiving.await.unwrap(), root)
    }
}

fn attributes() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&0o644_u32.to_be_bytes());
    bytes
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn what_the_protocol_does_not_allow_ends_the_session_with_a_typed_error() {
    type Script = fn(&mut Session);
    let unexpected = |frame, when| ProtocolError::Unexpected { frame, when };
    let cases: &[(&str, Script, ProtocolError)] = &[
        (
            "unknown frame",
            |s| s.frame(0x40, b"x"),
            ProtocolError::UnknownFrame(0x40),
        ),
        (
            "oversized frame",
            |s| s.output.extend_from_slice(&[6, 0xff, 0xff, 0xff, 0xff]),
            ProtocolError::FrameLength {
                frame: 6,
                len: u32::MAX,
            },
        ),
        (
            "options twice",
            |s| s.options(0),
            unexpected(1, "for the second time"),
        ),
        (
            "data outside a file",
            |s| s.data(b"x"),
            unexpected(6, "outside a file"),
        ),
        (
            "a hole outside a file",
            |s| s.frame(7, &[0; 8]),
            unexpected(7, "outside a file"),
        ),
        (
            "a block outside a file",
            |s| s.frame(8, &[0; 32]),
            unexpected(8, "outside a file"),
        ),
        (
            "end outside a file",
            |s| s.finish(b""),
            unexpected(9, "outside a file"),
        ),
        (
            "withdrawal of nothing",
            |s| s.frame(10, &[0; 9]),
            ProtocolError::NoSuchOffer(0),
        ),
        (
            "withdrawal of another file",
            |s| {
                s.offer(0, b"a", 1);
                s.open(1, b"b", 1);
                s.frame(10, &[0; 9]);
            },
            unexpected(10, "within a file"),
        ),
        (
            "content of nothing",
            |s| s.content(0, 0),
            ProtocolError::NoSuchOffer(0),
        ),
        (
            "content from elsewhere",
            |s| {
                s.offer(0, b"a", 3 << 20);
                s.content(0, 1 << 20);
            },
            ProtocolError::NoSuchOffer(0),
        ),
        (
            "content twice",
            |s| {
                s.open(0, b"a", 1);
                s.frame(10, &[0; 9]);
                s.content(0, 0);
            },
            ProtocolError::NoSuchOffer(0),
        ),
        (
            "offer within a file",
            |s| {
                s.open(0, b"a", 1);
                s.offer(1, b"b", 1);
            },
            unexpected(2, "within a file"),
        ),
        (
            "end of the session within a file",
            |s| {
                s.open(0, b"a", 1);
                s.frame(12, b"");
            },
            unexpected(12, "within a file"),
        ),
        (
            "end of the session before a file",
            |s| {
                s.offer(0, b"a", 1);
                s.frame(12, b"");
            },
            unexpected(12, "before every offer is settled"),
        ),
        (
            "something after the end",
            |s| {
                s.frame(12, b"");
                s.seal(0, b"a");
            },
            unexpected(12, "after the end of the session"),
        ),
        (
            "a goodbye",
            |s| s.frame(0x83, b""),
            unexpected(0x83, "from the sender"),
        ),
        (
            "number skipped",
            |s| s.offer(1, b"a", 0),
            ProtocolError::OfferOrder {
                expected: 0,
                got: 1,
            },
        ),
        (
            "number repeated",
            |s| {
                s.seal(0, b"a");
                s.seal(0, b"b");
            },
            ProtocolError::OfferOrder {
                expected: 1,
                got: 0,
            },
        ),
        (
            "too many bytes",
            |s| {
                s.open(0, b"a", 3);
                s.data(b"four");
            },
            ProtocolError::FileLength {
                announced: 3,
                got: 4,
            },
        ),
        (
            "too long a hole",
            |s| {
                s.open(0, b"a", 3);
                s.frame(7, &u64::MAX.to_be_bytes());
            },
            ProtocolError::FileLength {
                announced: 3,
                got: u64::MAX,
            },
        ),
        (
            "too few bytes",
            |s| {
                s.open(0, b"a", 5);
                s.data(b"four");
                s.finish(b"four");
            },
            ProtocolError::FileLength {
                announced: 5,
                got: 4,
            },
        ),
        (
            "a hole across the end of a block",
            |s| {
                s.open(0, b"a", 3 << 20);
                s.frame(7, &(1_u64 << 21).to_be_bytes());
            },
            unexpected(7, "across the end of a block"),
        ),
        (
            "a block's end in its middle",
            |s| {
                s.open(0, b"a", 3 << 20);
                s.data(b"x");
                s.frame(8, &[0; 32]);
            },
            unexpected(8, "within a block"),
        ),
        (
            "a block's end in a small file",
            |s| {
                s.open(0, b"a", 1);
                s.data(b"x");
                s.frame(8, &[0; 32]);
            },
            unexpected(8, "within a block"),
        ),
        (
            "a question about the future",
            |s| s.frame(11, &9_u64.to_be_bytes()),
            ProtocolError::NoSuchOffer(9),
        ),
        (
            "more offers than may be open",
            |s| (0..=4096).for_each(|id| s.offer(id, format!("{id}").as_bytes(), 1)),
            ProtocolError::TooManyOffers,
        ),
        (
            "more paths than may be open",
            |s| {
                let part = [b'x'; 250];
                let path = vec![&part[..]; 100].join(&b'/');
                (0..200).for_each(|id| s.offer(id, &path, 1));
            },
            ProtocolError::TooManyOffers,
        ),
    ];
    for (name, script, expected) in cases {
        let mut session = Session::begin_with(0).await;
        script(&mut session);
        let (result, root) = session.end().await;
        match result {
            Err(CopyError::Protocol { source, .. }) => assert_eq!(source, *expected, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        let files = describe(root.path())
            .into_values()
            .filter(|(_, _, file)| file.is_some());
        assert_eq!(files.count(), 0, "{name}: nothing is left");
    }
}

#[tokio::test]
async fn a_session_cut_anywhere_ends_with_an_error_and_no_half_file() {
    let mut whole = Session::begin_with(0).await;
    whole.open(0, b"d/a", 4);
    whole.data(b"four");
    whole.finish(b"four");
    whole.seal(1, b"d");
    let script = std::mem::take(&mut whole.output);
    drop(whole);
    for cut in 0..=script.len() {
        let mut session = Session::begin().await;
        session.output = script[..cut].to_vec();
        let (result, root) = session.end().await;
        let error = result.unwrap_err();
        assert!(
            matches!(error, CopyError::Connection { .. }),
            "cut at {cut}: {error:?}"
        );
        for (path, (_, _, content)) in describe(root.path()) {
            if let Some(content) = content {
                assert_eq!(
                    (path.as_path(), &content[..]),
                    (Path::new("d/a"), &b"four"[..])
                );
            }
        }
    }
}

#[tokio::test]
async fn other_versions_and_strangers_get_typed_errors() {
    let cases: &[(&str, Vec<u8>, CopyError)] = &[
        (
            "newer versions only",
            greeting(3, 7),
            CopyError::Version {
                ours: 2,
                peer_min: 3,
                peer_max: 7,
            },
        ),
        (
            "no versions",
            greeting(2, 0),
            CopyError::Version {
                ours: 2,
                peer_min: 2,
                peer_max: 0,
            },
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\n".to_vec(),
            CopyError::Protocol {
                file: None,
                source: ProtocolError::Magic,
            },
        ),
    ];
    for (name, bytes, expected) in cases {
        let root = tempfile::tempdir().unwrap();
        let receiver = Receiver::builder(root.path()).build().unwrap();
        let (mut near, mut far) = duplex(100);
        near.write_all(bytes).await.unwrap();
        assert_eq!(
            receiver.receive(&mut far).await.unwrap_err(),
            *expected,
            "{name}"
        );
        if let CopyError::Version { .. } = expected {
            let mut answer = [0; 16];
            near.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer[..], greeting(0, 0), "{name}: the sender is told");
        }
    }

    let cases: &[(&str, Vec<u8>, CopyError)] = &[
        (
            "none fits",
            greeting(0, 0),
            CopyError::Version {
                ours: 2,
                peer_min: 0,
                peer_max: 0,
            },
        ),
        (
            "not offered",
            greeting(1, 1),
            CopyError::Protocol {
                file: None,
                source: ProtocolError::NotOffered {
                    version: 1,
                    features: 0,
                },
            },
        ),
        (
            "a stranger",
            b"HTTP/1.1 400 Bad".to_vec(),
            CopyError::Protocol {
                file: None,
                source: ProtocolError::Magic,
            },
        ),
    ];
    for (name, bytes, expected) in cases {
        let (mut near, mut far) = duplex(100);
        far.write_all(bytes).await.unwrap();
        assert_eq!(
            Sender::new().send(&mut near, ["src"]).await.unwrap_err(),
            *expected,
            "{name}"
        );
    }

    // Newer versions beside ours: ours is chosen.
    let root = tempfile::tempdir().unwrap();
    let receiver = Receiver::builder(root.path()).build().unwrap();
    let (mut near, mut far) = duplex(100);
    near.write_all(&greeting(0, 9)).await.unwrap();
    near.write_all(&[12, 0, 0, 0, 0]).await.unwrap();
    assert!(receiver.receive(&mut far).await.unwrap().is_complete());
    let mut answer = [0; 21];
    near.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..16], greeting(2, 2));
    assert_eq!(answer[16..], [0x83, 0, 0, 0, 0]);
}

#[tokio::test]
async fn paths_that_leave_the_root_are_refused_and_write_nothing() {
    let outside = tempfile::tempdir().unwrap();
    let root = tempfile::Builder::new().tempdir_in(outside.path()).unwrap();
    fs::write(outside.path().join("victim"), b"untouched").unwrap();
    fs::create_dir(root.path().join("taken")).unwrap();
    fs::write(root.path().join("file"), b"x").unwrap();
    let mut cases: Vec<(&[u8], Refusal)> = vec![
        (b"../victim", Refusal::ParentDirectory),
        (b"a/../../victim", Refusal::ParentDirectory),
        (b"..", Refusal::ParentDirectory),
        (b".", Refusal::ParentDirectory),
        (b"/tmp/reliable-udp-victim", Refusal::Absolute),
        (b"C:/victim", Refusal::DriveLetter),
        (b"c:\\victim", Refusal::DriveLetter),
        (b"a\0b", Refusal::Nul),
        (b"", Refusal::EmptyPart),
        (b"a//b", Refusal::EmptyPart),
        (&[b'x'; 256], Refusal::TooLong),
        (
            b".reliable-udp-0123456789abcdef.part",
            Refusal::ReservedName,
        ),
        (
            b".Reliable-UDP-0123456789abcdef.journal",
            Refusal::ReservedName,
        ),
        (b"new/.reliable-udp-x.part/y", Refusal::ReservedName),
        (b"taken", Refusal::NotAFile),
        (b"file/below", Refusal::NotADirectory),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(outside.path(), root.path().join("absolute link")).unwrap();
        symlink("..", root.path().join("relative link")).unwrap();
        symlink("../victim", root.path().join("file link")).unwrap();
        symlink("/dev/null", root.path().join("device link")).unwrap();
        cases.extend([
            (&b"absolute link/victim"[..], Refusal::LeavesRoot),
            (b"relative link/victim", Refusal::LeavesRoot),
            (b"relative link/new/deep", Refusal::LeavesRoot),
            (b"file link", Refusal::NotAFile),
            (b"device link", Refusal::NotAFile),
        ]);
    }
    let before = describe(outside.path());
    let mut session = Session::begin_in(root).await;
    session.options(1);
    let mut id = 0;
    for (path, _) in &cases {
        session.offer(id, path, 4);
        session.seal(id + 1, path);
        session.link(id + 2, path, b"good");
        id += 3;
    }
    session.open(id, b"good", 4);
    session.data(b"fine");
    session.finish(b"fine");
    session.frame(12, b"");
    let (result, root) = session.end().await;
    let report = result.unwrap();
    let refused: Vec<_> = report.failures().collect();
    for (path, refusal) in &cases {
        let shown = String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
        let hit = refused.iter().any(|(named, error)| {
            named.as_os_str().to_string_lossy().starts_with(&shown)
                && **error == FileError::Refused(*refusal)
        });
        assert!(hit, "{shown:?} is refused as {refusal:?}: {refused:?}");
    }
    assert_eq!(
        report.totals.files_verified, 1,
        "the other files are unharmed"
    );
    fs::remove_file(root.path().join("good")).unwrap();
    let shape = |tree: BTreeMap<PathBuf, (u32, _, Option<Vec<u8>>)>| -> Vec<_> {
        tree.into_iter()
            .map(|(path, (mode, _, content))| (path, mode, content))
            .collect()
    };
    // A sealed "taken" is a directory that exists: that one is allowed and changes its mode.
    let expected: Vec<_> = shape(before)
        .into_iter()
        .filter(|entry| !entry.0.ends_with("taken"))
        .collect();
    let found: Vec<_> = shape(describe(outside.path()))
        .into_iter()
        .filter(|entry| !entry.0.ends_with("taken"))
        .collect();
    assert_eq!(found, expected, "nothing was written anywhere");
}

#[cfg(unix)]
#[tokio::test]
async fn set_user_id_bits_are_not_taken() {
    use std::os::unix::fs::PermissionsExt;
    let test = CopyTest::new();
    let path = test.write("a", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    test.copy().await;
    let copied = fs::metadata(test.to.path().join("tree/a")).unwrap();
    assert_eq!(copied.permissions().mode() & 0o7777, 0o755);
}
