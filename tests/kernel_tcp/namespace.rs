//! A network namespace with a TUN device in it, made by the thread that goes on to use it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::ip::KERNEL;

/// IP packets that wait for the shim before the device drops one.
const QUEUE: u32 = 10_000;
/// The Ethernet MTU: 1,448 bytes of payload beside timestamps.
const MTU: u16 = 1_500;
/// Smallest, initial and largest socket buffer: never what limits the kernel.
const BUFFERS: &str = "4096 33554432 33554432";
/// TIME-WAIT in `/proc/net/tcp`.
const TIME_WAIT: &str = "06";
/// LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// What the kernel offers in its SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offers {
    Everything,
    NoSack,
    NoTimestamps,
    NoWindowScaling,
}

/// Moves this thread, and those that it starts from now on, into a namespace of its own; returns the
/// device through which alone it reaches the world.
pub fn enter(offers: Offers) -> io::Result<SyncDevice> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    set("net/ipv6/conf/all/disable_ipv6", "1").ok();
    set("net/ipv4/tcp_no_metrics_save", "1")?;
    // By default it only answers an offer.
    set("net/ipv4/tcp_ecn", "1")?;
    set("net/ipv4/tcp_rmem", BUFFERS)?;
    set("net/ipv4/tcp_wmem", BUFFERS)?;
    let off = match offers {
        Offers::Everything => None,
        Offers::NoSack => Some("tcp_sack"),
        Offers::NoTimestamps => Some("tcp_timestamps"),
        Offers::NoWindowScaling => Some("tcp_window_scaling"),
    };
    if let Some(name) = off {
        set(&format!("net/ipv4/{name}"), "0")?;
    }
    let device = DeviceBuilder::new()
        .name("kernel0")
        .ipv4(KERNEL, 24, None)
        .mtu(MTU)
        .tx_queue_len(QUEUE)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// Sets a sysctl of this thread's namespace.
fn set(name: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(name), value)
        .map_err(|error| io::Error::new(error.kind(), format!("sysctl {name}: {error}")))
}

/// Says what keeps this machine from doing all that.
pub fn obstacle() -> Option<String> {
    let attempt = std::thread::spawn(|| enter(Offers::Everything).map(drop));
    match attempt.join().unwrap() {
        Ok(()) => None,
        Err(error) => Some(format!(
            "no network namespace with a TUN device (needs CAP_NET_ADMIN, CAP_SYS_ADMIN and /dev/net/tun): {error}"
        )),
    }
}

/// The TCP sockets of this thread's namespace, listening ones aside, by state.
fn states() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let state = |line: &str| line.split_whitespace().nth(3).unwrap().to_owned();
    let all = table.lines().skip(1).map(state);
    all.filter(|state| state != LISTEN).collect()
}

/// Waits until this thread's namespace has no sockets but those in TIME-WAIT, and counts these.
pub fn settle(patience: Duration) -> Result<usize, String> {
    // A look walks the hash table of the whole machine, so they become rare.
    let mut step = Duration::from_millis(2);
    let mut waited = Duration::ZERO;
    loop {
        let states = states();
        if states.iter().all(|state| state == TIME_WAIT) {
            return Ok(states.len());
        }
        if waited > patience {
            return Err(format!("the kernel still has sockets in states {states:?}"));
        }
        std::thread::sleep(step);
        waited += step;
        step = (step * 2).min(Duration::from_millis(100));
    }
}

/// A counter of this thread's namespace from `/proc/net/netstat`, such as `TcpExt` `TCPTimeouts`.
pub fn counter(group: &str, name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if names.starts_with(group) {
            let mut pairs = names.split(' ').zip(values.split(' '));
            if let Some((_, value)) = pairs.find(|&(candidate, _)| candidate == name) {
                return value.parse().unwrap();
            }
        }
    }
    0
}

/// IP packets that the device dropped because the shim was too slow.
pub fn dropped() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find(|line| line.contains("kernel0:")).unwrap();
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers[11]
}
