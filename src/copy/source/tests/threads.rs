//! Sessions that are at the same block in the same moment.

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::copy::disk::to_u64;
use crate::copy::source::cache::DIGEST;

/// Holds the first reading of a length until it is let go, and then does to it what it is told.
#[derive(Debug)]
struct Gate {
    len: usize,
    then: Then,
    reads: AtomicUsize,
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    Read,
    Fail,
    Panic,
}

impl Gate {
    fn new(len: usize, then: Then) -> Arc<Self> {
        Arc::new(Self {
            len,
            then,
            reads: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Waits until somebody is being held.
    fn wait_for_reader(&self) {
        let state = self.state.lock().unwrap();
        drop(
            self.changed
                .wait_while(state, |(is_held, _)| !*is_held)
                .unwrap(),
        );
    }

    fn let_go(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl Disk for Gate {
    fn read_at(&self, file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if buf.len() == self.len && self.reads.fetch_add(1, Ordering::SeqCst) == 0 {
            let mut state = self.state.lock().unwrap();
            state.0 = true;
            self.changed.notify_all();
            drop(
                self.changed
                    .wait_while(state, |(_, may_go)| !*may_go)
                    .unwrap(),
            );
            match self.then {
                Then::Read => {}
                Then::Fail => return Err(io::Error::other("the first reading fails")),
                Then::Panic => panic!("the first reading panics"),
            }
        }
        PlainDisk.read_at(file, buf, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        PlainDisk.write_at(file, bytes, offset)
    }
}

struct GateTest {
    test: SourceTest,
    gate: Arc<Gate>,
    source: Source,
    sessions: Vec<SourceSession>,
    file: FileSource,
}

impl GateTest {
    fn new(then: Then) -> Self {
        let test = SourceTest::new();
        test.write("a", &content(1, 5000));
        test.write("b", &content(2, 6000));
        let gate = Gate::new(5000, then);
        let disk = Arc::clone(&gate) as Arc<dyn Disk>;
        let source = test.builder().disk(disk).open().unwrap();
        let sessions: Vec<_> = (0..3).map(|_| source.session(alone())).collect();
        let file = find(&sessions[0], "a");
        Self {
            test,
            gate,
            source,
            sessions,
            file,
        }
    }

    /// Has all sessions read the file at once, the first one first.
    fn read_at_once(&self) -> Vec<thread::Result<Result<Vec<u8>, ReadError>>> {
        thread::scope(|scope| {
            let first = scope.spawn(|| read(&self.sessions[0], &self.file));
            self.gate.wait_for_reader();
            let rest: Vec<_> = self.sessions[1..]
                .iter()
                .map(|session| scope.spawn(|| read(session, &self.file)))
                .collect();
            while self.source.shared.cache.waiting(self.file.path(), 0) < 2 {
                thread::yield_now();
            }
            self.gate.let_go();
            let all = std::iter::once(first).chain(rest);
            all.map(thread::ScopedJoinHandle::join).collect()
        })
    }
}

#[test]
fn who_wants_the_same_block_waits_for_the_one_reading() {
    let test = GateTest::new(Then::Read);
    for result in test.read_at_once() {
        assert_eq!(result.unwrap().unwrap(), content(1, 5000));
    }
    assert_eq!(test.gate.reads.load(Ordering::SeqCst), 1);
    assert_eq!(test.source.bytes_read(), 5000);
    assert_eq!(test.source.shared.cache.usage().0, 0);
}

#[test]
fn a_reading_that_fails_fails_those_who_wait() {
    let test = GateTest::new(Then::Fail);
    for result in test.read_at_once() {
        let Err(ReadError::Io(error)) = result.unwrap() else {
            panic!("no error");
        };
        assert_eq!(error.to_string(), "the first reading fails");
    }
    assert_eq!(test.gate.reads.load(Ordering::SeqCst), 1);
    expect_read(&test.sessions[0], &test.file, &test.test);
    assert_eq!(
        test.gate.reads.load(Ordering::SeqCst),
        2,
        "later ones try again"
    );
}

#[test]
fn a_reader_that_dies_leaves_nobody_waiting() {
    let test = GateTest::new(Then::Panic);
    let mut results = test.read_at_once().into_iter();
    assert!(results.next().unwrap().is_err(), "the first panics");
    for result in results {
        assert_eq!(result.unwrap().unwrap(), content(1, 5000));
    }
    assert_eq!(test.gate.reads.load(Ordering::SeqCst), 2);
    drop(test.sessions);
    test.source.shared.cache.check_invariants();
    assert_eq!(test.source.shared.cache.usage().0, 0);
}

#[test]
fn a_reading_that_hangs_holds_up_only_those_who_want_that_block() {
    let test = GateTest::new(Then::Read);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| read(&test.sessions[0], &test.file).unwrap());
        test.gate.wait_for_reader();
        let other = find(&test.sessions[1], "b");
        expect_read(&test.sessions[1], &other, &test.test);
        expect_read(&test.sessions[2], &other, &test.test);
        test.sessions[2].pass(&test.file);
        drop(test.source.session(alone()));
        test.gate.let_go();
        assert_eq!(stuck.join().unwrap().len(), 5000);
    });
}

#[test]
fn a_session_that_stops_hashing_leaves_it_to_those_who_wait() {
    let test = SourceTest::new();
    test.write("a", &content(1, 5000));
    let source = test.source();
    let sessions = [(); 2].map(|()| source.session(alone()));
    let file = find(&sessions[0], "a");
    let [first, second] = sessions
        .each_ref()
        .map(|session| session.open(&file).unwrap());
    let asked = AtomicUsize::new(0);
    let (begun, has_begun) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let stopped = scope.spawn(|| {
            first.digest(&|| {
                // Asked again after it said no, it says no at once.
                let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                begun.send(()).unwrap();
                while is_first && source.shared.cache.waiting(file.path(), DIGEST) == 0 {
                    thread::yield_now();
                }
                false
            })
        });
        has_begun.recv().unwrap();
        assert!(second.digest(&|| true).is_ok());
        assert!(stopped.join().unwrap().unwrap_err().is_interrupted());
    });
}

#[test]
fn sessions_at_full_speed_read_each_byte_once() {
    let test = SourceTest::new();
    let mut sum = 0;
    for i in 0..200_usize {
        let len = i * 331 % 32_768;
        test.write(format!("{}/{i}", i % 7), &content(i as u64, len));
        sum += to_u64(len);
    }
    test.write("large", &content(1000, 9 * MIB));
    sum += 9 << 20;
    for _ in 0..20 {
        let source = test.source();
        let sessions = [(); 3].map(|()| source.session(threads()));
        thread::scope(|scope| {
            for session in &sessions {
                scope.spawn(|| {
                    for file in files(session) {
                        expect_read(session, &file, &test);
                    }
                });
            }
        });
        assert_eq!(source.bytes_read(), sum);
        drop(sessions);
        assert_eq!(source.shared.cache.usage().0, 0);
    }
}
