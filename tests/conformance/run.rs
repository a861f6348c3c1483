//! Runs a case: one endpoint against a scripted peer, in virtual time.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::internals::wire::{
    Flags, Header, Integrity, Options, SackBlock, SackBlocks, Segment, SeqNumber, Timestamps, seal,
};
use reliable_udp::internals::{
    Arrival, Connection, ConnectionId, Endpoint, EndpointEvent, ReadError,
};
use reliable_udp::{Config, Ecn, Timestamp};

use super::observe;
use super::parse::{Action, Case, Line, Spec};
use super::world::{CLIENT, SERVICE, endpoint, origin, pattern, peer};

/// More numbers than any case's connection takes.
const CONNECTION_SPAN: u32 = 65_536;
/// More expiries than any case has without a line between them.
const MAX_EXPIRIES: usize = 10_000;

/// Why a case failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Line of the table.
    pub(crate) number: usize,
    /// What was expected, and what happened.
    pub(crate) what: String,
    /// The case with everything that happened.
    pub(crate) trace: String,
}

/// A segment that we sent, in the numbers of the table.
#[derive(Debug)]
struct Sent {
    at: Duration,
    header: Header,
    len: u32,
    mark: Option<Ecn>,
}

/// Runs a case to its end; after a failure goes on without judging, for the trace.
pub(crate) fn run(case: &Case) -> Result<(), Failure> {
    let config = match case.config() {
        Ok(config) => config,
        Err(what) => {
            let trace = String::new();
            return Err(Failure {
                number: case.number,
                what,
                trace,
            });
        }
    };
    let mut machine = Machine::new(case, &config);
    let mut failure = None;
    for line in &case.lines {
        let verdict = machine.step(line);
        machine.note(format_args!("   {}: {}", line.number, line.text));
        if let Err(what) = verdict
            && failure.is_none()
        {
            machine.note(format_args!("   ^ {what}"));
            failure = Some((line.number, what));
        }
        machine.is_judging = failure.is_none();
    }
    if failure.is_none()
        && let Err(what) = machine.nothing_unlisted()
    {
        failure = Some((
            case.lines.last().map_or(case.number, |line| line.number),
            what,
        ));
    }
    match failure {
        None => Ok(()),
        Some((number, what)) => Err(Failure {
            number,
            what,
            trace: machine.trace,
        }),
    }
}

/// The endpoint, the clock, and what the peer and the applications have done.
struct Machine<'a> {
    case: &'a Case,
    origin: Timestamp,
    now: Timestamp,
    endpoint: Endpoint,
    id: Option<ConnectionId>,
    sent: VecDeque<Sent>,
    trace: String,
    /// Until the first failure.
    is_judging: bool,
    /// The number of the connection's SYN, and of that of the connection before.
    our_syn: Option<SeqNumber>,
    previous_syn: Option<SeqNumber>,
    /// What the endpoint's numbers are ahead of the table's, once its SYN was seen.
    seq_ahead: u32,
    tsval_ahead: u32,
    local_port: u16,
    peer_port: u16,
    written: u32,
    read: u32,
}

