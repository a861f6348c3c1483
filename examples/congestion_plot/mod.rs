//! The parts of the example `congestion_plot`: arguments, path, simulation, analysis, pictures.
//!
//! `tests/congestion_plot.rs` runs them too.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

pub(crate) mod args;
pub(crate) mod csv;
pub(crate) mod episodes;
pub(crate) mod paint;
pub(crate) mod picture;
pub(crate) mod run;
pub(crate) mod scene;
pub(crate) mod synthetic;
pub(crate) mod thin;
pub(crate) mod units;

use args::Args;
use run::Record;

/// The RTT below which a clock that ticks in milliseconds distorts the picture.
const FINE: Duration = Duration::from_millis(10);

/// Runs what the arguments ask for: one record per controller, or one of all of them together.
pub(crate) fn records(args: &Args) -> Result<Vec<Record>, Box<dyn Error>> {
    let scene = args.scene()?;
    if args.together {
        return Ok(vec![run::run(&scene, &args.congestion)?]);
    }
    let alone = |controller| run::run(&scene, std::slice::from_ref(controller));
    Ok(args
        .congestion
        .iter()
        .map(alone)
        .collect::<Result<_, _>>()?)
}

/// Runs, draws, writes what was asked for, and returns the lines to print.
pub(crate) fn execute(args: &Args) -> Result<Vec<String>, Box<dyn Error>> {
    if let Some(path) = &args.write_trace {
        write(path, &synthetic::lte())?;
        return Ok(vec![format!("trace: {}", path.display())]);
    }
    let scene = args.scene()?;
    let records = records(args)?;
    write(&args.svg, &picture::draw(&scene, &records)?)?;
    if let Some(path) = &args.csv {
        write(path, &csv::table(&records))?;
    }
    let mut lines = vec![format!("path: {}", scene.describe())];
    if scene.rtt < FINE {
        let note =
            "note: the simulated clock ticks in milliseconds, which is coarse for so short an RTT";
        lines.push(note.to_owned());
    }
    for flow in records.iter().flat_map(|record| &record.flows) {
        lines.push(flow.summary(&scene));
    }
    lines.push(format!("picture: {}", args.svg.display()));
    Ok(lines)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let explain = |error: io::Error| {
        let what = format!("cannot write {}: {error}", path.display());
        io::Error::new(error.kind(), what)
    };
    fs::write(path, text).map_err(explain)
}
