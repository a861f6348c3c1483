use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(position: u64) -> Offset {
    Offset::new(position)
}

/// Every kind of search at `position`, in the map and in the naive one.
#[track_caller]
fn expect_same(map: &OffsetMap<u64>, naive: &BTreeMap<u64, u64>, position: u64) {
    let pair = |entry: (&u64, &u64)| (key(*entry.0), *entry.1);
    let below = naive.range(..position).next_back().map(pair);
    assert_eq!(map.below(key(position)), below, "below {position}");
    let above = naive.range(position..).next().map(pair);
    assert_eq!(map.at_or_above(key(position)), above, "from {position}");
    assert_eq!(map.first(), naive.first_key_value().map(pair), "first");
    assert_eq!(map.last(), naive.last_key_value().map(pair), "last");
    assert_eq!(map.len(), naive.len(), "length");
}

#[test]
fn a_window_that_moves_on_needs_no_more_memory() {
    let mut map = OffsetMap::new();
    for n in 0..10_000_u64 {
        map.insert(key(n * 1_000), n);
    }
    let memory = |map: &OffsetMap<u64>| (map.runs.len(), map.directory.capacity());
    let before = memory(&map);
    for n in 10_000..100_000_u64 {
        map.insert(key(n * 1_000), n);
        let first = map.remove_first_in(Offset::ZERO..key(u64::MAX));
        assert_eq!(first, Some((key((n - 10_000) * 1_000), n - 10_000)));
    }
    map.check_invariants();
    // One run is partly empty at either end.
    assert!(map.runs.len() <= before.0 + 1, "{} runs", map.runs.len());
    assert_eq!(memory(&map).1, before.1);
}

#[test]
fn what_is_spread_evenly_is_found_at_once() {
    let mut map = OffsetMap::new();
    for n in 0..1_000_000_u64 {
        map.insert(key(n * 1_000), n);
    }
    map.steps.set(0);
    let mut most = 0;
    for n in (0..1_000_000_u64).step_by(617) {
        assert_eq!(map.below(key(n * 1_000 + 1)), Some((key(n * 1_000), n)));
        most = most.max(map.steps.replace(0));
    }
    // Both ends, the guess, and its neighbours.
    assert!(most <= 10, "{most} slots looked at");
}

#[test]
fn a_range_above_everything_looks_at_nothing() {
    let mut map = OffsetMap::new();
    for n in 0..100_000_u64 {
        map.insert(key(n * 1_000), n);
    }
    map.steps.set(0);
    let highest = key(99_999_000);
    assert_eq!(map.range(highest + 1..highest + 500).next(), None);
    assert_eq!(map.range(highest..highest + 500).count(), 1);
    assert!(map.steps.get() <= 30, "{} looked at", map.steps.get());
}

#[test]
fn the_worst_spread_costs_a_logarithm() {
    // Gaps that double, each filled densely: no guess is any good.
    let mut map = OffsetMap::new();
    for n in 0..40_u64 {
        for i in 0..10_000 {
            map.insert(key((1 << (n + 20)) + i), i);
        }
    }
    map.check_invariants();
    let mut most = 0;
    for n in 0..40_u64 {
        for i in (0..10_000).step_by(97) {
            map.steps.set(0);
            let position = (1 << (n + 20)) + i;
            assert_eq!(map.at_or_above(key(position)), Some((key(position), i)));
            most = most.max(map.steps.get());
        }
    }
    // About 3,200 runs of 128: so many doublings and halvings to find the run, and within it.
    assert!(most <= 2 * 12 + 2 * 7 + 5, "{most} slots looked at");
}

