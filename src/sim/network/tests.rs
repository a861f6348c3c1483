use std::net::SocketAddr;
use std::time::Duration;

use super::{Activity, Network, Node, Outgoing, Trace, Train};
use crate::sim::link::LinkConfig;
use crate::timestamp::Timestamp;

/// Sends `pings` datagrams 10 ms apart and answers whatever it gets with one byte less.
#[derive(Debug, Default)]
struct Echo {
    peer: Option<SocketAddr>,
    pings: u32,
    next_ping: Option<Timestamp>,
    answers: Vec<(SocketAddr, usize)>,
    received: Vec<(u64, usize)>,
    answers_everything: bool,
    must_receive: usize,
}

impl Node for Echo {
    fn handle_train(&mut self, now: Timestamp, from: SocketAddr, train: &Train) {
        for datagram in train.bytes.chunks(train.stride) {
            self.received.push((now.as_millis(), datagram.len()));
            let len = datagram.len() - usize::from(!self.answers_everything);
            if len > 0 {
                self.answers.push((from, len));
            }
        }
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if self.next_ping.is_some_and(|at| at <= now)
            && let Some(peer) = self.peer
        {
            self.answers.push((peer, 3));
            self.pings -= 1;
            let next = now + Duration::from_millis(10);
            self.next_ping = (self.pings > 0).then_some(next);
        }
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.next_ping
    }

    fn poll_transmit(&mut self, _: Timestamp, _: usize, buf: &mut [u8]) -> Option<Outgoing> {
        let (to, len) = self.answers.pop()?;
        buf[..len].fill(1);
        Some(Outgoing {
            to,
            len,
            segment_size: len,
            ecn: None,
        })
    }

    fn run_applications(&mut self, _: Timestamp) -> Result<Activity, String> {
        Ok(Activity::default())
    }

    fn check_invariants(&self) {}

    fn failure(&self) -> Option<String> {
        None
    }

    fn check_finished(&self) -> Result<(), String> {
        let got = self.received.len();
        if got < self.must_receive {
            return Err(format!("got {got}"));
        }
        Ok(())
    }

    fn describe(&self, datagram: &[u8]) -> String {
        format!("{} bytes", datagram.len())
    }
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 1))
}

fn pinger(pings: u32) -> Echo {
    Echo {
        peer: Some(addr(2)),
        pings,
        next_ping: Some(Timestamp::ZERO),
        ..Echo::default()
    }
}

fn world(a: Echo, b: Echo, config: &LinkConfig) -> Network<Echo> {
    let mut network = Network::new(5);
    network.habits.timer_slack = Duration::ZERO;
    network.step_limit = 10_000;
    let a = network.add(addr(1), a);
    let b = network.add(addr(2), b);
    network.link(a, b, config.clone());
    network.link(b, a, config.clone());
    network
}

fn delay(ms: u64) -> LinkConfig {
    LinkConfig::builder()
        .delay(Duration::from_millis(ms))
        .build()
        .unwrap()
}

#[test]
fn time_jumps_from_event_to_event() {
    let mut network = world(pinger(2), Echo::default(), &delay(100));
    network.run().unwrap();
    // 3 bytes there, 2 back, 1 there; the second ping 10 ms later.
    assert_eq!(
        network.node(1).unwrap().received,
        [(100, 3), (110, 3), (300, 1), (310, 1)]
    );
    assert_eq!(network.node(0).unwrap().received, [(200, 2), (210, 2)]);
    assert_eq!(network.now(), Timestamp::from_millis(310));
    // 6 arrivals and 2 timers.
    assert_eq!(network.steps(), 8);
    assert_eq!(network.link_stats(0, 1).delivered, 4);
}

#[test]
fn a_run_can_be_interrupted() {
    let mut network = world(pinger(2), Echo::default(), &delay(100));
    network.run_until(Timestamp::from_millis(205)).unwrap();
    assert_eq!(network.now(), Timestamp::from_millis(205));
    assert_eq!(network.node(0).unwrap().received, [(200, 2)]);
    network.run().unwrap();
    assert_eq!(network.node(0).unwrap().received.len(), 2);
}

#[test]
fn a_livelock_fails_and_names_the_seed() {
    let endless = |mut echo: Echo| {
        echo.answers_everything = true;
        echo
    };
    let mut network = world(endless(pinger(1)), endless(Echo::default()), &delay(1));
    let trace = Trace::new(100);
    network.set_trace(Some(trace.clone()));
    let failure = network.run().unwrap_err().to_string();
    assert!(failure.starts_with("seed 5: livelock"), "{failure}");
    assert!(trace.to_string().contains("node 1 < 3 bytes"), "{trace}");
}

#[test]
fn a_run_that_never_ends_fails() {
    let endless = |mut echo: Echo| {
        echo.answers_everything = true;
        echo
    };
    let hour = delay(3_600_000);
    let mut network = world(endless(pinger(1)), endless(Echo::default()), &hour);
    let failure = network.run().unwrap_err();
    assert_eq!(failure.what, "never ends");
}

#[test]
fn an_unfinished_node_fails() {
    let receiver = Echo {
        must_receive: 3,
        ..Echo::default()
    };
    let mut network = world(pinger(1), receiver, &delay(1));
    assert_eq!(network.run().unwrap_err().what, "10.0.0.2:1: got 2");
}

#[test]
fn a_rebound_node_answers_from_its_new_address() {
    let mut network = world(pinger(2), Echo::default(), &delay(100));
    network.run_until(Timestamp::from_millis(50)).unwrap();
    network.rebind(1, addr(9));
    network.run().unwrap();
    // The pings were on their way; what is sent to the old address vanishes.
    assert_eq!(network.node(0).unwrap().received.len(), 2);
    assert_eq!(network.node(1).unwrap().received.len(), 4);
}

#[test]
fn arrivals_of_one_instant_come_as_a_train_or_one_by_one() {
    for (batches, steps) in [(false, 3), (true, 1)] {
        let answers = vec![(addr(2), 1), (addr(2), 2), (addr(2), 2)];
        let sender = Echo {
            answers,
            ..Echo::default()
        };
        let receiver = Echo {
            must_receive: 3,
            ..Echo::default()
        };
        let mut network = world(sender, receiver, &delay(1));
        network.habits.batches = batches;
        network.run_until(Timestamp::from_millis(1)).unwrap();
        assert_eq!(network.node(1).unwrap().received, [(1, 2), (1, 2), (1, 1)]);
        assert_eq!(network.steps(), steps, "{batches}");
    }
}
