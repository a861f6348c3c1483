//! Scenarios of two bare connections that are not random: the loss of each segment in turn, and the
//! limits that end a silent connection.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{Config, ConfigBuilder};
use crate::congestion::CongestionControl;
use crate::connection::{Connection, OpenParams};
use crate::error::{ConnectionError, TimeoutCause};
use crate::sim::application::{Application, Ending, Plan};
use crate::sim::link::{LinkConfig, LinkConfigBuilder};
use crate::sim::network::Network;
use crate::sim::node::ConnectionNode;
use crate::timestamp::Timestamp;
use crate::wire::SeqNumber;

const DELAY: Duration = Duration::from_millis(10);
/// Longer than any run.
const FOREVER: Duration = Duration::from_secs(10_000_000);
const MSS: u64 = 1_000;

/// Two bare connections; the client is node 0, the server node 1.
#[derive(Clone)]
struct Setup {
    client: Config,
    server: Config,
    client_plan: Plan,
    server_plan: Plan,
    opens_simultaneously: bool,
    up: LinkConfig,
    down: LinkConfig,
}

fn config() -> ConfigBuilder {
    Config::builder().mss(u16::try_from(MSS).unwrap())
}

fn link() -> LinkConfigBuilder {
    LinkConfig::builder().delay(DELAY)
}

impl Setup {
    fn new(client_plan: Plan, server_plan: Plan) -> Self {
        Self {
            client: config().build().unwrap(),
            server: config().build().unwrap(),
            client_plan,
            server_plan,
            opens_simultaneously: false,
            up: link().build().unwrap(),
            down: link().build().unwrap(),
        }
    }

    fn world(&self) -> Network<ConnectionNode> {
        let addr = |last| SocketAddr::from(([10, 0, 0, last], 1));
        let params = |local_port, remote_port| OpenParams {
            local_port,
            remote_port,
            iss: SeqNumber::new(u32::MAX - 2_000),
            timestamp_offset: u32::MAX,
        };
        let app =
            |ours: &Plan, theirs: &Plan, first| Application::new(ours.clone(), theirs, 9, first);
        let mut network = Network::new(0);
        let client = ConnectionNode::connect(
            addr(2),
            self.client.clone(),
            params(1_000, 1),
            app(&self.client_plan, &self.server_plan, true),
        );
        let open = if self.opens_simultaneously {
            ConnectionNode::connect
        } else {
            ConnectionNode::listen
        };
        let server = open(
            addr(1),
            self.server.clone(),
            params(1, 1_000),
            app(&self.server_plan, &self.client_plan, false),
        );
        network.add(addr(1), client);
        network.add(addr(2), server);
        network.link(0, 1, self.up.clone());
        network.link(1, 0, self.down.clone());
        network
    }

    /// Runs to the end and returns how many datagrams the client and the server sent, and the time.
    #[track_caller]
    fn run(&self, name: &str) -> (u64, u64, Duration) {
        let mut network = self.world();
        if let Err(failure) = network.run() {
            panic!("{name}: {failure}");
        }
        let time = network.now().saturating_since(Timestamp::ZERO);
        (
            network.link_stats(0, 1).sent,
            network.link_stats(1, 0).sent,
            time,
        )
    }
}

fn drops(numbers: &[u64]) -> LinkConfig {
    numbers
        .iter()
        .fold(link(), |link, &n| link.drop_nth(n))
        .build()
        .unwrap()
}

/// What is opened, sent and closed while segments are lost.
fn exchanges() -> Vec<(&'static str, Setup)> {
    let empty = || Plan::simple(0);
    let some = || Plan::simple(5 * MSS + 500);
    let mut simultaneous = Setup::new(some(), some());
    simultaneous.opens_simultaneously = true;
    let mut plain = Setup::new(some(), some());
    plain.server = config()
        .sack(false)
        .timestamps(false)
        .extension(false)
        .window_scaling(false)
        .build()
        .unwrap();
    let mut answer = some();
    // The server closes last, long after the client.
    answer.start = Timestamp::from_millis(2_000);
    let mut dropping = some();
    dropping.ending = Ending::Drop;
    let mut leaving = some();
    leaving.ending = Ending::Leave;
    vec![
        ("client to server", Setup::new(some(), empty())),
        ("server to client", Setup::new(empty(), some())),
        ("both ways", Setup::new(some(), some())),
        (
            "nothing but simultaneous close",
            Setup::new(empty(), empty()),
        ),
        ("simultaneous open", simultaneous),
        ("without options", plain),
        ("half close", Setup::new(some(), answer)),
        ("client drops its handle", Setup::new(dropping, some())),
        ("server leaves early", Setup::new(some(), leaving)),
    ]
}

