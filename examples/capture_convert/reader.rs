//! The frames of a pcap or pcapng file, one after the other, in bounded memory.

use std::io::Read;
use std::time::{Duration, SystemTime};

use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Linktype, PcapBlockOwned, PcapError, create_reader};

/// Bytes of the file that are held at first, and at most: a block must fit.
const BUFFER: usize = 1 << 20;
const LARGEST_BUFFER: usize = 1 << 24;
/// Interfaces that a file may name.
const INTERFACES: usize = 4_096;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A captured frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) time: SystemTime,
    pub(crate) link_type: Linktype,
    pub(crate) bytes: &'a [u8],
}

/// One interface of the file, or all that a pcap file has.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: Linktype,
    /// Time units: 10^-n s, or 2^-n s with the highest bit set.
    resolution: u8,
    /// Seconds to add to each time.
    offset: i64,
}

impl Interface {
    fn time(&self, units: u64) -> Option<SystemTime> {
        let exponent = u32::from(self.resolution & 0x7f);
        let per_second = if self.resolution & 0x80 == 0 {
            10_u128.checked_pow(exponent)?
        } else {
            1_u128.checked_shl(exponent)?
        };
        let nanos = u128::from(units).checked_mul(NANOS_PER_SECOND)? / per_second;
        let since = Duration::from_nanos(u64::try_from(nanos).ok()?);
        let time = SystemTime::UNIX_EPOCH.checked_add(since)?;
        let offset = Duration::from_secs(self.offset.unsigned_abs());
        if self.offset < 0 {
            time.checked_sub(offset)
        } else {
            time.checked_add(offset)
        }
    }
}

/// Reads a capture.
pub(crate) struct Reader<'a> {
    inner: Box<dyn PcapReaderIterator + Send + 'a>,
    capacity: usize,
    interfaces: Vec<Interface>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: impl Read + Send + 'a) -> Result<Self, String> {
        let inner = create_reader(BUFFER, file).map_err(|error| describe(&error))?;
        Ok(Self {
            inner,
            capacity: BUFFER,
            interfaces: Vec::new(),
        })
    }

    /// Hands the next frame to `f`; `None` at the end of the file.
    pub(crate) fn next_frame<R>(
        &mut self,
        mut f: impl FnMut(&Frame<'_>) -> R,
    ) -> Result<Option<R>, String> {
        loop {
            match self.inner.next() {
                Ok((len, block)) => {
                    let frame = take(&block, &mut self.interfaces)?;
                    let result = frame.map(|frame| f(&frame));
                    drop(block);
                    self.inner.consume(len);
                    if result.is_some() {
                        return Ok(result);
                    }
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => {
                    if !self.refill()? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(describe(&error)),
            }
        }
    }

    /// Reads on; what does not fit into the buffer gets a larger one, up to a limit. Returns whether there
    /// is anything left.
    fn refill(&mut self) -> Result<bool, String> {
        let before = self.inner.data().len();
        self.inner.refill().map_err(|error| describe(&error))?;
        if self.inner.data().len() > before {
            return Ok(true);
        }
        if self.inner.reader_exhausted() && before == 0 {
            return Ok(false);
        }
        if self.inner.reader_exhausted() {
            return Err("the file is cut short".into());
        }
        self.capacity *= 2;
        if self.capacity > LARGEST_BUFFER || !self.inner.grow(self.capacity) {
            return Err("a block is too large".into());
        }
        Ok(true)
    }
}

/// Finds the frame in a block, or learns of an interface.
fn take<'a>(
    block: &'a PcapBlockOwned<'_>,
    interfaces: &mut Vec<Interface>,
) -> Result<Option<Frame<'a>>, String> {
    let interface = |id: u32| {
        let id = usize::try_from(id).unwrap_or(usize::MAX);
        let interface = interfaces.get(id).copied();
        interface.ok_or_else(|| "a frame of an unknown interface".to_string())
    };
    let frame = |interface: Interface, units: u64, bytes: &'a [u8]| Frame {
        // A time that cannot be told is no reason to lose the frame.
        time: interface.time(units).unwrap_or(SystemTime::UNIX_EPOCH),
        link_type: interface.link_type,
        bytes,
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution = if header.is_nanosecond_precision() {
                9
            } else {
                6
            };
            *interfaces = vec![Interface {
                link_type: header.network,
                resolution,
                offset: 0,
            }];
            Ok(None)
        }
        PcapBlockOwned::Legacy(record) => {
            let interface = interface(0)?;
            let fraction = if interface.resolution == 9 {
                1_000_000_000
            } else {
                1_000_000
            };
            let units = u64::from(record.ts_sec) * fraction + u64::from(record.ts_usec);
            Ok(Some(frame(interface, units, record.data)))
        }
        PcapBlockOwned::NG(block) => {
            match block {
                Block::SectionHeader(_) => interfaces.clear(),
                Block::InterfaceDescription(description) => {
                    if interfaces.len() >= INTERFACES {
                        return Err("too many interfaces".into());
                    }
                    interfaces.push(Interface {
                        link_type: description.linktype,
                        resolution: description.if_tsresol,
                        offset: description.if_tsoffset,
                    });
                }
                Block::EnhancedPacket(packet) => {
                    let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                    let interface = interface(packet.if_id)?;
                    return Ok(Some(frame(interface, units, packet.packet_data())));
                }
                Block::SimplePacket(packet) => {
                    return Ok(Some(frame(interface(0)?, 0, packet.packet_data())));
                }
                _ => {}
            }
            Ok(None)
        }
    }
}

fn describe<I: std::fmt::Debug>(error: &PcapError<I>) -> String {
    match error {
        PcapError::HeaderNotRecognized => "neither pcap nor pcapng".into(),
        PcapError::UnexpectedEof => "the file is cut short".into(),
        PcapError::ReadError => "it cannot be read".into(),
        PcapError::Eof => "it is empty".into(),
        _ => "it is damaged".into(),
    }
}
