//! Either side of a copy is killed at any moment and started again, until the copy is complete.
//!
//! Real processes, of the examples; `SIGKILL`, or what the system has in its place. After each kill every final name
//! below the root is absent or has exactly the bytes of its source; at the end both trees are equal and nothing else
//! is left; and what had arrived before a kill is sent again only as far as 8 MiB go.
//!
//! `RELIABLE_UDP_RUNS` runs (3) with seeds from `RELIABLE_UDP_SEED_START` (0), `RELIABLE_UDP_KILL_JOBS` (1) at a time. A
//! failure prints what repeats it; the moments of the kills repeat, and what the processes were doing nearly so.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use reliable_udp::sim::Rng;
use serde_json::Value;
use tempfile::TempDir;

#[path = "support/example.rs"]
mod example;

use example::example;

const MIB: u64 = 1 << 20;

/// What a kill may cost of what had arrived.
const LOSS_PER_KILL: u64 = 8 * MIB;

/// Some three seconds for the whole tree, if nothing comes in between.
const RATE: &str = "20M";

/// The latest that a kill comes after the last.
const LONGEST_PAUSE: Duration = Duration::from_millis(1_500);

/// A copy that takes so long is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// On a disk in memory where there is one: what is tested is not how fast a disk syncs.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("reliable-udp-kills-");
    let found = if memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    };
    found.unwrap()
}

#[test]
fn killed_copies_go_on_and_no_final_name_is_ever_wrong() {
    let first = variable("RELIABLE_UDP_SEED_START", 0);
    let runs = variable("RELIABLE_UDP_RUNS", 3);
    let jobs = variable("RELIABLE_UDP_KILL_JOBS", 1);
    // Both are built by one, before anybody races for them.
    drop((example("file_copy_server"), example("file_copy_client")));
    let next = AtomicU64::new(first);
    let sums = Mutex::new(Sums::default());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + runs {
                        return;
                    }
                    let run = Replay(seed);
                    let cost = Run::new(seed).play();
                    sums.lock().unwrap().add(&cost);
                    std::mem::forget(run);
                }
            });
        }
    });
    println!("{:?}", sums.into_inner().unwrap());
}

/// Says how to repeat a run that fails.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        eprintln!(
            "repeat with RELIABLE_UDP_RUNS=1 RELIABLE_UDP_SEED_START={}",
            self.0
        );
    }
}

/// What one run came to.
#[derive(Debug, Default)]
struct Cost {
    kills_of_server: u64,
    kills_of_client: u64,
    /// Content that arrived more than once.
    arrived_again: u64,
    /// Content that was sent and did not arrive.
    in_flight: u64,
}

/// What all runs came to.
#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    kills_of_server: u64,
    kills_of_client: u64,
    most_arrived_again_per_kill: u64,
    most_in_flight_per_kill: u64,
}

impl Sums {
    fn add(&mut self, cost: &Cost) {
        self.runs += 1;
        self.kills_of_server += cost.kills_of_server;
        self.kills_of_client += cost.kills_of_client;
        let kills = (cost.kills_of_server + cost.kills_of_client).max(1);
        let most = |most: &mut u64, value: u64| *most = (*most).max(value / kills);
        most(&mut self.most_arrived_again_per_kill, cost.arrived_again);
        most(&mut self.most_in_flight_per_kill, cost.in_flight);
    }
}

/// One copy, from an empty root to equal trees.
struct Run {
    rng: Rng,
    dir: TempDir,
    expected: BTreeMap<PathBuf, Entry>,
    size: u64,
}

