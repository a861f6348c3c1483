//! 400 kbit/s and 100 ms: a window of four segments.

use std::time::Duration;

use super::{Controller, FULL, bdp, bottleneck, bulk, each, measure, ms, secs};
use crate::report::{Case, Row};

const RATE: u64 = 400_000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = each("slow/400 kbit/s", |c, seed| run(c, seed, Duration::ZERO));
    cases.extend(each("slow/400 kbit/s, timers 1 ms late", |c, seed| {
        run(c, seed, ms(1))
    }));
    cases
}

/// A queue of one bandwidth-delay product, but of ten datagrams at least.
fn run(controller: &Controller, seed: u64, slack: Duration) -> Row {
    let queue = bdp(RATE, ms(100)).max(10 * usize::try_from(FULL).unwrap());
    let mut setup = bulk(controller, seed, bottleneck(RATE, ms(100), queue));
    setup.timer_slack = slack;
    let (_, row) = measure(setup, secs(0), secs(60));
    let (share, again) = (row.share.unwrap_or(0.0), row.again);
    row.at_least("of link", share, 0.9)
        .at_most("again", again, 0.05)
}
