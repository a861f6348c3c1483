use std::time::Duration;

use bytes::Bytes;

use super::{Link, LinkConfig, LinkConfigBuilder, LinkQueue, MarkTreatment, RateTrace};
use crate::ecn::Ecn;
use crate::error::ConfigError;
use crate::timestamp::Timestamp;

const SEED: u64 = 42;

fn link(builder: LinkConfigBuilder) -> Link {
    Link::new(SEED, builder.build().unwrap())
}

fn datagram(number: u32, len: usize) -> Bytes {
    let mut bytes = vec![0; len.max(4)];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Bytes::from(bytes)
}

fn number_of(datagram: &[u8]) -> u32 {
    u32::from_be_bytes(datagram[..4].try_into().unwrap())
}

/// Sends `count` datagrams of 1,000 bytes 1 ms apart and returns (milliseconds, number) of each
/// delivery, sorted by time of arrival.
fn run(link: &mut Link, count: u32) -> Vec<(u64, u32)> {
    let mut out = Vec::new();
    for n in 0..count {
        let now = Timestamp::from_millis(u64::from(n));
        for delivery in link.send(now, datagram(n, 1_000)) {
            out.push((delivery.at.as_millis(), number_of(&delivery.datagram)));
        }
    }
    out.sort_by_key(|&(at, _)| at);
    out
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_default_link_passes_everything_at_once() {
    let config = LinkConfig::default();
    assert!(config.is_transparent());
    let mut link = Link::new(SEED, config);
    let expected: Vec<_> = (0..100).map(|n| (u64::from(n), n)).collect();
    assert_eq!(run(&mut link, 100), expected);
    assert_eq!(link.stats().delivered, 100);
    assert_eq!(link.stats().bytes_delivered, 100_000);
}

#[test]
fn the_same_seed_gives_the_same_deliveries() {
    let builder = LinkConfig::builder()
        .delay(ms(5))
        .jitter(ms(9))
        .loss(0.1)
        .burst_loss(0.05, 0.3, 0.9)
        .duplicate(0.1)
        .reorder(0.2, ms(30))
        .corrupt(0.1);
    let first = run(&mut link(builder.clone()), 500);
    assert_eq!(first, run(&mut link(builder.clone()), 500));
    let mut other = Link::new(SEED + 1, builder.build().unwrap());
    assert_ne!(first, run(&mut other, 500));
}

#[test]
fn impairments_do_not_shift_each_other() {
    let lost = |link: &mut Link| {
        let arrived: Vec<u32> = run(link, 500).into_iter().map(|(_, n)| n).collect();
        (0..500)
            .filter(|n| !arrived.contains(n))
            .collect::<Vec<_>>()
    };
    let alone = lost(&mut link(LinkConfig::builder().loss(0.2)));
    let together = lost(&mut link(
        LinkConfig::builder()
            .loss(0.2)
            .jitter(ms(3))
            .duplicate(0.3)
            .reorder(0.3, ms(20))
            // Drops the first datagrams whatever their fate on the wire would be.
            .blackout(ms(0), ms(10)),
    ));
    let later = |lost: &[u32]| {
        lost.iter()
            .copied()
            .filter(|&n| n >= 10)
            .collect::<Vec<_>>()
    };
    assert_eq!(later(&alone), later(&together));
    assert!(alone.len() > 60);
}

#[test]
fn delay_and_jitter_keep_the_order() {
    let mut link = link(LinkConfig::builder().delay(ms(10)).jitter(ms(50)));
    let mut latest = Timestamp::ZERO;
    let mut spread = Duration::ZERO;
    for n in 0..1_000_u32 {
        let now = Timestamp::from_millis(u64::from(n));
        for delivery in link.send(now, datagram(n, 100)) {
            let delay = delivery.at.saturating_since(now);
            assert!((ms(10)..=ms(60)).contains(&delay), "{n}: {delay:?}");
            assert!(delivery.at >= latest, "{n}");
            latest = delivery.at;
            spread = spread.max(delay);
        }
    }
    assert!(spread > ms(50));
}

#[test]
fn the_rate_spaces_departures() {
    // 1,000 bytes at 100,000 bytes/s take 10 ms.
    let mut link = link(LinkConfig::builder().rate(100_000).delay(ms(3)));
    let mut arrivals = Vec::new();
    for n in 0..4 {
        for delivery in link.send(Timestamp::ZERO, datagram(n, 1_000)) {
            arrivals.push(delivery.at.as_millis());
        }
    }
    assert_eq!(arrivals, [13, 23, 33, 43]);
    // Idle from 40 ms on: the next one starts at once.
    let late: Vec<_> = link
        .send(Timestamp::from_millis(100), datagram(4, 1_000))
        .into_iter()
        .collect();
    assert_eq!(late[0].at.as_millis(), 113);
}

#[test]
fn a_full_queue_drops_the_newest() {
    let cases = [
        (
            "bytes",
            LinkConfig::builder().rate(100_000).queue_bytes(2_500),
        ),
        (
            "datagrams",
            LinkConfig::builder().rate(100_000).queue_datagrams(2),
        ),
    ];
    for (name, builder) in cases {
        let mut link = link(builder);
        let mut passed = Vec::new();
        // One leaves every 10 ms; five are sent at 0, two more at 10 ms.
        for (at, n) in [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (10, 5), (10, 6)] {
            let out = link.send(Timestamp::from_millis(at), datagram(n, 1_000));
            passed.extend(out.into_iter().map(|d| number_of(&d.datagram)));
        }
        assert_eq!(passed, [0, 1, 5], "{name}");
        assert_eq!(link.stats().dropped_queue, 4, "{name}");
    }
}

#[test]
fn the_queue_holds_what_has_not_left_the_transmitter() {
    // 1,000 bytes take 1 ms.
    let mut link = link(LinkConfig::builder().rate(1_000_000).delay(ms(50)));
    assert_eq!(link.queue(Timestamp::ZERO), LinkQueue::default());
    for (number, len) in [(0, 1_000), (1, 2_000), (2, 500)] {
        let _ = link.send(Timestamp::ZERO, datagram(number, len));
    }
    for (micros, datagrams, bytes, delay) in [
        (0, 3, 3_500, 3_500),
        (999, 3, 3_500, 2_501),
        (1_000, 2, 2_500, 2_500),
        (2_999, 2, 2_500, 501),
        (3_000, 1, 500, 500),
        (3_500, 0, 0, 0),
        (9_000, 0, 0, 0),
    ] {
        let delay = Duration::from_micros(delay);
        let expected = LinkQueue {
            datagrams,
            bytes,
            delay,
        };
        let now = Timestamp::from_nanos(micros * 1_000);
        assert_eq!(link.queue(now), expected, "at {micros} us");
    }
}

#[test]
fn a_datagram_larger_than_the_queue_passes_an_idle_link() {
    let mut link = link(LinkConfig::builder().rate(100_000).queue_bytes(500));
    let out = link.send(Timestamp::ZERO, datagram(0, 1_000));
    assert_eq!(out.into_iter().count(), 1);
}

#[test]
fn random_loss_follows_its_probability() {
    let mut link = link(LinkConfig::builder().loss(0.25));
    let arrived = run(&mut link, 10_000).len() as u64;
    // Binomial(10000, 0.25) has a standard deviation of 43.
    assert!((2_300..=2_700).contains(&link.stats().lost_random));
    assert_eq!(arrived + link.stats().lost_random, 10_000);
}

#[test]
fn burst_loss_comes_in_runs() {
    // In the bad state 1 / (1 + 10) of the time, for 10 datagrams on average.
    let mut link = link(LinkConfig::builder().burst_loss(0.01, 0.1, 1.0));
    let arrived: Vec<u32> = run(&mut link, 20_000).into_iter().map(|(_, n)| n).collect();
    let gaps = arrived.windows(2).filter(|w| w[1] > w[0] + 1).count();
    let lost = usize::try_from(link.stats().lost_burst).unwrap();
    assert!((1_000..=2_800).contains(&lost), "{lost}");
    assert!((5..=15).contains(&(lost / gaps)), "{lost} in {gaps}");
}

#[test]
fn a_duplicate_follows_its_original() {
    let mut link = link(LinkConfig::builder().delay(ms(5)).duplicate(1.0));
    assert_eq!(run(&mut link, 2), [(5, 0), (5, 0), (6, 1), (6, 1)]);
    assert_eq!(link.stats().duplicated, 2);
    assert_eq!(link.stats().delivered, 2);
}

#[test]
fn a_reordered_datagram_is_overtaken() {
    let mut link = link(LinkConfig::builder().delay(ms(1)).reorder(0.1, ms(20)));
    let order: Vec<u32> = run(&mut link, 1_000).into_iter().map(|(_, n)| n).collect();
    let inversions = order.windows(2).filter(|w| w[1] < w[0]).count();
    assert!(inversions > 50, "{inversions}");
    assert!((60..=140).contains(&link.stats().reordered));
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1_000).collect::<Vec<_>>());
}