/// What a copy keeps of a file or directory.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    modified: SystemTime,
    content: Option<blake3::Hash>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let dir = scratch();
        let source = dir.path().join("from/tree");
        let mut size = 0;
        let mut write = |path: String, len: u64| {
            let path = source.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut content = vec![0; usize::try_from(len).unwrap()];
            rng.fill(&mut content);
            fs::write(path, content).unwrap();
            size += len;
        };
        write("big".into(), 48 * MIB);
        for n in 0..6 {
            write(format!("medium/{n}"), n * MIB + 12_345);
        }
        for n in 0..500 {
            write(format!("small/{}/{n}", n % 10), n * 17);
        }
        fs::create_dir(dir.path().join("to")).unwrap();
        let mut expected = BTreeMap::new();
        describe(&source, Path::new("tree"), &mut expected).unwrap();
        Self {
            rng: Rng::new(seed ^ u64::MAX),
            dir,
            expected,
            size,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("to")
    }

    fn play(mut self) -> Cost {
        let (mut cost, mut received, mut sent) = (Cost::default(), 0, 0);
        let mut server = Process::server(&self.root(), "127.0.0.1:0");
        let address = server.address();
        let mut client = Process::client(&self.dir.path().join("from/tree"), &address);
        let kills = self.rng.range(1..=5);
        for _ in 0..kills {
            let pause = self.rng.duration(LONGEST_PAUSE);
            if client.ends_within(pause) {
                break;
            }
            if self.rng.chance(0.5) {
                cost.kills_of_server += 1;
                received += server.kill();
                self.check_finals();
                server = Process::server(&self.root(), &address);
                server.address();
            } else {
                cost.kills_of_client += 1;
                sent += client.kill();
                self.check_finals();
                client = Process::client(&self.dir.path().join("from/tree"), &address);
            }
        }
        assert!(client.ends_within(PATIENCE), "the copy comes to its end");
        let (mut status, mut bytes, mut complaints) = client.end();
        if status.code() == Some(3) && complaints.contains("cannot connect") {
            // It was started while there was no server: who was never reached is given up at once.
            sent += bytes;
            client = Process::client(&self.dir.path().join("from/tree"), &address);
            assert!(client.ends_within(PATIENCE), "the copy comes to its end");
            (status, bytes, complaints) = client.end();
        }
        assert!(status.success(), "{status}: {complaints}");
        sent += bytes;
        received += server.stop();
        self.check_finals();
        let mut found = BTreeMap::new();
        describe(&self.root().join("tree"), Path::new("tree"), &mut found).unwrap();
        let has_other = |a: &BTreeMap<PathBuf, Entry>, b: &BTreeMap<PathBuf, Entry>| {
            let others = a.iter().filter(|(path, entry)| b.get(*path) != Some(entry));
            others
                .map(|(path, _)| path.clone())
                .collect::<Vec<PathBuf>>()
        };
        let differences = (
            has_other(&found, &self.expected),
            has_other(&self.expected, &found),
        );
        assert_eq!(
            differences,
            (vec![], vec![]),
            "found and not expected, expected and not found"
        );
        let others = fs::read_dir(self.root()).unwrap().count();
        assert_eq!(others, 1, "nothing else lies in the root");

        // Every byte has to arrive once. What the sender's events have above the receiver's was in flight when a
        // session broke, so the receiver's alone say what had arrived and was lost. A process that is killed may
        // not have told of its last step, which makes the bound looser by as much.
        let kills = cost.kills_of_server + cost.kills_of_client;
        cost.arrived_again = received.saturating_sub(self.size);
        cost.in_flight = sent.saturating_sub(received);
        assert!(
            cost.arrived_again <= kills * LOSS_PER_KILL,
            "{} of {} bytes arrived again after {kills} kills",
            cost.arrived_again,
            self.size
        );
        cost
    }

    /// No final name has anything but the bytes of its source, whatever is going on.
    fn check_finals(&self) {
        let mut found = BTreeMap::new();
        describe(&self.root().join("tree"), Path::new("tree"), &mut found).unwrap();
        for (path, entry) in found {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with(".reliable-udp-") {
                continue;
            }
            let expected = self.expected.get(&path);
            let expected = expected.unwrap_or_else(|| panic!("{} has no source", path.display()));
            assert_eq!(entry.content, expected.content, "{}", path.display());
        }
    }
}