/// TIME-WAIT and what may come on top of it: a lost SYN costs 1 s, the loss of its retransmission 2 s
/// more, a lost FIN far less.
const LONGEST: Duration = Duration::from_secs(60 + 2 + 5);

#[test]
fn the_loss_of_each_single_segment_is_repaired() {
    for (name, setup) in exchanges() {
        let (up, down, _) = setup.run(name);
        for n in 0..up {
            let lossy = Setup {
                up: drops(&[n]),
                ..setup.clone()
            };
            let (.., time) = lossy.run(&format!("{name}: client's {n}"));
            assert!(time < LONGEST, "{name}: client's {n}: {time:?}");
        }
        for n in 0..down {
            let lossy = Setup {
                down: drops(&[n]),
                ..setup.clone()
            };
            let (.., time) = lossy.run(&format!("{name}: server's {n}"));
            assert!(time < LONGEST, "{name}: server's {n}: {time:?}");
        }
    }
}

#[test]
fn the_loss_of_any_two_segments_is_repaired() {
    for (name, setup) in exchanges() {
        let (up, down, _) = setup.run(name);
        for n in 0..up + down {
            // One more than were sent without loss: retransmissions get lost too.
            for m in n + 1..=up + down {
                let lost = [n, m];
                let ours: Vec<u64> = lost.into_iter().filter(|&n| n < up).collect();
                let theirs: Vec<u64> = lost
                    .into_iter()
                    .filter(|&n| n >= up)
                    .map(|n| n - up)
                    .collect();
                let lossy = Setup {
                    up: drops(&ours),
                    down: drops(&theirs),
                    ..setup.clone()
                };
                let label = format!("{name}: client's {ours:?}, server's {theirs:?}");
                let (.., time) = lossy.run(&label);
                assert!(time < LONGEST, "{label}: {time:?}");
            }
        }
    }
}

/// A network that is gone from this time on.
fn dies_at(millis: u64) -> LinkConfig {
    link()
        .blackout(Duration::from_millis(millis), FOREVER)
        .build()
        .unwrap()
}

fn idle() -> Plan {
    let mut plan = Plan::simple(0);
    plan.start = Timestamp::ZERO + FOREVER;
    plan
}

#[test]
fn a_dead_network_ends_in_a_time_out_that_names_the_limit() {
    let seconds = Duration::from_secs;
    let busy = || Plan::simple(1_000_000);
    let only_retries = config().user_timeout(None);
    let keepalive = config()
        .keepalive(Some(seconds(10)))
        .keepalive_interval(seconds(1))
        .keepalive_probes(3);
    // With the defaults: 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 s of a handshake without answer.
    let syn_retries = TimeoutCause::SynRetries { retries: 7 };
    let data_retries = TimeoutCause::DataRetries { retries: 15 };
    let probes = TimeoutCause::Keepalive { probes: 3 };
    let (user, connect) = (seconds(300), seconds(2));
    let cases = [
        ("syn_retries", config(), busy(), 0, 183, syn_retries),
        (
            "connect_timeout",
            config().connect_timeout(Some(connect)),
            busy(),
            0,
            2,
            TimeoutCause::ConnectTimeout(connect),
        ),
        (
            "user_timeout",
            config(),
            busy(),
            100,
            300,
            TimeoutCause::UserTimeout(user),
        ),
        ("data_retries", only_retries, busy(), 100, 522, data_retries),
        ("keepalive", keepalive, idle(), 100, 13, probes),
        (
            "idle_timeout",
            config().idle_timeout(Some(seconds(20))),
            idle(),
            100,
            20,
            TimeoutCause::IdleTimeout(seconds(20)),
        ),
    ];
    for (name, config, plan, dies, about, cause) in cases {
        let mut setup = Setup::new(plan, idle());
        setup.client = config.build().unwrap();
        setup.up = dies_at(dies);
        setup.down = dies_at(dies);
        let mut network = setup.world();
        let mut ended = None;
        for second in 1..3_600 {
            network
                .run_until(Timestamp::from_millis(second * 1_000))
                .unwrap();
            if network.node(0).unwrap().application().error().is_some() {
                ended = Some(second);
                break;
            }
        }
        let application = network.node(0).unwrap().application();
        let expected = ConnectionError::TimedOut(cause);
        assert_eq!(application.error(), Some(&expected), "{name}");
        assert!(expected.to_string().contains(name), "{expected}");
        let ended = ended.unwrap();
        assert!(
            (about..=about + about / 2 + 1).contains(&ended),
            "{name}: after {ended} s"
        );
    }
}

