//! Files of more than one block: checkpoints, journals, going on, taking over.

use std::sync::mpsc;

use super::*;

/// What a kill leaves behind: the locks go, nothing is tidied up.
fn kill(incoming: Incoming) {
    if let Some(file) = &incoming.file {
        file.unlock().unwrap();
    }
    if let Some(large) = &incoming.large {
        large.live.ledger().journal = None;
    }
    std::mem::forget(incoming);
}

fn needed(placer: &mut Placer, source: &Source<'_>) -> u64 {
    let path = wire(source.path);
    match placer.consider(&source.offer(&path)).unwrap() {
        Decision::Needed { from, .. } => from / BLOCK_LEN_U64,
        Decision::Present => panic!("present"),
    }
}

/// Receives some blocks of a file, and is killed.
fn receive_and_die(fixture: &Fixture, source: &Source<'_>, blocks: usize) {
    let mut placer = fixture.placer();
    let path = wire(source.path);
    let offer = source.offer(&path);
    let Decision::Needed { from, .. } = placer.consider(&offer).unwrap() else {
        panic!("present");
    };
    let mut incoming = placer.begin(&offer, from).unwrap();
    let start = usize::try_from(from).unwrap();
    feed(
        &mut placer,
        &mut incoming,
        source,
        start,
        blocks * BLOCK_LEN,
    )
    .unwrap();
    kill(incoming);
    std::mem::forget(placer);
}

#[test]
fn large_files_arrive_at_all_lengths() {
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    for len in [
        BLOCK_LEN + 1,
        2 * BLOCK_LEN,
        4 * BLOCK_LEN,
        5 * BLOCK_LEN - 1,
        8 * BLOCK_LEN,
        13 * BLOCK_LEN + 7,
    ] {
        let (path, content) = (format!("{len}"), bytes(len, 1));
        let sent = place(&mut placer, &Source::new(&path, &content)).unwrap();
        assert_eq!(sent, Sent::Settling);
        assert_eq!(fixture.read(&path), content);
    }
    assert_eq!(fixture.listing().len(), 6, "{:?}", fixture.listing());
    assert!(placer.registry.is_empty());
}

#[test]
fn a_kill_costs_at_most_four_blocks() {
    let content = bytes(11 * BLOCK_LEN + 9, 1);
    let source = Source::new("d/a", &content);
    for blocks in 0..=12 {
        let fixture = Fixture::new();
        receive_and_die(&fixture, &source, blocks);
        let mut placer = fixture.placer();
        let good = needed(&mut placer, &source);
        assert_eq!(good, to_u64(blocks - blocks % 4).min(8), "{blocks}");
        assert_eq!(place(&mut placer, &source).unwrap(), Sent::Settling);
        assert_eq!(fixture.read("d/a"), content);
        assert_eq!(fixture.listing(), ["d/", "d/a"]);
    }
}

