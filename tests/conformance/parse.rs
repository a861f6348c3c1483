//! Reads tables. What is wrong in one is reported with its line.

use std::time::Duration;

use reliable_udp::internals::wire::Flags;
use reliable_udp::{Config, Ecn};

use super::settings::Settings;

/// One case of a table.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Line of its heading.
    pub(crate) number: usize,
    /// RFC, section and sentence.
    pub(crate) title: String,
    /// Why it cannot pass yet.
    pub(crate) pending: Option<String>,
    /// What was configured.
    pub(crate) settings: Settings,
    /// What happens, in order.
    pub(crate) lines: Vec<Line>,
}

/// One line of a case.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its number in the table.
    pub(crate) number: usize,
    /// When.
    pub(crate) at: Duration,
    /// What.
    pub(crate) action: Action,
    /// As it stands in the table.
    pub(crate) text: String,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// `>`: we send this.
    Sends(Vec<Spec>),
    /// `<`: the peer's segment arrives.
    Arrives(Vec<Spec>),
    /// `<<`: these arrive as one train of datagrams.
    ArriveTogether(Vec<Spec>),
    /// `expect`: pairs of a name and a value.
    Expect(Vec<(String, String)>),
    /// `quiet`: nothing is sent until now.
    Quiet,
    /// Opens a connection.
    Connect,
    /// Begins to listen; what comes in is accepted.
    Listen,
    /// The application writes so many bytes.
    Write(usize),
    /// The application reads exactly so many bytes.
    Read(usize),
    /// The application reads the end of the stream.
    Eof,
    /// The application finishes sending (CLOSE of RFC 9293 §3.10.4).
    Close,
    /// ABORT of RFC 9293 §3.10.5.
    Abort,
    /// The application drops its socket.
    Release,
    /// Pushes out what Nagle's algorithm holds back.
    Flush,
    /// Turns Nagle's algorithm off or on.
    NoDelay(bool),
    /// An ICMP error about our first segment.
    Unreachable,
}

/// An option that a table may name, or say to be absent, or leave open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Field<T> {
    /// Not listed: not compared.
    #[default]
    Unlisted,
    /// Listed as absent.
    Absent,
    /// Listed.
    Is(T),
}

impl<T> Field<T> {
    /// Says whether a departing segment carries something else than is listed.
    pub(crate) fn is_unlike(&self, seen: Option<&T>) -> bool
    where
        T: PartialEq,
    {
        match self {
            Self::Unlisted => false,
            Self::Absent => seen.is_some(),
            Self::Is(value) => seen != Some(value),
        }
    }

    /// What an arriving segment carries.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Unlisted | Self::Absent => None,
            Self::Is(value) => Some(value),
        }
    }
}

/// A segment as a table writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    /// The control bits.
    pub(crate) flags: Flags,
    /// The sequence number.
    pub(crate) seq: u32,
    /// Payload bytes.
    pub(crate) len: u32,
    /// The acknowledgment number, with ACK.
    pub(crate) ack: Option<u32>,
    /// The window field as it stands in the segment.
    pub(crate) window: Option<u16>,
    /// SACK blocks, first to last.
    pub(crate) sack: Vec<(u32, u32)>,
    /// Timestamps option.
    pub(crate) timestamps: Field<(u32, u32)>,
    /// MSS option.
    pub(crate) mss: Field<u16>,
    /// Window scale option.
    pub(crate) window_scale: Field<u8>,
    /// SACK-permitted option.
    pub(crate) sack_permitted: Option<bool>,
    /// Urgent pointer.
    pub(crate) urgent: Option<u16>,
    /// The mark in the IP header.
    pub(crate) mark: Field<Ecn>,
}

