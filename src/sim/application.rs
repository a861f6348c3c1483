//! `Application`: what a program does with one connection in the simulated world.
//!
//! It writes a known stream in random chunks, reads another and compares, pauses at times, and ends.
//! It does nothing but what an event allows: after `Blocked` it waits for the event that says that it
//! is worth trying again, so that a missing event shows as a connection that never ends.

#![allow(
    unreachable_pub,
    clippy::exhaustive_enums,
    clippy::exhaustive_structs,
    reason = "public only within `internals`, which some builds leave out and semver does not bind"
)]

use std::time::Duration;

use bytes::Bytes;

use crate::connection::{Connection, Event, ReadError, WriteError};
use crate::error::ConnectionError;
use crate::sim::rng::Rng;
use crate::timestamp::Timestamp;

/// Length of a stream's random part; prime, so that no block or segment size divides it.
const PATTERN: usize = 4_093;

/// The bytes of one direction: random, and different after every repetition.
#[derive(Clone)]
struct Pattern {
    block: Vec<u8>,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        let mut block = vec![0; PATTERN];
        Rng::new(seed).fill(&mut block);
        Self { block }
    }

    /// Returns the byte at a position.
    fn at(&self, position: u64) -> u8 {
        let len = PATTERN as u64;
        let index = usize::try_from(position % len).unwrap_or(0);
        let round = (position / len).to_le_bytes()[0];
        self.block[index] ^ round
    }

    /// Returns the bytes from a position on.
    fn bytes(&self, position: u64, len: usize) -> Vec<u8> {
        (position..).take(len).map(|i| self.at(i)).collect()
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pattern")
    }
}

/// How an application ends once it has written everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Sends FIN and waits until it is acknowledged and the peer's has come.
    Wait,
    /// Sends FIN, waits for the peer's and goes away.
    Leave,
    /// Goes away when the peer's FIN has come, without one of its own: the drop policy's turn.
    Drop,
}

/// What an application is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Bytes to write.
    pub bytes: u64,
    /// When it begins to write; it reads from the beginning.
    pub start: Timestamp,
    /// Bytes per write at most, at least 1.
    pub write_chunk: usize,
    /// Bytes per read at most, at least 1.
    pub read_chunk: usize,
    /// Probability of a pause after a read or write; there are 20 of either at most.
    pub stall: f64,
    /// Length of a pause at most.
    pub longest_stall: Duration,
    /// How it ends.
    pub ending: Ending,
}

impl Plan {
    /// Writes `bytes` at once, reads at once, and waits for the end.
    pub fn simple(bytes: u64) -> Self {
        Self {
            bytes,
            start: Timestamp::ZERO,
            write_chunk: 16 * 1024,
            read_chunk: 16 * 1024,
            stall: 0.0,
            longest_stall: Duration::ZERO,
            ending: Ending::Wait,
        }
    }

    /// Draws a plan for up to `most` bytes.
    pub fn random(rng: &mut Rng, most: u64) -> Self {
        let chunk = |rng: &mut Rng| 1 << rng.index(15);
        let ending = match rng.below(4) {
            0 => Ending::Leave,
            1 => Ending::Drop,
            _ => Ending::Wait,
        };
        Self {
            bytes: if rng.chance(0.1) {
                0
            } else {
                rng.range(0..=most)
            },
            start: Timestamp::ZERO
                + if rng.chance(0.2) {
                    rng.duration(Duration::from_secs(20))
                } else {
                    Duration::ZERO
                },
            write_chunk: chunk(rng),
            read_chunk: chunk(rng),
            stall: if rng.chance(0.5) { 0.02 } else { 0.0 },
            longest_stall: rng.duration(Duration::from_secs(3)),
            ending,
        }
    }
}

/// Whether a program may write, or read.
#[derive(Debug)]
struct Half {
    /// Nothing said since that it would be blocked.
    is_open: bool,
    /// It pauses until then.
    from: Timestamp,
    /// It has sent FIN, or seen the end of the stream.
    is_done: bool,
    pauses_left: u32,
}

impl Half {
    fn new(from: Timestamp) -> Self {
        Self {
            is_open: true,
            from,
            is_done: false,
            pauses_left: 20,
        }
    }

    /// Pauses for that long.
    fn pause(&mut self, now: Timestamp, length: Duration) {
        if self.pauses_left > 0 && !length.is_zero() {
            self.pauses_left -= 1;
            self.from = now + length;
        }
    }

    fn is_ready(&self, now: Timestamp) -> bool {
        self.is_open && !self.is_done && self.from <= now
    }

