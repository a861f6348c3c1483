//! A geostationary satellite: 250 Mbit/s down, 3 Mbit/s up, 600 ms, with and without 1 % loss each way.
//!
//! draft-kuhn-quic-4-sat-06 §4.6 and §4.7 name these rates, a queue of one bandwidth-delay product, 650 ms,
//! and 8 s or with loss 10 s for 100 MB; the tests of picoquic take 600 ms. The data goes down, and its ACKs
//! have to fit into 3 Mbit/s.

use super::{Controller, bdp, each, measure, ms, response, secs, slow_start, transfer};
use crate::report::{Case, Row};
use crate::shared::{ENDLESS, Setup, Way};

const DOWN: u64 = 250_000_000;
const UP: u64 = 3_000_000;
const BYTES: u64 = 100_000_000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = each("satellite/100 MB", clean);
    cases.extend(each("satellite/filled", filled));
    cases.extend(each("satellite/loss 1 %", lossy));
    cases
}

fn setup(controller: &Controller, seed: u64, loss: f64, bytes: u64) -> Setup {
    let way = |bits| {
        let way = Way::new(bits, ms(300));
        way.with(|link| link.queue_bytes(bdp(bits, ms(600))).loss(loss))
    };
    Setup::new(seed, way(DOWN), way(UP), vec![controller.flow(bytes)])
}

fn clean(controller: &Controller, seed: u64) -> Row {
    let (_, row, took) = transfer(setup(controller, seed, 0.0, BYTES), secs(120));
    row.noted("at best s", slow_start(DOWN, ms(600), BYTES))
        .at_most("took s", took, allowed(controller, 13.0, 16.0))
}

fn filled(controller: &Controller, seed: u64) -> Row {
    let (network, row) = measure(setup(controller, seed, 0.0, ENDLESS), secs(30), secs(30));
    let (back, share) = (network.back(), row.share.unwrap_or(0.0));
    let lost = back.dropped_queue as f64 / back.sent as f64;
    row.at_least("of link", share, allowed(controller, 0.75, 0.65))
        .noted("ACKs dropped", lost)
        .noted(
            "ACKs Mbit/s",
            back.bytes_delivered as f64 * 8.0 / 60.0 / 1e6,
        )
}

fn lossy(controller: &Controller, seed: u64) -> Row {
    if controller.is_loss_based() {
        let (network, row) = measure(setup(controller, seed, 0.01, ENDLESS), secs(0), secs(120));
        let gap = network.longest_gap().as_secs_f64();
        let share = row.share.unwrap_or(0.0);
        return row
            .at_least("of link", share, 0.8 * response(DOWN, ms(600), 0.01))
            .at_most("longest gap s", gap, 5.0);
    }
    let (_, row, took) = transfer(setup(controller, seed, 0.01, BYTES), secs(120));
    row.noted("objective s", 10.0).at_most("took s", took, 30.0)
}

/// What is demanded of the others, and of BBR: every five seconds it empties the path for two round trips of 600 ms, and it
/// takes the rate at which the ACKs pass their narrow path for that of the data.
fn allowed(controller: &Controller, others: f64, bbr: f64) -> f64 {
    if controller.is_loss_based() {
        others
    } else {
        bbr
    }
}
