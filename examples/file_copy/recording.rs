//! `--log` and `--capture`: what went over the wire, for tcpdump's readers and for Wireshark.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use reliable_udp::capture::Capture;
use reliable_udp::{Config, ConfigError};

use crate::ui;

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
        let create = |path: &Path| {
            File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))
        };
        let mut builder = Capture::builder();
        if let Some(path) = &args.log {
            builder = builder.text(create(path)?);
        }
        if let Some(path) = &args.capture {
            builder = builder.pcapng(create(path)?);
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

    /// Writes the rest; says what is missing.
    pub(crate) async fn finish(self) -> io::Result<()> {
        let Some(capture) = self.0 else { return Ok(()) };
        let stats = tokio::task::spawn_blocking(move || capture.finish()).await??;
        if stats.dropped + stats.failed > 0 {
            ui::complain(format_args!(
                "{} segments captured, {} lost: the disk was too slow",
                stats.written,
                stats.dropped + stats.failed
            ));
        }
        Ok(())
    }
}
