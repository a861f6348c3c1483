use super::*;

/// An assembler with its reader; dropping it with readable bytes or ranges that no `expect_*`
/// consumed fails the test.
struct AssemblerTest {
    assembler: Assembler,
    queue: ReceiveQueue,
    budget: u64,
}

impl AssemblerTest {
    fn new() -> Self {
        Self {
            assembler: Assembler::default(),
            queue: ReceiveQueue::default(),
            budget: 1_000_000,
        }
    }

    #[track_caller]
    fn insert(&mut self, start: u64, payload: &str) -> Insertion {
        let start = Offset::new(start);
        let result = self
            .assembler
            .insert(start, payload.as_bytes(), false, self.budget);
        self.assembler.check_invariants(Offset::ZERO, None);
        result
    }

    #[track_caller]
    fn expect_ranges(&self, expected: &[(u64, u64)]) {
        let ranges: Vec<_> = self
            .assembler
            .ranges
            .iter()
            .map(|r| (r.start.get(), r.end.get()))
            .collect();
        assert_eq!(ranges, expected);
    }

    #[track_caller]
    fn expect_first(&mut self, end: u64, bytes: &str) {
        let taken = self
            .assembler
            .take_first(Offset::new(u64::MAX), &mut self.queue);
        assert_eq!(taken, Some((Offset::new(end), bytes.len() as u64)));
        let mut buf = vec![0; bytes.len()];
        self.queue.read(&mut buf);
        assert_eq!(String::from_utf8_lossy(&buf), bytes);
        self.queue.check_invariants();
        self.assembler.check_invariants(Offset::ZERO, None);
    }
}

impl Drop for AssemblerTest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.queue.is_empty(), "bytes left unread");
            assert!(
                self.assembler.is_empty(),
                "ranges left: {:?}",
                self.assembler.ranges
            );
            assert_eq!(self.assembler.pages.len(), 0, "pages left");
        }
    }
}

#[test]
fn old_data_wins_in_every_shape_of_overlap() {
    // Held: "held" at 20..24. The second arrival is all capitals.
    let cases = [
        (
            "before, apart",
            10,
            "ABCD",
            vec![(14, "ABCD"), (24, "held")],
        ),
        ("before, adjacent", 16, "ABCD", vec![(24, "ABCDheld")]),
        ("over the start", 18, "ABCD", vec![(24, "ABheld")]),
        ("same", 20, "ABCD", vec![(24, "held")]),
        ("inside", 21, "AB", vec![(24, "held")]),
        ("from the start", 20, "AB", vec![(24, "held")]),
        ("to the end", 22, "AB", vec![(24, "held")]),
        ("around", 18, "ABCDEFGH", vec![(26, "ABheldGH")]),
        ("over the end", 22, "ABCD", vec![(26, "heldCD")]),
        ("after, adjacent", 24, "ABCD", vec![(28, "heldABCD")]),
        ("after, apart", 30, "ABCD", vec![(24, "held"), (34, "ABCD")]),
    ];
    for (name, start, payload, expected) in cases {
        println!("{name}");
        let mut test = AssemblerTest::new();
        test.insert(20, "held");
        test.insert(start, payload);
        for (end, bytes) in expected {
            test.expect_first(end, bytes);
        }
    }
}

#[test]
fn one_arrival_fills_several_gaps() {
    let mut test = AssemblerTest::new();
    test.insert(10, "aa");
    test.insert(14, "bb");
    test.insert(18, "cc");
    test.expect_ranges(&[(10, 12), (14, 16), (18, 20)]);
    assert_eq!(test.insert(8, "ABCDEFGHIJKLMN"), Insertion::Stored(8));
    test.expect_first(22, "ABaaEFbbIJccMN");
}