#[test]
fn corruption_changes_exactly_one_byte_and_spares_the_original() {
    let mut link = link(LinkConfig::builder().corrupt(1.0));
    let original = Bytes::from(vec![0; 50]);
    let mut positions = std::collections::BTreeSet::new();
    for _ in 0..1_000 {
        for delivery in link.send(Timestamp::ZERO, original.clone()) {
            let changed: Vec<_> = (0..50).filter(|&i| delivery.datagram[i] != 0).collect();
            assert_eq!(changed.len(), 1);
            positions.insert(changed[0]);
        }
    }
    assert!(original.iter().all(|&b| b == 0));
    assert_eq!(positions.len(), 50);
    assert_eq!(
        link.send(Timestamp::ZERO, Bytes::new())
            .into_iter()
            .next()
            .unwrap()
            .datagram
            .len(),
        0
    );
    assert_eq!(link.stats().corrupted, 1_000);
}

#[test]
fn the_mtu_is_a_black_hole() {
    let mut link = link(LinkConfig::builder().mtu(1_000));
    let passes = |link: &mut Link, len| {
        link.send(Timestamp::ZERO, datagram(0, len))
            .into_iter()
            .count()
    };
    assert_eq!(passes(&mut link, 1_000), 1);
    assert_eq!(passes(&mut link, 1_001), 0);
    assert_eq!(link.stats().dropped_mtu, 1);
}

