//! Medians and ratios of them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::cli::{Contestant, Samples, Work};

/// A figure of the table.
struct Column {
    figure: &'static str,
    title: &'static str,
    digits: usize,
    /// What one of the title's units is.
    unit: f64,
    /// Which way is better; without one, no ratio says anything.
    better: Option<Better>,
}

#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

const KIB: f64 = 1024.0;

const fn column(
    figure: &'static str,
    title: &'static str,
    digits: usize,
    better: Option<Better>,
) -> Column {
    let unit = 1.0;
    Column {
        figure,
        title,
        digits,
        unit,
        better,
    }
}

const fn kib(figure: &'static str, title: &'static str, better: Option<Better>) -> Column {
    let mut column = column(figure, title, 2, better);
    column.unit = KIB;
    column
}

const MORE: Option<Better> = Some(Better::More);
const LESS: Option<Better> = Some(Better::Less);

const GBIT: Column = column("gbit", "Gbit/s", 2, MORE);
const CPU: Column = column("cpu_per_gb", "CPU s/GB", 2, LESS);
const PEAK: Column = column("peak_mib", "peak MiB", 0, None);

/// The title of a measurement, and its columns.
fn layout(work: Work) -> (&'static str, Vec<Column>) {
    match work {
        Work::Goodput => ("One connection, one direction", vec![GBIT, CPU, PEAK]),
        Work::Several => ("Four connections, two each way", vec![GBIT, CPU, PEAK]),
        Work::Echo | Work::EchoLong => {
            let title = match work {
                Work::Echo => "Echo of 64 bytes",
                _ => "Echo of 64 KiB",
            };
            let columns = vec![
                column("p50_us", "p50 µs", 0, LESS),
                column("p90_us", "p90 µs", 0, LESS),
                column("p99_us", "p99 µs", 0, LESS),
                column("p999_us", "p99.9 µs", 0, LESS),
            ];
            (title, columns)
        }
        Work::Connects => {
            let columns = vec![
                column("one_per_s", "one after another /s", 0, MORE),
                column("one_failed", "failed", 0, None),
                column("many_per_s", "64 at a time /s", 0, MORE),
                column("many_failed", "failed", 0, None),
                column("many_cpu_us", "CPU µs each", 0, LESS),
            ];
            ("Connect, one byte each way, close", columns)
        }
        Work::Idle => {
            let columns = vec![
                kib("heap_1000", "heap KiB, 1,000", None),
                kib("heap_10000", "heap KiB, 10,000", None),
                kib("resident_10000", "resident KiB, 10,000", None),
                kib("slab_10000", "kernel KiB, 10,000", None),
                column("cpu_percent_10000", "CPU %, 10,000", 1, None),
            ];
            ("Idle connections, each and per side", columns)
        }
        Work::Active => {
            let columns = vec![
                GBIT,
                column("alone_gbit", "one alone", 2, MORE),
                column("of_alone", "sum / one", 2, None),
                column("slowest_of_mean", "slowest / mean", 2, None),
                CPU,
                PEAK,
            ];
            ("1,000 connections at once", columns)
        }
    }
}

impl Contestant {
    fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursFixed)
    }

    fn is_other(self) -> bool {
        matches!(
            self,
            Self::Quinn | Self::QuinnPlain | Self::S2n | Self::Kcp | Self::Utp
        )
    }

    /// The kernel with segments as long as this one's, if that was measured.
    fn kernel(self, work: Work, samples: &Samples) -> Self {
        let is_free = matches!(self, Self::Ours | Self::Kernel);
        if !is_free && samples.contains_key(&(work, Self::KernelFixed)) {
            Self::KernelFixed
        } else {
            Self::Kernel
        }
    }
}

/// The middle of some values.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a contestant's figure is, if it was measured.
fn figure(samples: &Samples, work: Work, contestant: Contestant, name: &str) -> Option<f64> {
    let figures = samples.get(&(work, contestant))?;
    Some(median(figures.get(name)?))
}

/// A value, and behind it "(× the kernel's, × the best other peer's)", the second for our own only.
fn cell(samples: &Samples, work: Work, contestant: Contestant, column: &Column) -> String {
    let Some(value) = figure(samples, work, contestant, column.figure) else {
        return "–".to_owned();
    };
    let shown = format!("{:.*}", column.digits, value / column.unit);
    let Some(better) = column.better else {
        return shown;
    };
    let mut ratios = Vec::new();
    let kernel = contestant.kernel(work, samples);
    if contestant != kernel
        && let Some(kernel) = figure(samples, work, kernel, column.figure)
    {
        ratios.push(format!("{:.2}", value / kernel));
    }
    let others = samples
        .keys()
        .filter(|(measured, other)| *measured == work && other.is_other())
        .filter_map(|&(_, other)| figure(samples, work, other, column.figure));
    let best = match better {
        Better::More => others.reduce(f64::max),
        Better::Less => others.reduce(f64::min),
    };
    if contestant.is_ours()
        && let Some(best) = best
    {
        ratios.push(format!("{:.2}", value / best));
    }
    if ratios.is_empty() {
        shown
    } else {
        format!("{shown} ({})", ratios.join(", "))
    }
}

/// One table per measurement.
pub(crate) fn print(out: &mut dyn Write, samples: &Samples, is_markdown: bool) -> io::Result<()> {
    let mut works: Vec<Work> = samples.keys().map(|(work, _)| *work).collect();
    works.dedup();
    for work in works {
        let (title, columns) = layout(work);
        let heads = columns.iter().map(|column| column.title.to_owned());
        let mut rows = vec![[title.to_owned()].into_iter().chain(heads).collect()];
        for &(measured, contestant) in samples.keys() {
            if measured == work {
                let mut row = vec![contestant.title().to_owned()];
                row.extend(
                    columns
                        .iter()
                        .map(|column| cell(samples, work, contestant, column)),
                );
                rows.push(row);
            }
        }
        if is_markdown {
            markdown(out, &rows)?;
        } else {
            aligned(out, &rows)?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "Medians. In parentheses: × kernel TCP (with segments as long, where it was measured), × the best other peer."
    )
}

fn markdown(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    for (index, row) in rows.iter().enumerate() {
        writeln!(out, "| {} |", row.join(" | "))?;
        if index == 0 {
            writeln!(out, "| --- |{}", " ---: |".repeat(row.len() - 1))?;
        }
    }
    Ok(())
}

fn aligned(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let count = rows.first().map_or(0, Vec::len);
    let width = |index: usize| {
        let lengths = rows.iter().filter_map(|row| row.get(index));
        lengths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if index == 0 {
                write!(out, "{cell:<width$}")?;
            } else {
                write!(out, "  {cell:>width$}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// Everything that was measured, by the measurement's name and the peer's.
pub(crate) fn json(out: &mut dyn Write, samples: &Samples) -> io::Result<()> {
    let mut works: BTreeMap<String, BTreeMap<&str, BTreeMap<&str, _>>> = BTreeMap::new();
    for ((work, contestant), figures) in samples {
        let work = works.entry(work.name()).or_default();
        let shown = work.entry(contestant.title()).or_default();
        for (name, values) in figures {
            let least = values.iter().copied().reduce(f64::min);
            let most = values.iter().copied().reduce(f64::max);
            let value = serde_json::json!({
                "median": median(values), "min": least, "max": most, "all": values,
            });
            shown.insert(name, value);
        }
    }
    serde_json::to_writer_pretty(&mut *out, &works)?;
    writeln!(out)
}
