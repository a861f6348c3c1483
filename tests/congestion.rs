//! Congestion controllers through the public API: chosen by endpoint, by connection and by a user's factory.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests may"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test, unlike the core, may read the clock, which is paused here"
)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reliable_udp::congestion::conformance::{Rule, Suite};
use reliable_udp::congestion::{
    Acked, CongestionControl, CongestionController, ControllerParams, RecoveryEntered, TimedOut,
};
use reliable_udp::sim::{self, LinkConfig};
use reliable_udp::{Config, ConnectionStats, Endpoint, ReliableUdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

#[path = "../examples/custom_congestion.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "of the example only its controller is used"
)]
mod custom_congestion;

#[expect(clippy::disallowed_methods, reason = "the paused clock of tokio")]
fn now() -> Instant {
    Instant::now()
}

const PORT: u16 = 1;

/// 1 MB/s and 20 ms each way, with half a second of queue.
fn path() -> LinkConfig {
    LinkConfig::builder()
        .delay(Duration::from_millis(20))
        .rate(1_000_000)
        .queue_bytes(500_000)
        .build()
        .unwrap()
}

fn config(control: &CongestionControl) -> Config {
    Config::builder()
        .congestion(control.clone())
        // The links have no MTU, and the bounds are those of paths that have one.
        .datagram_size(1_232)
        .build()
        .unwrap()
}

/// Two endpoints on a path: one that uses `client`, one that uses `server`.
fn endpoints(seed: u64, link: &LinkConfig, client: Config, server: Config) -> [Endpoint; 2] {
    let (a, b) = sim::pair(seed, link.clone(), link.clone());
    [(a, client), (b, server)]
        .map(|(transport, config)| Endpoint::with_transport(Arc::new(transport), config).unwrap())
}

/// Sends `len` bytes and returns the statistics from the end.
async fn send(mut socket: ReliableUdpSocket, len: usize) -> io::Result<ConnectionStats> {
    let data: Vec<u8> = (0..len).map(|i| i.to_le_bytes()[0]).collect();
    socket.write_all(&data).await?;
    socket.shutdown().await?;
    Ok(socket.stats())
}

async fn receive(mut socket: ReliableUdpSocket) -> io::Result<(usize, ConnectionStats)> {
    let mut data = Vec::new();
    socket.read_to_end(&mut data).await?;
    assert!(
        data.iter()
            .enumerate()
            .all(|(i, &byte)| byte == i.to_le_bytes()[0])
    );
    Ok((data.len(), socket.stats()))
}

/// What a probing controller was told and asked.
#[derive(Debug, Default)]
struct Told {
    params: Vec<ControllerParams>,
    acked: u64,
    recoveries: u64,
}

/// Departures at a fixed rate, whatever happens: the window only bounds what may be outstanding.
#[derive(Debug)]
struct FixedRate {
    rate: u64,
    mss: u64,
    srtt: Duration,
    told: Arc<Mutex<Told>>,
}

impl CongestionController for FixedRate {
    fn on_acked(&mut self, event: &Acked) {
        self.srtt = event.rtt.srtt;
        self.told.lock().unwrap().acked += event.bytes;
    }
    fn on_recovery_entered(&mut self, _event: &RecoveryEntered) {
        self.told.lock().unwrap().recoveries += 1;
    }
    fn on_timeout(&mut self, _event: &TimedOut) {}
    fn on_mss_changed(&mut self, mss: u64) {
        self.mss = mss;
    }
    fn cwnd(&self) -> u64 {
        // Twice what the rate puts under way.
        let millis = u64::try_from(self.srtt.as_millis()).unwrap_or(u64::MAX);
        let underway = self.rate.saturating_mul(millis) / 1_000;
        underway.saturating_mul(2).max(10 * self.mss)
    }
    fn ssthresh(&self) -> u64 {
        u64::MAX
    }
    fn pacing_rate(&self) -> Option<u64> {
        Some(self.rate)
    }
    fn uses_prr(&self) -> bool {
        false
    }
    fn name(&self) -> &'static str {
        "fixed rate"
    }
    fn phase(&self) -> &'static str {
        "steady"
    }
}

