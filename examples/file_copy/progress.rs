//! How far a copy is, for people: a bar on a terminal, otherwise a line now and then.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use reliable_udp::copy::{Event, FileError, Survey};

use crate::output::Output;
use crate::text;

/// Counts the bytes that need not go again, each once: what is sent a second time took back what the first time
/// had added.
#[derive(Debug, Default)]
struct Meter {
    settled: u64,
    files: u64,
    /// What went by of the files without a verdict.
    under_way: HashMap<Arc<Path>, u64>,
    bytes_under_way: u64,
}

impl Meter {
    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Started { path, .. } => self.set(path, 0),
            Event::Resumed { path, bytes, .. } => self.set(path, *bytes),
            Event::Progress { path, bytes, .. } => {
                let before = self.under_way.get(path).copied().unwrap_or(0);
                self.set(path, before + bytes);
            }
            Event::Retrying { path, .. } | Event::Failed { path, .. } => self.forget(path),
            Event::Verified { path, size, .. } | Event::Present { path, size, .. } => {
                self.forget(path);
                self.settled += size;
                self.files += 1;
            }
            _ => {}
        }
    }

    fn set(&mut self, path: &Arc<Path>, bytes: u64) {
        self.forget(path);
        self.bytes_under_way += bytes;
        self.under_way.insert(Arc::clone(path), bytes);
    }

    fn forget(&mut self, path: &Path) {
        self.bytes_under_way -= self.under_way.remove(path).unwrap_or(0);
    }

    fn bytes(&self) -> u64 {
        self.settled + self.bytes_under_way
    }
}

/// Follows the sessions of one copy, one after another.
#[derive(Debug)]
pub(crate) struct Progress {
    output: Output,
    label: String,
    total: Option<Survey>,
    bar: Option<ProgressBar>,
    meter: Meter,
    last_step: u64,
    /// The file begun last.
    current: String,
}

impl Progress {
    /// `total` is what the sender knows and the receiver does not.
    pub(crate) fn new(output: &Output, label: &str, total: Option<Survey>) -> Self {
        let bar = output.bar();
        if let Some(bar) = &bar {
            let template = match total {
                Some(total) => {
                    bar.set_length(total.bytes);
                    "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}"
                }
                None => "{prefix} {spinner} {bytes} {bytes_per_sec} {wide_msg}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(label.to_owned());
        }
        Self {
            output: output.clone(),
            label: label.to_owned(),
            total,
            bar,
            meter: Meter::default(),
            last_step: 0,
            current: String::new(),
        }
    }

    /// A session began, which will find what those before it have brought.
    pub(crate) fn begin_session(&mut self) {
        self.meter = Meter::default();
    }

    pub(crate) fn on_event(&mut self, event: &Event) {
        self.meter.on_event(event);
        match event {
            Event::Started { path, .. } => {
                self.current = text::tame(path.display());
                self.show();
            }
            Event::Checking { path, .. } => {
                self.current = text::tame(format_args!("{} (is read)", path.display()));
                self.show();
            }
            Event::Progress { .. } | Event::Verified { .. } | Event::Present { .. } => self.show(),
            Event::Resumed { path, bytes, .. } => {
                let bytes = HumanBytes(*bytes);
                self.note(format_args!("{}: goes on after {bytes}", path.display()));
            }
            Event::Planned { path, bytes, .. } => {
                let line = format_args!("{} would be sent, {bytes} bytes", path.display());
                self.output.say(format_args!("{} {line}", self.label));
            }
            Event::Retrying {
                path,
                attempt,
                cause,
                ..
            } => {
                self.note(format_args!(
                    "{}: {cause}; attempt {attempt}",
                    path.display()
                ));
            }
            Event::AskedAgain { path, asks, .. } => {
                let path = path.display();
                self.note(format_args!(
                    "{path}: no verdict yet; asked again, {asks} times"
                ));
            }
            // The end of the session says it once.
            Event::Failed {
                error: FileError::Interrupted,
                ..
            } => {}
            Event::Failed { path, error, .. } => {
                let (label, path) = (&self.label, path.display());
                self.output
                    .complain(format_args!("{label} {path}: {}", text::chain(error)));
            }
            _ => {}
        }
    }

    fn show(&mut self) {
        let files = self.meter.files;
        // Files may have grown since they were counted.
        let bytes = self.total.map_or(self.meter.bytes(), |total| {
            self.meter.bytes().min(total.bytes)
        });
        if let Some(bar) = &self.bar {
            // Bytes run ahead of the verdicts by what is buffered on the way.
            let count = match self.total {
                Some(total) => format!("{files} of {}", total.files),
                None => files.to_string(),
            };
            bar.set_message(format!("{count} verified, {}", self.current));
            bar.set_position(bytes);
            return;
        }
        // A line per tenth of the whole, or per 16 MiB where the whole is not known.
        let every = self
            .total
            .map_or(16 << 20, |total| (total.bytes / 10).max(1));
        let is_complete = self.total.is_some_and(|total| total.files == files);
        if bytes / every > self.last_step || is_complete {
            self.last_step = bytes / every;
            let bytes = HumanBytes(bytes);
            match self.total {
                Some(Survey {
                    bytes: all,
                    files: of,
                    ..
                }) => self.note(format_args!(
                    "{bytes} of {}, {files} of {of} files verified",
                    HumanBytes(all)
                )),
                None => self.note(format_args!("{bytes}, {files} files verified")),
            }
        }
    }

    fn note(&self, line: std::fmt::Arguments<'_>) {
        self.output.note(format_args!("{} {line}", self.label));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
