//! The cases, by where their numbers come from.

mod fairness;
mod grid;
mod interop;
mod rfc9438;
mod satellite;
mod slow;
mod startup;
mod wifi;

use std::env;
use std::time::Duration;

use reliable_udp::Config;
use reliable_udp::congestion::CongestionControl;

use crate::report::{Case, Row};
use crate::shared::{ENDLESS, Flow, FlowSpec, Network, Setup, Way};

/// Payload of a full segment: 1,232 bytes less the header of 20 and timestamps of 12.
pub(crate) const MSS: u32 = 1_200;
/// The IP packet that carries it.
pub(crate) const FULL: u32 = 1_260;
/// What part of it is payload.
const PAYLOAD: f64 = MSS as f64 / FULL as f64;

pub(crate) fn all() -> Vec<Case> {
    [
        interop::cases(),
        satellite::cases(),
        wifi::cases(),
        rfc9438::cases(),
        grid::cases(),
        fairness::cases(),
        slow::cases(),
        startup::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A controller and what the table calls it.
#[derive(Debug, Clone)]
pub(crate) struct Controller {
    pub(crate) name: &'static str,
    pub(crate) congestion: CongestionControl,
}

impl Controller {
    /// The defaults but for the controller, and for the size of the datagrams: the links have no MTU.
    pub(crate) fn config(&self) -> Config {
        let builder = Config::builder().congestion(self.congestion.clone());
        builder.datagram_size(1_232).build().unwrap()
    }

    pub(crate) fn flow(&self, bytes: u64) -> FlowSpec {
        FlowSpec::new(self.config(), bytes)
    }

    /// Whether each loss makes it slower.
    pub(crate) fn is_loss_based(&self) -> bool {
        matches!(
            self.congestion,
            CongestionControl::NewReno | CongestionControl::Cubic
        )
    }
}

pub(crate) const NEW_RENO: Controller = Controller {
    name: "NewReno",
    congestion: CongestionControl::NewReno,
};
pub(crate) const CUBIC: Controller = Controller {
    name: "CUBIC",
    congestion: CongestionControl::Cubic,
};

pub(crate) const BBR: Controller = Controller {
    name: "BBR",
    congestion: CongestionControl::Bbr,
};

pub(crate) const CONTROLLERS: [Controller; 3] = [NEW_RENO, CUBIC, BBR];

/// A case for each controller.
pub(crate) fn each(
    scenario: &str,
    run: impl Fn(&Controller, u64) -> Row + Clone + Send + Sync + 'static,
) -> Vec<Case> {
    let one = |controller: Controller| {
        let run = run.clone();
        Case::new(scenario, controller.name, move |seed| {
            let mut row = run(&controller, seed);
            controller.name.clone_into(&mut row.controller);
            vec![row]
        })
    };
    CONTROLLERS.map(one).into_iter().collect()
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn mbit(number: u64) -> u64 {
    number * 1_000_000
}

/// Bytes that `bits` per second carry in `rtt`.
pub(crate) fn bdp(bits: u64, rtt: Duration) -> usize {
    usize::try_from(u128::from(bits / 8) * rtt.as_nanos() / 1_000_000_000).unwrap()
}

/// A bottleneck of `bits` per second with a drop-tail queue of `queue` bytes, and the same the other way.
pub(crate) fn bottleneck(bits: u64, rtt: Duration, queue: usize) -> [Way; 2] {
    let way = Way::new(bits, rtt / 2).with(|link| link.queue_bytes(queue.max(1)));
    [way.clone(), way]
}

/// One flow without end over these.
pub(crate) fn bulk(controller: &Controller, seed: u64, [forward, back]: [Way; 2]) -> Setup {
    Setup::new(seed, forward, back, vec![controller.flow(ENDLESS)])
}

/// Runs and measures from `from` on for `length`.
pub(crate) fn measure(setup: Setup, from: Duration, length: Duration) -> (Network, Row) {
    let rate = setup.forward.rate;
    let mut network = Network::new(setup);
    advance(&mut network, from);
    network.mark();
    advance(&mut network, from + length);
    network.check();
    let received = network.flows.iter().map(Flow::received_since_mark);
    let row = row(&network, rate, received.sum(), length);
    (network, row)
}

/// Runs until everything has arrived, at most for `limit`; says how long that took, and whether it did.
pub(crate) fn transfer(setup: Setup, limit: Duration) -> (Network, Row, f64) {
    let rate = setup.forward.rate;
    let mut network = Network::new(setup);
    advance(&mut network, limit);
    network.check();
    let ends = network.flows.iter().map(|flow| flow.completed_at);
    let took = ends
        .flatten()
        .max()
        .map_or(limit, |at| Duration::from_nanos(at.as_nanos()));
    let received = network.flows.iter().map(Flow::received).sum();
    let row = row(&network, rate, received, took);
    (network, row, took.as_secs_f64())
}

/// Runs on; with `PATHS_TRACE` set to a number of ms, says what the senders do that often.
fn advance(network: &mut Network, until: Duration) {
    let step = env::var("PATHS_TRACE")
        .ok()
        .and_then(|text| text.parse().ok());
    if let Some(step) = step
        .map(Duration::from_millis)
        .filter(|step| !step.is_zero())
    {
        while !network.is_done() && network.elapsed() + step < until {
            network.run_until(network.elapsed() + step);
            for flow in &network.flows {
                println!("{}", trace(network.elapsed(), flow));
            }
        }
    }
    network.run_until(until);
}

fn trace(now: Duration, flow: &Flow) -> String {
    let stats = flow.stats();
    let millis = |time: Duration| time.as_millis();
    format!(
        "{:8} ms: {:10} read, cwnd {:8}, in flight {:8}, window {:8}, srtt {:4} ms, pacing {:?}, delivered {:8}/s, \
         again {:6}, limits in ms: cwnd {}, window {}, buffer {}, pacer {}",
        millis(now),
        flow.received(),
        stats.cwnd,
        stats.bytes_in_flight,
        stats.snd_wnd,
        millis(stats.srtt.unwrap_or_default()),
        stats.pacing_rate.unwrap_or(0),
        stats.delivery_rate,
        stats.segments_retransmitted,
        millis(stats.cwnd_limited_time),
        millis(stats.rwnd_limited_time),
        millis(stats.send_buffer_limited_time),
        millis(stats.pacing_limited_time),
    )
}

/// Puts together what the whole network did.
fn row(network: &Network, rate: Option<u64>, received: u64, took: Duration) -> Row {
    let goodput = received as f64 * 8.0 / took.as_secs_f64();
    let stats: Vec<_> = network.flows.iter().map(Flow::stats).collect();
    let sent: u64 = stats.iter().map(|stats| stats.bytes_sent).sum();
    let again: u64 = stats.iter().map(|stats| stats.bytes_retransmitted).sum();
    Row {
        controller: String::new(),
        goodput,
        share: rate.map(|rate| goodput / (rate as f64 * 8.0) / PAYLOAD),
        again: again as f64 / sent.max(1) as f64,
        queueing: rate.and_then(|_| queueing(network)),
        timeouts: stats.iter().map(|stats| stats.rto_count).sum(),
        checks: Vec::new(),
    }
}

/// Mean and 95th percentile of the queueing delay in ms.
pub(crate) fn queueing(network: &Network) -> Option<[f64; 2]> {
    let mut delays = network.queueing.clone();
    if delays.is_empty() {
        return None;
    }
    let mean = delays.iter().map(Duration::as_secs_f64).sum::<f64>() / delays.len() as f64;
    let index = (delays.len() * 95 / 100).min(delays.len() - 1);
    let (_, p95, _) = delays.select_nth_unstable(index);
    Some([mean * 1_000.0, p95.as_secs_f64() * 1_000.0])
}

/// What part of the link Reno's response function gives a flow that loses a part `p` of its segments
/// (RFC 3649 §2: 1.2 / √p segments per round trip).
pub(crate) fn response(bits: u64, rtt: Duration, p: f64) -> f64 {
    let segments = 1.2 / p.sqrt();
    (segments * f64::from(FULL) * 8.0 / rtt.as_secs_f64() / bits as f64).min(1.0)
}

/// How many seconds `bytes` take at best: a handshake, a slow start that doubles the window of ten segments
/// with each round trip until the link is full, and then the link.
pub(crate) fn slow_start(bits: u64, rtt: Duration, bytes: u64) -> f64 {
    let (rate, rtt) = (bits as f64 / 8.0, rtt.as_secs_f64());
    let (mut left, mut window) = (bytes as f64 / PAYLOAD, 10.0 * f64::from(FULL));
    // The handshake, and half a round trip for the last byte.
    let mut took = 1.5 * rtt;
    while left > window && window < rate * rtt {
        left -= window;
        window *= 2.0;
        took += rtt;
    }
    took + left / rate
}
