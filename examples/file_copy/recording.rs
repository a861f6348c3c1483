//! `--log` and `--capture`: what went over the wire, for tcpdump's readers and for Wireshark.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use reliable_udp::capture::Capture;
use reliable_udp::{Config, ConfigError};

use crate::exit::Failure;
use crate::text;

/// Where to write what goes over the wire.
#[derive(Debug, clap::Args)]
pub(crate) struct RecordingArgs {
    /// Write a line for each segment, in the form of tcpdump.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write a pcapng capture in which Wireshark sees TCP.
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
}

/// What is being written, if anything was asked for.
#[derive(Debug)]
pub(crate) struct Recording(Option<Capture>);

impl Recording {
    pub(crate) fn start(args: &RecordingArgs) -> Result<Self, String> {
        let mut builder = Capture::builder();
        if let Some(path) = &args.log {
            builder = builder.text(NamedFile::create(path)?);
        }
        if let Some(path) = &args.capture {
            if let Some(log) = &args.log
                && path.exists()
                && fs::canonicalize(path).ok() == fs::canonicalize(log).ok()
            {
                let path = path.display();
                return Err(format!("--log and --capture both name {path}"));
            }
            builder = builder.pcapng(NamedFile::create(path)?);
        }
        if args.log.is_none() && args.capture.is_none() {
            return Ok(Self(None));
        }
        let capture = builder
            .start()
            .map_err(|error| format!("cannot start the capture: {error}"))?;
        Ok(Self(Some(capture)))
    }

    /// Makes endpoints with this configuration show what they send and receive.
    pub(crate) fn observe(&self, config: Config) -> Result<Config, ConfigError> {
        match &self.0 {
            Some(capture) => config.to_builder().tap(capture.clone()).build(),
            None => Ok(config),
        }
    }

    /// Writes the rest, however the work ended, and says what is missing; passes on the outcome of the work,
    /// or why there is no recording of it.
    pub(crate) async fn finish<T>(self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let Some(capture) = self.0 else {
            return outcome;
        };
        let finishing = tokio::task::spawn_blocking(move || capture.finish());
        match finishing.await.map_err(Failure::usage)? {
            Ok(stats) => {
                let missing = stats.dropped + stats.failed;
                if missing > 0 {
                    text::complain(format_args!(
                        "{} segments captured, {missing} lost: the disk was too slow",
                        stats.written
                    ));
                }
                outcome
            }
            Err(error) if outcome.is_ok() => Err(Failure::usage(error)),
            Err(error) => {
                text::complain(format_args!("{error}"));
                outcome
            }
        }
    }
}

/// A file whose errors say which one it is.
struct NamedFile {
    path: PathBuf,
    file: File,
}

impl NamedFile {
    fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path);
        let file = file.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let path = path.to_path_buf();
        Ok(Self { path, file })
    }

    fn name(&self, error: &io::Error) -> io::Error {
        let path = self.path.display();
        io::Error::new(error.kind(), format!("cannot write {path}: {error}"))
    }
}

impl Write for NamedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| self.name(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.name(&error))
    }
}