#[test]
fn the_first_held_part_is_found() {
    let mut test = AssemblerTest::new();
    test.insert(10, "aaaa");
    test.insert(20, "bbbb");
    let cases = [
        ("nothing", 0..10, None),
        ("the gap", 14..20, None),
        ("empty", 11..11, None),
        ("start", 8..12, Some(10..12)),
        ("inside", 11..13, Some(11..13)),
        ("beyond the end", 12..18, Some(12..14)),
        ("both", 5..30, Some(10..14)),
        ("second", 15..30, Some(20..24)),
    ];
    for (name, range, expected) in cases {
        let offsets = |r: Range<u64>| Offset::new(r.start)..Offset::new(r.end);
        assert_eq!(
            test.assembler.first_held_in(&offsets(range)),
            expected.map(offsets),
            "{name}"
        );
    }
    test.assembler.clear();
}

#[test]
fn pages_are_shared_by_ranges_and_given_up_with_the_last() {
    let mut test = AssemblerTest::new();
    let page = "x".repeat(PAGE);
    // 100 bytes lie in page 1, where the single one lies as well.
    test.insert(100, &page);
    test.insert(PAGE as u64 + 900, "y");
    assert_eq!(test.assembler.memory(), 2 * PAGE + 2 * RANGE_OVERHEAD);
    test.expect_first(PAGE as u64 + 100, &page);
    assert_eq!(test.assembler.memory(), PAGE + RANGE_OVERHEAD);
    test.expect_first(PAGE as u64 + 901, "y");
    assert_eq!(test.assembler.memory(), 0);
}

#[test]
fn large_parts_of_pages_are_handed_over_and_small_ones_copied() {
    let mut test = AssemblerTest::new();
    // 96 bytes in page 0 and all of page 1.
    test.insert(PAGE as u64 - 96, &"x".repeat(96 + PAGE));
    test.assembler
        .take_first(Offset::new(u64::MAX), &mut test.queue);
    // One page, a chunk of the smallest size, and a few entries.
    assert!(
        test.queue.memory() <= PAGE + 2_048 + 400,
        "{}",
        test.queue.memory()
    );
    let mut lens = [96, PAGE].into_iter();
    while let Some(chunk) = test.queue.read_chunk(usize::MAX) {
        assert_eq!(Some(chunk.len()), lens.next());
    }
}

#[test]
fn single_bytes_with_gaps_cost_bounded_memory() {
    let mut test = AssemblerTest::new();
    test.budget = u64::MAX;
    for n in 0..10_000 {
        let result = test.insert(10 + 2 * n, "x");
        let expected = if n < 1_024 {
            Insertion::Stored(1)
        } else {
            Insertion::Dropped
        };
        assert_eq!(result, expected, "{n}");
    }
    assert_eq!(test.assembler.bytes(), 1_024);
    assert_eq!(test.assembler.memory(), PAGE + 1_024 * RANGE_OVERHEAD);
    // What makes no new range is still taken.
    assert_eq!(test.insert(11, "y"), Insertion::Stored(1));
    test.assembler.clear();
}

#[test]
fn the_budget_counts_bytes_and_overhead() {
    let mut test = AssemblerTest::new();
    // Two ranges of 4 bytes: 2 * (4 + 96) = 200.
    test.budget = 200;
    assert_eq!(test.insert(10, "aaaa"), Insertion::Stored(4));
    assert_eq!(test.insert(20, "bbbbb"), Insertion::Dropped);
    assert_eq!(test.insert(20, "bbbb"), Insertion::Stored(4));
    assert_eq!(test.insert(20, "bbbb"), Insertion::Stored(0));
    assert_eq!(test.insert(30, "c"), Insertion::Dropped);
    test.expect_ranges(&[(10, 14), (20, 24)]);
    test.assembler.clear();
}

#[test]
fn after_discard_only_the_ranges_are_kept() {
    let mut test = AssemblerTest::new();
    test.insert(10, "aaaa");
    test.assembler.discard();
    test.queue.discard();
    test.insert(14, "bbbb");
    assert_eq!(test.assembler.memory(), RANGE_OVERHEAD);
    let taken = test
        .assembler
        .take_first(Offset::new(u64::MAX), &mut test.queue);
    assert_eq!(taken, Some((Offset::new(18), 0)));
}
