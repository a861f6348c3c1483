//! Pictures of congestion control: runs controllers on a simulated path in virtual time and writes one SVG with
//! window, round-trip time, delivered rate and queue over time.
//!
//! ```sh
//! cargo run --release --features sim --example congestion_plot -- --congestion cubic --svg cubic.svg
//! cargo run --release --features sim --example congestion_plot -- --congestion newreno,cubic --path lossy
//! cargo run --release --features sim --example congestion_plot -- --congestion cubic,cubic --together
//! cargo run --release --features sim --example congestion_plot -- --help
//! ```

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

#[path = "congestion_plot/mod.rs"]
mod congestion_plot;

use congestion_plot::args::Args;

fn main() -> io::Result<ExitCode> {
    match congestion_plot::execute(&Args::parse()) {
        Ok(lines) => {
            let mut out = io::stdout().lock();
            for line in lines {
                writeln!(out, "{line}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(io::stderr(), "error: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
