//! Several flows through one bottleneck.

use std::time::Duration;

use super::{BBR, CUBIC, Controller, NEW_RENO, bdp, bottleneck, mbit, measure, ms, secs};
use crate::report::{Case, Row};
use crate::shared::{ENDLESS, FlowSpec, Setup};

const RTT: Duration = ms(40);

pub(super) fn cases() -> Vec<Case> {
    vec![
        same(&NEW_RENO),
        same(&CUBIC),
        beside("fairness/NewReno beside CUBIC 1 BDP", &NEW_RENO, 1),
        same(&BBR),
        beside("fairness/BBR beside CUBIC 1 BDP", &BBR, 1),
        beside("fairness/BBR beside CUBIC 4 BDP", &BBR, 4),
        different_rtts(&BBR),
        different_rtts(&NEW_RENO),
        different_rtts(&CUBIC),
    ]
}

/// Two flows over 50 Mbit/s with a queue of so many bandwidth-delay products.
fn pair(seed: u64, flows: &[FlowSpec; 2], queue: u32) -> Setup {
    let rate = mbit(50);
    let [forward, back] = bottleneck(rate, RTT, bdp(rate, RTT * queue));
    let mut setup = Setup::new(seed, forward, back, flows.to_vec());
    setup.flows[1].start = secs(5);
    setup
}

/// Measures from `from` on and makes a row of each flow; the checks go to the first.
fn rows(
    setup: Setup,
    names: [&str; 2],
    [from, length]: [Duration; 2],
    check: impl FnOnce(Row, [f64; 2]) -> Row,
) -> Vec<Row> {
    let (network, both) = measure(setup, from, length);
    let length = length.as_secs_f64();
    let goodputs =
        [0, 1].map(|flow: usize| network.flows[flow].received_since_mark() as f64 * 8.0 / length);
    let mut rows: Vec<_> = [0, 1]
        .iter()
        .map(|&flow: &usize| {
            let stats = network.flows[flow].stats();
            let share = both
                .share
                .map(|share| share * goodputs[flow] / both.goodput);
            Row {
                controller: names[flow].to_owned(),
                goodput: goodputs[flow],
                share,
                again: stats.bytes_retransmitted as f64 / stats.bytes_sent as f64,
                timeouts: stats.rto_count,
                ..both.clone()
            }
            .noted("its part", goodputs[flow] / both.goodput)
        })
        .collect();
    let first = rows.remove(0);
    rows.insert(
        0,
        check(first, goodputs).at_least("of link, both", both.share.unwrap_or(0.0), 0.9),
    );
    rows
}

/// Jain's index of two.
fn jain([a, b]: [f64; 2]) -> f64 {
    (a + b).powi(2) / (2.0 * (a * a + b * b))
}

/// Two of the same, the second one to five seconds later; measured for a minute from ten seconds after that on. In
/// a minute few losses decide who has how much, and chance decides whom they meet: the median of the five runs
/// counts.
fn same(controller: &Controller) -> Case {
    let controller = controller.clone();
    let least = if controller.name == BBR.name {
        0.8
    } else {
        0.97
    };
    Case::new("fairness/two", controller.name, move |seed| {
        let mut runs: Vec<_> = (1..=5)
            .map(|start| {
                let flow = controller.flow(ENDLESS);
                let mut setup = pair(seed, &[flow.clone(), flow], 1);
                setup.flows[1].start = secs(start);
                let mut index = 0.0;
                let span = [secs(start + 10), secs(60)];
                let rows = rows(setup, [controller.name; 2], span, |row, goodputs| {
                    index = jain(goodputs);
                    row.at_least("Jain's index", index, least)
                });
                (index, rows)
            })
            .collect();
        runs.sort_by(|a, b| a.0.total_cmp(&b.0));
        runs.swap_remove(2).1
    })
}

/// Another controller beside CUBIC, from the start of the second on for a minute.
fn beside(name: &str, controller: &Controller, queue: u32) -> Case {
    let controller = controller.clone();
    Case::new(name, "CUBIC", move |seed| {
        let setup = pair(
            seed,
            &[CUBIC.flow(ENDLESS), controller.flow(ENDLESS)],
            queue,
        );
        let names = [CUBIC.name, controller.name];
        rows(setup, names, [secs(5), secs(60)], |row, [first, second]| {
            let least = first.min(second) / (first + second);
            row.at_least("the smaller part", least, 0.15)
        })
    })
}

/// Round-trip times of 40 and of 120 ms.
fn different_rtts(controller: &Controller) -> Case {
    let controller = controller.clone();
    Case::new("fairness/40 and 120 ms", controller.name, move |seed| {
        let mut flows = [controller.flow(ENDLESS), controller.flow(ENDLESS)];
        flows[1].extra_delay = ms(40);
        let setup = pair(seed, &flows, 1);
        let names = [controller.name; 2];
        rows(setup, names, [secs(35), secs(30)], |row, goodputs| {
            row.noted("Jain's index", jain(goodputs))
        })
    })
}