fn fixed_rate(rate: u64, told: &Arc<Mutex<Told>>) -> CongestionControl {
    let told = told.clone();
    CongestionControl::custom(move |params| {
        told.lock().unwrap().params.push(*params);
        FixedRate {
            rate,
            mss: params.mss,
            srtt: params.initial_rtt.unwrap_or(Duration::from_millis(100)),
            told: told.clone(),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn each_way_to_choose_a_controller_takes_effect() -> io::Result<()> {
    let told = Arc::default();
    let custom = config(&fixed_rate(500_000, &told));
    let [client, server] = endpoints(
        1,
        &path(),
        config(&CongestionControl::NewReno),
        config(&CongestionControl::Cubic),
    );
    let listeners = [server.listen(PORT)?, server.listen_with(PORT + 1, &custom)?];
    let addr = server.local_addr()?;
    // The port of the listener, the client's own choice, and what both ends then use.
    let [new_reno, cubic] = [CongestionControl::NewReno, CongestionControl::Cubic];
    let [new_reno, cubic] = [new_reno, cubic].map(|control| config(&control));
    for (port, own, expected) in [
        (PORT, None, ("NewReno", "CUBIC")),
        (PORT, Some(&cubic), ("CUBIC", "CUBIC")),
        (PORT, Some(&custom), ("fixed rate", "CUBIC")),
        (PORT + 1, Some(&new_reno), ("NewReno", "fixed rate")),
    ] {
        let connecting = async {
            let socket = match own {
                None => client.connect(addr).await?,
                Some(config) => client.connect_with(addr, port, config.clone()).await?,
            };
            assert_eq!(socket.stats().congestion_control, expected.0);
            send(socket, 10_000).await
        };
        let listener = &listeners[usize::from(port != PORT)];
        let accepting = async { receive(listener.accept().await?.0).await };
        let (sent, (len, received)) = tokio::try_join!(connecting, accepting)?;
        assert_eq!(len, 10_000);
        let used = (sent.congestion_control, received.congestion_control);
        assert_eq!(used, expected);
    }
    let told = told.lock().unwrap();
    assert_eq!(told.params.len(), 2, "once per connection");
    let params = told.params[0];
    assert_eq!(params.initial_window, 10 * params.mss);
    assert!(
        params
            .initial_rtt
            .is_some_and(|rtt| rtt >= Duration::from_millis(40))
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_told_whether_departures_are_paced() -> io::Result<()> {
    for is_paced in [true, false] {
        let told = Arc::default();
        let builder = Config::builder().congestion(fixed_rate(500_000, &told));
        let own = builder.pacing(is_paced).build()?;
        let [client, server] = endpoints(4, &path(), own, Config::default());
        let listener = server.listen(PORT)?;
        let connecting = async { send(client.connect(server.local_addr()?).await?, 1_000).await };
        let accepting = async { receive(listener.accept().await?.0).await };
        tokio::try_join!(connecting, accepting)?;
        let told: &Mutex<Told> = &told;
        assert_eq!(told.lock().unwrap().params[0].is_paced, is_paced);
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_knows_only_rates_carries_a_transfer() -> io::Result<()> {
    // Half of what the path could carry, which loses one segment in a hundred.
    const RATE: u64 = 500_000;
    const LEN: usize = 2_000_000;
    let lossy = LinkConfig::builder()
        .delay(Duration::from_millis(20))
        .rate(1_000_000)
        .loss(0.01)
        .build()
        .unwrap();
    let told = Arc::default();
    let control = fixed_rate(RATE, &told);
    let [client, server] = endpoints(2, &lossy, config(&control), Config::default());
    let listener = server.listen(PORT)?;
    let began = now();
    let connecting = async { send(client.connect(server.local_addr()?).await?, LEN).await };
    let accepting = async { receive(listener.accept().await?.0).await };
    let (sent, (len, _)) = tokio::try_join!(connecting, accepting)?;
    assert_eq!(len, LEN);
    assert_eq!(sent.pacing_rate, Some(RATE));
    assert_eq!(
        (sent.congestion_control, sent.congestion_phase),
        ("fixed rate", "steady")
    );
    // Losses have cost their repair and nothing else.
    let seconds = began.elapsed().as_secs_f64();
    assert!((4.0..4.6).contains(&seconds), "{seconds} s");
    let told = told.lock().unwrap();
    assert!(told.recoveries > 0 && sent.rto_count == 0, "{told:?}");
    assert!(told.acked >= 2_000_000);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_phase_is_shown() -> io::Result<()> {
    let short = LinkConfig::builder()
        .delay(Duration::from_millis(20))
        .rate(1_000_000)
        .queue_bytes(20_000)
        .build()
        .unwrap();
    for control in [CongestionControl::NewReno, CongestionControl::Cubic] {
        let [client, server] = endpoints(3, &short, config(&control), Config::default());
        let listener = server.listen(PORT)?;
        let accepting = async { receive(listener.accept().await?.0).await };
        let connecting = async {
            let mut socket = client.connect(server.local_addr()?).await?;
            let mut phases = vec![socket.stats().congestion_phase];
            let data: Vec<u8> = (0..256).map(|i: usize| i.to_le_bytes()[0]).collect();
            let data = data.repeat(4);
            for _ in 0..3_000 {
                socket.write_all(&data).await?;
                let phase = socket.stats().congestion_phase;
                if !phases.contains(&phase) {
                    phases.push(phase);
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            socket.shutdown().await?;
            Ok::<_, io::Error>(phases)
        };
        let (phases, _) = tokio::try_join!(connecting, accepting)?;
        assert_eq!(phases.first(), Some(&"slow start"), "{control:?}");
        for phase in ["recovery", "congestion avoidance"] {
            assert!(phases.contains(&phase), "{control:?}: {phases:?}");
        }
    }
    Ok(())
}

#[test]
fn controllers_of_ones_own_keep_the_rules_that_they_do_not_except() {
    let told = Arc::default();
    let fixed_window =
        CongestionControl::custom(|params| custom_congestion::FixedWindow::new(16, params));
    let suites = [
        Suite::new(&fixed_window),
        // Its window follows the round trip, up and down.
        Suite::new(&fixed_rate(1_000_000, &told))
            .except(Rule::NoGrowthWhileLimited)
            .except(Rule::OneReductionPerEpisode)
            .except(Rule::UndoRestores),
    ];
    for suite in suites {
        let suite = suite
            .except(Rule::LossReduces)
            .except(Rule::TimeoutCollapses);
        assert_eq!(suite.run(), Ok(()));
    }
}
