//! What a case configures, and how it opens its connection.

use std::fmt::Write;
use std::time::Duration;

use reliable_udp::{Config, ConfigBuilder, CongestionControl};

use super::parse::{millis, number, switch};

/// The settings of a case: our configuration, and what is fixed about the peer.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what a handshake agrees on")]
pub(crate) struct Settings {
    /// Ours.
    pub(crate) builder: ConfigBuilder,
    /// Our initial sequence number.
    pub(crate) iss: u32,
    /// The peer's.
    pub(crate) irs: u32,
    /// The window field of the peer's segments that name none.
    pub(crate) window: u16,
    mss: u16,
    ecn: bool,
    sack: bool,
    timestamps: bool,
    window_scaling: bool,
    peer_shift: u8,
}

impl Default for Settings {
    /// A plain peer: no SACK, timestamps, window scaling or extension, segments of 1,000 bytes; both
    /// streams begin at 1. What the tables count on is fixed here, whatever the defaults are.
    fn default() -> Self {
        let builder = Config::builder()
            .congestion(CongestionControl::NewReno)
            // The tables tell what each ACK allows at once.
            .pacing(false)
            .initial_window(10)
            .min_rto(Duration::from_millis(200))
            .ack_delay(Duration::from_millis(25))
            .mss(1_000)
            .sack(false)
            .timestamps(false)
            .window_scaling(false)
            .extension(false)
            .ecn(false)
            .receive_buffer(65_535);
        Self {
            builder,
            iss: 0,
            irs: 0,
            window: 65_535,
            mss: 1_000,
            ecn: false,
            sack: false,
            timestamps: false,
            window_scaling: false,
            peer_shift: 0,
        }
    }
}

impl Settings {
    /// Applies `key=value` pairs.
    pub(crate) fn apply(&mut self, text: &str) -> Result<(), String> {
        for word in text.split_whitespace() {
            let (key, value) = word
                .split_once('=')
                .ok_or(format!("`{word}` is not `key=value`"))?;
            if !self.apply_own(key, value)? && !self.apply_durations(key, value)? {
                return Err(format!("unknown setting `{key}`"));
            }
        }
        Ok(())
    }

    fn apply_own(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let builder = self.builder.clone();
        self.builder = match key {
            "iss" => {
                self.iss = number(value)?;
                builder
            }
            "irs" => {
                self.irs = number(value)?;
                builder
            }
            "win" => {
                self.window = number(value)?;
                builder
            }
            "peer_wscale" => {
                self.peer_shift = number(value)?;
                builder
            }
            "mss" => {
                self.mss = number(value)?;
                builder.mss(self.mss)
            }
            "ecn" => {
                self.ecn = switch(value)?;
                builder.ecn(self.ecn)
            }
            "sack" => {
                self.sack = switch(value)?;
                builder.sack(self.sack)
            }
            "ts" => {
                self.timestamps = switch(value)?;
                builder.timestamps(self.timestamps)
            }
            "wscale" => {
                self.window_scaling = switch(value)?;
                builder.window_scaling(self.window_scaling)
            }
            "rcvbuf" => builder.receive_buffer(number(value)?),
            "sndbuf" => builder.send_buffer(number(value)?),
            "iw" => builder.initial_window(number(value)?),
            "nodelay" => builder.nodelay(switch(value)?),
            "tlp" => builder.tail_loss_probe(switch(value)?),
            "prr" => builder.prr(switch(value)?),
            "pacing" => builder.pacing(switch(value)?),
            "after_idle" => builder.slow_start_after_idle(switch(value)?),
            "syn_retries" => builder.syn_retries(number(value)?),
            "data_retries" => builder.data_retries(number(value)?),
            "keepalive_probes" => builder.keepalive_probes(number(value)?),
            "challenge_limit" => builder.challenge_ack_limit(number(value)?),
            "reset_limit" => builder.reset_rate_limit(number(value)?),
            "backlog" => builder.backlog(number(value)?),
            _ => return Ok(false),
        };
        Ok(true)
    }

    fn apply_durations(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let builder = self.builder.clone();
        let time = || millis(value);
        let limit = || -> Result<Option<Duration>, String> {
            if value == "off" {
                Ok(None)
            } else {
                Ok(Some(millis(value)?))
            }
        };
        self.builder = match key {
            "ack_delay" => builder.ack_delay(time()?),
            "initial_rto" => builder.initial_rto(time()?),
            "min_rto" => builder.min_rto(time()?),
            "max_rto" => builder.max_rto(time()?),
            "connect_timeout" => builder.connect_timeout(limit()?),
            "user_timeout" => builder.user_timeout(limit()?),
            "keepalive" => builder.keepalive(limit()?),
            "keepalive_interval" => builder.keepalive_interval(time()?),
            "idle_timeout" => builder.idle_timeout(limit()?),
            "linger" => builder.linger(time()?),
            "time_wait" => builder.time_wait(time()?),
            _ => return Ok(false),
        };
        Ok(true)
    }

    /// The lines that `open` stands for: `active` or `passive`, and the handshake's round trip in
    /// milliseconds. The peer offers what we do.
    pub(crate) fn opening(&self, text: &str) -> Result<Vec<String>, String> {
        let (role, rtt) = text
            .split_once(' ')
            .ok_or("`open` takes a role and `rtt=`")?;
        let rtt = rtt.strip_prefix("rtt=").ok_or("`open` needs `rtt=`")?;
        let rtt_millis = u32::try_from(millis(rtt)?.as_millis()).map_err(|_| "too long")?;
        let (iss, irs, win, mss) = (self.iss, self.irs, self.window, self.mss);
        let (una, nxt) = (iss.wrapping_add(1), irs.wrapping_add(1));
        let mut options = format!("win {win} mss {mss}");
        if self.sack {
            options.push_str(" sackok");
        }
        if self.window_scaling {
            let _ = write!(options, " wscale {}", self.peer_shift);
        }
        // The peer's clock shows 1000 at time 0.
        let stamp = |tsval: u32, tsecr: u32| {
            if self.timestamps {
                format!(" ts {tsval}/{tsecr}")
            } else {
                String::new()
            }
        };
        let (syn, syn_ack) = if self.ecn {
            ("SYN,ECE,CWR", "SYN,ACK,ECE")
        } else {
            ("SYN", "SYN,ACK")
        };
        match role {
            "active" => Ok(vec![
                "0 connect".into(),
                format!("0 > {syn} {iss}"),
                format!(
                    "{rtt} < {syn_ack} {irs} ack {una} {options}{}",
                    stamp(1_000 + rtt_millis, 0)
                ),
                format!("{rtt} > ACK {una} ack {nxt}"),
            ]),
            "passive" => Ok(vec![
                "0 listen".into(),
                format!("0 < {syn} {irs} {options}{}", stamp(1_000, 0)),
                format!("0 > {syn_ack} {iss} ack {nxt}"),
                format!(
                    "{rtt} < ACK {nxt} ack {una}{}",
                    stamp(1_000 + rtt_millis, 0)
                ),
            ]),
            _ => Err(format!("`{role}` is neither `active` nor `passive`")),
        }
    }
}
