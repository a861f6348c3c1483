//! `PcapngWriter`: segments as IP packets in a pcapng file (draft-ietf-opsawg-pcapng).

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use pcap_parser::pcapng::{
    EnhancedPacketBlock, InterfaceDescriptionBlock, InterfaceStatisticsBlock, OptionCode,
    PcapNGOption, SectionHeaderBlock,
};
use pcap_parser::{BOM_MAGIC, Linktype, ToVec};

use super::frame;
use super::names::Names;
use super::record::{SegmentError, SegmentRecord};
use crate::tap::Direction;
use crate::wire::peek_ports;

/// Timestamps in units of 10^-9 s.
const NANOSECONDS: u8 = 9;
/// More than the largest frame.
const SNAPLEN: u32 = 1 << 18;
/// An option of enhanced packet blocks: bits 0 and 1 are the direction.
const EPB_FLAGS: OptionCode = OptionCode(2);

/// Writes segments as IP packets that carry TCP into a pcapng file.
///
/// Every segment stands with TCP's checksum, which covers the addresses it is shown under, and without
/// urgent pointer. IP addresses are those of UDP, ports are virtual ports. Where that would make one
/// connection of two, since they differ in nothing but a UDP port, the later one is shown under IPv6 addresses
/// that are made up from IP address and UDP port: `fd72:7564:7000::PORT:IPV4`, or
/// `fd72:7564:7000:PORT:` and a hash of the IPv6 address. The first segment of each connection has a comment
/// that names the UDP addresses.
///
/// Wrap files in a [`BufWriter`](std::io::BufWriter): there is one write per segment.
pub struct PcapngWriter<W> {
    writer: W,
    names: Names,
    frame: Vec<u8>,
    written: u64,
    last: u64,
}

impl<W: Write> PcapngWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn new(mut writer: W) -> io::Result<Self> {
        let mut section = SectionHeaderBlock {
            block_type: 0,
            block_len1: 0,
            bom: BOM_MAGIC,
            major_version: 1,
            minor_version: 0,
            // Not known beforehand.
            section_len: -1,
            options: vec![text(
                OptionCode::ShbUserAppl,
                concat!("reliable-udp ", env!("CARGO_PKG_VERSION")),
            )],
            block_len2: 0,
        };
        write_block(&mut writer, &mut section)?;
        let mut interface = InterfaceDescriptionBlock {
            block_type: 0,
            block_len1: 0,
            linktype: Linktype::RAW,
            reserved: 0,
            snaplen: SNAPLEN,
            options: vec![
                text(OptionCode::IfName, "reliable-udp"),
                text(
                    OptionCode::IfDescription,
                    "TCP segments out of UDP datagrams",
                ),
            ],
            block_len2: 0,
            if_tsresol: NANOSECONDS,
            if_tsoffset: 0,
        };
        write_block(&mut writer, &mut interface)?;
        Ok(Self {
            writer,
            names: Names::new(),
            frame: Vec::new(),
            written: 0,
            last: 0,
        })
    }

    /// Writes one segment. Its integrity is not checked: see [`check_segment`](super::check_segment).
    ///
    /// # Errors
    ///
    /// Those of the writer, and [`InvalidData`](io::ErrorKind::InvalidData) with a [`SegmentError`] for what
    /// cannot stand in a capture; then nothing was written.
    pub fn write(&mut self, record: &SegmentRecord<'_>) -> io::Result<()> {
        let (from_port, to_port) = peek_ports(record.segment).ok_or(SegmentError::Malformed)?;
        let shown = self
            .names
            .show((record.from, from_port), (record.to, to_port));
        frame::build(&mut self.frame, shown.from, shown.to, record.segment)?;
        let len = u32::try_from(self.frame.len()).map_err(|_| SegmentError::TooLong)?;
        let mut options = Vec::new();
        if shown.is_first {
            let comment = format!("UDP {} > {}", record.from, record.to);
            options.push(text(OptionCode::Comment, comment));
        }
        if let Some(direction) = record.direction {
            let bits: u32 = match direction {
                Direction::Incoming => 1,
                Direction::Outgoing => 2,
            };
            options.push(option(EPB_FLAGS, bits.to_le_bytes().to_vec()));
        }
        let (ts_high, ts_low) = halves(record.unix_nanos());
        let mut packet = EnhancedPacketBlock {
            block_type: 0,
            block_len1: 0,
            if_id: 0,
            ts_high,
            ts_low,
            caplen: len,
            origlen: len,
            data: &self.frame,
            options,
            block_len2: 0,
        };
        write_block(&mut self.writer, &mut packet)?;
        self.written = self.written.saturating_add(1);
        self.last = record.unix_nanos();
        Ok(())
    }

    /// Hands on what the writer buffers.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Ends the file with statistics, in which `dropped` segments never reached it; returns the writer,
    /// flushed.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn finish(mut self, dropped: u64) -> io::Result<W> {
        self.end(dropped)?;
        Ok(self.writer)
    }

    pub(super) fn end(&mut self, dropped: u64) -> io::Result<()> {
        let received = self.written.saturating_add(dropped);
        let (ts_high, ts_low) = halves(self.last);
        let mut statistics = InterfaceStatisticsBlock {
            block_type: 0,
            block_len1: 0,
            if_id: 0,
            ts_high,
            ts_low,
            options: vec![
                option(OptionCode::IsbIfRecv, received.to_le_bytes().to_vec()),
                option(OptionCode::IsbIfDrop, dropped.to_le_bytes().to_vec()),
            ],
            block_len2: 0,
        };
        write_block(&mut self.writer, &mut statistics)?;
        self.writer.flush()
    }
}

impl<W> fmt::Debug for PcapngWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PcapngWriter")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

fn write_block(writer: &mut impl Write, block: &mut impl ToVec) -> io::Result<()> {
    let bytes = block
        .to_vec()
        .map_err(|error| io::Error::other(error.to_string()))?;
    writer.write_all(&bytes)
}

fn text(code: OptionCode, text: impl Into<Cow<'static, str>>) -> PcapNGOption<'static> {
    option(code, text.into().into_owned().into_bytes())
}

fn option(code: OptionCode, mut value: Vec<u8>) -> PcapNGOption<'static> {
    // All are far shorter than the field can say.
    value.truncate(usize::from(u16::MAX));
    PcapNGOption {
        code,
        len: u16::try_from(value.len()).unwrap_or(u16::MAX),
        value: Cow::Owned(value),
    }
}

fn halves(nanos: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (half(nanos >> 32), half(nanos))
}
