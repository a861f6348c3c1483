//! Who reads what, step by step in one thread.

use super::*;
use crate::copy::path::WirePath;
use crate::copy::source::block::Block;
use crate::copy::source::cache::{BlockId, SessionId, cost_of};
use crate::copy::source::version::Version;

/// 200 small files and one of 9 MiB; returns the sum of their sizes.
fn write_many(test: &SourceTest) -> u64 {
    let mut sum = 9 * MIB;
    for i in 0..200_usize {
        let len = i * 331 % 32_768;
        test.write(format!("{}/{i}", i % 7), &content(i as u64, len));
        sum += len;
    }
    test.write("3/large", &content(1000, 9 * MIB));
    sum as u64
}

fn used(source: &Source) -> u64 {
    source.shared.cache.check_invariants();
    source.shared.cache.usage().0
}

fn peak(source: &Source) -> u64 {
    source.shared.cache.usage().1
}

#[test]
fn three_sessions_in_step_read_each_byte_once() {
    let test = SourceTest::new();
    let sum = write_many(&test);
    let source = test.source();
    let sessions = [(); 3].map(|()| source.session(alone()));
    for file in files(&sessions[0]) {
        for session in &sessions {
            expect_read(session, &file, &test);
        }
    }
    assert_eq!(source.bytes_read(), sum);
    assert_eq!(used(&source), 0, "nothing is kept for nobody");
    assert!(peak(&source) < 11 << 20, "and nothing was kept for long");
}

#[test]
fn sessions_that_lag_within_the_budget_read_nothing_again() {
    let test = SourceTest::new();
    let sum = write_many(&test);
    let source = test.source();
    let sessions = [(); 3].map(|()| source.session(alone()));
    for session in &sessions {
        for file in files(session) {
            expect_read(session, &file, &test);
        }
    }
    assert_eq!(source.bytes_read(), sum);
    assert_eq!(source.disk_bytes_read(), sum);
    assert_eq!(used(&source), 0);
}

#[test]
fn one_session_keeps_nothing() {
    let test = SourceTest::new();
    let sum = write_many(&test);
    let source = test.source();
    let session = source.session(alone());
    for file in files(&session) {
        expect_read(&session, &file, &test);
        assert_eq!(used(&source), 0);
    }
    assert_eq!(source.bytes_read(), sum);
}

#[test]
fn a_lag_beyond_the_budget_is_read_again() {
    let test = SourceTest::new();
    test.write("large", &content(1, 9 * MIB));
    let source = test.builder().cache(MIN_CACHE).open().unwrap();
    let [ahead, behind] = [(); 2].map(|()| source.session(alone()));
    let file = find(&ahead, "large");
    expect_read(&ahead, &file, &test);
    expect_read(&behind, &file, &test);
    // The last three were kept, and the first of them made room for what was read again.
    assert_eq!(source.bytes_read(), (9 + 7) << 20);
    assert!(peak(&source) <= MIN_CACHE, "{}", peak(&source));
}

#[test]
fn a_session_that_takes_nothing_costs_the_others_nothing() {
    let test = SourceTest::new();
    test.write("large", &content(1, 20 * MIB));
    let source = test.builder().cache(MIN_CACHE).open().unwrap();
    let dead = source.session(alone());
    let sessions = [(); 2].map(|()| source.session(alone()));
    let file = find(&dead, "large");
    let opened = sessions
        .each_ref()
        .map(|session| session.open(&file).unwrap());
    for index in 0..20 {
        for opened in &opened {
            opened.block(index).unwrap();
        }
    }
    assert_eq!(source.bytes_read(), 20 << 20);
    assert!(used(&source) > 3 << 20, "the latest blocks are kept for it");
    assert!(peak(&source) <= MIN_CACHE, "{}", peak(&source));
    drop(dead);
    assert_eq!(used(&source), 0, "until it is gone");
}

#[test]
fn what_a_laggard_reads_again_pushes_out_nothing() {
    let test = SourceTest::new();
    test.write("large", &content(1, 30 * MIB));
    let source = test.builder().cache(MIN_CACHE).open().unwrap();
    let [first, second, last] = [(); 3].map(|()| source.session(alone()));
    let file = find(&first, "large");
    let [first, second, last] = [first, second, last].map(|session| {
        let opened = session.open(&file).unwrap();
        (session, opened)
    });
    // The second follows the first two blocks behind, the last fifteen.
    for index in 0..30_u64 {
        first.1.block(index).unwrap();
        if let Some(index) = index.checked_sub(2) {
            second.1.block(index).unwrap();
        }
        if let Some(index) = index.checked_sub(15) {
            last.1.block(index).unwrap();
        }
    }
    assert_eq!(source.bytes_read(), (30 + 15) << 20);
}