#[test]
fn a_released_connection_does_not_linger_for_ever() {
    let mut plan = Plan::simple(1_000_000);
    plan.ending = Ending::Leave;
    let mut setup = Setup::new(plan, Plan::simple(0));
    // Everything fits the buffer, and the peer's FIN has come: the application leaves.
    setup.client = config().buffer_tuning(false).build().unwrap();
    setup.up = dies_at(50);
    let mut network = setup.world();
    network.run_until(Timestamp::from_millis(5_000)).unwrap();
    assert!(!network.node(0).unwrap().connection().unwrap().is_drained());
    network.run_until(Timestamp::from_millis(65_000)).unwrap();
    let connection = network.node(0).unwrap().connection().unwrap();
    assert!(connection.is_drained());
    let linger = TimeoutCause::Linger(Duration::from_secs(60));
    assert_eq!(connection.error(), Some(&ConnectionError::TimedOut(linger)));
}

#[test]
fn a_reader_that_sleeps_for_an_hour_is_waited_for() {
    let mut sleeper = Plan::simple(0);
    sleeper.stall = 1.0;
    sleeper.longest_stall = Duration::from_secs(3_600);
    sleeper.read_chunk = 1 << 20;
    let mut setup = Setup::new(Plan::simple(400_000), sleeper);
    setup.server = config().receive_buffer(65_536).build().unwrap();
    let (.., time) = setup.run("sleeper");
    assert!(time > Duration::from_secs(3_600), "{time:?}");
}

#[test]
fn an_unreadable_answer_is_no_answer() {
    // Everything that the server says arrives damaged, so nothing does.
    let mut setup = Setup::new(Plan::simple(10), idle());
    setup.down = link().corrupt(1.0).build().unwrap();
    let mut network = setup.world();
    network.run_until(Timestamp::from_millis(200_000)).unwrap();
    let error = network.node(0).unwrap().application().error().cloned();
    let retries = TimeoutCause::SynRetries { retries: 7 };
    assert_eq!(error, Some(ConnectionError::TimedOut(retries)));
}

#[test]
fn flow_control_and_congestion_control_fill_a_long_pipe() {
    // 1 MB/s and 100 ms one way: 200 kB in flight, far below both buffers, queue of one such.
    let pipe = || {
        LinkConfig::builder()
            .delay(Duration::from_millis(100))
            .rate(1_000_000)
            .queue_bytes(200_000)
    };
    for control in [CongestionControl::NewReno, CongestionControl::Cubic] {
        let mut setup = Setup::new(Plan::simple(20_000_000), Plan::simple(0));
        setup.client = config().congestion(control.clone()).build().unwrap();
        setup.up = pipe().build().unwrap();
        setup.down = pipe().build().unwrap();
        let mut network = setup.world();
        network.run_until(Timestamp::from_millis(24_000)).unwrap();
        let received = network.node(1).unwrap().application().bytes_read();
        let stats = network.node(0).unwrap().connection().map(Connection::stats);
        println!("{control:?}: {stats:?}");
        // 20 s at the full rate, a second to get there, and what slow start's overshoot costs.
        assert_eq!(received, 20_000_000, "{control:?}: {stats:?}");
    }
}
