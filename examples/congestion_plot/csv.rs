//! The samples as comma-separated values: one line per connection and time.

use std::fmt::Write;
use std::time::Duration;

use super::run::Record;

const HEADER: &str = "run,flow,seconds,cwnd_bytes,ssthresh_bytes,in_flight_bytes,rtt_ms,\
    pacing_bytes_per_second,arrived_bytes,in_recovery,phase,fast_recoveries,timeouts,segments_lost,\
    segments_retransmitted,queue_bytes,queue_datagrams,queue_delay_ms,queue_drops";

/// Makes the table; what is unknown is empty.
pub(crate) fn table(records: &[Record]) -> String {
    let mut table = format!("{HEADER}\n");
    let millis = |time: Duration| format!("{:.3}", time.as_secs_f64() * 1e3);
    let maybe = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
    for (run, record) in records.iter().enumerate() {
        for flow in &record.flows {
            // A flow that began later has fewer.
            let skipped = record.queue.len() - flow.samples.len();
            for (sample, queue) in flow.samples.iter().zip(&record.queue[skipped..]) {
                // Writing to a string does not fail.
                let _ = writeln!(
                    table,
                    "{run},{},{:.3},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                    flow.name,
                    sample.at.as_secs_f64(),
                    sample.cwnd,
                    maybe(sample.ssthresh),
                    sample.in_flight,
                    sample.rtt.map_or_else(String::new, millis),
                    maybe(sample.pacing_rate),
                    sample.arrived,
                    u8::from(sample.is_in_recovery),
                    sample.phase,
                    sample.recoveries,
                    sample.timeouts,
                    sample.lost,
                    sample.retransmitted,
                    queue.queue.bytes,
                    queue.queue.datagrams,
                    millis(queue.queue.delay),
                    queue.dropped,
                );
            }
        }
    }
    table
}
