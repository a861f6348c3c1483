//! The kernel and we, each as sender to a kernel receiver over the same link: who is faster.
//!
//! The link has 40 ms of round-trip time and no rate; it loses the same first transmissions of both
//! senders, by their ordinal number, and no retransmission. Both put 1,448 bytes into a segment, the kernel
//! sends with reno and we with NewReno, and no buffer is ever what limits them. Goodput is counted by
//! the receiver from accepting the connection to the end of the stream.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use reliable_udp::sim::LinkConfig;
use reliable_udp::{Config, CongestionControl, ConnectionStats, Endpoint};
use tokio::io::AsyncWriteExt;

use super::kernel::{Opener, Opening};
use super::namespace::{self, Offers};
use super::script::{Side, Stream};
use super::shim::{Counts, Lane, Plan, Port, Report, Rule, Shim};
use super::{env, side_by_side};

const PORT: u16 = 7;
/// One way.
const DELAY: Duration = Duration::from_millis(20);
/// 20 bytes of header, 12 of timestamps and 1,448 of payload, as the kernel has them at an MTU of 1,500.
const DATAGRAM: usize = 1_480;
const BUFFER: usize = 32 * 1024 * 1024;
const CHUNK: usize = 256 * 1024;
/// After this a transfer hangs.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// One transfer.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    sender: Side,
    bytes: usize,
    /// How many first transmissions of a hundred are lost.
    percent: f64,
    seed: u64,
    /// Segments that the log keeps.
    log: usize,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % seed {} {:?}", self.percent, self.seed, self.sender)
    }
}

/// What came of it.
struct Outcome {
    time: Duration,
    /// In Mbit/s.
    goodput: f64,
    /// Expiries of the sender's retransmission timer.
    timeouts: u64,
    /// What the sender sent.
    sent: Counts,
    log: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.3} Mbit/s, {:.1} s, {} lost of {} first transmissions, {} retransmissions, {} timeouts",
            self.goodput,
            self.time.as_secs_f64(),
            self.sent.lost_by_rule,
            self.sent.first_transmissions,
            self.sent.retransmissions,
            self.timeouts,
        )
    }
}

impl Transfer {
    fn run(self) -> Outcome {
        let (receiver, device) = self.start_receiver();
        match self.sender {
            Side::Kernel => {
                let (hand_over, handed) = mpsc::channel();
                let (go, gone) = mpsc::channel::<()>();
                let sender = std::thread::spawn(move || {
                    hand_over
                        .send(namespace::enter(Offers::Everything).unwrap())
                        .unwrap();
                    gone.recv().unwrap();
                    self.send_from_kernel()
                });
                let shim = self.link(Port::Kernel(handed.recv().unwrap()), Port::Kernel(device));
                go.send(()).unwrap();
                let time = receiver.join().unwrap();
                let timeouts = sender.join().unwrap();
                self.outcome(time, timeouts, shim.stop())
            }
            Side::We => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let endpoint = Endpoint::bind("127.0.0.1:0", config()).await.unwrap();
                    let local = endpoint.local_addr().unwrap();
                    let (port, addr) = Port::to_endpoint(local).unwrap();
                    let shim = self.link(port, Port::Kernel(device));
                    let stats = self.send_from_us(&endpoint, addr).await;
                    let time = receiver.join().unwrap();
                    self.outcome(time, stats.rto_count, shim.stop())
                })
            }
        }
    }

    fn link(self, sender: Port, receiver: Port) -> Shim {
        let link = LinkConfig::builder().delay(DELAY).build().unwrap();
        let rule = Rule::FirstTransmissions {
            seed: self.seed,
            probability: self.percent / 100.0,
        };
        let lanes = [vec![rule], Vec::new()].map(|rules| Lane {
            link: link.clone(),
            rules,
        });
        let plan = Plan {
            lanes,
            seed: self.seed,
            crossing: None,
            log: self.log,
        };
        Shim::start([sender, receiver], plan)
    }

    fn outcome(self, time: Duration, timeouts: u64, report: Report) -> Outcome {
        let [sent, answered] = report.counts;
        for counts in [&sent, &answered] {
            assert_eq!(counts.faults, Vec::<String>::new(), "{self:?}");
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a few significant digits matter"
        )]
        let bits = (self.bytes * 8) as f64;
        Outcome {
            time,
            goodput: bits / time.as_secs_f64() / 1e6,
            timeouts,
            sent,
            log: report.log,
        }
    }

    /// Starts the kernel that receives; it returns how long that took.
    fn start_receiver(self) -> (std::thread::JoinHandle<Duration>, tun_rs::SyncDevice) {
        let (hand_over, device) = mpsc::channel();
        let receiver = std::thread::spawn(move || {
            let device = namespace::enter(Offers::Everything).unwrap();
            let listener = Opener::new(Opening::Accept, PORT, "reno", None).unwrap();
            hand_over.send(device).unwrap();
            let mut stream = listener.open(PATIENCE).unwrap();
            let start = Instant::now();
            let mut expected = Stream::of(self.sender);
            let mut buffer = vec![0; CHUNK];
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    len => expected.check(&buffer[..len]).unwrap(),
                }
            }
            let time = start.elapsed();
            assert_eq!(expected.position, self.bytes);
            drop(stream);
            namespace::settle(PATIENCE).unwrap();
            time
        });
        (receiver, device.recv().unwrap())
    }

    /// Returns how often the retransmission timer expired.
    fn send_from_kernel(self) -> u64 {
        let opener = Opener::new(Opening::Connect, PORT, "reno", None).unwrap();
        let mut stream: TcpStream = opener.open(PATIENCE).unwrap();
        let mut sent = Stream::of(self.sender);
        while sent.position < self.bytes {
            let chunk = sent.next(CHUNK.min(self.bytes - sent.position));
            stream.write_all(chunk).unwrap();
            sent.position += chunk.len();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        drop(stream);
        namespace::settle(PATIENCE).unwrap();
        assert_eq!(namespace::dropped(), 0, "the shim keeps up");
        namespace::counter("TcpExt:", "TCPTimeouts")
    }

    async fn send_from_us(self, endpoint: &Endpoint, addr: SocketAddr) -> ConnectionStats {
        let connect = endpoint.connect_with(addr, PORT, config());
        let mut socket = connect.await.unwrap();
        let mut sent = Stream::of(self.sender);
        while sent.position < self.bytes {
            let chunk = sent.next(CHUNK.min(self.bytes - sent.position));
            socket.write_all(chunk).await.unwrap();
            sent.position += chunk.len();
        }
        socket.shutdown().await.unwrap();
        let stats = socket.stats();
        drop(socket);
        endpoint.wait_idle().await;
        stats
    }
}