/// Reads a whole table.
pub(crate) fn parse(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let number = index + 1;
        let line = raw.split('#').next().unwrap_or_default().trim();
        let fail = |what: String| format!("{file}:{number}: {what}: {}", raw.trim());
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match (word, cases.last_mut()) {
            ("", _) => {}
            ("case", _) => {
                // `#` is no comment here.
                let title = raw.trim().trim_start_matches("case").trim();
                if !title.starts_with("RFC ") || !title.contains(": ") {
                    return Err(fail("a case needs `RFC number section: sentence`".into()));
                }
                cases.push(Case {
                    number,
                    title: title.into(),
                    pending: None,
                    settings: Settings::default(),
                    lines: Vec::new(),
                });
            }
            (_, None) => return Err(fail("outside of a case".into())),
            ("pending", Some(case)) => case.pending = Some(rest.into()),
            ("config" | "open", Some(case)) if !case.lines.is_empty() => {
                return Err(fail(format!(
                    "`{word}` behind the first line of {}",
                    case.title
                )));
            }
            ("config", Some(case)) => {
                case.settings.apply(rest).map_err(fail)?;
            }
            ("open", Some(case)) => {
                let lines = case.settings.opening(rest).map_err(fail)?;
                for text in lines {
                    push(case, number, &text).map_err(fail)?;
                }
            }
            (_, Some(case)) => push(case, number, line).map_err(fail)?,
        }
    }
    for case in &cases {
        if case.lines.is_empty() {
            return Err(format!("{file}:{}: a case without lines", case.number));
        }
        let _ = case
            .config()
            .map_err(|error| format!("{file}:{}: {error}", case.number))?;
    }
    Ok(cases)
}

impl Case {
    /// The configuration.
    pub(crate) fn config(&self) -> Result<Config, String> {
        self.settings
            .builder
            .clone()
            .build()
            .map_err(|error| error.to_string())
    }
}

fn push(case: &mut Case, number: usize, line: &str) -> Result<(), String> {
    let (time, rest) = line
        .split_once(' ')
        .ok_or("a line needs a time and an action")?;
    let previous = case.lines.last().map(|line| line.at).unwrap_or_default();
    let at = match time.strip_prefix('+') {
        Some(step) => previous + millis(step)?,
        None => millis(time)?,
    };
    if at < previous {
        return Err("time runs backwards".into());
    }
    case.lines.push(Line {
        number,
        at,
        action: action(rest.trim())?,
        text: line.into(),
    });
    Ok(())
}

fn action(text: &str) -> Result<Action, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim();
    let bare = |action: Action| {
        if rest.is_empty() {
            Ok(action)
        } else {
            Err(format!("`{verb}` takes no argument"))
        }
    };
    match verb {
        ">" => Ok(Action::Sends(segments(rest)?)),
        "<" => Ok(Action::Arrives(segments(rest)?)),
        "<<" => Ok(Action::ArriveTogether(segments(rest)?)),
        "expect" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let (pairs, odd) = words.as_chunks::<2>();
            if pairs.is_empty() || !odd.is_empty() {
                return Err("`expect` takes pairs of name and value".into());
            }
            let pairs = pairs
                .iter()
                .map(|[key, value]| ((*key).into(), (*value).into()));
            Ok(Action::Expect(pairs.collect()))
        }
        "write" => Ok(Action::Write(number(rest)?)),
        "read" => Ok(Action::Read(number(rest)?)),
        "nodelay" => Ok(Action::NoDelay(switch(rest)?)),
        "quiet" => bare(Action::Quiet),
        "connect" => bare(Action::Connect),
        "listen" => bare(Action::Listen),
        "eof" => bare(Action::Eof),
        "close" => bare(Action::Close),
        "abort" => bare(Action::Abort),
        "release" => bare(Action::Release),
        "flush" => bare(Action::Flush),
        "unreachable" => bare(Action::Unreachable),
        _ => Err(format!("unknown action `{verb}`")),
    }
}

/// Reads the segments that a line stands for.
fn segments(text: &str) -> Result<Vec<Spec>, String> {
    let mut words = text.split_whitespace();
    let mut spec = Spec {
        flags: flags(words.next().ok_or("flags are missing")?)?,
        ..Spec::default()
    };
    let (seqs, step) = run(words.next().ok_or("the sequence number is missing")?, ':')?;
    let mut acks = None;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("`{word}` needs a value"));
        match word {
            "ack" => acks = Some(run(value()?, '-')?),
            "win" => spec.window = Some(number(value()?)?),
            "sack" => spec.sack = blocks(value()?)?,
            "ts" => spec.timestamps = Field::Is(pair(value()?, '/')?),
            "nots" => spec.timestamps = Field::Absent,
            "mss" => spec.mss = Field::Is(number(value()?)?),
            "nomss" => spec.mss = Field::Absent,
            "wscale" => spec.window_scale = Field::Is(number(value()?)?),
            "nowscale" => spec.window_scale = Field::Absent,
            "sackok" => spec.sack_permitted = Some(true),
            "nosackok" => spec.sack_permitted = Some(false),
            "urg" => spec.urgent = Some(number(value()?)?),
            "ect" => spec.mark = Field::Is(Ecn::Ect0),
            "ce" => spec.mark = Field::Is(Ecn::Ce),
            "unmarked" => spec.mark = Field::Absent,
            _ => return Err(format!("unknown field `{word}`")),
        }
    }
    if acks.is_some() != spec.flags.contains(Flags::ACK) {
        return Err("`ack` and the flag ACK go together".into());
    }
    expand(&spec, seqs, step, acks)
}

