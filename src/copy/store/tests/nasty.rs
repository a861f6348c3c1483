//! Disks that lie.

use super::*;

/// Runs 1,000 small files and one of 9 MiB over a nasty disk; returns how many bits it flipped and
/// how many files were found wrong. A file that was said to be verified is looked at in the end.
fn run(level: u8, votes: u8, verify_writes: bool) -> (u64, usize) {
    let disk = Arc::new(Unsynced(NastyDisk::new(level, 77)));
    let mut fixture = Fixture::new();
    fixture.disk = Arc::<Unsynced<NastyDisk>>::clone(&disk);
    fixture.settings.read_votes = votes;
    fixture.settings.verify_writes = verify_writes;
    let mut placer = fixture.placer();
    let paths: Vec<String> = (0..1000).map(|i| format!("{}/{i}", i % 10)).collect();
    let contents: Vec<Vec<u8>> = (0..1000_usize)
        .map(|i| bytes(i * 7919 % 32_769, to_u64(i)))
        .collect();
    let mut verified = Vec::new();
    let mut wrong = 0;
    for (index, (path, content)) in paths.iter().zip(&contents).enumerate() {
        let source = Source::new(path, content);
        assert_eq!(
            send(&mut placer, &source, to_u64(index)).unwrap(),
            Sent::Settling
        );
        if placer.is_due() || index == 999 {
            for settled in placer.commit() {
                match settled.result {
                    Ok(_) => verified.push(usize::try_from(settled.token).unwrap()),
                    Err(Rejection::Mismatch) => wrong += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
        }
    }
    let large = bytes(9 * BLOCK_LEN, 5);
    let source = Source::new("large", &large);
    match place(&mut placer, &source).unwrap() {
        Sent::Settling => assert_eq!(fixture.read("large"), large),
        Sent::Mismatch => {
            wrong += 1;
            assert!(!fixture.path("large").exists());
        }
        Sent::Present => panic!("present"),
    }
    for index in &verified {
        assert_eq!(fixture.read(&paths[*index]), contents[*index], "{index}");
    }
    assert_eq!(
        verified.len() + wrong + usize::from(fixture.path("large").exists()),
        1001
    );
    (
        disk.0.flips.load(std::sync::atomic::Ordering::Relaxed),
        wrong,
    )
}

#[test]
fn with_votes_and_verified_writes_every_file_arrives_exact() {
    for level in [1, 3, 5] {
        let (flips, wrong) = run(level, 1, true);
        assert!(flips > 0);
        assert_eq!(wrong, 0, "level {level}");
    }
}

#[test]
fn without_them_every_wrong_file_is_found() {
    for level in [1, 3, 5] {
        let (flips, wrong) = run(level, 0, false);
        assert!(flips > 0);
        assert!(wrong > 0, "level {level}");
    }
}

#[test]
fn a_write_that_never_reads_back_right_is_given_up() {
    for (times, is_stored) in [(16, true), (17, false)] {
        let (mut fixture, disk) = counting(TestDisk::default());
        fixture.settings.verify_writes = true;
        disk.wrong.lock().unwrap().insert(5000, times);
        let content = bytes(20_000, 1);
        let result = place(&mut fixture.placer(), &Source::new("a", &content));
        let log = disk.log.lock().unwrap();
        if is_stored {
            result.unwrap();
            assert_eq!(fixture.read("a"), content);
        } else {
            let text = failure(result).to_string();
            assert!(
                text.contains("reads back differently after 16 writes"),
                "{text}"
            );
            assert!(fixture.listing().is_empty());
        }
        // Only the page in question is written again.
        let again = log.iter().filter(|(kind, at)| *kind == 'w' && *at > 0);
        assert!(again.clone().all(|(_, at)| *at == 4096));
        assert!(again.count() >= 16);
    }
}