#[test]
fn many_kills_in_a_row_are_survived() {
    let content = bytes(30 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    let mut sent = 0;
    loop {
        let mut placer = fixture.placer();
        let from = usize::try_from(needed(&mut placer, &source)).unwrap();
        if from + 7 >= 30 {
            place(&mut placer, &source).unwrap();
            break;
        }
        assert!(sent == 0 || from >= sent - 3);
        sent = from + 7;
        drop(placer);
        receive_and_die(&fixture, &source, sent);
    }
    assert_eq!(fixture.read("a"), content);
    assert_eq!(fixture.listing(), ["a"]);
}

#[test]
fn going_on_does_not_read_what_is_good_unless_asked_to() {
    let content = bytes(11 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    for recheck in [false, true] {
        let (mut fixture, disk) = counting(TestDisk::default());
        receive_and_die(&fixture, &source, 10);
        disk.reads.lock().unwrap().clear();
        fixture.options.recheck = recheck;
        place(&mut fixture.placer(), &source).unwrap();
        let reads = disk.reads.lock().unwrap();
        let prefix: usize = reads.range(20_000..8 << 20).map(|(_, read)| read).sum();
        let rest: usize = reads.range(8 << 20..).map(|(_, read)| read).sum();
        assert_eq!(rest, 3 * BLOCK_LEN, "the rest once");
        assert_eq!(prefix > 7 * BLOCK_LEN, recheck, "{prefix}");
    }
}

#[test]
fn damage_in_what_was_good_is_found_by_a_recheck() {
    let content = bytes(11 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let mut fixture = Fixture::new();
    receive_and_die(&fixture, &source, 10);
    let (partial, _) = names::partial_names(b"a");
    let file = File::options()
        .write(true)
        .open(fixture.path(&partial))
        .unwrap();
    PlainDisk.write_at(&file, b"?", 5_000_000).unwrap();
    assert_eq!(needed(&mut fixture.placer(), &source), 8);
    fixture.options.recheck = true;
    assert_eq!(needed(&mut fixture.placer(), &source), 0);
    place(&mut fixture.placer(), &source).unwrap();
    assert_eq!(fixture.read("a"), content);
}

#[test]
fn another_content_starts_over() {
    let content = bytes(11 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    receive_and_die(&fixture, &source, 10);
    let tagged = Source {
        tag: [2; 16],
        ..source.clone()
    };
    assert_eq!(needed(&mut fixture.placer(), &tagged), 0);
    let longer = bytes(12 * BLOCK_LEN, 1);
    assert_eq!(needed(&mut fixture.placer(), &Source::new("a", &longer)), 0);
    assert_eq!(needed(&mut fixture.placer(), &source), 8);
    // Fewer bytes than the journal says.
    let (partial, journal) = names::partial_names(b"a");
    let file = File::options()
        .write(true)
        .open(fixture.path(&partial))
        .unwrap();
    file.set_len(8 * BLOCK_LEN_U64 - 1).unwrap();
    assert_eq!(needed(&mut fixture.placer(), &source), 0);
    file.set_len(8 * BLOCK_LEN_U64).unwrap();
    assert_eq!(needed(&mut fixture.placer(), &source), 8);
    // Another file of the same name and length.
    #[cfg(unix)]
    {
        std::fs::rename(fixture.path(&partial), fixture.path("x")).unwrap();
        std::fs::copy(fixture.path("x"), fixture.path(&partial)).unwrap();
        assert_eq!(needed(&mut fixture.placer(), &source), 0);
        std::fs::rename(fixture.path("x"), fixture.path(&partial)).unwrap();
    }
    // Beginning the other content takes back what the journal says, before anything is written.
    let mut placer = fixture.placer();
    let path = wire("a");
    let incoming = placer.begin(&tagged.offer(&path), 0).unwrap();
    assert_eq!(std::fs::metadata(fixture.path(&journal)).unwrap().len(), 0);
    assert_eq!(std::fs::metadata(fixture.path(&partial)).unwrap().len(), 0);
    drop(incoming);
    assert!(fixture.listing().is_empty());
}

#[test]
fn what_consider_said_must_still_hold() {
    let content = bytes(11 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    receive_and_die(&fixture, &source, 10);
    let mut placer = fixture.placer();
    let path = wire("a");
    for from in [4, 9, 12] {
        let begun = placer.begin(&source.offer(&path), from * BLOCK_LEN_U64);
        assert!(matches!(begun, Err(Rejection::Changed)), "{from}");
    }
    let begun = placer.begin(&source.offer(&wire("b")), BLOCK_LEN_U64);
    assert!(matches!(begun, Err(Rejection::Changed)));
    let short = Source::new("c", b"x");
    let begun = placer.begin(&short.offer(&wire("c")), BLOCK_LEN_U64);
    assert!(matches!(begun, Err(Rejection::Changed)));
    assert_eq!(needed(&mut placer, &source), 8);
}

#[test]
fn a_damaged_block_costs_itself_and_what_follows() {
    let content = bytes(11 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    for (at, good) in [(100, 0), (6 << 20, 6), (10 << 20, 10)] {
        let (fixture, disk) = counting(TestDisk::default());
        disk.wrong.lock().unwrap().insert(at, 1);
        let mut placer = fixture.placer();
        assert_eq!(place(&mut placer, &source).unwrap(), Sent::Mismatch);
        assert!(!fixture.path("a").exists());
        assert_eq!(needed(&mut placer, &source), good);
        assert_eq!(place(&mut placer, &source).unwrap(), Sent::Settling);
        assert_eq!(fixture.read("a"), content);
        assert_eq!(fixture.listing(), ["a"]);
    }
}

#[test]
fn blocks_that_are_not_those_of_the_whole_are_not_kept() {
    let content = bytes(9 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let path = wire("a");
    let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
    feed(&mut placer, &mut incoming, &source, 0, usize::MAX).unwrap();
    let other = Source::new("", b"other").root();
    assert_eq!(placer.end(incoming, other, 1).unwrap(), Ended::Mismatch);
    assert!(fixture.listing().is_empty(), "{:?}", fixture.listing());
}

#[test]
fn a_missing_hash_of_a_block_is_no_file() {
    let content = bytes(3 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let path = wire("a");
    let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
    feed(&mut placer, &mut incoming, &source, 0, 2 * BLOCK_LEN).unwrap();
    placer
        .write(&mut incoming, &content[2 * BLOCK_LEN..])
        .unwrap();
    failure(placer.end(incoming, source.root(), 1));
    assert!(!fixture.path("a").exists());
    assert_eq!(needed(&mut placer, &source), 2);
}

#[test]
fn sparse_files_stay_sparse_and_hold_nothing_stale() {
    let mut content = bytes(14 * BLOCK_LEN, 1);
    content[5 * BLOCK_LEN..13 * BLOCK_LEN].fill(0);
    let full = bytes(14 * BLOCK_LEN, 2);
    let mut source = Source::new("a", &content);
    source.hole = Some(5 * BLOCK_LEN..13 * BLOCK_LEN);
    let (fixture, disk) = counting(TestDisk::default());
    // A leftover full of bytes, good for another tag and good for this one.
    receive_and_die(
        &fixture,
        &Source {
            tag: [9; 16],
            ..Source::new("a", &full)
        },
        14,
    );
    receive_and_die(&fixture, &source, 4);
    let (partial, _) = names::partial_names(b"a");
    let file = File::options()
        .write(true)
        .open(fixture.path(&partial))
        .unwrap();
    PlainDisk.write_at(&file, &full, 4 * BLOCK_LEN_U64).unwrap();
    disk.log.lock().unwrap().clear();
    assert_eq!(needed(&mut fixture.placer(), &source), 4);
    place(&mut fixture.placer(), &source).unwrap();
    assert_eq!(fixture.read("a"), content);
    let log = disk.log.lock().unwrap();
    let hole = 5 * BLOCK_LEN_U64..13 * BLOCK_LEN_U64;
    assert!(
        !log.iter()
            .any(|(kind, at)| *kind == 'w' && hole.contains(at))
    );

    // Holes at the end, of a small file and of a large one.
    let zeros = vec![0; 6 * BLOCK_LEN];
    for len in [5000, BLOCK_LEN, 6 * BLOCK_LEN] {
        let mut source = Source::new("z", &zeros[..len]);
        source.hole = Some(0..len);
        let fixture = Fixture::new();
        place(&mut fixture.placer(), &source).unwrap();
        assert_eq!(fixture.read("z"), source.content);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = std::fs::metadata(fixture.path("z")).unwrap();
            assert!(metadata.blocks() <= 16, "{len}: {}", metadata.blocks());
        }
    }
}

#[test]
fn a_journal_follows_the_sync_and_the_reading_of_what_it_says() {
    let content = bytes(5 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let (fixture, disk) = counting(TestDisk::default());
    receive_and_die(&fixture, &source, 4);
    let log = disk.log.lock().unwrap();
    let last = |wanted| log.iter().rposition(|(kind, _)| *kind == wanted).unwrap();
    let first_synced = log.iter().position(|(kind, _)| *kind == 'd').unwrap();
    let last_content = log
        .iter()
        .rposition(|(kind, at)| *kind == 'w' && *at > 0)
        .unwrap();
    assert_eq!(log.last(), Some(&('w', 0)), "the journal's record");
    assert!(last_content < first_synced && first_synced < last('r'));
    assert!(last('r') < last('w'));
}

fn run(tasks: impl IntoIterator<Item = Task>) {
    for task in tasks {
        task();
    }
}

/// Tasks that run when the test says so.
fn held_back(fixture: &mut Fixture) -> mpsc::Receiver<Task> {
    let (sender, tasks) = mpsc::channel();
    let sender = Mutex::new(sender);
    fixture.spawn = Spawner::new(move |task| sender.lock().unwrap().send(task).unwrap());
    tasks
}

#[test]
fn a_checkpoint_overlaps_with_writing_up_to_the_next() {
    let content = bytes(17 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let mut fixture = Fixture::new();
    let tasks = held_back(&mut fixture);
    let mut placer = fixture.placer();
    let path = wire("a");
    let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
    let mut feed_to = |from: usize, to: usize, incoming: &mut Incoming| {
        let (from, to) = (from * BLOCK_LEN, to * BLOCK_LEN);
        feed(&mut placer, incoming, &source, from, to).unwrap();
    };
    // Seven blocks go through with a checkpoint unfinished: what a kill may cost stays below 8 MiB.
    feed_to(0, 7, &mut incoming);
    let held: Vec<_> = tasks.try_iter().collect();
    assert_eq!(held.len(), 1);
    let live = Arc::clone(&incoming.large.as_ref().unwrap().live);
    assert_eq!(live.ledger().good.blocks(), 0);
    // The second needs the end of the first, which nobody has begun.
    feed_to(7, 8, &mut incoming);
    assert_eq!(live.ledger().good.blocks(), 4);
    run(held);
    run(tasks.try_iter());
    assert_eq!(live.ledger().good.blocks(), 8);
    let (_, journal) = names::partial_names(b"a");
    assert_eq!(fixture.read(&journal).len(), 2 * 2048);
    feed_to(8, 14, &mut incoming);
    // One that is thrown away unrun is not missed.
    tasks.try_iter().for_each(drop);
    feed_to(14, 17, &mut incoming);
    let ended = placer.end(incoming, source.root(), 1).unwrap();
    assert_eq!(ended, Ended::Settling);
    assert_eq!(fixture.read("a"), content);
}

#[test]
fn a_new_session_takes_over_at_once() {
    let content = bytes(15 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let mut fixture = Fixture::new();
    let tasks = held_back(&mut fixture);
    let path = wire("a");
    let mut old = fixture.placer();
    let mut stale = old.begin(&source.offer(&path), 0).unwrap();
    feed(&mut old, &mut stale, &source, 0, 4 * BLOCK_LEN).unwrap();
    run(tasks.try_iter());
    feed(&mut old, &mut stale, &source, 4 * BLOCK_LEN, 9 * BLOCK_LEN).unwrap();
    let late: Vec<_> = tasks.try_iter().collect();
    assert_eq!(late.len(), 1);

    fixture.spawn = Spawner::new(|task| task());
    let mut new = fixture.placer();
    assert_eq!(needed(&mut new, &source), 4);
    // What the old one still does has no effect.
    run(late);
    let mut incoming = new.begin(&source.offer(&path), 4 * BLOCK_LEN_U64).unwrap();
    assert_eq!(refusal(old.write(&mut stale, b"?")), Refusal::Superseded);
    assert_eq!(refusal(old.block(&mut stale, [0; 32])), Refusal::Superseded);
    stale.received = stale.size;
    assert_eq!(
        refusal(old.end(stale, source.root(), 1)),
        Refusal::Superseded
    );
    feed(&mut new, &mut incoming, &source, 4 * BLOCK_LEN, usize::MAX).unwrap();
    assert_eq!(
        new.end(incoming, source.root(), 2).unwrap(),
        Ended::Settling
    );
    assert!(new.commit().remove(0).result.is_ok());
    assert_eq!(fixture.read("a"), content);
    assert_eq!(fixture.listing(), ["a"]);
}

#[test]
fn an_offer_that_is_refused_takes_nothing_over() {
    let content = bytes(9 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let mut fixture = Fixture::new().overwriting();
    std::fs::write(fixture.path("a"), "older").unwrap();
    let path = wire("a");
    let mut one = fixture.placer();
    let mut incoming = one.begin(&source.offer(&path), 0).unwrap();
    feed(&mut one, &mut incoming, &source, 0, 5 * BLOCK_LEN).unwrap();
    fixture.options.overwrite = false;
    let refused = fixture.placer().consider(&source.offer(&path));
    assert_eq!(refusal(refused), Refusal::Exists);
    feed(&mut one, &mut incoming, &source, 5 * BLOCK_LEN, usize::MAX).unwrap();
    assert_eq!(
        one.end(incoming, source.root(), 1).unwrap(),
        Ended::Settling
    );
    assert!(one.commit().remove(0).result.is_ok());
    assert_eq!(fixture.read("a"), content);
}

#[test]
fn another_process_is_not_disturbed() {
    let content = bytes(9 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new().overwriting();
    let mut one = fixture.placer();
    let path = wire("a");
    let mut incoming = one.begin(&source.offer(&path), 0).unwrap();
    feed(&mut one, &mut incoming, &source, 0, 5 * BLOCK_LEN).unwrap();
    // A registry of its own, as another process has.
    let mut other = fixture.placer();
    other.registry = Arc::default();
    let begun = other.begin(&source.offer(&path), 4 * BLOCK_LEN_U64);
    assert!(matches!(begun, Err(Rejection::Changed)));
    let second = bytes(9 * BLOCK_LEN, 2);
    let second = Source::new("a", &second);
    let mut theirs = other.begin(&second.offer(&path), 0).unwrap();
    feed(&mut other, &mut theirs, &second, 0, usize::MAX).unwrap();
    assert_eq!(
        other.end(theirs, second.root(), 1).unwrap(),
        Ended::Settling
    );
    assert_eq!(fixture.read("a"), second.content);
    feed(&mut one, &mut incoming, &source, 5 * BLOCK_LEN, usize::MAX).unwrap();
    assert_eq!(
        one.end(incoming, source.root(), 1).unwrap(),
        Ended::Settling
    );
    assert_eq!(fixture.read("a"), content);
    assert_eq!(fixture.listing(), ["a"]);
}

#[test]
fn a_kill_after_the_renaming_leaves_nothing_for_good() {
    let content = bytes(5 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    place(&mut fixture.placer(), &source).unwrap();
    let (partial, journal) = names::partial_names(b"a");
    std::fs::write(fixture.path(&journal), "what was good").unwrap();
    // Where there is only linking.
    std::fs::hard_link(fixture.path("a"), fixture.path(&partial)).unwrap();
    assert_eq!(
        place(&mut fixture.placer(), &source).unwrap(),
        Sent::Present
    );
    assert_eq!(fixture.listing(), ["a"]);
    assert_eq!(fixture.read("a"), content);
}

#[test]
fn placers_and_files_can_go_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Placer>();
    is_send::<Incoming>();
}

#[test]
fn a_session_that_breaks_keeps_what_is_good() {
    let content = bytes(9 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    let mut placer = fixture.placer();
    let path = wire("a");
    for (blocks, good) in [(3, 0), (6, 4), (8, 8)] {
        let from = needed(&mut placer, &source);
        let offer = source.offer(&path);
        let mut incoming = placer.begin(&offer, from * BLOCK_LEN_U64).unwrap();
        let start = usize::try_from(from).unwrap() * BLOCK_LEN;
        feed(
            &mut placer,
            &mut incoming,
            &source,
            start,
            blocks * BLOCK_LEN,
        )
        .unwrap();
        placer.keep(incoming);
        assert_eq!(needed(&mut placer, &source), good);
        assert_eq!(fixture.listing().len(), if good == 0 { 0 } else { 2 });
    }
    place(&mut placer, &source).unwrap();
    assert_eq!(fixture.listing(), ["a"]);
}

#[test]
fn a_part_under_a_name_of_its_own_goes_with_its_session() {
    let content = bytes(9 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let fixture = Fixture::new();
    let path = wire("a");
    // Another process has the part of that name.
    let mut other = fixture.placer();
    other.registry = Arc::default();
    let theirs = other.begin(&source.offer(&path), 0).unwrap();
    let mut old = fixture.placer();
    let mut stale = old.begin(&source.offer(&path), 0).unwrap();
    feed(&mut old, &mut stale, &source, 0, 5 * BLOCK_LEN).unwrap();
    assert_eq!(fixture.listing().len(), 3);
    assert_eq!(needed(&mut fixture.placer(), &source), 0);
    drop((stale, theirs));
    assert_eq!(fixture.listing(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn a_part_is_closed_to_others_although_its_first_sender_did_not_care() {
    use std::os::unix::fs::PermissionsExt;
    let content = bytes(9 * BLOCK_LEN, 1);
    let source = Source::new("a", &content);
    let mut fixture = Fixture::new();
    fixture.options.preserve = false;
    receive_and_die(&fixture, &source, 5);
    fixture.options.preserve = true;
    let mut placer = fixture.placer();
    let path = wire("a");
    let from = needed(&mut placer, &source) * BLOCK_LEN_U64;
    let incoming = placer.begin(&source.offer(&path), from).unwrap();
    let file = incoming.file.as_ref().unwrap();
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!((from, mode & 0o777), (4 * BLOCK_LEN_U64, 0o600));
}

#[test]
fn only_what_was_read_back_gets_the_name() {
    let small = bytes(1000, 1);
    let large = bytes(5 * BLOCK_LEN, 1);
    for content in [small, large] {
        let source = Source::new("a", &content);
        let mut fixture = Fixture::new().overwriting();
        let tasks = held_back(&mut fixture);
        let mut placer = fixture.placer();
        let path = wire("a");
        let mut incoming = placer.begin(&source.offer(&path), 0).unwrap();
        feed(&mut placer, &mut incoming, &source, 0, usize::MAX).unwrap();
        drop(tasks);
        let (partial, _) = names::partial_names(b"a");
        // Whoever does so knows no locks, or the file system none.
        std::fs::remove_file(fixture.path(&partial)).unwrap();
        std::fs::write(fixture.path(&partial), "something else").unwrap();
        let ended = placer.end(incoming, source.root(), 1);
        let settled = placer.commit();
        let is_changed = |result: &Result<Placed, _>| matches!(result, Err(Rejection::Changed));
        assert!(
            matches!(ended, Err(Rejection::Changed))
                || settled.iter().all(|settled| is_changed(&settled.result)),
            "{ended:?} {settled:?}"
        );
        assert!(!fixture.path("a").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_part_that_has_its_mode_already_is_gone_on_with() {
    use std::os::unix::fs::PermissionsExt;
    let content = bytes(9 * BLOCK_LEN, 1);
    for (path, content) in [("large", content.as_slice()), ("small", &content[..9])] {
        let source = Source::new(path, content);
        let fixture = Fixture::new();
        receive_and_die(&fixture, &source, 9);
        // As a kill between the modes and the names leaves it.
        let (partial, _) = names::partial_names(path.as_bytes());
        let read_only = std::fs::Permissions::from_mode(0o444);
        std::fs::set_permissions(fixture.path(&partial), read_only).unwrap();
        if std::fs::OpenOptions::new()
            .write(true)
            .open(fixture.path(&partial))
            .is_ok()
        {
            println!("SKIPPED: root may write everything");
            return;
        }
        let mut placer = fixture.placer();
        let good = if path == "large" { 8 } else { 0 };
        assert_eq!(needed(&mut placer, &source), good);
        assert_eq!(place(&mut placer, &source).unwrap(), Sent::Settling);
        assert_eq!(fixture.listing(), [path]);
    }
}