impl<'a> Machine<'a> {
    fn new(case: &'a Case, config: &Config) -> Self {
        let is_passive = case.lines.iter().any(|line| line.action == Action::Listen);
        let origin = origin(case.settings.iss, is_passive);
        let mut machine = Self {
            case,
            origin,
            now: origin,
            endpoint: endpoint(origin, config),
            id: None,
            sent: VecDeque::new(),
            trace: String::new(),
            is_judging: true,
            our_syn: None,
            previous_syn: None,
            seq_ahead: 0,
            tsval_ahead: 0,
            local_port: SERVICE,
            peer_port: if is_passive { CLIENT } else { SERVICE },
            written: 0,
            read: 0,
        };
        machine.note(format_args!("case {}", case.title));
        machine
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.trace, "{what}");
    }

    /// Time since the case began.
    fn elapsed(&self) -> Duration {
        self.now.saturating_since(self.origin)
    }

    fn step(&mut self, line: &Line) -> Result<(), String> {
        self.advance(self.origin + line.at)?;
        if !matches!(line.action, Action::Sends(_)) {
            self.nothing_unlisted()?;
        }
        match &line.action {
            Action::Sends(specs) => specs
                .iter()
                .try_for_each(|spec| self.expect_sent(line.at, spec)),
            Action::Arrives(specs) => specs.iter().try_for_each(|spec| {
                self.inject(&self.encode(spec), 0, spec.mark.value());
                self.drain()
            }),
            Action::ArriveTogether(specs) => {
                let train: Vec<Bytes> = specs.iter().map(|spec| self.encode(spec)).collect();
                let stride = train.first().map_or(0, Bytes::len);
                let mark = specs.first().and_then(|spec| spec.mark.value());
                self.inject(&Bytes::from(train.concat()), stride, mark);
                self.drain()
            }
            Action::Expect(pairs) => pairs.iter().try_for_each(|(key, value)| {
                let seen = self.observe(key)?;
                if seen == *value {
                    Ok(())
                } else {
                    Err(format!("expected {key} {value}, is {seen}"))
                }
            }),
            Action::Quiet => Ok(()),
            Action::Connect | Action::Listen | Action::Unreachable => {
                self.command_endpoint(&line.action)?;
                self.drain()
            }
            Action::Write(_)
            | Action::Read(_)
            | Action::Eof
            | Action::Close
            | Action::Abort
            | Action::Release
            | Action::Flush
            | Action::NoDelay(_) => {
                self.command(&line.action)?;
                self.drain()
            }
        }
    }

    /// Lets each timer fire at its own time.
    fn advance(&mut self, until: Timestamp) -> Result<(), String> {
        for _ in 0..MAX_EXPIRIES {
            let Some(deadline) = self.endpoint.poll_timeout().filter(|at| *at <= until) else {
                self.now = self.now.max(until);
                return Ok(());
            };
            self.now = self.now.max(deadline);
            self.endpoint.handle_timeout(self.now);
            self.drain()?;
        }
        Err("timers fire without end".into())
    }

    /// Takes what the endpoint sends, and accepts what its listener has got.
    fn drain(&mut self) -> Result<(), String> {
        let mut buf = vec![0; 65_536];
        while let Some(departure) = self.endpoint.poll_transmit(self.now, 64, &mut buf) {
            for bytes in buf[..departure.len].chunks(departure.segment_size) {
                self.take_sent(bytes, departure.ecn)?;
            }
        }
        while let Some(event) = self.endpoint.poll_event() {
            if let EndpointEvent::Incoming { port } = event {
                self.id = self.endpoint.accept(port).map(|(id, _)| id).or(self.id);
            }
        }
        self.endpoint.check_invariants();
        Ok(())
    }

    fn take_sent(&mut self, bytes: &[u8], mark: Option<Ecn>) -> Result<(), String> {
        let segment = Segment::decode(bytes).map_err(|error| error.to_string())?;
        if segment.integrity().is_none() {
            return Err("a segment without a valid check".into());
        }
        let mut header = segment.header;
        if header.flags.contains(Flags::SYN) {
            self.local_port = header.src_port;
            self.peer_port = header.dst_port;
            if self.our_syn != Some(header.seq) {
                self.previous_syn = self.our_syn.replace(header.seq);
                self.learn(&header);
            }
        }
        // A reset for nobody's segment has no number of ours (RFC 9293 §3.10.7.1).
        let is_foreign = header.flags == Flags::RST | Flags::ACK && header.seq == SeqNumber::new(0);
        if !is_foreign {
            header.seq = SeqNumber::new(header.seq.get().wrapping_sub(self.seq_ahead));
        }
        if let Some(timestamps) = &mut header.options.timestamps {
            timestamps.tsval = timestamps.tsval.wrapping_sub(self.tsval_ahead);
        }
        let first = header
            .seq
            .distance_from(SeqNumber::new(self.case.settings.iss + 1));
        let len = u32::try_from(segment.payload.len()).map_err(|error| error.to_string())?;
        let is_intact = segment
            .payload
            .iter()
            .zip(first..)
            .all(|(byte, at)| *byte == pattern(at));
        let sent = Sent {
            at: self.elapsed(),
            header,
            len,
            mark,
        };
        self.note(format_args!("{}", show(&sent)));
        self.sent.push_back(sent);
        if is_intact {
            Ok(())
        } else {
            Err("other bytes than were written".into())
        }
    }

    /// Learns from the first SYN of a connection how its numbers and the table's differ.
    fn learn(&mut self, syn: &Header) {
        self.seq_ahead = syn
            .seq
            .distance_from(SeqNumber::new(self.case.settings.iss));
        if let Some(timestamps) = syn.options.timestamps {
            self.tsval_ahead = timestamps.tsval.wrapping_sub(self.clock());
        }
    }

    /// Our timestamp clock as the table has it.
    fn clock(&self) -> u32 {
        u32::try_from(self.elapsed().as_millis() & 0xffff_ffff).unwrap_or_default()
    }

    fn nothing_unlisted(&mut self) -> Result<(), String> {
        if !self.is_judging {
            self.sent.clear();
        }
        match self.sent.pop_front() {
            None => Ok(()),
            Some(sent) => Err(format!("not listed: {}", show(&sent))),
        }
    }

    fn expect_sent(&mut self, at: Duration, spec: &Spec) -> Result<(), String> {
        let sent = self.sent.pop_front().ok_or("nothing was sent")?;
        let mut wrong = Vec::new();
        let header = &sent.header;
        let mut check = |name: &str, expected: String, seen: String| {
            if expected != seen {
                wrong.push(format!("{name} {expected}, is {seen}"));
            }
        };
        check("time", observe::time(at), observe::time(sent.at));
        check("flags", spec.flags.to_string(), header.flags.to_string());
        check("seq", spec.seq.to_string(), header.seq.to_string());
        check("length", spec.len.to_string(), sent.len.to_string());
        if let Some(ack) = spec.ack {
            check("ack", ack.to_string(), header.ack.to_string());
        }
        if let Some(window) = spec.window {
            check("win", window.to_string(), header.window.to_string());
        }
        let options = &header.options;
        let blocks = options.sack_blocks.iter();
        let blocks: Vec<_> = blocks
            .map(|block| (block.left.get(), block.right.get()))
            .collect();
        check("sack", format!("{:?}", spec.sack), format!("{blocks:?}"));
        let seen = options.timestamps.map(|ts| (ts.tsval, ts.tsecr));
        if spec.timestamps.is_unlike(seen.as_ref()) {
            check("ts", format!("{:?}", spec.timestamps), format!("{seen:?}"));
        }
        if spec.mark.is_unlike(sent.mark.as_ref()) {
            let seen = format!("{:?}", sent.mark);
            check("mark", format!("{:?}", spec.mark), seen);
        }
        if spec.mss.is_unlike(options.mss.as_ref()) {
            check(
                "mss",
                format!("{:?}", spec.mss),
                format!("{:?}", options.mss),
            );
        }
        if spec.window_scale.is_unlike(options.window_scale.as_ref()) {
            let seen = format!("{:?}", options.window_scale);
            check("wscale", format!("{:?}", spec.window_scale), seen);
        }
        if let Some(expected) = spec.sack_permitted {
            check(
                "sackok",
                expected.to_string(),
                options.sack_permitted.to_string(),
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("expected {}", wrong.join("; ")))
        }
    }

    fn inject(&mut self, datagrams: &Bytes, stride: usize, mark: Option<Ecn>) {
        let arrival = Arrival {
            remote: peer(),
            local_ip: None,
            ecn: mark,
            bytes: datagrams,
            stride,
        };
        self.endpoint.handle_arrival(self.now, &arrival);
    }

    fn encode(&self, spec: &Spec) -> Bytes {
        let ours = |seq: u32| SeqNumber::new(seq.wrapping_add(self.seq_ahead));
        let mut options = Options {
            mss: spec.mss.value(),
            window_scale: spec.window_scale.value(),
            sack_permitted: spec.sack_permitted.unwrap_or_default(),
            sack_blocks: SackBlocks::new(),
            ..Options::default()
        };
        for &(left, right) in &spec.sack {
            options.sack_blocks.push(SackBlock {
                left: ours(left),
                right: ours(right),
            });
        }
        options.timestamps = spec.timestamps.value().map(|(tsval, tsecr)| Timestamps {
            tsval,
            tsecr: if spec.ack.is_some() {
                tsecr.wrapping_add(self.tsval_ahead)
            } else {
                tsecr
            },
        });
        let header = Header {
            src_port: self.peer_port,
            dst_port: self.local_port,
            seq: SeqNumber::new(spec.seq),
            ack: spec.ack.map(ours).unwrap_or_default(),
            flags: spec.flags,
            window: spec.window.unwrap_or(self.case.settings.window),
            options,
        };
        let mut bytes = vec![0; header.encoded_len()];
        header.encode(&mut bytes).unwrap();
        if let Some(urgent) = spec.urgent {
            bytes[18..20].copy_from_slice(&urgent.to_be_bytes());
        }
        // Text begins behind the SYN's number.
        let text = spec
            .seq
            .wrapping_add(u32::from(spec.flags.contains(Flags::SYN)));
        let first = text.wrapping_sub(self.case.settings.irs.wrapping_add(1));
        bytes.extend((0..spec.len).map(|at| pattern(first.wrapping_add(at))));
        seal(&mut bytes, Integrity::Sum);
        Bytes::from(bytes)
    }

    fn command_endpoint(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Connect => {
                let opened = self.endpoint.connect(self.now, peer(), SERVICE, None);
                self.id = Some(opened.map_err(|error| error.to_string())?);
                Ok(())
            }
            Action::Listen => self
                .endpoint
                .listen(SERVICE, None)
                .map_err(|error| error.to_string()),
            _ => {
                let header = Header {
                    src_port: self.local_port,
                    dst_port: self.peer_port,
                    seq: SeqNumber::new(self.case.settings.iss.wrapping_add(self.seq_ahead)),
                    ..Header::default()
                };
                let mut quoted = vec![0; header.encoded_len()];
                header.encode(&mut quoted);
                self.endpoint.handle_unreachable(self.now, peer(), &quoted);
                Ok(())
            }
        }
    }

    /// Runs a command of the application.
    fn command(&mut self, action: &Action) -> Result<(), String> {
        let id = self.id.ok_or("there is no connection")?;
        if *action == Action::Release {
            self.endpoint.release(self.now, id);
            return Ok(());
        }
        let (now, written, read) = (self.now, &mut self.written, &mut self.read);
        let done = self
            .endpoint
            .with_connection(now, id, |connection| match *action {
                Action::Write(len) => write(connection, now, written, len),
                Action::Read(len) => take(connection, now, read, len),
                Action::Eof => match connection.read(now, &mut [0; 1]) {
                    Ok(0) => Ok(()),
                    other => Err(format!("expected the end of the stream, is {other:?}")),
                },
                Action::Close => connection.finish(now).map_err(|error| format!("{error:?}")),
                Action::Abort => {
                    connection.abort(now);
                    Ok(())
                }
                Action::Flush => {
                    connection.flush(now);
                    Ok(())
                }
                Action::NoDelay(nodelay) => {
                    connection.set_nodelay(now, nodelay);
                    Ok(())
                }
                _ => Err("not a command".into()),
            });
        done.ok_or("the connection was released")?
    }

    fn observe(&self, key: &str) -> Result<String, String> {
        if key == "iss" {
            return match (self.our_syn, self.previous_syn) {
                (Some(new), Some(old)) if new.follows(old + CONNECTION_SPAN) => Ok("later".into()),
                (Some(_), Some(_)) => Ok("earlier".into()),
                _ => Err("there were no two connections".into()),
            };
        }
        let held = self.id.and_then(|id| self.endpoint.connection(id));
        let connection = held.or_else(|| self.endpoint.connections().next());
        observe::observe(key, &self.endpoint, connection, self.origin)
    }
}