#[test]
fn the_mtu_changes_at_its_times() {
    let mut link = link(
        LinkConfig::builder()
            .mtu(1_000)
            .mtu_from(ms(20), 2_000)
            .mtu_from(ms(10), 500),
    );
    let passing: Vec<u64> = [0, 9, 10, 19, 20, 30]
        .into_iter()
        .filter(|&at| {
            let datagram = datagram(0, 1_000);
            link.send(Timestamp::from_millis(at), datagram)
                .into_iter()
                .count()
                > 0
        })
        .collect();
    assert_eq!(passing, [0, 9, 20, 30]);
}

#[test]
fn blackouts_drop_from_start_to_end() {
    let mut once = link(
        LinkConfig::builder()
            .blackout(ms(3), ms(2))
            .blackout(ms(8), ms(1)),
    );
    let passed: Vec<u32> = run(&mut once, 10).into_iter().map(|(_, n)| n).collect();
    assert_eq!(passed, [0, 1, 2, 5, 6, 7, 9]);
    assert_eq!(once.stats().dropped_blackout, 3);

    let mut periodic = link(LinkConfig::builder().periodic_blackout(ms(1), ms(2), ms(4)));
    let passed: Vec<u32> = run(&mut periodic, 12).into_iter().map(|(_, n)| n).collect();
    assert_eq!(passed, [0, 3, 4, 7, 8, 11]);
}

#[test]
fn delay_spikes_hold_back_what_leaves_during_them_and_keep_the_order() {
    let mut link = link(
        LinkConfig::builder()
            .delay(ms(1))
            .delay_spike(ms(2), ms(2), ms(4))
            .delay_spike(ms(3), ms(1), ms(10)),
    );
    // Sent at 0, 1, 2, …: 2 comes at 2 + 1 + 4, 3 at 3 + 1 + 14, and the later ones behind it.
    let arrivals: Vec<u64> = run(&mut link, 6).into_iter().map(|(at, _)| at).collect();
    assert_eq!(arrivals, [1, 2, 7, 18, 18, 18]);
}

#[test]
fn a_numbered_datagram_is_dropped() {
    let mut link = link(LinkConfig::builder().drop_nth(0).drop_nth(3));
    let passed: Vec<u32> = run(&mut link, 5).into_iter().map(|(_, n)| n).collect();
    assert_eq!(passed, [1, 2, 4]);
    assert_eq!(link.stats().dropped_scripted, 2);
}

#[test]
fn every_datagram_is_counted_under_one_cause() {
    let mut link = link(
        LinkConfig::builder()
            .rate(900_000)
            .queue_datagrams(3)
            .jitter(ms(2))
            .loss(0.1)
            .burst_loss(0.1, 0.3, 0.8)
            .duplicate(0.1)
            .blackout(ms(100), ms(30))
            .drop_nth(7),
    );
    run(&mut link, 2_000);
    let s = link.stats();
    let dropped = s.dropped_queue + s.dropped_mtu + s.dropped_blackout + s.dropped_scripted;
    assert_eq!(s.sent, 2_000);
    assert_eq!(s.delivered + s.lost_random + s.lost_burst + dropped, s.sent);
    assert!(s.dropped_queue > 0 && s.lost_random > 0 && s.lost_burst > 0);
}

