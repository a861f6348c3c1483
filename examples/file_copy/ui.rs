//! What the file-copy examples share: progress, the closing summary, errors with their causes.

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reliable_udp::ConnectionStats;
use reliable_udp::copy::{Event, Report, Survey};

/// Follows a copy on standard error: a bar on a terminal, otherwise a line now and then.
pub(crate) struct Progress {
    label: String,
    total: Option<Survey>,
    bar: Option<ProgressBar>,
    bytes: u64,
    verified: u64,
    last_step: u64,
    /// The file begun last.
    current: String,
}

impl Progress {
    /// `total` is what the sender knows and the receiver does not.
    pub(crate) fn new(label: impl fmt::Display, total: Option<Survey>) -> Self {
        let label = label.to_string();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = match total {
                Some(total) => ProgressBar::new(total.bytes),
                None => ProgressBar::new_spinner(),
            };
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            let template = match total {
                Some(_) => "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}",
                None => "{prefix} {spinner} {bytes} {bytes_per_sec} {wide_msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(label.clone());
            bar
        });
        Self {
            label,
            total,
            bar,
            bytes: 0,
            verified: 0,
            last_step: 0,
            current: String::new(),
        }
    }

    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Started { path, .. } => {
                self.current = tame(path.display());
                self.show();
            }
            Event::Progress { bytes, .. } => {
                self.bytes += bytes;
                self.show();
            }
            Event::Verified { .. } => {
                self.verified += 1;
                self.show();
            }
            Event::Retrying {
                path,
                attempt,
                cause,
                ..
            } => {
                self.line(format_args!(
                    "{}: {cause}; attempt {attempt}",
                    path.display()
                ));
            }
            Event::AskedAgain { path, asks, .. } => {
                let path = path.display();
                self.line(format_args!(
                    "{path}: no verdict yet; asked again, {asks} times"
                ));
            }
            Event::Failed { path, error, .. } => {
                self.line(format_args!("{}: {}", path.display(), chain(error)));
            }
            _ => {}
        }
    }

    fn show(&mut self) {
        if let Some(bar) = &self.bar {
            // Bytes run ahead of the verdicts by what is buffered on the way.
            let count = match self.total {
                Some(total) => format!("{} of {}", self.verified, total.files),
                None => self.verified.to_string(),
            };
            bar.set_message(format!("{count} verified, {}", self.current));
            bar.set_position(self.bytes);
            return;
        }
        // A line per tenth of the whole, or per 16 MiB where the whole is not known.
        let every = self
            .total
            .map_or(16 << 20, |total| (total.bytes / 10).max(1));
        let is_complete = self.total.is_some_and(|total| total.files == self.verified);
        if self.bytes / every > self.last_step || is_complete {
            self.last_step = self.bytes / every;
            let (bytes, verified) = (HumanBytes(self.bytes), self.verified);
            match self.total {
                Some(Survey {
                    bytes: all, files, ..
                }) => self.line(format_args!(
                    "{bytes} of {}, {verified} of {files} files verified",
                    HumanBytes(all)
                )),
                None => self.line(format_args!("{bytes}, {verified} files verified")),
            }
        }
    }

    fn line(&self, text: fmt::Arguments<'_>) {
        match &self.bar {
            Some(bar) => bar.println(tame(format_args!("{} {text}", self.label))),
            None => complain(format_args!("{} {text}", self.label)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Measures wall-clock time.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "only the library is kept from reading clocks"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Prints what a copy came to.
pub(crate) fn summarize(
    label: impl fmt::Display,
    report: &Report,
    elapsed: Duration,
    stats: &ConnectionStats,
) {
    let totals = &report.totals;
    let (bytes, seconds) = (totals.bytes_verified, elapsed.as_secs_f64());
    #[expect(
        clippy::cast_precision_loss,
        reason = "shown with one digit after the point"
    )]
    let goodput = bytes as f64 * 8.0 / 1e6 / seconds.max(1e-9);
    say(format_args!("{label}"));
    say(format_args!(
        "  files                   {}",
        totals.files_verified
    ));
    say(format_args!(
        "  directories             {}",
        totals.directories
    ));
    say(format_args!(
        "  bytes                   {bytes} ({})",
        HumanBytes(bytes)
    ));
    say(format_args!("  seconds                 {seconds:.2}"));
    say(format_args!(
        "  goodput                 {goodput:.1} Mbit/s"
    ));
    let (again, sent) = (stats.segments_retransmitted, stats.segments_sent);
    say(format_args!("  retransmitted segments  {again} of {sent}"));
    match (stats.srtt, stats.min_rtt) {
        (Some(srtt), Some(min)) => {
            say(format_args!(
                "  round-trip time         {srtt:.1?}, at least {min:.1?}"
            ));
        }
        _ => say(format_args!("  round-trip time         not measured")),
    }
    say(format_args!("  files sent again        {}", totals.retries));
    say(format_args!(
        "  hashes verified         {}",
        totals.files_verified
    ));
    say(format_args!("  failed                  {}", totals.failed));
}

/// Prints a line of result.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    // A closed pipe is no reason to stop copying.
    let _ = writeln!(io::stdout().lock(), "{}", tame(text));
}

/// Prints a line about something that went wrong, or of progress.
pub(crate) fn complain(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{}", tame(text));
}

/// Escapes control characters: names and words come from the other side, and must neither drive the
/// terminal nor begin a line of their own.
fn tame(text: impl fmt::Display) -> String {
    let mut tamed = String::new();
    for character in text.to_string().chars() {
        if character.is_control() {
            tamed.extend(character.escape_default());
        } else {
            tamed.push(character);
        }
    }
    tamed
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