fn write(
    connection: &mut Connection,
    now: Timestamp,
    at: &mut u32,
    len: usize,
) -> Result<(), String> {
    let data: Vec<u8> = (*at..).take(len).map(pattern).collect();
    let taken = connection
        .write(now, &data)
        .map_err(|error| format!("{error:?}"))?;
    *at += u32::try_from(taken).unwrap_or_default();
    if taken == len {
        Ok(())
    } else {
        Err(format!("only {taken} bytes were taken"))
    }
}

fn take(
    connection: &mut Connection,
    now: Timestamp,
    at: &mut u32,
    len: usize,
) -> Result<(), String> {
    let mut data = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match connection.read(now, &mut data[filled..]) {
            Ok(0) => return Err(format!("the stream ended after {filled} bytes")),
            Ok(read) => filled += read,
            Err(ReadError::Blocked) => return Err(format!("only {filled} bytes can be read")),
            Err(error) => return Err(format!("{error:?} after {filled} bytes")),
        }
    }
    let is_intact = data
        .iter()
        .zip(*at..)
        .all(|(byte, at)| *byte == pattern(at));
    *at += u32::try_from(len).unwrap_or_default();
    if is_intact {
        Ok(())
    } else {
        Err("other bytes than were sent".into())
    }
}

/// Writes a segment as a table would.
fn show(sent: &Sent) -> String {
    let header = &sent.header;
    let names = [
        (Flags::SYN, "SYN"),
        (Flags::FIN, "FIN"),
        (Flags::RST, "RST"),
        (Flags::PSH, "PSH"),
        (Flags::ACK, "ACK"),
        (Flags::URG, "URG"),
        (Flags::ECE, "ECE"),
        (Flags::CWR, "CWR"),
    ];
    let names: Vec<&str> = (names.iter())
        .filter_map(|(flag, name)| header.flags.contains(*flag).then_some(*name))
        .collect();
    let mut text = format!(
        "{} > {} {}",
        observe::time(sent.at),
        names.join(","),
        header.seq
    );
    if sent.len > 0 {
        let _ = write!(text, ":{}", header.seq + sent.len);
    }
    if header.flags.contains(Flags::ACK) {
        let _ = write!(text, " ack {}", header.ack);
    }
    let _ = write!(text, " win {}", header.window);
    let options = &header.options;
    for (index, block) in options.sack_blocks.iter().enumerate() {
        let before = if index == 0 { " sack " } else { "," };
        let _ = write!(text, "{before}{}:{}", block.left, block.right);
    }
    if let Some(Timestamps { tsval, tsecr }) = options.timestamps {
        let _ = write!(text, " ts {tsval}/{tsecr}");
    }
    if let Some(mss) = options.mss {
        let _ = write!(text, " mss {mss}");
    }
    if let Some(shift) = options.window_scale {
        let _ = write!(text, " wscale {shift}");
    }
    if options.sack_permitted {
        text.push_str(" sackok");
    }
    if sent.mark.is_some() {
        text.push_str(" ect");
    }
    text
}
