//! 1 MB and 10 MB over 100 Mbit/s and 50 ms: how long they take, and what slow start loses.

use super::{CUBIC, Controller, bdp, bottleneck, each, ms, secs, slow_start, transfer};
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
    let dropped = network.forward().dropped_queue as f64;
    let row = row.noted("took s", took).noted("at best s", ideal);
    // Reno's slow start ends by overflowing the queue, BBR's by some losses.
    let row = if controller.name == CUBIC.name {
        row.at_most("datagrams dropped", dropped, 0.0)
    } else {
        row.noted("datagrams dropped", dropped)
    };
    let most = if controller.is_loss_based() {
        1.05
    } else {
        1.1
    };
    row.at_most("over the best", took / ideal, most)
}