/// A number `a`, a range `a:b`, or a range in steps `a:b/step`; the separator differs.
type Run = ((u32, u32), Option<u32>);

fn run(text: &str, separator: char) -> Result<Run, String> {
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(number(step)?)),
        None => (text, None),
    };
    let bounds = match range.split_once(separator) {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    if step == Some(0) {
        return Err("a step of 0".into());
    }
    Ok((bounds, step))
}

/// Makes one segment of each step. Of a run the last one alone carries PSH and FIN.
fn expand(
    spec: &Spec,
    (first, end): (u32, u32),
    step: Option<u32>,
    acks: Option<Run>,
) -> Result<Vec<Spec>, String> {
    let total = end.wrapping_sub(first);
    if total >= 1 << 31 {
        return Err("the range runs backwards".into());
    }
    let step = step.unwrap_or(total).max(1);
    let by_seq = total.div_ceil(step).max(1);
    let (ack_first, ack_step, by_ack) = match acks {
        Some(((from, to), Some(step))) => (from, step, to.wrapping_sub(from) / step + 1),
        Some(((from, to), None)) if from == to => (from, 0, 1),
        Some(_) => return Err("a range of acknowledgments needs a step".into()),
        None => (0, 0, 1),
    };
    let count = by_seq.max(by_ack);
    if (by_seq != count && by_seq != 1) || (by_ack != count && by_ack != 1) {
        return Err(format!("{by_seq} segments and {by_ack} acknowledgments"));
    }
    let late = Flags::PSH | Flags::FIN;
    let early = Flags::from_bits(spec.flags.bits() & !late.bits());
    let segments = (0..count).map(|index| {
        let (offset, len) = if by_seq == 1 {
            (0, total)
        } else {
            (index * step, step.min(total - index * step))
        };
        Spec {
            flags: if index + 1 == count {
                spec.flags
            } else {
                early
            },
            seq: first.wrapping_add(offset),
            len,
            ack: acks.map(|_| ack_first.wrapping_add(index * ack_step)),
            ..spec.clone()
        }
    });
    Ok(segments.collect())
}

fn flags(text: &str) -> Result<Flags, String> {
    let mut flags = Flags::EMPTY;
    for name in text.split(',').filter(|name| *name != "none") {
        flags |= match name {
            "SYN" => Flags::SYN,
            "ACK" => Flags::ACK,
            "FIN" => Flags::FIN,
            "RST" => Flags::RST,
            "PSH" => Flags::PSH,
            "URG" => Flags::URG,
            "ECE" => Flags::ECE,
            "CWR" => Flags::CWR,
            _ => return Err(format!("unknown flag `{name}`")),
        };
    }
    Ok(flags)
}

fn blocks(text: &str) -> Result<Vec<(u32, u32)>, String> {
    text.split(',').map(|block| pair(block, ':')).collect()
}

fn pair(text: &str, separator: char) -> Result<(u32, u32), String> {
    let (left, right) = text
        .split_once(separator)
        .ok_or(format!("`{text}` needs a `{separator}`"))?;
    Ok((number(left)?, number(right)?))
}

/// Reads a number of any width.
pub(crate) fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no such number"))
}

/// Reads `on` or `off`.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is neither `on` nor `off`")),
    }
}

/// Reads milliseconds with up to six places behind the point.
pub(crate) fn millis(text: &str) -> Result<Duration, String> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let nanos: u64 = match places.len() {
        0..=6 => number(&format!("{places:0<6}"))?,
        _ => return Err(format!("`{text}` is finer than a nanosecond")),
    };
    let whole: u64 = number(whole)?;
    Ok(Duration::from_millis(whole) + Duration::from_nanos(nanos))
}