    /// Returns when a pause ends that is all that it waits for.
    fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        (self.is_open && !self.is_done && self.from > now).then_some(self.from)
    }
}

/// A program on one end of a connection.
///
/// Invariants: what was read is exactly the first `read` bytes of the peer's stream, and never more
/// than the peer was to write.
#[derive(Debug)]
pub struct Application {
    plan: Plan,
    expected: u64,
    rng: Rng,
    outbound: Pattern,
    inbound: Pattern,
    written: u64,
    read: u64,
    writing: Half,
    reading: Half,
    is_acknowledged: bool,
    error: Option<ConnectionError>,
    has_left: bool,
}

impl Application {
    /// Makes one that follows `plan` while the peer follows `peer`; both ends of a connection agree on
    /// `content` and differ in `is_first`.
    pub fn new(plan: Plan, peer: &Plan, content: u64, is_first: bool) -> Self {
        let (ours, theirs) = if is_first { (1, 2) } else { (2, 1) };
        let mix = |stream| Rng::stream(content, stream).next_u64();
        Self {
            expected: peer.bytes,
            rng: Rng::stream(content, ours + 2),
            outbound: Pattern::new(mix(ours)),
            inbound: Pattern::new(mix(theirs)),
            written: 0,
            read: 0,
            writing: Half::new(plan.start),
            reading: Half::new(Timestamp::ZERO),
            is_acknowledged: false,
            error: None,
            has_left: false,
            plan,
        }
    }

    /// Returns why the connection ended, if not in order.
    pub fn error(&self) -> Option<&ConnectionError> {
        self.error.as_ref()
    }

    /// Returns how many bytes were read, all of them right.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Tells whether it is done with its connection and wants to release it.
    pub fn wants_release(&self) -> bool {
        if self.has_left {
            return false;
        }
        let all_written = self.written == self.plan.bytes;
        self.error.is_some()
            || self.reading.is_done
                && all_written
                && match self.plan.ending {
                    Ending::Wait => self.is_acknowledged,
                    Ending::Leave => self.writing.is_done,
                    Ending::Drop => true,
                }
    }

    /// Notes that its connection was released.
    pub fn on_released(&mut self) {
        self.has_left = true;
    }

    /// Tells whether [`run`](Self::run) would do anything.
    pub fn wants_to_run(&self, now: Timestamp) -> bool {
        let is_ready = self.writing.is_ready(now) || self.reading.is_ready(now);
        !self.has_left && self.error.is_none() && is_ready
    }

