//! Medians and ratios of them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::cli::{Contestant, Samples, Work};

/// The middle of some values.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn print(out: &mut dyn Write, samples: &Samples, _markdown: bool) -> io::Result<()> {
    for ((work, contestant), figures) in samples {
        let against = |other: Contestant| samples.get(&(*work, other));
        write!(out, "{work:?} | {}", contestant.title())?;
        for (name, values) in figures {
            let value = median(values);
            write!(out, " | {name} {value:.2}")?;
            for kernel in [Contestant::Kernel, Contestant::KernelFixed] {
                if let Some(values) = against(kernel).and_then(|figures| figures.get(name)) {
                    write!(out, " ({:.2})", value / median(values))?;
                }
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

pub(crate) fn json(out: &mut dyn Write, samples: &Samples) -> io::Result<()> {
    let mut works: BTreeMap<Work, BTreeMap<&str, _>> = BTreeMap::new();
    for ((work, contestant), figures) in samples {
        let figures: BTreeMap<_, _> = figures
            .iter()
            .map(|(name, values)| {
                let least = values.iter().copied().fold(f64::INFINITY, f64::min);
                let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let value = serde_json::json!({
                    "median": median(values), "min": least, "max": most, "all": values,
                });
                (name.clone(), value)
            })
            .collect();
        let works = works.entry(*work).or_default();
        works.insert(contestant.title(), figures);
    }
    let works: BTreeMap<String, _> = works
        .into_iter()
        .map(|(work, figures)| (format!("{work:?}").to_lowercase(), figures))
        .collect();
    serde_json::to_writer_pretty(&mut *out, &works)?;
    writeln!(out)
}
