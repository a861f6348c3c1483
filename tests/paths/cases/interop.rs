//! The networks of quic-interop-runner (`testcases_quic.py`): 10 Mbit/s, 15 ms each way, a queue of 25 packets.
//!
//! Its measurement "goodput" moves 10 MiB, "crosstraffic" 25 MiB beside a CUBIC flow, "transferloss" and
//! "transfercorruption" 2 MiB with 2 % each way, "blackhole" 10 MiB with 2 s of nothing after 5 s. Its
//! "longrtt" is a handshake over 750 ms each way; here 1 MiB follows.

use std::time::Duration;

use super::{CUBIC, Controller, each, mbit, measure, ms, response, secs, slow_start, transfer};
use crate::report::{Case, Row};
use crate::shared::{ENDLESS, Setup, Way};

const RATE: u64 = 10_000_000;
const MIB: u64 = 1 << 20;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = each("interop/goodput", goodput);
    cases.extend(each("interop/crosstraffic", crosstraffic));
    cases.extend(each("interop/transferloss 2 %", |c, seed| {
        impaired(c, seed, |way| way.with(|link| link.loss(0.02)))
    }));
    cases.extend(each("interop/transfercorruption 2 %", |c, seed| {
        impaired(c, seed, |way| way.with(|link| link.corrupt(0.02)))
    }));
    cases.extend(each("interop/blackhole", blackhole));
    cases.extend(each("interop/longrtt", longrtt));
    cases
}

fn ways(delay: Duration) -> [Way; 2] {
    let way = Way::new(RATE, delay).with(|link| link.queue_datagrams(25));
    [way.clone(), way]
}

fn one(controller: &Controller, seed: u64, [forward, back]: [Way; 2], bytes: u64) -> Setup {
    Setup::new(seed, forward, back, vec![controller.flow(bytes)])
}

fn goodput(controller: &Controller, seed: u64) -> Row {
    let setup = one(controller, seed, ways(ms(15)), 10 * MIB);
    let (_, row, took) = transfer(setup, secs(60));
    let share = row.share.unwrap_or(0.0);
    row.noted("took s", took).at_least("of link", share, 0.93)
}

fn crosstraffic(controller: &Controller, seed: u64) -> Row {
    let [forward, back] = ways(ms(15));
    let flows = vec![CUBIC.flow(ENDLESS), controller.flow(ENDLESS)];
    let mut setup = Setup::new(seed, forward, back, flows);
    setup.flows[1].start = secs(1);
    let (network, mut row) = measure(setup, secs(1), secs(60));
    let own = network.flows[1].received_since_mark() as f64 * 8.0 / 60.0;
    let part = own / row.goodput;
    row.goodput = own;
    row.share = row.share.map(|share| share * part);
    row.at_least("part of both", part, 0.15)
}

/// With so much loss Reno's response is the measure, for 2 MiB not a strict one.
fn impaired(controller: &Controller, seed: u64, change: fn(Way) -> Way) -> Row {
    let ways = ways(ms(15)).map(change);
    let (_, row, took) = transfer(one(controller, seed, ways, 2 * MIB), secs(60));
    let share = row.share.unwrap_or(0.0);
    let bound = if controller.is_loss_based() {
        0.7 * response(RATE, ms(30), 0.02)
    } else {
        0.85
    };
    row.noted("took s", took).at_least("of link", share, bound)
}

/// The path itself costs 2 s; what is lost beyond is the wait for the next timeout and a new start.
fn blackhole(controller: &Controller, seed: u64) -> Row {
    let ways = ways(ms(15)).map(|way| way.with(|link| link.blackout(secs(5), secs(2))));
    let (network, row, took) = transfer(one(controller, seed, ways, 10 * MIB), secs(60));
    let gap = network.longest_gap().as_secs_f64();
    row.noted("took s", took)
        .at_most("longest gap s", gap, 4.5)
        .at_most(
            "took s",
            took,
            10.0 * MIB as f64 * 8.0 / mbit(10) as f64 / 0.9 + 4.5,
        )
}

fn longrtt(controller: &Controller, seed: u64) -> Row {
    let setup = one(controller, seed, ways(ms(750)), MIB);
    let (_, row, took) = transfer(setup, secs(120));
    // The first SYN is taken for lost after a second, which leaves a window of one segment to begin with
    // (RFC 5681 §3.1): three and a half round trips more.
    let best = slow_start(RATE, ms(1_500), MIB) + 3.5 * 1.5;
    // BBR pauses every five seconds.
    let factor = if controller.is_loss_based() {
        1.35
    } else {
        1.5
    };
    row.noted("at best s", best)
        .at_most("took s", took, factor * best)
}
