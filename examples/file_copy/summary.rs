//! What a copy came to, for people.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use reliable_udp::ConnectionStats;

use crate::output::Output;
use crate::tally::Tally;

/// Measures wall-clock time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "only the library is kept from reading clocks"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Lines of a table.
struct Table<'a>(&'a Output);

impl Table<'_> {
    fn line(&self, name: &str, value: impl fmt::Display) {
        self.0.say(format_args!("  {name:<23} {value}"));
    }

    /// What is nearly always nothing is left out then.
    fn line_unless_zero(&self, name: &str, value: u64) {
        if value > 0 {
            self.line(name, value);
        }
    }
}

/// Prints what one copy, or all together, came to.
pub(crate) fn print(
    output: &Output,
    label: impl fmt::Display,
    tally: &Tally,
    elapsed: Duration,
    stats: Option<&ConnectionStats>,
) {
    if !output.is_for_people() {
        return;
    }
    output.say(format_args!("{label}"));
    let table = Table(output);
    let bytes = |bytes: u64| format!("{bytes} ({})", HumanBytes(bytes));
    table.line("files", tally.files_verified + tally.files_present);
    if tally.files_present > 0 {
        table.line("  there already", tally.files_present);
    }
    if tally.planned > 0 {
        table.line("would be sent", tally.planned);
        table.line("  bytes", bytes(tally.bytes_planned));
    }
    table.line_unless_zero("links", tally.links);
    table.line("directories", tally.directories);
    table.line("bytes", bytes(tally.bytes_verified + tally.bytes_present));
    table.line("  sent", bytes(tally.bytes_transferred));
    if tally.bytes_resumed > 0 {
        table.line("  left from before", bytes(tally.bytes_resumed));
    }
    let seconds = elapsed.as_secs_f64();
    table.line("seconds", format_args!("{seconds:.2}"));
    #[expect(
        clippy::cast_precision_loss,
        reason = "shown with one digit after the point"
    )]
    let goodput = tally.bytes_verified as f64 * 8.0 / 1e6 / seconds.max(1e-9);
    table.line("goodput", format_args!("{goodput:.1} Mbit/s"));
    if let Some(stats) = stats {
        connection(&table, stats);
    }
    table.line("files sent again", tally.retries);
    table.line("hashes verified", tally.files_verified);
    table.line("failed", tally.failed);
    table.line_unless_zero("left without a verdict", tally.unsettled);
}

fn connection(table: &Table<'_>, stats: &ConnectionStats) {
    let (again, sent) = (stats.segments_retransmitted, stats.segments_sent);
    table.line("retransmitted segments", format_args!("{again} of {sent}"));
    match (stats.srtt, stats.min_rtt) {
        (Some(srtt), Some(min)) => {
            table.line(
                "round-trip time",
                format_args!("{srtt:.1?}, at least {min:.1?}"),
            );
        }
        _ => table.line("round-trip time", "not measured"),
    }
}

/// Prints what there is to know about a connection when it was slow: its path, and what held it back.
pub(crate) fn print_stats(output: &Output, label: &str, stats: &ConnectionStats) {
    if !output.is_for_people() {
        return;
    }
    output.say(format_args!("connection to {label}"));
    let table = Table(output);
    let rate = |bytes_per_second: u64| {
        #[expect(
            clippy::cast_precision_loss,
            reason = "shown with one digit after the point"
        )]
        let mbit = bytes_per_second as f64 * 8.0 / 1e6;
        format!("{mbit:.1} Mbit/s")
    };
    connection(&table, stats);
    table.line(
        "datagrams",
        format_args!(
            "of up to {} bytes, {} probes of the path lost",
            stats.datagram_size, stats.path_probes_lost
        ),
    );
    table.line(
        "congestion control",
        format_args!("{} ({})", stats.congestion_control, stats.congestion_phase),
    );
    table.line("window", HumanBytes(stats.cwnd));
    if let Some(pace) = stats.pacing_rate {
        table.line("pace", rate(pace));
    }
    table.line("delivered last", rate(stats.delivery_rate));
    table.line("taken for lost", stats.segments_lost);
    table.line("timeouts", stats.rto_count);
    for (name, time) in limits(stats) {
        table.line(name, format_args!("{:.2} s", time.as_secs_f64()));
    }
}

/// How long each thing held the connection back, the longest first.
fn limits(stats: &ConnectionStats) -> Vec<(&'static str, Duration)> {
    let mut limits = vec![
        (
            "held back by network",
            stats.cwnd_limited_time + stats.pacing_limited_time,
        ),
        ("held back by receiver", stats.rwnd_limited_time),
        ("held back by disk, hash", stats.app_limited_time),
        ("held back by buffer", stats.send_buffer_limited_time),
    ];
    limits.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    limits
}