#[test]
fn a_train_stays_whole_where_all_datagrams_are_treated_alike() {
    let train = Bytes::from(vec![7; 2_500]);
    let mut out = Vec::new();
    let mut delayed = link(LinkConfig::builder().delay(ms(5)));
    delayed.send_train(
        Timestamp::ZERO,
        train.clone(),
        1_000,
        None,
        |at, bytes, stride, _| {
            out.push((at.as_millis(), bytes.len(), stride));
        },
    );
    assert_eq!(out, [(5, 2_500, 1_000)]);
    assert_eq!(delayed.stats().sent, 3);
    assert_eq!(delayed.stats().bytes_delivered, 2_500);

    out.clear();
    let mut lossy = link(LinkConfig::builder().drop_nth(1));
    lossy.send_train(
        Timestamp::ZERO,
        train,
        1_000,
        None,
        |at, bytes, stride, _| {
            out.push((at.as_millis(), bytes.len(), stride));
        },
    );
    assert_eq!(out, [(0, 1_000, 1_000), (0, 500, 500)]);
}

#[test]
fn a_rejected_value_is_named() {
    let builder = LinkConfig::builder;
    let trace = RateTrace::parse_mahimahi("1").unwrap();
    let cases = [
        ("delay", builder().delay(Duration::from_secs(3_601))),
        ("jitter", builder().jitter(Duration::MAX)),
        ("loss", builder().loss(1.01)),
        ("loss", builder().loss(f64::NAN)),
        ("burst_loss", builder().burst_loss(0.1, -0.1, 0.5)),
        ("duplicate", builder().duplicate(-1.0)),
        ("reorder", builder().reorder(0.1, Duration::MAX)),
        ("corrupt", builder().corrupt(f64::INFINITY)),
        (
            "delay_spike",
            builder().delay_spike(ms(0), ms(1), Duration::MAX),
        ),
        ("rate", builder().rate(0)),
        ("mtu", builder().mtu(0)),
        ("mtu_from", builder().mtu_from(Duration::ZERO, 0)),
        ("queue_bytes", builder().rate(1).queue_bytes(0)),
        ("queue_datagrams", builder().queue_datagrams(5)),
        ("rate", builder().rate(1).trace(trace)),
        ("mark_above_bytes", builder().mark_above_bytes(5)),
        ("mark_above_delay", builder().mark_above_delay(ms(5))),
        (
            "periodic_blackout",
            builder().periodic_blackout(ms(0), ms(5), ms(5)),
        ),
    ];
    for (name, builder) in cases {
        match builder.build() {
            Err(ConfigError::OutOfRange { field, .. } | ConfigError::Conflict { field, .. }) => {
                assert_eq!(field, name);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_queue_above_its_threshold_marks_what_is_capable() {
    // 1,000 bytes take 1 ms; each datagram finds those before it.
    let by_bytes = LinkConfig::builder()
        .rate(1_000_000)
        .mark_above_bytes(1_500);
    let by_delay = LinkConfig::builder()
        .rate(1_000_000)
        .mark_above_delay(ms(1));
    for config in [by_bytes, by_delay] {
        let mut link = link(config);
        let marks = [
            Some(Ecn::Ect0),
            Some(Ecn::Ect0),
            Some(Ecn::Ect0),
            None,
            Some(Ecn::Ect1),
        ];
        let mut send = |(n, mark): (u8, Option<Ecn>)| {
            let out = link.send_marked(Timestamp::ZERO, datagram(n.into(), 1_000), mark);
            out.into_iter().next().and_then(|delivery| delivery.ecn)
        };
        let out: Vec<_> = (0..).zip(marks).map(&mut send).collect();
        let ect = Some(Ecn::Ect0);
        assert_eq!(out, [ect, ect, Some(Ecn::Ce), None, Some(Ecn::Ce)]);
        assert_eq!((link.stats().marked, link.stats().delivered), (2, 5));
    }
}

#[test]
fn marks_are_kept_cleared_spoiled_or_dropped() {
    let marks = [None, Some(Ecn::Ect0), Some(Ecn::Ce)];
    let ce = Some(Ecn::Ce);
    for (treatment, expected) in [
        (MarkTreatment::Keep, marks.map(Some)),
        (MarkTreatment::Clear, [Some(None); 3]),
        (MarkTreatment::Spoil, [Some(ce); 3]),
        (MarkTreatment::Drop, [Some(None), None, None]),
    ] {
        let mut link = link(LinkConfig::builder().marks(treatment));
        let out = marks.map(|mark| {
            let out = link.send_marked(Timestamp::ZERO, datagram(0, 100), mark);
            out.into_iter().next().map(|delivery| delivery.ecn)
        });
        assert_eq!(out, expected, "{treatment:?}");
    }
}
