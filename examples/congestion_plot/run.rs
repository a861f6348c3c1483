//! Runs connections over the simulated path in tokio's paused time, and looks at them as they go.
//!
//! That clock ticks in milliseconds, like the timers of a real tokio: datagrams that arrive within one are handed
//! over together and acknowledged together, and RTT samples are rounded up. Where round trips last tens of
//! milliseconds, no line of a picture moves by that; below ten, `execute` says that it is coarse.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use reliable_udp::sim::{self, LinkQueue, SimTransport};
use reliable_udp::{Config, ConnectionStats, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::args::Controller;
use super::scene::Scene;
use super::units::{short, show_rate, show_time};

/// The port that the receiving side listens on.
const PORT: u16 = 1;

/// One look at one connection's sender, and at what has reached its receiver.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// Since the beginning of the simulation.
    pub(crate) at: Duration,
    pub(crate) cwnd: u64,
    pub(crate) ssthresh: Option<u64>,
    pub(crate) in_flight: u64,
    pub(crate) rtt: Option<Duration>,
    pub(crate) pacing_rate: Option<u64>,
    /// Bytes that have reached the receiver, each counted once, in order or waiting for what is missing.
    pub(crate) arrived: u64,
    pub(crate) is_in_recovery: bool,
    /// Of the controller, by its own words.
    pub(crate) phase: &'static str,
    pub(crate) recoveries: u64,
    pub(crate) timeouts: u64,
    pub(crate) lost: u64,
    pub(crate) retransmitted: u64,
}

impl Sample {
    fn new(at: Duration, sender: &ConnectionStats, receiver: &ConnectionStats) -> Self {
        Self {
            at,
            cwnd: sender.cwnd,
            ssthresh: (sender.ssthresh < u64::MAX).then_some(sender.ssthresh),
            in_flight: sender.bytes_in_flight,
            rtt: sender.latest_rtt,
            pacing_rate: sender.pacing_rate,
            arrived: receiver.bytes_received + receiver.out_of_order_bytes as u64,
            is_in_recovery: sender.is_in_recovery,
            phase: sender.congestion_phase,
            recoveries: sender.fast_recovery_count,
            timeouts: sender.rto_count,
            lost: sender.segments_lost,
            retransmitted: sender.segments_retransmitted,
        }
    }
}

/// One look at the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueueSample {
    pub(crate) at: Duration,
    pub(crate) queue: LinkQueue,
    /// Datagrams that found it full.
    pub(crate) dropped: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flow {
    pub(crate) controller: Controller,
    pub(crate) name: String,
    /// When the transfer begins.
    pub(crate) start: Duration,
    /// From the beginning of the transfer on, at the same times as those of the bottleneck.
    pub(crate) samples: Vec<Sample>,
    /// Why it did not last.
    pub(crate) failure: Option<String>,
}

impl Flow {
    /// Says in one line how it went.
    #[expect(clippy::cast_precision_loss, reason = "a text for readers")]
    pub(crate) fn summary(&self, scene: &Scene) -> String {
        let Some(last) = self.samples.last() else {
            return format!("{}: nothing was seen", self.name);
        };
        let length = scene.length.saturating_sub(self.start);
        let rate = last.arrived as f64 / length.as_secs_f64();
        let percent = 100.0 * last.arrived as f64 / scene.capacity(self.start, last.at);
        let failure = self.failure.as_ref();
        let failure = failure.map_or_else(String::new, |error| format!("; it failed: {error}"));
        format!(
            "{}: {} delivered in {}, {} % of the link; {} segments lost, {} retransmitted, {} fast \
             recoveries, {} timeouts{failure}",
            self.name,
            show_rate(rate.round()),
            show_time(length),
            short(percent.round()),
            last.lost,
            last.retransmitted,
            last.recoveries,
            last.timeouts,
        )
    }
}

/// What was seen of connections that shared a bottleneck, or of one that was alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) flows: Vec<Flow>,
    pub(crate) queue: Vec<QueueSample>,
}

/// Runs one bulk transfer per controller, all at once, in virtual time.
pub(crate) fn run(scene: &Scene, controllers: &[Controller]) -> io::Result<Record> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?
        .block_on(observe(scene, controllers))
}