    /// Returns when it wants to run although nothing happens.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.has_left || self.error.is_some() {
            return None;
        }
        let wakes = [self.writing.wakes_at(now), self.reading.wakes_at(now)];
        wakes.into_iter().flatten().min()
    }

    /// Describes why the connection ended, if not in order.
    pub fn failure(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        Some(format!("{error} ({self})"))
    }

    /// Says what is missing.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn check_finished(&self) -> Result<(), String> {
        if let Some(what) = self.failure() {
            return Err(what);
        }
        if !self.has_left || self.read != self.expected {
            return Err(format!("unfinished: {self}"));
        }
        Ok(())
    }

    /// Takes in what the connection reports.
    ///
    /// # Errors
    ///
    /// What does not fit to what was done.
    pub fn on_event(&mut self, event: Event, connection: &Connection) -> Result<(), String> {
        match event {
            Event::Connected => {
                self.reading.is_open = true;
                self.writing.is_open = true;
            }
            Event::Readable => self.reading.is_open = true,
            Event::Writable => self.writing.is_open = true,
            Event::Finished => {
                self.is_acknowledged = true;
                if connection.finish_status() != Ok(true) {
                    return Err(format!("finished, but {:?}", connection.finish_status()));
                }
            }
            Event::Closed => {
                self.reading.is_open = true;
                self.writing.is_open = true;
                self.error = connection.error().cloned();
            }
        }
        Ok(())
    }

    /// Does what can be done now.
    ///
    /// # Errors
    ///
    /// What it saw and should not have.
    pub fn run(&mut self, now: Timestamp, connection: &mut Connection) -> Result<(), String> {
        while self.writing.is_ready(now) {
            self.write_once(now, connection)?;
        }
        while self.reading.is_ready(now) {
            self.read_once(now, connection)?;
        }
        Ok(())
    }

    fn write_once(&mut self, now: Timestamp, connection: &mut Connection) -> Result<(), String> {
        let left = self.plan.bytes - self.written;
        if left == 0 {
            if self.plan.ending == Ending::Drop {
                // What Nagle holds back has to go before the peer ends its side.
                connection.flush(now);
                self.writing.is_open = false;
                return Ok(());
            }
            self.writing.is_done = true;
            connection
                .finish(now)
                .map_err(|error| format!("finish: {error:?}"))?;
            let late = connection.write(now, b"late");
            if !matches!(late, Err(WriteError::Finished | WriteError::Closed(_))) {
                return Err(format!("write after finish: {late:?}"));
            }
            return Ok(());
        }
        let wanted = 1 + self.rng.index(self.plan.write_chunk);
        let len = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        let data = self.outbound.bytes(self.written, len);
        let result = if self.rng.chance(0.5) {
            connection.write(now, &data)
        } else {
            let mut chunk = Bytes::from(data);
            let result = connection.write_chunk(now, &mut chunk);
            let taken = result.as_ref().ok().copied().unwrap_or(0);
            if taken + chunk.len() != len {
                return Err(format!("{taken} of {len} taken, {} left", chunk.len()));
            }
            result
        };
        match result {
            Ok(taken) if (1..=len).contains(&taken) => {
                self.written += taken as u64;
                if self.rng.chance(0.05) {
                    connection.flush(now);
                }
                let length = self.draw_pause();
                self.writing.pause(now, length);
                Ok(())
            }
            Err(WriteError::Blocked) => {
                self.writing.is_open = false;
                Ok(())
            }
            Err(WriteError::Closed(error)) => {
                self.error = Some(error);
                self.writing.is_open = false;
                Ok(())
            }
            other => Err(format!("write of {len} bytes: {other:?}")),
        }
    }

    fn read_once(&mut self, now: Timestamp, connection: &mut Connection) -> Result<(), String> {
        let most = 1 + self.rng.index(self.plan.read_chunk);
        let mut buf = vec![0; most];
        if self.rng.chance(0.1)
            && let Ok(peeked) = connection.peek(&mut buf)
        {
            self.compare(&buf[..peeked])?;
        }
        let result = if self.rng.chance(0.5) {
            connection.read(now, &mut buf).map(|len| {
                buf.truncate(len);
                buf
            })
        } else {
            read_chunks(now, connection, most)
        };
        match result {
            Ok(data) if data.is_empty() => {
                self.reading.is_done = true;
                if self.read != self.expected {
                    return Err(format!("end of stream: {self}"));
                }
                Ok(())
            }
            Ok(data) if data.len() <= most => {
                self.compare(&data)?;
                self.read += data.len() as u64;
                let length = self.draw_pause();
                self.reading.pause(now, length);
                Ok(())
            }
            Err(ReadError::Blocked) => {
                self.reading.is_open = false;
                Ok(())
            }
            Err(ReadError::Closed(error)) => {
                self.error = Some(error);
                self.reading.is_open = false;
                Ok(())
            }
            Ok(data) => Err(format!("read {} bytes instead of {most}", data.len())),
        }
    }

    /// Compares bytes that come next with what the peer was to write.
    fn compare(&self, data: &[u8]) -> Result<(), String> {
        let wrong = (self.read..)
            .zip(data)
            .find(|&(position, &byte)| self.inbound.at(position) != byte);
        if let Some((position, _)) = wrong {
            return Err(format!("wrong byte at {position}: {self}"));
        }
        if self.read + data.len() as u64 > self.expected {
            return Err(format!("{} bytes too many: {self}", data.len()));
        }
        Ok(())
    }

    fn draw_pause(&mut self) -> Duration {
        if self.rng.chance(self.plan.stall) {
            return self.rng.duration(self.plan.longest_stall);
        }
        Duration::ZERO
    }
}

/// Reads up to `most` bytes by chunks; where one chunk ends depends on where things lie in memory, and
/// must not decide what a seed does.
fn read_chunks(
    now: Timestamp,
    connection: &mut Connection,
    most: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut data = Vec::new();
    while data.len() < most {
        match connection.read_chunk(now, most - data.len()) {
            Ok(Some(chunk)) => data.extend_from_slice(&chunk),
            Err(error) if data.is_empty() => return Err(error),
            Ok(None) | Err(_) => break,
        }
    }
    Ok(data)
}

impl std::fmt::Display for Application {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            plan,
            expected,
            written,
            read,
            ..
        } = self;
        write!(
            f,
            "wrote {written} of {}, read {read} of {expected}",
            plan.bytes
        )?;
        for (name, flag) in [
            ("blocked writing", !self.writing.is_open),
            ("blocked reading", !self.reading.is_open),
            ("finished", self.writing.is_done),
            ("acknowledged", self.is_acknowledged),
            ("end of stream", self.reading.is_done),
            ("left", self.has_left),
        ] {
            if flag {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}