#[test]
fn any_order_of_insertion_and_removal_moves_little() {
    const COUNT: u64 = 200_000;
    let mut map = OffsetMap::new();
    // Coprime to the count: each once, far from the one before.
    let scattered = |n: u64| key(n * 123_457 % COUNT * 1_000);
    for n in 0..COUNT {
        map.insert(scattered(n), n);
    }
    map.check_invariants();
    for n in 0..COUNT {
        assert_eq!(map.remove(scattered(n)), Some(n));
    }
    assert!(map.is_empty());
    let per_operation = map.steps.get() / (2 * COUNT);
    assert!(per_operation <= RUN as u64 / 2, "{per_operation} steps");
}

#[derive(Debug, Clone)]
enum Operation {
    Insert(u64),
    /// So many, close to each other.
    InsertMany(u64, u64),
    Append(u64),
    Remove(u64),
    RemoveFirstIn(u64, u64),
    RemoveMany(u64, u64),
    Change(u64),
    Clear,
}

fn operation() -> impl Strategy<Value = Operation> {
    let position = || 0_u64..4_000;
    prop_oneof![
        8 => position().prop_map(Operation::Insert),
        6 => (position(), 1_u64..300).prop_map(|(at, count)| Operation::InsertMany(at, count)),
        4 => (1_u64..300).prop_map(Operation::Append),
        8 => position().prop_map(Operation::Remove),
        4 => (position(), 0_u64..50).prop_map(|(at, len)| Operation::RemoveFirstIn(at, len)),
        6 => (position(), 1_u64..400).prop_map(|(at, count)| Operation::RemoveMany(at, count)),
        2 => position().prop_map(Operation::Change),
        1 => Just(Operation::Clear),
    ]
}

fn apply(operation: &Operation, map: &mut OffsetMap<u64>, naive: &mut BTreeMap<u64, u64>, n: u64) {
    let mut insert = |at: u64| {
        map.insert(key(at), n);
        naive.insert(at, n);
    };
    match *operation {
        Operation::Insert(at) => insert(at),
        Operation::InsertMany(at, count) => (at..at + count).for_each(insert),
        Operation::Append(count) => {
            let at = naive.last_key_value().map_or(0, |(last, _)| last + 3);
            for at in (at..at + 3 * count).step_by(3) {
                map.insert(key(at), n);
                naive.insert(at, n);
            }
        }
        Operation::Remove(at) => assert_eq!(map.remove(key(at)), naive.remove(&at)),
        Operation::RemoveFirstIn(at, len) => {
            let first = naive.range(at..at + len).next().map(|(&at, &n)| (at, n));
            let removed = map.remove_first_in(key(at)..key(at + len));
            assert_eq!(removed, first.map(|(at, n)| (key(at), n)));
            first.map(|(at, _)| naive.remove(&at));
        }
        Operation::RemoveMany(at, count) => {
            while map.remove_first_in(key(at)..key(at + count)).is_some() {}
            naive.retain(|other, _| !(at..at + count).contains(other));
        }
        Operation::Change(at) => {
            if let Some((found, value)) = map.below_mut(key(at)) {
                *value = n;
                naive.insert(found.get(), n);
            }
        }
        Operation::Clear => {
            map.clear();
            naive.clear();
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_tree(
        operations in prop::collection::vec(operation(), 1..80),
        probes in prop::collection::vec(0_u64..5_000, 8),
    ) {
        let mut map = OffsetMap::new();
        let mut naive = BTreeMap::new();
        for (n, operation) in (0..).zip(&operations) {
            apply(operation, &mut map, &mut naive, n);
            map.check_invariants();
            for &at in &probes {
                expect_same(&map, &naive, at);
            }
            let (from, to) = (probes[0].min(probes[1]), probes[0].max(probes[1]));
            let expected: Vec<_> = naive.range(from..to).map(|(&at, &n)| (key(at), n)).collect();
            let found: Vec<_> = map.range(key(from)..key(to)).collect();
            prop_assert_eq!(found, expected);
        }
        let expected: Vec<_> = naive.iter().rev().map(|(&at, &n)| (key(at), n)).collect();
        prop_assert_eq!(map.iter().rev().collect::<Vec<_>>(), expected);
    }
}
