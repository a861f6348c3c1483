//! What radio does: delays that vary with and without the order kept, freezes, and a suspended laptop.

use std::time::Duration;

use reliable_udp::sim::Rng;

use super::{Controller, bdp, bottleneck, bulk, each, measure, ms, secs};
use crate::report::{Case, Row};
use crate::shared::Setup;

const RATE: u64 = 50_000_000;
const RTT: Duration = ms(20);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = each("wifi/jitter 0 to 20 ms", |c, seed| {
        let [forward, back] = ways();
        let ways = [
            forward.with(|link| link.jitter(ms(20))),
            back.with(|link| link.jitter(ms(20))),
        ];
        let (_, row) = measure(bulk(c, seed, ways), secs(0), secs(20));
        let share = row.share.unwrap_or(0.0);
        row.at_least("of link", share, 0.9)
    });
    cases.extend(each("wifi/late 5 % by 0 to 10 ms", |c, seed| {
        let ways = ways().map(|way| way.with(|link| link.reorder(0.05, ms(10))));
        let (_, row) = measure(bulk(c, seed, ways), secs(0), secs(20));
        let (share, again) = (row.share.unwrap_or(0.0), row.again);
        row.at_least("of link", share, 0.9)
            .at_most("again", again, 0.01)
    }));
    cases.extend(each("wifi/freezes 100 to 300 ms", freezes));
    cases.extend(each("wifi/sender suspended 30 s", |c, seed| {
        let mut setup = bulk(c, seed, ways());
        setup.sleep = Some(secs(10)..secs(40));
        wakes(setup, ms(1_000))
    }));
    cases.extend(each("wifi/receiver suspended 30 s", |c, seed| {
        let ways = ways().map(|way| way.with(|link| link.blackout(secs(10), secs(30))));
        // The next timeout may be as far away as the blackout was long.
        wakes(bulk(c, seed, ways), ms(30_500))
    }));
    cases
}

/// 300 kB of queue: 48 ms.
fn ways() -> [crate::shared::Way; 2] {
    bottleneck(RATE, RTT, bdp(RATE, ms(48)))
}

/// Every two to five seconds nothing arrives for 100 to 300 ms, and then everything at once.
fn freezes(controller: &Controller, seed: u64) -> Row {
    let mut rng = Rng::stream(seed, 71);
    let mut setup = bulk(controller, seed, ways());
    let (mut at, mut frozen) = (secs(1), Duration::ZERO);
    while at < secs(60) {
        at += ms(rng.range(2_000..=5_000));
        let length = ms(rng.range(100..=300));
        setup.freezes.push(at..at + length);
        at += length;
        frozen += length;
    }
    let (_, row) = measure(setup, secs(0), secs(60));
    let (share, again, timeouts) = (row.share.unwrap_or(0.0), row.again, row.timeouts);
    // What the link could not do meanwhile is nobody's fault, though its queue makes up for a part of it.
    row.at_least("of link", share, 0.9 * (1.0 - frozen.as_secs_f64() / 60.0))
        .at_most("again", again, 0.02)
        .noted("RTOs", timeouts as f64)
}

/// From the end of the pause on.
fn wakes(setup: Setup, limit: Duration) -> Row {
    let (network, row) = measure(setup, secs(40), secs(60));
    let gap = network.longest_gap().as_secs_f64() - 30.0;
    let share = row.share.unwrap_or(0.0);
    let lost = limit.as_secs_f64() / 60.0;
    row.at_most("gap beyond the pause s", gap, limit.as_secs_f64())
        .at_least("of link afterwards", share, 0.9 * (1.0 - lost))
}