fn config() -> Config {
    Config::builder()
        .congestion(CongestionControl::NewReno)
        .datagram_size(DATAGRAM)
        .send_buffer(BUFFER)
        .user_timeout(None)
        .linger(PATIENCE)
        .build()
        .unwrap()
}

/// Runs all transfers that the environment asks for and prints a table; returns our goodput as a part of the
/// kernel's, by loss rate.
pub fn compare() -> Vec<f64> {
    let seeds: u64 = env("RELIABLE_UDP_SEEDS", 10);
    let start: u64 = env("RELIABLE_UDP_SEED_START", 0);
    let bytes = env("RELIABLE_UDP_MIB", 64) * 1024 * 1024;
    let rates: String = env("RELIABLE_UDP_LOSS", "0.1,1,3".to_owned());
    let rates: Vec<f64> = rates.split(',').map(|rate| rate.parse().unwrap()).collect();
    let logs: String = env("RELIABLE_UDP_LOG", String::new());
    let mut transfers = Vec::new();
    for &percent in &rates {
        for seed in start..start + seeds {
            transfers.extend([Side::Kernel, Side::We].map(|sender| Transfer {
                sender,
                bytes,
                percent,
                seed,
                log: if logs.is_empty() { 0 } else { usize::MAX },
            }));
        }
    }
    let results = Mutex::new(Vec::new());
    side_by_side(transfers.len(), |number| {
        let transfer = transfers[number];
        let outcome = transfer.run();
        eprintln!("{transfer}: {outcome}");
        if !logs.is_empty() {
            let file = Path::new(&logs).join(format!("{transfer}.log"));
            std::fs::write(file, &outcome.log).unwrap();
        }
        results.lock().unwrap().push((transfer, outcome.goodput));
    });
    let results = results.into_inner().unwrap();
    eprintln!("\n| loss | kernel, reno | we, NewReno | ratio |\n| --- | --- | --- | --- |");
    let ratio = |&percent: &f64| {
        let [kernel, ours] = [Side::Kernel, Side::We].map(|side| {
            let of_side = results.iter().filter(|(transfer, _)| {
                transfer.sender == side && transfer.percent.total_cmp(&percent).is_eq()
            });
            median(of_side.map(|(_, goodput)| *goodput).collect())
        });
        let ratio = ours / kernel;
        eprintln!("| {percent} % | {kernel:.2} Mbit/s | {ours:.2} Mbit/s | {ratio:.3} |");
        ratio
    };
    rates.iter().map(ratio).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}
