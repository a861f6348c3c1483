//! RFC 9438 §5.1, tables 1 and 2: the average window against the rate of loss.
//!
//! The model: every 1/p-th segment is lost and no other, the RTT never changes, neither link nor buffers limit
//! anything, every segment is acknowledged. No slow start is part of it: here it ends at the window at which
//! the model has its losses, and some losses pass before measuring begins. The longer cases begin elsewhere: the curve is
//! flat where it should lead back to the model's window, and fast convergence (§4.7), which the model leaves out, takes
//! 15 % of a peak that is missed by a segment; what is left of the difference after many losses is reported.
//!
//! The tables come of RFC 3649's 1.2 / √p for Reno, of equation 6 for CUBIC, and of the larger of these.

use std::time::Duration;

use reliable_udp::{Config, Timestamp};

use super::{CUBIC, Controller, NEW_RENO, ms};
use crate::report::{Case, Row};
use crate::shared::{ENDLESS, FlowSpec, Network, Setup, Way};

/// The window is counted in segments; small ones change nothing but the time it takes.
const PAYLOAD: u64 = 100;
/// How far the mean may be from the table: of NewReno, which stands there for comparison, and of CUBIC.
const TOLERANCE: [f64; 2] = [0.15, 0.1];

/// RTT in ms, 1/p, Reno's average window, and CUBIC's with C = 0.4.
const TABLES: [(u64, u64, u32, u32); 10] = [
    (100, 100, 12, 12),
    (100, 1_000, 38, 38),
    (100, 10_000, 120, 187),
    (100, 100_000, 379, 1_054),
    (100, 1_000_000, 1_200, 5_926),
    (10, 100, 12, 12),
    (10, 1_000, 38, 38),
    (10, 10_000, 120, 120),
    (10, 100_000, 379, 379),
    (10, 1_000_000, 1_200, 1_200),
];

/// One number of the tables.
#[derive(Debug, Clone)]
struct Line {
    rtt: Duration,
    /// 1/p
    every: u64,
    expected: u32,
    /// The window of the first loss.
    start: u32,
    is_bound: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (controller, is_cubic) in [(NEW_RENO, false), (CUBIC, true)] {
        for (rtt, every, reno, cubic) in TABLES {
            let name = format!("rfc9438/{rtt} ms p {:.0e}", 1.0 / every as f64);
            let expected = if is_cubic { cubic } else { reno };
            // The other controller stands beside it for comparison.
            if !is_cubic && every > 100_000 {
                continue;
            }
            let peak = peak(reno, expected, is_cubic);
            let case = |name: String, start: u32, is_bound: bool| {
                let controller = controller.clone();
                Case::new(name, controller.name, move |seed| {
                    let line = Line {
                        rtt: ms(rtt),
                        every,
                        expected,
                        start,
                        is_bound,
                    };
                    vec![run(&controller, seed, &line)]
                })
            };
            cases.push(case(name.clone(), peak, true));
            for percent in [60, 200] {
                let name = format!("{name}, from {percent} %");
                cases.push(case(name, peak * percent / 100, false).long());
            }
        }
    }
    cases
}

/// The window at which the model has its losses: by equation 1 the mean is 1 - (1 - 0.7) / 4 of it, and where
/// CUBIC grows like Reno (1 + 0.7) / 2. NewReno halves it.
fn peak(reno: u32, expected: u32, is_cubic: bool) -> u32 {
    let [mean_of, peak_of] = match (is_cubic, expected > reno) {
        (true, true) => [37, 40],
        (true, false) => [17, 20],
        (false, _) => [3, 4],
    };
    expected * peak_of / mean_of
}

fn run(controller: &Controller, seed: u64, line: &Line) -> Row {
    let Line {
        rtt,
        every,
        expected,
        start,
        is_bound,
    } = *line;
    let buffer = 16 * PAYLOAD * u64::from(expected.max(4_000));
    let buffer = usize::try_from(buffer).unwrap();
    // Doubled a few times, it meets the window of the first loss. A SYN tells of 65,535 bytes at most.
    let mut initial = start.div_ceil(2);
    while initial > 600 {
        initial = initial.div_ceil(2);
    }
    let config = Config::builder()
        .congestion(controller.congestion.clone())
        .initial_window(initial)
        // With the options in it.
        .mss(u16::try_from(PAYLOAD + 12).unwrap())
        .ack_delay(Duration::ZERO)
        .send_buffer(buffer)
        .receive_buffer(buffer)
        .buffer_tuning(false)
        .build()
        .unwrap();
    let way = Way::unlimited(rtt / 2);
    let flow = FlowSpec::new(config, ENDLESS);
    let mut network = Network::new(Setup::new(seed, way.clone(), way, vec![flow]));
    let step = rtt / 20;
    let advance = |network: &mut Network| {
        let next = network.now + step;
        network.run_until(next.saturating_since(Timestamp::ZERO));
        let stats = network.flows[0].stats();
        assert!(stats.rwnd_limited_time.is_zero(), "seed {seed}: {stats:?}");
        assert_eq!(stats.rto_count, 0, "seed {seed}");
        (
            stats.cwnd as f64 / PAYLOAD as f64,
            stats.fast_recovery_count,
        )
    };
    // A loss is found out one round trip later, with a window twice as large.
    while advance(&mut network).0 < f64::from(start) / 2.0 {}
    network.lose_next = true;
    network.lose_every = Some(every);

    let (warm_up, epochs) = (
        (300_000 / every).clamp(2, 30),
        (2_000_000 / every).clamp(2, 100),
    );
    while advance(&mut network).1 < 1 + warm_up {}
    network.mark();
    let begin = network.now;
    let (mut sum, mut samples) = (0.0, 0_u64);
    loop {
        let (window, recoveries) = advance(&mut network);
        if recoveries > warm_up + epochs {
            break;
        }
        sum += window;
        samples += 1;
    }
    network.check();
    let took = network.now.saturating_since(begin).as_secs_f64();
    let received = network.flows[0].received_since_mark();
    let stats = network.flows[0].stats();
    let mean = sum / samples as f64;
    let by_delivery = received as f64 / PAYLOAD as f64 * rtt.as_secs_f64() / took;
    let row = Row {
        controller: controller.name.to_owned(),
        goodput: received as f64 * 8.0 / took,
        share: None,
        again: stats.bytes_retransmitted as f64 / stats.bytes_sent as f64,
        queueing: None,
        timeouts: stats.rto_count,
        checks: Vec::new(),
    };
    let of_table = mean / f64::from(expected);
    let row = row
        .noted("table", f64::from(expected))
        .noted("mean window", mean)
        .noted("delivered per RTT", by_delivery);
    if is_bound {
        let tolerance = TOLERANCE[usize::from(controller.name == CUBIC.name)];
        row.noted("of table", of_table)
            .at_most("off by", (of_table - 1.0).abs(), tolerance)
    } else {
        row.noted("of table", of_table)
    }
}