async fn observe(scene: &Scene, controllers: &[Controller]) -> io::Result<Record> {
    let (near, far) = sim::pair(scene.seed, scene.forward()?, scene.backward()?);
    // Asking for the time starts the simulation's clock.
    near.send_queue();
    let near = Arc::new(near);
    let transport: Arc<SimTransport> = Arc::clone(&near);
    let sending = Endpoint::with_transport(transport, Config::default())?;
    let receiving = Endpoint::with_transport(Arc::new(far), Config::default())?;
    let listener = receiving.listen(PORT)?;

    let mut record = Record {
        flows: Vec::new(),
        queue: Vec::new(),
    };
    let mut looks = Looks::new(scene);
    let mut connecting = Vec::new();
    for (index, controller) in (0..).zip(controllers) {
        let config = Config::builder()
            .congestion(controller.control(scene.seed.wrapping_add(index)))
            .pacing(scene.paces)
            // The links have no MTU, so that a search for it would end with jumbo datagrams.
            .datagram_size(1_232)
            .build()?;
        connecting.push(sending.connect_with(receiving.local_addr()?, PORT, config));
    }
    // All at once, so that nobody's handshake takes from another's time.
    let accepting = async {
        let mut accepted = HashMap::new();
        for _ in controllers {
            let (socket, _) = listener.accept().await?;
            accepted.insert(socket.peer_port()?, socket);
        }
        Ok(accepted)
    };
    let (from, mut accepted) = tokio::try_join!(try_join_all(connecting), accepting)?;
    let mut connections = Vec::new();
    for (index, (from, controller)) in (0..).zip(from.into_iter().zip(controllers)) {
        let to = accepted.remove(&from.local_port()?);
        connections.push((
            from,
            to.ok_or_else(|| io::Error::other("a connection is missing"))?,
        ));
        let title = controller.title();
        record.flows.push(Flow {
            controller: *controller,
            name: match controllers.len() {
                1 => title.to_owned(),
                _ => format!("{title} {}", index + 1),
            },
            start: scene.stagger * index,
            samples: Vec::new(),
            failure: None,
        });
    }
    let mut transfers = Vec::new();
    for (number, (from, to)) in (0..).zip(connections) {
        let pause = scene.stagger * number;
        let (from, mut writer) = from.into_split();
        let (mut reader, to) = to.into_split();
        let writing: JoinHandle<io::Result<()>> = tokio::spawn(async move {
            let zeros = vec![0; 64 * 1024];
            sleep(pause).await;
            loop {
                writer.write_all(&zeros).await?;
            }
        });
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while reader.read(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        });
        transfers.push((from, to, writing));
    }
    while let Some(at) = looks.next().await {
        for (number, (flow, (from, to, _))) in (0..).zip(record.flows.iter_mut().zip(&transfers)) {
            if at < scene.stagger * number {
                continue;
            }
            flow.samples
                .push(Sample::new(at, &from.stats(), &to.stats()));
        }
        record.queue.push(QueueSample {
            at,
            queue: near.send_queue(),
            dropped: near.send_stats().dropped_queue,
        });
    }
    if record.flows.iter().any(|flow| flow.samples.is_empty()) {
        let text = "nothing is seen of a flow before the end: give a longer --length, or a shorter --stagger or --rtt";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    for (flow, (.., writing)) in record.flows.iter_mut().zip(transfers) {
        if writing.is_finished() {
            flow.failure = writing.await?.err().map(|error| error.to_string());
        }
    }
    Ok(record)
}

/// The times at which to look.
#[derive(Debug)]
struct Looks {
    origin: tokio::time::Instant,
    number: u32,
    every: Duration,
    length: Duration,
}

impl Looks {
    #[expect(
        clippy::disallowed_methods,
        reason = "a program, unlike the core, may read the clock"
    )]
    fn new(scene: &Scene) -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            number: 0,
            every: scene.sample,
            length: scene.length,
        }
    }

    /// Waits for the next one that is not past; returns its time since the beginning.
    async fn next(&mut self) -> Option<Duration> {
        loop {
            let at = self.every * self.number;
            if at > self.length {
                return None;
            }
            self.number += 1;
            if self.origin + at >= self.origin + self.origin.elapsed() {
                sleep(at.saturating_sub(self.origin.elapsed())).await;
                return Some(at);
            }
        }
    }
}