#[test]
fn a_session_that_comes_later_reads_what_is_gone() {
    let test = SourceTest::new();
    test.write("a", &content(1, 1000));
    test.write("b", &content(2, 1000));
    let source = test.source();
    let early = source.session(alone());
    let [a, b] = ["a", "b"].map(|name| find(&early, name));
    expect_read(&early, &a, &test);
    let late = source.session(alone());
    expect_read(&early, &b, &test);
    assert_eq!(source.bytes_read(), 2000);
    expect_read(&late, &a, &test);
    assert_eq!(source.bytes_read(), 3000);
    assert!(used(&source) > 1000, "b is there for it");
    expect_read(&late, &b, &test);
    assert_eq!(source.bytes_read(), 3000);
    assert_eq!(used(&source), 0);
}

#[test]
fn nothing_is_kept_for_sessions_that_passed_the_file() {
    let test = SourceTest::new();
    for name in ["a", "b", "c"] {
        test.write(name, &content(1, 100_000));
    }
    let source = test.source();
    let [one, two] = [(); 2].map(|()| source.session(alone()));
    let [a, b, c] = ["a", "b", "c"].map(|name| find(&one, name));
    expect_read(&one, &a, &test);
    assert!(used(&source) > 100_000);
    two.pass(&a);
    assert_eq!(used(&source), 0, "passed after it was read");
    two.pass(&b);
    expect_read(&one, &b, &test);
    assert_eq!(used(&source), 0, "passed before it was read");
    expect_read(&one, &c, &test);
    assert!(used(&source) > 100_000, "the next one is not passed");
    two.pass(&c);
    expect_read(&two, &b, &test);
    assert_eq!(source.bytes_read(), 400_000, "and may be read all the same");
    assert_eq!(used(&source), 0);
}

#[test]
fn blocks_of_another_version_are_never_taken() {
    let test = SourceTest::new();
    let path = test.write("a", &content(1, 1000));
    let source = test.source();
    let [one, two] = [(); 2].map(|()| source.session(alone()));
    let file = find(&one, "a");
    let old = two.open(&file).unwrap();
    expect_read(&one, &file, &test);
    fs::write(&path, content(2, 1000)).unwrap();
    expect_read(&one, &file, &test);
    assert!(matches!(old.block(0), Err(ReadError::Changed)));
    expect_read(&two, &file, &test);
    assert_eq!(used(&source), 0);
}

#[test]
fn the_next_block_is_read_ahead() {
    let test = SourceTest::new();
    test.write("large", &content(1, 4 * MIB));
    let source = test.source();
    let jobs = Jobs::default();
    let session = source.session(jobs.spawn());
    let file = find(&session, "large");
    let opened = session.open(&file).unwrap();
    let read = || source.bytes_read() >> 20;

    opened.block(0).unwrap();
    assert_eq!(read(), 1);
    jobs.take().unwrap()();
    assert_eq!(read(), 2, "the job reads the next block");
    opened.block(1).unwrap();
    assert_eq!(read(), 2, "which is there when it is due");

    let late = jobs.take().unwrap();
    opened.block(2).unwrap();
    assert!(jobs.take().is_none(), "one at a time");
    late();
    assert_eq!(read(), 3, "who comes too late reads nothing");

    opened.block(2).unwrap();
    drop(jobs.take().unwrap());
    opened.block(2).unwrap();
    let orphan = jobs.take().expect("a job that never ran is no hindrance");
    drop(opened);
    let before = read();
    orphan();
    assert_eq!(read(), before, "nor is anything read for a closed file");
    assert_eq!(used(&source), 0);
}

#[test]
fn reading_ahead_of_many_sessions_keeps_the_budget_and_reads_once() {
    const SESSIONS: usize = 8;
    let test = SourceTest::new();
    for i in 0..SESSIONS {
        test.write(i.to_string(), &content(i as u64, 3 * MIB));
    }
    let source = test.builder().cache(MIN_CACHE).open().unwrap();
    let jobs = Jobs::default();
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|_| source.session(jobs.spawn()))
        .collect();
    let found = files(&sessions[0]);
    // Each has passed the others' files.
    for (i, session) in sessions.iter().enumerate() {
        for (j, file) in found.iter().enumerate() {
            if i != j {
                session.pass(file);
            }
        }
    }
    let pairs = sessions.iter().zip(&found);
    let opened: Vec<_> = pairs
        .map(|(session, file)| session.open(file).unwrap())
        .collect();
    for index in 0..3 {
        // Those for whom there was no room come first: they take none from the others.
        for opened in opened.iter().rev() {
            opened.block(index).unwrap();
        }
        let mut due: Vec<_> = std::iter::from_fn(|| jobs.take()).collect();
        due.reverse();
        for job in due {
            job();
        }
    }
    assert_eq!(source.bytes_read(), 24 << 20);
    assert_eq!(used(&source), 0);
    assert!(peak(&source) <= MIN_CACHE + (2 << 20), "{}", peak(&source));
}

/// Entries that no file is behind, to see what happens while blocks are being read.
struct CacheTest {
    cache: Cache,
    version: Version,
    session: SessionId,
    dead: SessionId,
}

impl CacheTest {
    fn new() -> Self {
        let cache = Cache::new(MIN_CACHE);
        Self {
            version: Version::of_file(&tempfile::tempfile().unwrap()).unwrap(),
            session: cache.register(),
            dead: cache.register(),
            cache,
        }
    }

