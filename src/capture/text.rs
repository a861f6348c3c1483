//! `TextLog`: one line per segment, in the form of tcpdump.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::net::IpAddr;

use super::names::{Names, ends};
use super::recent::Recent;
use super::record::{SegmentError, SegmentRecord};
use crate::tap::Direction;
use crate::wire::{Flags, HEADER_LEN, Segment};

const DAY: u64 = 24 * 60 * 60;
const BILLION: u64 = 1_000_000_000;

/// Writes one line per segment as `tcpdump -n` would, had the segments been TCP over IP:
///
/// ```text
/// 12:34:56.789012 Out IP 127.0.0.1.51000 > 127.0.0.1.1: Flags [SEW], seq 439041101, win 65535, options [mss 65487,sackOK,TS val 1000 ecr 0,nop,wscale 9,reliable-udp v1 crc32c ack-delay 25ms], length 0
/// ```
///
/// Times are in UTC. Addresses are those that [`PcapngWriter`](super::PcapngWriter) shows, ports are virtual
/// ports. As with tcpdump, sequence numbers are absolute in SYNs, in the first segment with ACK that is seen
/// of a connection, and without ACK; all others are relative to it: the first byte is number 1. The window
/// is the field's value, not shifted.
///
/// Wrap files in a [`BufWriter`](std::io::BufWriter): there is one write per segment.
pub struct TextLog<W> {
    writer: W,
    names: Names,
    /// What sequence numbers are relative to, for both directions in the order of the key.
    bases: Recent<[(IpAddr, u16); 2], [u32; 2]>,
    line: String,
}

impl<W: Write> TextLog<W> {
    /// Begins a log.
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            names: Names::new(),
            bases: Recent::new(),
            line: String::new(),
        }
    }

    /// Writes the line of one segment. Its integrity is not checked: see
    /// [`check_segment`](super::check_segment).
    ///
    /// # Errors
    ///
    /// Those of the writer, and [`InvalidData`](io::ErrorKind::InvalidData) with a [`SegmentError`] for what
    /// is no segment; then nothing was written.
    pub fn write(&mut self, record: &SegmentRecord<'_>) -> io::Result<()> {
        self.line.clear();
        self.format(record)?
            .map_err(|fmt::Error| io::Error::other("formatting failed"))?;
        self.writer.write_all(self.line.as_bytes())
    }

    /// Hands on what the writer buffers.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Returns the writer, flushed.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.writer.flush()?;
        Ok(self.writer)
    }

    fn format(&mut self, record: &SegmentRecord<'_>) -> Result<fmt::Result, SegmentError> {
        let segment = Segment::decode(record.segment).map_err(|_| SegmentError::Malformed)?;
        let header_len = record.segment.len().saturating_sub(segment.payload.len());
        let options = record
            .segment
            .get(HEADER_LEN..header_len)
            .unwrap_or_default();
        let header = &segment.header;
        let shown = self
            .names
            .show((record.from, header.src_port), (record.to, header.dst_port));
        let from = (shown.from, header.src_port);
        let to = (shown.to, header.dst_port);
        let (numbers, is_absolute) = self.relate(from, to, &segment);
        let line = Line {
            record,
            segment: &segment,
            options,
            from,
            to,
            numbers,
            is_absolute,
        };
        Ok(writeln!(self.line, "{line}"))
    }

    /// Returns what the numbers of a segment are relative to, and whether it sets that itself: then its own
    /// are shown as they are.
    fn relate(
        &mut self,
        from: (IpAddr, u16),
        to: (IpAddr, u16),
        segment: &Segment<'_>,
    ) -> (Numbers, bool) {
        let header = &segment.header;
        if !header.flags.contains(Flags::ACK) {
            return (Numbers::default(), true);
        }
        let key = ends(from, to);
        let is_swapped = key.first() != Some(&from);
        let known = if header.flags.contains(Flags::SYN) {
            None
        } else {
            self.bases.get(&key).copied()
        };
        let is_absolute = known.is_none();
        let own = [header.seq.get(), header.ack.get().wrapping_sub(1)];
        let [first, second] = known.unwrap_or(if is_swapped { [own[1], own[0]] } else { own });
        if is_absolute {
            self.bases.insert(key, [first, second]);
        }
        let numbers = if is_swapped {
            Numbers {
                seq: second,
                ack: first,
            }
        } else {
            Numbers {
                seq: first,
                ack: second,
            }
        };
        (numbers, is_absolute)
    }
}

impl<W> fmt::Debug for TextLog<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextLog").finish_non_exhaustive()
    }
}

/// What the numbers of one direction are relative to: those sent and those acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    seq: u32,
    ack: u32,
}

