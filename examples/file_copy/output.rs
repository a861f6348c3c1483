//! What a program shows, and to whom: people, other programs, or nobody.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use serde_json::Value;

use crate::text;

/// How much is shown.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct OutputArgs {
    /// Print one JSON object per event on standard output, and a report as the last one; with --quiet, only reports.
    #[arg(long)]
    json: bool,
    /// Print nothing but errors.
    #[arg(long)]
    quiet: bool,
}

/// Where everything goes that is shown; clones go to the same place.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    args: OutputArgs,
    /// On a terminal: a bar for each copy.
    bars: Option<Arc<MultiProgress>>,
}

impl Output {
    pub(crate) fn new(args: OutputArgs) -> Self {
        let is_watched = !args.json && !args.quiet && io::stderr().is_terminal();
        let bars = is_watched.then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(10);
            Arc::new(MultiProgress::with_draw_target(target))
        });
        Self { args, bars }
    }

    /// Whether lines for people go to standard output.
    pub(crate) fn is_for_people(&self) -> bool {
        !self.args.json && !self.args.quiet
    }

    /// A new bar below the others, if there are bars.
    pub(crate) fn bar(&self) -> Option<ProgressBar> {
        let bars = self.bars.as_ref()?;
        Some(bars.add(ProgressBar::no_length()))
    }

    /// A line of result, for people.
    pub(crate) fn say(&self, line: fmt::Arguments<'_>) {
        if self.is_for_people() {
            self.beside_bars(|| text::say(line));
        }
    }

    /// A line about how it goes on, for people.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        if self.is_for_people() {
            self.beside_bars(|| text::complain(line));
        }
    }

    /// A line about something that went wrong; nothing keeps it back.
    pub(crate) fn complain(&self, line: fmt::Arguments<'_>) {
        self.beside_bars(|| text::complain(line));
    }

    /// An object about something that happened, for programs.
    pub(crate) fn event(&self, object: impl FnOnce() -> Option<Value>) {
        if self.args.json
            && !self.args.quiet
            && let Some(object) = object()
        {
            print(&object);
        }
    }

    /// An object about what came out, for programs.
    pub(crate) fn report(&self, object: impl FnOnce() -> Value) {
        if self.args.json {
            print(&object());
        }
    }

    fn beside_bars(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

fn print(object: &Value) {
    // One write: lines of several copies must not mix.
    let line = format!("{object}\n");
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
