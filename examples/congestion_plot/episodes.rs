//! What happened when: slow starts, recoveries, and CUBIC's concave and convex stretches.

use std::time::Duration;

use super::run::{Flow, Sample};

/// From one time to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
}

/// How a window grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// More and more slowly, towards the window of the last loss.
    Concave,
    /// Faster and faster, away from it.
    Convex,
}

/// Returns the runs of samples for which `holds`.
pub(crate) fn spans(samples: &[Sample], holds: impl Fn(&Sample) -> bool) -> Vec<Span> {
    let runs = samples.chunk_by(|a, b| holds(a) == holds(b));
    // A run lasts until the first sample of the next one.
    let ends = runs.clone().skip(1).chain(std::iter::once(&samples[..0]));
    let spans = runs.zip(ends).filter_map(|(run, next)| {
        let (first, last) = (run.first()?, run.last()?);
        let until = next.first().unwrap_or(last).at;
        holds(first).then_some(Span {
            from: first.at,
            until,
        })
    });
    spans.collect()
}

pub(crate) fn recoveries(flow: &Flow) -> Vec<Span> {
    spans(&flow.samples, |sample| sample.is_in_recovery)
}

/// Returns when the controller was in one of its phases.
pub(crate) fn phases(flow: &Flow, name: &str) -> Vec<Span> {
    spans(&flow.samples, |sample| sample.phase == name)
}

/// Returns when a counter rose, and by how much.
pub(crate) fn steps(samples: &[Sample], counter: impl Fn(&Sample) -> u64) -> Vec<(Duration, u64)> {
    let risen = samples.windows(2).filter_map(|pair| {
        let [before, after] = pair else { return None };
        let rise = counter(after).saturating_sub(counter(before));
        (rise > 0).then_some((after.at, rise))
    });
    risen.collect()
}

/// Values that an epoch's curve is looked at with.
const POINTS: usize = 24;

/// Returns the stretches of congestion avoidance in which the window grows in the shape of CUBIC's curve.
pub(crate) fn curves(flow: &Flow) -> Vec<(Span, Shape)> {
    let is_epoch = |sample: &Sample| sample.phase == "congestion avoidance";
    let same = |a: &Sample, b: &Sample| {
        is_epoch(a) == is_epoch(b) && (a.recoveries, a.timeouts) == (b.recoveries, b.timeouts)
    };
    let epochs = flow.samples.chunk_by(same);
    let epochs = epochs.filter(|epoch| epoch.first().is_some_and(is_epoch));
    epochs.flat_map(epoch_curves).collect()
}

#[expect(clippy::cast_precision_loss, reason = "windows are far below 2^52")]
fn epoch_curves(epoch: &[Sample]) -> Vec<(Span, Shape)> {
    let size = epoch.len() / POINTS;
    if size < 4 {
        return Vec::new();
    }
    let mean = |chunk: &[Sample]| {
        chunk.iter().map(|sample| sample.cwnd as f64).sum::<f64>() / chunk.len() as f64
    };
    let values: Vec<f64> = epoch.chunks_exact(size).take(POINTS).map(mean).collect();
    let growth: Vec<f64> = values.windows(4).map(|few| few[3] - few[0]).collect();
    let flattest = (growth.iter().enumerate()).min_by(|a, b| a.1.total_cmp(b.1));
    let (Some((at, least)), Some(first), Some(last)) = (flattest, growth.first(), growth.last())
    else {
        return Vec::new();
    };
    let whole = values[POINTS - 1] - values[0];
    if whole < values[0] / 50.0 || *least < 0.0 {
        return Vec::new();
    }
    // The middle of what the flattest difference spans.
    let turn = epoch[(at * size + 2 * size).min(epoch.len() - 1)].at;
    let (from, until) = (epoch[0].at, epoch[epoch.len() - 1].at);
    let is_steeper = |other: f64| other > least * 1.5 + whole / 50.0;
    let mut curves = Vec::new();
    if at >= 2 && is_steeper(*first) {
        curves.push((Span { from, until: turn }, Shape::Concave));
    }
    if at + 3 <= growth.len() && is_steeper(*last) {
        let from = if curves.is_empty() { from } else { turn };
        curves.push((Span { from, until }, Shape::Convex));
    }
    curves
}
