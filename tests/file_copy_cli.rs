//! The file-copy examples as programs: their arguments, their exit codes, what they print, and what a signal does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests, and the helpers between them"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

#[path = "support/example.rs"]
mod example;
#[path = "../examples/file_copy/targets.rs"]
mod targets;
#[path = "../examples/file_copy/units.rs"]
mod units;

use example::example;

/// A server that prints JSON.
struct Server {
    child: Child,
    /// Read by a thread: a server whose output nobody takes would stand still.
    events: Receiver<Value>,
    address: String,
    root: TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "127.0.0.1:0", arguments)
    }

    fn start_in(root: TempDir, address: &str, arguments: &[&str]) -> Self {
        let mut child = example("file_copy_server")
            .args(["--json", "--listen", address, "--root"])
            .arg(root.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            events: read_events(child.stdout.take().unwrap()),
            child,
            address: String::new(),
            root,
        };
        let listening = server.next("listening");
        listening["address"]
            .as_str()
            .unwrap()
            .clone_into(&mut server.address);
        server
    }

    /// Reads up to the next event of that name.
    fn next(&self, name: &str) -> Value {
        loop {
            let event = self.events.recv().unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
}

fn read_events(output: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            // Nobody may want to know any more.
            let _ = sender.send(line.unwrap().parse().unwrap());
        }
    });
    receiver
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A tree to send.
struct Source(TempDir);

impl Source {
    fn new(files: &[(&str, usize)]) -> Self {
        let source = Self(tempfile::tempdir().unwrap());
        for (path, len) in files {
            let path = source.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let content: Vec<u8> = (0..=250).cycle().take(*len).collect();
            fs::write(path, content).unwrap();
        }
        source
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("tree")
    }

    #[track_caller]
    fn expect_at(&self, root: &Path, path: &str) {
        let copied = fs::read(root.join("tree").join(path)).unwrap();
        assert!(
            copied == fs::read(self.path().join(path)).unwrap(),
            "{path}"
        );
    }
}

fn client(arguments: &[&str], source: &Path) -> Output {
    let mut client = example("file_copy_client");
    client
        .args(arguments)
        .arg("--")
        .arg(source)
        .output()
        .unwrap()
}

/// The last object that a client printed.
fn report(output: &Output) -> Value {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().last().unwrap().parse().unwrap()
}

