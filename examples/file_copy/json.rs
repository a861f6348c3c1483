//! Events and sums as JSON objects.

use std::path::Path;
use std::time::Duration;

use reliable_udp::ConnectionStats;
use reliable_udp::copy::{Event, RetryCause};
use serde_json::{Map, Value, json};

use crate::tally::Tally;
use crate::text;

/// The object of an event; `whose` is its first field and names the copy: `target` or `peer`, and the address.
pub(crate) fn event(whose: (&str, &str), event: &Event) -> Option<Value> {
    let (name, path, fields) = match event {
        Event::Started {
            path,
            size,
            attempt,
            ..
        } => ("started", path, json!({"size": size, "attempt": attempt})),
        Event::Progress { path, bytes, .. } => ("progress", path, json!({"bytes": bytes})),
        Event::Checking { path, size, .. } => ("checking", path, json!({"size": size})),
        Event::Resumed { path, bytes, .. } => ("resumed", path, json!({"bytes": bytes})),
        Event::Retrying {
            path,
            attempt,
            cause,
            ..
        } => (
            "retrying",
            path,
            json!({"attempt": attempt, "cause": word(*cause)}),
        ),
        Event::AskedAgain { path, asks, .. } => ("asked_again", path, json!({"asks": asks})),
        Event::Verified {
            path, size, digest, ..
        } => (
            "verified",
            path,
            json!({"size": size, "blake3": digest.to_string()}),
        ),
        Event::Present { path, size, .. } => ("present", path, json!({"size": size})),
        Event::Planned { path, bytes, .. } => ("planned", path, json!({"bytes": bytes})),
        Event::LinkDone { path, .. } => ("link_done", path, json!({})),
        Event::DirectoryDone { path, .. } => ("directory_done", path, json!({})),
        Event::Failed { path, error, .. } => ("failed", path, json!({"error": text::chain(error)})),
        // Newer than this program.
        _ => return None,
    };
    let mut object = head(name, whose);
    name_path(&mut object, path);
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    Some(Value::Object(object))
}

fn word(cause: RetryCause) -> &'static str {
    match cause {
        RetryCause::Mismatch => "mismatch",
        RetryCause::Changed => "changed",
        RetryCause::Forgotten => "forgotten",
        _ => "other",
    }
}

/// An object that says what happened, and in which copy.
pub(crate) fn head(name: &str, whose: (&str, &str)) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("event".to_owned(), name.into());
    object.insert(whose.0.to_owned(), whose.1.into());
    object
}

/// JSON is Unicode and names need not be: those that are not have their bytes beside them.
fn name_path(object: &mut Map<String, Value>, path: &Path) {
    object.insert("path".to_owned(), path.to_string_lossy().into());
    #[cfg(unix)]
    if path.to_str().is_none() {
        use std::fmt::Write;
        use std::os::unix::ffi::OsStrExt;
        let mut hex = String::new();
        for byte in path.as_os_str().as_bytes() {
            let _ = write!(hex, "{byte:02x}");
        }
        object.insert("path_hex".to_owned(), hex.into());
    }
}

/// The sums of a copy.
pub(crate) fn sums(tally: &Tally) -> Value {
    json!({
        "files_verified": tally.files_verified,
        "files_present": tally.files_present,
        "files_planned": tally.planned,
        "links": tally.links,
        "directories": tally.directories,
        "failed": tally.failed,
        "unsettled": tally.unsettled,
        "bytes_verified": tally.bytes_verified,
        "bytes_present": tally.bytes_present,
        "bytes_resumed": tally.bytes_resumed,
        "bytes_planned": tally.bytes_planned,
        "bytes_transferred": tally.bytes_transferred,
        "retries": tally.retries,
        "asks": tally.asks,
    })
}

/// What the connection has to say.
pub(crate) fn connection(stats: &ConnectionStats) -> Value {
    let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    json!({
        "srtt_ms": millis(stats.srtt),
        "min_rtt_ms": millis(stats.min_rtt),
        "congestion_control": stats.congestion_control,
        "cwnd": stats.cwnd,
        "pacing_rate": stats.pacing_rate,
        "delivery_rate": stats.delivery_rate,
        "datagram_size": stats.datagram_size,
        "segments_sent": stats.segments_sent,
        "segments_lost": stats.segments_lost,
        "segments_retransmitted": stats.segments_retransmitted,
    })
}
