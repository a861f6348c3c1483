//! Converts a capture of UDP traffic, as tcpdump and Wireshark write it, into one in which every segment
//! stands as TCP.
//!
//! ```sh
//! tcpdump -i any -w udp.pcap udp port 4000
//! cargo run --release --features capture --example capture_convert -- udp.pcap tcp.pcapng --port 4000
//! ```
//!
//! Without `--port`, whatever decodes and verifies as a segment is taken. Prints how many segments were
//! converted and what was left out, by cause. The exit code is 0 if the whole file was read.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use reliable_udp::capture::{PcapngWriter, SegmentRecord, TextLog, check_segment};

#[path = "capture_convert/datagram.rs"]
mod datagram;
#[path = "capture_convert/reader.rs"]
mod reader;

use datagram::{Datagram, Skip};
use reader::{Frame, Reader};

/// Segments in a row that are looked for in one datagram of a capture, before it counts as none.
const STRIDES: usize = 64;
/// The smallest datagram that is sent in runs.
const SMALLEST_STRIDE: usize = 64;

/// Converts a capture of UDP traffic into one of TCP over IP.
#[derive(Debug, Parser)]
struct Args {
    /// Capture to read, pcap or pcapng.
    input: PathBuf,
    /// Capture to write, pcapng; replaced if it exists.
    output: PathBuf,
    /// Take only datagrams from or to this UDP port.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Write a text log of the segments too.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// What became of the frames.
#[derive(Debug, Default)]
struct Summary {
    datagrams: u64,
    segments: u64,
    skipped: [u64; Skip::ALL.len()],
}

struct Converter {
    port: Option<u16>,
    capture: PcapngWriter<BufWriter<File>>,
    log: Option<TextLog<BufWriter<File>>>,
    summary: Summary,
}

impl Converter {
    fn convert(&mut self, frame: &Frame<'_>) -> Result<(), Box<dyn Error>> {
        let taken = datagram::find(frame.link_type, frame.bytes).and_then(|datagram| {
            let ports = [datagram.from.port(), datagram.to.port()];
            if self.port.is_none_or(|port| ports.contains(&port)) {
                let stride = stride(datagram.payload).ok_or(Skip::NotSegments)?;
                Ok((datagram, stride))
            } else {
                Err(Skip::OtherPort)
            }
        });
        match taken {
            Ok((datagram, stride)) => self.write(frame, &datagram, stride)?,
            Err(skip) => {
                for (count, cause) in self.summary.skipped.iter_mut().zip(Skip::ALL) {
                    *count += u64::from(cause == skip);
                }
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        frame: &Frame<'_>,
        datagram: &Datagram<'_>,
        stride: usize,
    ) -> Result<(), Box<dyn Error>> {
        self.summary.datagrams += 1;
        for segment in datagram.payload.chunks(stride) {
            let mut record = SegmentRecord::new(frame.time, datagram.from, datagram.to, segment);
            record.direction = datagram.direction;
            self.capture
                .write(&record)
                .map_err(cannot_write("capture"))?;
            if let Some(log) = &mut self.log {
                log.write(&record).map_err(cannot_write("log"))?;
            }
            self.summary.segments += 1;
        }
        Ok(())
    }
}

/// Returns how long the segments in a datagram are, the last one may be shorter; `None` if there are none.
///
/// There is one. But where the sending system hands a run of them to its network card, or to itself over
/// loopback, a capture made there shows the run as one large datagram.
fn stride(payload: &[u8]) -> Option<usize> {
    if check_segment(payload).is_ok() {
        return Some(payload.len());
    }
    // The next one begins with the same ports.
    let ports = payload.get(..4)?;
    (SMALLEST_STRIDE..payload.len().saturating_sub(20))
        .filter(|&at| payload.get(at..at + 4) == Some(ports))
        .take(STRIDES)
        .find(|&at| {
            let mut segments = payload.chunks(at);
            segments.all(|segment| check_segment(segment).is_ok())
        })
}

fn convert(args: &Args) -> Result<bool, Box<dyn Error>> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error| format!("{path}: {error}")
    };
    let input = File::open(&args.input).map_err(named(&args.input))?;
    let source = fs::canonicalize(&args.input)?;
    for path in [Some(&args.output), args.log.as_ref()]
        .into_iter()
        .flatten()
    {
        if fs::canonicalize(path).is_ok_and(|path| path == source) {
            return Err("the output would replace the input".into());
        }
    }
    let mut reader = Reader::new(BufReader::new(input)).map_err(named_text(&args.input))?;
    let create = |path: &PathBuf| File::create(path).map_err(named(path));
    let output = create(&args.output)?;
    if let Some(log) = &args.log
        && fs::canonicalize(log)
            .is_ok_and(|log| fs::canonicalize(&args.output).is_ok_and(|to| to == log))
    {
        return Err("the log would replace the output".into());
    }
    let log = args.log.as_ref().map(create).transpose()?;
    let mut converter = Converter {
        port: args.port,
        capture: PcapngWriter::new(BufWriter::new(output)).map_err(cannot_write("capture"))?,
        log: log.map(|log| TextLog::new(BufWriter::new(log))),
        summary: Summary::default(),
    };
    let ending = loop {
        match reader.next_frame(|frame| converter.convert(frame)) {
            Ok(Some(outcome)) => outcome?,
            Ok(None) => break None,
            Err(ending) => break Some(ending),
        }
    };
    converter
        .capture
        .finish(0)
        .map_err(cannot_write("capture"))?;
    if let Some(log) = converter.log {
        log.finish().map_err(cannot_write("log"))?;
    }
    report(&converter.summary);
    if let Some(ending) = &ending {
        complain(format_args!(
            "{}: stopped early: {ending}",
            args.input.display()
        ));
    }
    Ok(ending.is_none())
}

fn cannot_write(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("cannot write the {what}: {error}")
}

fn named_text(path: &Path) -> impl Fn(String) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

fn report(summary: &Summary) {
    say(format_args!(
        "{} segments of {} datagrams converted",
        summary.segments, summary.datagrams
    ));
    for (count, cause) in summary.skipped.iter().zip(Skip::ALL) {
        if *count > 0 {
            say(format_args!("{count} frames skipped: {cause}"));
        }
    }
}

fn say(text: std::fmt::Arguments<'_>) {
    // Whoever closed the pipe does not want to know.
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn main() -> ExitCode {
    match convert(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