/// An address where nobody is.
fn nowhere() -> String {
    let unused = UdpSocket::bind("127.0.0.1:0").unwrap();
    unused.local_addr().unwrap().to_string()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn several_servers_get_everything_from_one_reading_and_a_dead_one_is_named() {
    let source = Source::new(&[
        ("tree/big", 3_000_000),
        ("tree/a/small", 5),
        ("tree/empty", 0),
    ]);
    let servers = [Server::start(&[]), Server::start(&[]), Server::start(&[])];
    let dead = nowhere();
    let mut arguments = vec!["--json", "--to", &dead];
    arguments.extend(servers.iter().flat_map(|s| ["--to", s.address.as_str()]));
    let output = client(&arguments, &source.path());
    assert_eq!(output.status.code(), Some(3), "{}", complaint(&output));
    for server in &servers {
        for path in ["big", "a/small", "empty"] {
            source.expect_at(server.root.path(), path);
        }
    }
    let report = report(&output);
    assert_eq!(report["bytes_read"], 3_000_005);
    assert_eq!(report["totals"]["files_verified"], 9);
    let outcomes: Vec<_> = report["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["connection", "complete", "complete", "complete"]);
    assert_eq!(report["targets"][0]["target"], dead.as_str());
}

#[test]
fn a_file_of_addresses_is_read_and_its_errors_name_the_line() {
    let source = Source::new(&[("tree/file", 10)]);
    let servers = [Server::start(&[]), Server::start(&[])];
    let list = source.0.path().join("servers.txt");
    let lines = servers.iter().map(|s| s.address.replace(':', " "));
    let text = format!(
        "# ours\n\n  {}  # near\n",
        lines.collect::<Vec<_>>().join("\n")
    );
    fs::write(&list, text).unwrap();
    let output = client(&["--addresses", list.to_str().unwrap()], &source.path());
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    for server in &servers {
        source.expect_at(server.root.path(), "file");
    }

    let cases = [
        ("one word", "host 1\nhost\n", ":2: expected HOST PORT"),
        ("three words", "host 1 2", ":1: expected HOST PORT"),
        (
            "no port",
            "\nhost x",
            ":2: \"x\" is no port: expected 1 to 65535",
        ),
        (
            "port 0",
            "host 0",
            ":1: \"0\" is no port: expected 1 to 65535",
        ),
        ("twice", "host 1\nhost 1", "host:1 is named twice"),
        ("nobody", "# nobody", "no server is named"),
    ];
    for (name, text, expected) in cases {
        fs::write(&list, text).unwrap();
        let output = client(&["--addresses", list.to_str().unwrap()], &source.path());
        assert_eq!(output.status.code(), Some(2), "{name}");
        let complaint = complaint(&output);
        assert!(complaint.contains(expected), "{name}: {complaint}");
    }
    fs::remove_file(&list).unwrap();
    let output = client(&["--addresses", list.to_str().unwrap()], &source.path());
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn targets_of_every_form_are_taken() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        targets: targets::TargetArgs,
    }
    let parse = |to: &str| {
        let line = <Line as clap::Parser>::try_parse_from(["program", "--to", to]).ok()?;
        line.targets.list().ok()
    };
    for good in ["host:1", "192.0.2.1:65535", "[2001:db8::1]:7"] {
        assert_eq!(parse(good), Some(vec![good.to_owned()]));
    }
    for bad in ["host", "host:", ":1", "host:65536", "2001:db8::1:7", ""] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn numbers_of_bytes_have_units() {
    let good = [
        ("0", 0),
        ("4096", 4096),
        ("500k", 500_000),
        ("10M", 10_000_000),
        ("1.5Gi", 3 << 29),
        ("2 KiB", 2048),
        ("1mb", 1_000_000),
        ("18446744073709551615", u64::MAX),
    ];
    for (text, bytes) in good {
        assert_eq!(units::bytes(text), Ok(bytes), "{text}");
    }
    for bad in [
        "",
        "k",
        "1x",
        "-1",
        "1e6",
        "1.",
        "18446744073709551616",
        "16777216Ti",
    ] {
        assert!(units::bytes(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_exists_is_replaced_when_asked_for_and_allowed() {
    let source = Source::new(&[("tree/file", 10), ("tree/other", 20)]);
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&[], &[], false),
        (&["--overwrite"], &[], true),
        (&["--overwrite"], &["--never-overwrite"], false),
    ];
    for (ours, theirs, is_replaced) in cases {
        let server = Server::start(theirs);
        fs::create_dir(server.file("tree")).unwrap();
        fs::write(server.file("tree/file"), "theirs").unwrap();
        let mut arguments = vec!["--json", "--to", &server.address];
        arguments.extend(*ours);
        let output = client(&arguments, &source.path());
        let expected = i32::from(!*is_replaced);
        assert_eq!(output.status.code(), Some(expected), "{ours:?} {theirs:?}");
        source.expect_at(server.root.path(), "other");
        if *is_replaced {
            source.expect_at(server.root.path(), "file");
        } else {
            assert_eq!(fs::read(server.file("tree/file")).unwrap(), b"theirs");
        }
    }
}

#[test]
fn a_second_copy_finds_everything_and_a_dry_run_writes_nothing() {
    let source = Source::new(&[("tree/file", 10), ("tree/other", 20)]);
    let server = Server::start(&[]);
    let to = ["--json", "--to", &server.address];
    let output = client(&[&to[..], &["--dry-run"]].concat(), &source.path());
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    assert_eq!(report(&output)["totals"]["bytes_planned"], 30);
    assert_eq!(fs::read_dir(server.root.path()).unwrap().count(), 0);

    let output = client(&to, &source.path());
    assert_eq!(report(&output)["totals"]["files_verified"], 2);
    for more in [&[][..], &["--checksum"], &["--recheck"]] {
        let output = client(&[&to[..], more].concat(), &source.path());
        let totals = &report(&output)["totals"];
        assert_eq!(totals["files_present"], 2, "{more:?}");
        assert_eq!(totals["bytes_transferred"], 0, "{more:?}");
    }
}

#[test]
fn quiet_prints_nothing_and_paths_may_begin_with_a_dash() {
    let source = Source::new(&[("-rf/file", 10)]);
    let server = Server::start(&[]);
    let mut command = example("file_copy_client");
    command.args(["--quiet", "--to", &server.address, "--", "-rf"]);
    let output = command.current_dir(source.0.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
    assert_eq!(fs::read(server.file("-rf/file")).unwrap().len(), 10);
}

#[test]
fn a_server_that_takes_no_more_or_not_from_here_refuses_by_name() {
    let source = Source::new(&[("tree/big", 3_000_000), ("tree/file", 1)]);
    let elsewhere = Server::start(&["--allow", "192.0.2.0/24"]);
    let output = client(&["--to", &elsewhere.address], &source.path());
    assert_eq!(output.status.code(), Some(4), "{}", complaint(&output));
    assert!(complaint(&output).contains("takes nothing from this address"));
    assert_eq!(fs::read_dir(elsewhere.root.path()).unwrap().count(), 0);

    let busy = Server::start(&["--max-connections", "1"]);
    let mut slow = example("file_copy_client");
    slow.args(["--quiet", "--limit-rate", "100k", "--to", &busy.address]);
    let mut slow = slow.arg(source.path()).spawn().unwrap();
    busy.next("progress");
    let output = client(&["--to", &busy.address], &source.path());
    assert_eq!(output.status.code(), Some(4), "{}", complaint(&output));
    assert!(complaint(&output).contains("busy"));
    slow.kill().unwrap();
    slow.wait().unwrap();
}

#[test]
fn limits_of_a_server_fail_what_exceeds_them() {
    let source = Source::new(&[
        ("tree/a", 100_000),
        ("tree/b", 100_000),
        ("tree/c", 100_000),
    ]);
    for limit in [["--max-bytes", "250k"], ["--max-files", "2"]] {
        let server = Server::start(&limit);
        let output = client(&["--json", "--to", &server.address], &source.path());
        assert_eq!(output.status.code(), Some(1), "{limit:?}");
        let verified = &report(&output)["totals"]["files_verified"];
        assert_eq!(verified, 2, "{limit:?}: {}", complaint(&output));
    }
    let full = Server::start(&["--min-free", "1000T"]);
    let output = client(&["--json", "--to", &full.address], &source.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report(&output)["totals"]["files_verified"], 0);
}

#[test]
fn wrong_arguments_are_found_before_anything_is_sent() {
    let source = Source::new(&[("tree/file", 1)]);
    let server = Server::start(&[]);
    let cases: &[&[&str]] = &[
        &["--attempts", "0"],
        &["--read-votes", "200"],
        &["--limit-rate", "10"],
        &["--loss-tolerance", "0.9"],
        &["--secret-file", "/nowhere"],
        &["--congestion", "vegas"],
    ];
    for case in cases {
        let output = client(
            &[&["--to", &server.address], *case].concat(),
            &source.path(),
        );
        assert_eq!(
            output.status.code(),
            Some(2),
            "{case:?}: {}",
            complaint(&output)
        );
    }
    let missing = source.0.path().join("missing");
    let output = client(&["--to", &server.address], &missing);
    assert_eq!(output.status.code(), Some(2));
    assert!(complaint(&output).contains("missing"));
}

#[cfg(unix)]
mod signals {
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    fn signal(child: &Child, signal: Signal) {
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
    }

    fn slow_client(server: &Server, source: &Source) -> Child {
        example("file_copy_client")
            .args(["--json", "--limit-rate", "8M", "--to", &server.address])
            .arg(source.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Waits until so many bytes are there.
    fn wait_for(server: &Server, bytes: u64) {
        let mut seen = 0;
        while seen < bytes {
            seen += server.next("progress")["bytes"].as_u64().unwrap();
        }
    }

    #[test]
    fn an_interrupted_client_tells_its_server_and_goes_on_later() {
        const LEN: usize = 20 << 20;
        let source = Source::new(&[("tree/big", LEN)]);
        for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let server = Server::start(&["--timeout", "600"]);
            let child = slow_client(&server, &source);
            wait_for(&server, 10 << 20);
            signal(&child, number);
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(130), "{number}");
            assert_eq!(report(&output)["outcome"], "interrupted");
            // By its patience the server would wait for ten minutes: it was told.
            let ended = server.next("report");
            let why = ended["error"].as_str().unwrap();
            assert!(why.contains("reset by the peer"), "{number}: {why}");
            assert!(!server.file("tree/big").exists());

            let output = client(&["--json", "--to", &server.address], &source.path());
            assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
            let resumed = report(&output)["totals"]["bytes_resumed"].as_u64().unwrap();
            assert!(resumed >= 2 << 20, "{number}: {resumed} bytes were kept");
            source.expect_at(server.root.path(), "big");
        }
    }

    #[test]
    fn an_interrupted_server_tells_its_clients_who_come_again() {
        let source = Source::new(&[("tree/big", 20 << 20)]);
        let mut server = Server::start(&[]);
        let child = slow_client(&server, &source);
        wait_for(&server, 10 << 20);
        signal(&server.child, Signal::SIGTERM);
        let status = server.child.wait().unwrap();
        assert_eq!(status.code(), Some(130));
        assert!(!server.file("tree/big").exists());
        let (root, address) = (tempfile::tempdir().unwrap(), server.address.clone());
        let root = std::mem::replace(&mut server.root, root);
        let server = Server::start_in(root, &address, &[]);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let report = report(&output);
        assert_eq!(report["targets"][0]["sessions"], 2);
        assert!(report["totals"]["bytes_resumed"].as_u64().unwrap() >= 2 << 20);
        source.expect_at(server.root.path(), "big");
    }

    #[test]
    fn a_client_that_waits_for_its_next_try_can_be_interrupted() {
        let source = Source::new(&[("tree/big", 20 << 20)]);
        let mut server = Server::start(&[]);
        let mut child = slow_client(&server, &source);
        wait_for(&server, 1 << 20);
        signal(&server.child, Signal::SIGINT);
        server.child.wait().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next().unwrap().unwrap().contains("\"lost\"") {}
        thread::sleep(Duration::from_millis(100));
        signal(&child, Signal::SIGINT);
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }
}