    fn id(&self, order: u64) -> BlockId {
        BlockId {
            path: WirePath::parse(format!("file {order}").as_bytes()).unwrap(),
            version: self.version,
            order,
            index: 0,
        }
    }

    fn block(len: usize) -> Block {
        Block {
            runs: vec![Run::Data(vec![0; len].into())],
            hash: BlockHash::Cv([0; 32]),
        }
    }

    /// Takes the block of that file; meanwhile does something else.
    fn take(&self, session: SessionId, order: u64, len: usize, meanwhile: &dyn Fn()) {
        let id = self.id(order);
        let read = || {
            meanwhile();
            Ok(Self::block(len))
        };
        let room = cost_of(&id, len as u64);
        self.cache.take(session, &id, room, &|| true, read).unwrap();
    }

    /// Whether the block of that file was read ahead.
    fn read_ahead(&self, session: SessionId, order: u64) -> bool {
        let id = self.id(order);
        let was_read = std::cell::Cell::new(false);
        let read = || {
            was_read.set(true);
            Ok(Self::block(MIB))
        };
        let room = cost_of(&id, MIB as u64);
        self.cache.read_ahead(session, &id, room, || true, read);
        was_read.get()
    }

    fn usage(&self) -> (u64, u64) {
        self.cache.usage()
    }
}

#[test]
fn readings_at_the_same_time_exceed_the_budget_by_a_block_each_at_most() {
    fn nest(test: &CacheTest, sessions: &[SessionId], order: u64) {
        let Some((session, rest)) = sessions.split_first() else {
            // Everything is being read: nothing more for later.
            let session = test.cache.register();
            assert!(!test.read_ahead(session, order));
            return;
        };
        test.take(*session, order, MIB, &|| nest(test, rest, order + 1));
    }
    let test = CacheTest::new();
    let sessions: Vec<_> = (0..6).map(|_| test.cache.register()).collect();
    nest(&test, &sessions, 0);
    assert!(test.usage().1 > 6 << 20);
    assert!(test.usage().1 < 6 * ((1 << 20) + 1000));
    test.cache.check_invariants();
    assert!(test.usage().0 > 3 << 20, "the rest is kept for the others");
}

#[test]
fn reading_ahead_without_room_pushes_out_nothing() {
    let test = CacheTest::new();
    test.take(test.session, 0, 10_000, &|| ());
    let sessions: Vec<_> = (0..4).map(|_| test.cache.register()).collect();
    for (order, session) in (1..).zip(&sessions) {
        assert_eq!(test.read_ahead(*session, order), order < 4);
    }
    test.cache.check_invariants();
    let id = test.id(0);
    let kept = test
        .cache
        .take(test.dead, &id, 0, &|| true, || panic!("it was kept"));
    assert_eq!(kept.unwrap().len(), 10_000);
}

/// A small generator, so that a failure is replayed by its seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % bound as u64).unwrap()
    }
}

#[test]
fn sessions_in_any_order_read_right_and_leave_nothing() {
    let test = SourceTest::new();
    for i in 0..6_usize {
        let len = [0, 10, MIB, 2 * MIB + 5, 3 * MIB, 700_000][i];
        test.write(i.to_string(), &content(i as u64, len));
    }
    let expected: Vec<_> = (0..6)
        .map(|i| fs::read(test.tree().join(i.to_string())).unwrap())
        .collect();
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let source = test.builder().cache(MIN_CACHE).open().unwrap();
        let jobs = Jobs::default();
        let mut sessions: Vec<_> = (0..3).map(|_| source.session(jobs.spawn())).collect();
        let found = files(&sessions[0]);
        let mut opened: Vec<Vec<(usize, Opened)>> = vec![vec![], vec![], vec![]];
        for _ in 0..200 {
            let who = rng.below(sessions.len());
            let which = rng.below(found.len());
            match rng.below(20) {
                0 => sessions[who].pass(&found[which]),
                1 => {
                    sessions[who] = source.session(jobs.spawn());
                    opened[who].clear();
                }
                2 => drop(jobs.take()),
                3..8 => {
                    if let Some(job) = jobs.take() {
                        job();
                    }
                }
                8..10 => opened[who].push((which, sessions[who].open(&found[which]).unwrap())),
                10 => drop(opened[who].pop()),
                _ => {
                    let Some((which, file)) = opened[who].last() else {
                        continue;
                    };
                    let index = rng.below(usize::try_from(file.blocks()).unwrap());
                    let block = bytes_of(&file.block(index as u64).unwrap());
                    let all = &expected[*which];
                    let end = all.len().min((index + 1) * MIB);
                    assert!(block == all[index * MIB..end], "seed {seed}");
                }
            }
            source.shared.cache.check_invariants();
        }
        opened.clear();
        while let Some(job) = jobs.take() {
            job();
        }
        sessions.clear();
        assert_eq!(used(&source), 0, "seed {seed}");
        assert!(peak(&source) <= MIN_CACHE + (3 << 20), "seed {seed}");
    }
}