/// Every path below `path`, which may change meanwhile.
fn describe(path: &Path, name: &Path, all: &mut BTreeMap<PathBuf, Entry>) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let content = if metadata.is_file() {
        match fs::read(path) {
            Ok(content) => Some(blake3::hash(&content)),
            Err(error) if gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    } else {
        None
    };
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    #[cfg(not(unix))]
    let mode = 0;
    let modified = metadata.modified()?;
    let entry = Entry {
        mode,
        modified,
        content,
    };
    all.insert(name.to_path_buf(), entry);
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?.file_name();
            describe(&path.join(&entry), &name.join(&entry), all)?;
        }
    }
    Ok(())
}

/// An example that runs, and what it prints.
struct Process {
    child: Child,
    /// Counts the bytes of its events of progress.
    reader: Option<JoinHandle<u64>>,
    complaints: Option<JoinHandle<String>>,
    address: Arc<Mutex<Option<String>>>,
}

impl Process {
    fn server(root: &Path, address: &str) -> Self {
        let mut server = example("file_copy_server");
        server.args(["--json", "--timeout", "5", "--listen", address, "--root"]);
        Self::start(server.arg(root))
    }

    fn client(source: &Path, address: &str) -> Self {
        let mut client = example("file_copy_client");
        client.args(["--json", "--timeout", "5", "--reconnects", "10"]);
        client.args(["--limit-rate", RATE, "--to", address]);
        Self::start(client.arg(source))
    }

    fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let address = Arc::new(Mutex::new(None));
        let (output, found) = (child.stdout.take().unwrap(), Arc::clone(&address));
        let complaints = child.stderr.take().unwrap();
        Self {
            child,
            reader: Some(thread::spawn(move || progress(output, &found))),
            complaints: Some(thread::spawn(move || {
                io::read_to_string(complaints).unwrap()
            })),
            address,
        }
    }

    /// Where the server listens, once it does.
    fn address(&mut self) -> String {
        loop {
            if let Some(address) = self.address.lock().unwrap().clone() {
                return address;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended: {status}: {}", self.finish().1);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn ends_within(&mut self, patience: Duration) -> bool {
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while self.child.try_wait().unwrap().is_none() {
            if waited >= patience {
                return false;
            }
            thread::sleep(step);
            waited += step;
        }
        true
    }

    /// Kills it; returns how many bytes its events told of.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.finish().0
    }

    /// Ends it as Ctrl-C does, so that it clears away what sessions left that nobody will go on with: those
    /// whose client was killed, and that have not noticed yet.
    fn stop(mut self) -> u64 {
        #[cfg(target_os = "linux")]
        {
            use nix::sys::signal::{Signal, kill};
            let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
        }
        #[cfg(not(target_os = "linux"))]
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.finish().0
    }

    fn end(mut self) -> (std::process::ExitStatus, u64, String) {
        let status = self.child.wait().unwrap();
        let (bytes, complaints) = self.finish();
        (status, bytes, complaints)
    }

    fn finish(&mut self) -> (u64, String) {
        let bytes = self.reader.take().unwrap().join().unwrap();
        (bytes, self.complaints.take().unwrap().join().unwrap())
    }
}

/// Nobody is left behind by a test that fails.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads events up to the end; the last line may be cut.
fn progress(output: ChildStdout, address: &Mutex<Option<String>>) -> u64 {
    let mut bytes = 0;
    for line in BufReader::new(output).lines() {
        let Ok(Value::Object(object)) = line.unwrap().parse::<Value>() else {
            continue;
        };
        match object.get("event").and_then(Value::as_str) {
            Some("progress") => bytes += object["bytes"].as_u64().unwrap(),
            Some("listening") => {
                *address.lock().unwrap() = object["address"].as_str().map(str::to_owned);
            }
            _ => {}
        }
    }
    bytes
}