/// The line of one segment.
struct Line<'a> {
    record: &'a SegmentRecord<'a>,
    segment: &'a Segment<'a>,
    options: &'a [u8],
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    numbers: Numbers,
    is_absolute: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.record.unix_nanos();
        let second = nanos / BILLION % DAY;
        let (hours, minutes, seconds) = (second / 3_600, second / 60 % 60, second % 60);
        let micros = nanos % BILLION / 1_000;
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{micros:06} ")?;
        f.write_str(match self.record.direction {
            Some(Direction::Incoming) => "In  ",
            Some(Direction::Outgoing) => "Out ",
            None => "",
        })?;
        let version = if self.from.0.is_ipv4() { "IP" } else { "IP6" };
        let ((from, from_port), (to, to_port)) = (self.from, self.to);
        write!(f, "{version} {from}.{from_port} > {to}.{to_port}: ")?;
        let header = &self.segment.header;
        let len = self.segment.payload.len();
        write!(f, "Flags [{}]", header.flags)?;
        let base = if self.is_absolute {
            Numbers::default()
        } else {
            self.numbers
        };
        if len > 0
            || header
                .flags
                .intersects(Flags::SYN | Flags::FIN | Flags::RST)
        {
            let seq = header.seq.get().wrapping_sub(base.seq);
            write!(f, ", seq {seq}")?;
            if len > 0 {
                let end = seq.wrapping_add(u32::try_from(len).unwrap_or(u32::MAX));
                write!(f, ":{end}")?;
            }
        }
        if header.flags.contains(Flags::ACK) {
            write!(f, ", ack {}", header.ack.get().wrapping_sub(base.ack))?;
        }
        write!(f, ", win {}", header.window)?;
        if !self.options.is_empty() {
            f.write_str(", options [")?;
            write_options(f, self.options, self.numbers.ack)?;
            f.write_char(']')?;
        }
        write!(f, ", length {len}")
    }
}

/// Writes the options in the order in which they stand. SACK blocks are relative to `acked`.
fn write_options(f: &mut fmt::Formatter<'_>, mut rest: &[u8], acked: u32) -> fmt::Result {
    let mut separator = "";
    while let Some((&kind, behind)) = rest.split_first() {
        f.write_str(separator)?;
        separator = ",";
        match kind {
            0 => return f.write_str("eol"),
            1 => {
                f.write_str("nop")?;
                rest = behind;
                continue;
            }
            _ => {}
        }
        let len = behind.first().copied().map_or(0, usize::from);
        let Some((body, next)) = len
            .checked_sub(2)
            .and_then(|len| behind.get(1..)?.split_at_checked(len))
        else {
            return f.write_str("[bad opt]");
        };
        write_option(f, kind, body, acked)?;
        rest = next;
    }
    Ok(())
}

fn write_option(f: &mut fmt::Formatter<'_>, kind: u8, body: &[u8], acked: u32) -> fmt::Result {
    match (kind, body) {
        (2, &[a, b]) => write!(f, "mss {}", u16::from_be_bytes([a, b])),
        (3, &[shift]) => write!(f, "wscale {shift}"),
        (4, []) => f.write_str("sackOK"),
        (5, blocks) if blocks.len().is_multiple_of(8) => {
            write!(f, "sack {} ", blocks.len() / 8)?;
            let (edges, _) = blocks.as_chunks::<4>();
            let number = |edge: &[u8; 4]| u32::from_be_bytes(*edge).wrapping_sub(acked);
            for edge in edges.chunks_exact(2) {
                if let [left, right] = edge {
                    write!(f, "{{{}:{}}}", number(left), number(right))?;
                }
            }
            Ok(())
        }
        (8, &[_, _, _, _, _, _, _, _]) => {
            let (words, _) = body.as_chunks::<4>();
            let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
            let mut next = || words.next().unwrap_or_default();
            write!(f, "TS val {} ecr {}", next(), next())
        }
        // `docs/PROTOCOL.md`, section 5.
        (254, &[0x52, 0x55, version, high, low, ack_delay, ref token @ ..]) => {
            write!(f, "reliable-udp v{version}")?;
            let features = u16::from_be_bytes([high, low]);
            if features & 1 != 0 {
                f.write_str(" crc32c")?;
            }
            if features & !1 != 0 {
                write!(f, " features 0x{:04x}", features & !1)?;
            }
            write!(f, " ack-delay {ack_delay}ms")?;
            if !token.is_empty() {
                f.write_str(" token 0x")?;
                write_hex(f, token)?;
            }
            Ok(())
        }
        (kind, body) => {
            write!(f, "unknown-{kind}")?;
            if !body.is_empty() {
                f.write_str(" 0x")?;
                write_hex(f, body)?;
            }
            Ok(())
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
