//! 1 MB and 10 MB over 100 Mbit/s and 50 ms: how long they take, and what slow start loses.

use super::{Controller, bdp, bottleneck, each, ms, secs, slow_start, transfer};
use crate::report::{Case, Row};
use crate::shared::Setup;

const RATE: u64 = 100_000_000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for megabytes in [1, 10] {
        let name = format!("start-up/{megabytes} MB");
        cases.extend(each(&name, move |c, seed| {
            run(c, seed, megabytes * 1_000_000)
        }));
    }
    cases
}

/// With the handshake, until the last byte was read.
fn run(controller: &Controller, seed: u64, bytes: u64) -> Row {
    let [forward, back] = bottleneck(RATE, ms(50), bdp(RATE, ms(50)));
    let setup = Setup::new(seed, forward, back, vec![controller.flow(bytes)]);
    let (network, row, took) = transfer(setup, secs(60));
    let ideal = slow_start(RATE, ms(50), bytes);
    row.noted("took s", took)
        .noted("at best s", ideal)
        .noted("datagrams dropped", network.forward().dropped_queue as f64)
        .at_most("over the best", took / ideal, 1.25)
}
