//! 100 Mbit/s with defaults: four round-trip times, four rates of loss, three sizes of the queue.

use std::time::Duration;

use super::{
    CUBIC, Controller, NEW_RENO, advance, bdp, bottleneck, bulk, each, measure, ms, response, row,
    secs,
};
use crate::report::{Case, Row};
use crate::shared::Network;

const RATE: u64 = 100_000_000;
/// What part of the payload that the link can carry has to arrive.
const OF_LINK: f64 = 0.93;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for rtt in [10, 50, 100, 300] {
        cases.extend(each(&format!("grid/clean {rtt} ms"), move |c, seed| {
            clean(c, seed, ms(rtt))
        }));
    }
    for rtt in [10, 50, 100] {
        cases.extend(each(&format!("grid/loss 1 % {rtt} ms"), move |c, seed| {
            lossy(c, seed, ms(rtt), 0.01)
        }));
    }
    for percent in [5, 10] {
        let name = format!("grid/loss {percent} % 50 ms");
        cases.extend(each(&name, move |c, seed| {
            lossy(c, seed, ms(50), f64::from(percent) / 100.0)
        }));
    }
    cases.extend(each("grid/queue 0.1 BDP 50 ms", small_queue));
    cases.extend(each("grid/queue 4 BDP 50 ms", large_queue));
    cases.extend(each("grid/marks 50 ms", marks));
    cases.extend(long());
    cases
}

/// More round-trip times and rates of loss, for longer, and with other seeds.
fn long() -> Vec<Case> {
    let mut cases = Vec::new();
    for rtt in [1, 20, 200, 500] {
        let name = format!("grid/long clean {rtt} ms");
        cases.extend(each(&name, move |c, seed| {
            let ways = bottleneck(RATE, ms(rtt), bdp(RATE, ms(rtt)));
            let (_, row) = measure(bulk(c, seed, ways), secs(30), secs(60));
            let share = row.share.unwrap_or(0.0);
            row.at_least("of link", share, OF_LINK)
        }));
    }
    for permille in [1, 3, 10, 50, 100] {
        for rtt in [10, 50, 100, 200] {
            for run in 1..=3 {
                let loss = f64::from(permille) / 1_000.0;
                let name = format!("grid/long loss {} % {rtt} ms, run {run}", loss * 100.0);
                cases.extend(each(&name, move |c, seed| {
                    lossy(c, seed + run * 1_000, ms(rtt), loss)
                }));
            }
        }
    }
    cases.into_iter().map(Case::long).collect()
}

fn clean(controller: &Controller, seed: u64, rtt: Duration) -> Row {
    let ways = bottleneck(RATE, rtt, bdp(RATE, rtt));
    let setup = bulk(controller, seed, ways);
    // At 300 ms the start is left out.
    let from = if rtt >= ms(300) { secs(30) } else { secs(0) };
    let (_, row) = measure(setup, from, secs(30));
    let share = row.share.unwrap_or(0.0);
    row.at_least("of link", share, OF_LINK)
}

fn lossy(controller: &Controller, seed: u64, rtt: Duration, loss: f64) -> Row {
    let [forward, back] = bottleneck(RATE, rtt, bdp(RATE, rtt));
    let forward = forward.with(|link| link.loss(loss));
    let (network, row) = measure(bulk(controller, seed, [forward, back]), secs(0), secs(30));
    let gap = network.longest_gap().as_secs_f64();
    let share = row.share.unwrap_or(0.0);
    let row = if loss > 0.01 {
        row.noted("of Reno's response", share / response(RATE, rtt, loss))
    } else if controller.is_loss_based() {
        row.at_least("of link", share, 0.8 * response(RATE, rtt, loss))
    } else {
        row.at_least("of link", share, 0.85)
    };
    row.at_most("longest gap s", gap, 3.0)
}

fn small_queue(controller: &Controller, seed: u64) -> Row {
    let ways = bottleneck(RATE, ms(50), bdp(RATE, ms(5)));
    let (_, row) = measure(bulk(controller, seed, ways), secs(0), secs(20));
    let share = row.share.unwrap_or(0.0);
    // Reno's sawtooth, from 0.55 to 1.1 of what the path holds, alone leaves a sixth empty.
    let bound = if controller.name == NEW_RENO.name {
        0.75
    } else {
        0.85
    };
    row.at_least("of link", share, bound)
}

fn large_queue(controller: &Controller, seed: u64) -> Row {
    let ways = bottleneck(RATE, ms(50), bdp(RATE, ms(200)));
    let run = |controller: &Controller| {
        measure(bulk(controller, seed, ways.clone()), secs(5), secs(25)).1
    };
    let row = run(controller);
    let share = row.share.unwrap_or(0.0);
    if controller.is_loss_based() {
        return row.at_least("of link", share, 0.95);
    }
    let [of_cubic, own] = [run(&CUBIC), row.clone()].map(|row| row.queueing.unwrap()[0]);
    row.at_least("of link", share, OF_LINK)
        .at_most("of CUBIC's queue", own / of_cubic, 0.35)
}

/// Marks in place of drops: from 0.64 of a queue of one bandwidth-delay product on.
fn marks(controller: &Controller, seed: u64) -> Row {
    let queue = bdp(RATE, ms(50));
    let (start_up, length) = (secs(5), secs(25));
    let run = |marks: bool| {
        let [forward, back] = bottleneck(RATE, ms(50), queue);
        let forward = forward.with(|link| {
            if marks {
                link.mark_above_bytes(queue * 16 / 25)
            } else {
                link
            }
        });
        let setup = bulk(controller, seed, [forward, back]);
        let rate = setup.forward.rate;
        let mut network = Network::new(setup);
        advance(&mut network, start_up);
        network.mark();
        let before = network.flows[0].stats().bytes_retransmitted;
        advance(&mut network, start_up + length);
        network.check();
        let again = network.flows[0].stats().bytes_retransmitted - before;
        let received = network.flows[0].received_since_mark();
        (row(&network, rate, received, length), again)
    };
    let (drops, _) = run(false);
    let (row, again) = run(true);
    let ratio = row.goodput / drops.goodput;
    row.at_least("of that with drops", ratio, 0.97).at_most(
        "sent again after start-up",
        again as f64,
        0.0,
    )
}
