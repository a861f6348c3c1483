//! The picture: one column per record, one panel per quantity, all over the same time.

use std::time::Duration;

use plotters::prelude::*;

use super::episodes::{self, Shape, Span};
use super::paint::{
    Align, BLUE, BROWN, Frame, GREEN, GREY, INK, LILAC, MINT, ORANGE, PURPLE, Painted, Panel, RED,
    ROSE, Root, SAND, TEAL, TEXT, TIME_AXIS, fill, pin, pixel, text,
};
use super::run::{Flow, QueueSample, Record, Sample};
use super::scene::{Rate, Scene};
use super::units::{Queue, show_time};

/// Widths of the one column of a picture, and of each of several.
const ONE_COLUMN: i32 = 1_500;
const MANY_COLUMNS: i32 = 900;
const MARGIN: i32 = 24;
const HEADER: i32 = 96;
/// Above each panel: its name and legend.
const LEGEND: i32 = 44;
const WINDOW: i32 = 430;
const SMALL: i32 = 165;
/// One row of the events.
const ROW: i32 = 26;

/// Flows that share a bottleneck, in this order.
const FLOWS: [RGBColor; 6] = [BLUE, ORANGE, GREEN, PURPLE, TEAL, BROWN];

/// Phases of controllers that are worth a background, what they are called in the picture, and that.
const PHASES: [(&str, &str, RGBColor); 5] = [
    ("slow start", "slow start", MINT),
    ("conservative slow start", "HyStart++", SAND),
    ("Startup", "startup", MINT),
    ("ProbeBW UP", "probe up", SAND),
    ("ProbeRTT", "probe RTT", LILAC),
];

/// What all columns have in common, so that they can be compared.
struct Scale {
    seconds: f64,
    /// Bytes in the unit of windows, and of queues that are limited by bytes, and its name.
    unit: (f64, &'static str),
    window: f64,
    rtt: f64,
    rate: f64,
    queue: f64,
    rows: i32,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "heights in a picture")]
    fn new(scene: &Scene, records: &[Record]) -> Self {
        let flows = || records.iter().flat_map(|record| &record.flows);
        let samples = || flows().flat_map(|flow| &flow.samples);
        let highest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max).max(1e-9);
        let bytes = highest(&mut samples().map(|sample| sample.cwnd.max(sample.in_flight) as f64));
        let unit = if bytes < 9e6 {
            (1e3, "kB")
        } else {
            (1e6, "MB")
        };
        let rtts = &mut samples().filter_map(|sample| sample.rtt);
        let queues = &mut records.iter().flat_map(|record| &record.queue);
        let queue = highest(&mut queues.map(|look| waiting(scene, look, unit.0)));
        let most = queue_limit(scene, unit.0);
        let capacity = highest(&mut capacity(scene).into_iter().map(|(_, rate)| rate));
        Self {
            seconds: scene.length.as_secs_f64(),
            unit,
            window: bytes / unit.0 * 1.08,
            rtt: highest(&mut rtts.map(|rtt| rtt.as_secs_f64() * 1e3)) * 1.1,
            rate: capacity * 1.25,
            queue: queue.max(most) * 1.12,
            rows: 4 * i32::try_from(records.iter().map(|r| r.flows.len()).max().unwrap_or(1))
                .unwrap_or(1),
        }
    }

    fn panel(&self, frame: Frame, top: f64) -> Panel {
        Panel::new(frame, 0.0..self.seconds, 0.0..top)
    }
}

/// Draws everything; returns the SVG.
pub(crate) fn draw(scene: &Scene, records: &[Record]) -> Painted<String> {
    let scale = Scale::new(scene, records);
    let columns = i32::try_from(records.len()).unwrap_or(1).max(1);
    let column = if columns == 1 {
        ONE_COLUMN
    } else {
        MANY_COLUMNS
    };
    let width = column * columns + MARGIN * (columns + 1);
    let height = HEADER + 5 * LEGEND + WINDOW + 3 * SMALL + ROW * scale.rows + TIME_AXIS + MARGIN;
    let mut svg = String::new();
    {
        let size = (width.unsigned_abs(), height.unsigned_abs());
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let title = title(records);
        let large = (Align::Left, TEXT * 1.5, INK);
        text(&root, &title, (MARGIN, 36), large, FontStyle::Bold)?;
        let ordinary = (Align::Left, TEXT, INK);
        text(
            &root,
            &scene.describe(),
            (MARGIN, 76),
            ordinary,
            FontStyle::Normal,
        )?;
        for (index, record) in (0..).zip(records) {
            let left = MARGIN + index * (column + MARGIN);
            draw_column(&root, scene, &scale, record, (left, column))?;
        }
        root.present()?;
    }
    // For readers who hear it; names and numbers need no escaping.
    let title = format!(
        ">\n<title>{}: {}</title>\n",
        title(records),
        scene.describe()
    );
    Ok(svg.replacen(">\n", &title, 1))
}

fn title(records: &[Record]) -> String {
    let shared: Vec<&str> = match records {
        [record] => record.flows.iter().map(|flow| flow.name.as_str()).collect(),
        _ => records
            .iter()
            .flat_map(|record| &record.flows)
            .map(|flow| flow.name.as_str())
            .collect(),
    };
    let how = match records {
        [record] if record.flows.len() > 1 => " on one bottleneck",
        [_] | [] => "",
        _ => ", each alone on the same path",
    };
    format!("{}{how}", shared.join(", "))
}

/// Draws the panels of one record, one below the other.
fn draw_column(
    root: &Root<'_>,
    scene: &Scene,
    scale: &Scale,
    record: &Record,
    (left, width): (i32, i32),
) -> Painted<()> {
    let mut top = HEADER;
    let mut frame = |height: i32| {
        top += LEGEND + height;
        Frame {
            left,
            top: top - height,
            width,
            height,
        }
    };
    draw_window(root, scale, record, frame(WINDOW))?;
    draw_events(root, scale, record, frame(ROW * scale.rows))?;
    draw_rtt(root, scale, record, frame(SMALL))?;
    draw_rate(root, scene, scale, record, frame(SMALL))?;
    draw_queue(root, scene, scale, record, frame(SMALL))
}

/// Writes a panel's name, and what its colours mean.
fn legend(root: &Root<'_>, frame: Frame, name: &str, entries: &[(&str, RGBColor)]) -> Painted<()> {
    let middle = frame.top - 18;
    let ordinary = |align| (align, TEXT, INK);
    text(
        root,
        name,
        (frame.left, middle),
        ordinary(Align::Left),
        FontStyle::Bold,
    )?;
    let mut left = frame.left + frame.width;
    for (what, colour) in entries.iter().rev() {
        // Nobody knows the reader's font; letters are about this wide.
        let letters = i32::try_from(what.chars().count()).unwrap_or(0);
        left -= letters * 21 / 2 + 54;
        fill(root, (left, middle - 8), (left + 20, middle + 8), colour)?;
        text(
            root,
            what,
            (left + 28, middle),
            ordinary(Align::Left),
            FontStyle::Normal,
        )?;
    }
    Ok(())
}

/// Says which flow has which colour, where there are several.
fn flow_entries(record: &Record) -> Vec<(&str, RGBColor)> {
    let names = record.flows.iter().map(|flow| flow.name.as_str());
    names.zip(FLOWS.into_iter().cycle()).collect()
}

fn seconds(sample: &Sample) -> f64 {
    sample.at.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "heights in a picture")]
fn draw_window(root: &Root<'_>, scale: &Scale, record: &Record, frame: Frame) -> Painted<()> {
    let panel = scale.panel(frame, scale.window);
    let (unit, unit_name) = scale.unit;
    let name = match record.flows.as_slice() {
        [flow] => format!("{}: window, {unit_name}", flow.name),
        _ => format!("window, {unit_name}"),
    };
    let in_unit = |bytes: u64| bytes as f64 / unit;
    if let [flow] = record.flows.as_slice() {
        for (phase, _, colour) in PHASES {
            for span in episodes::phases(flow, phase) {
                panel.band(root, span, colour)?;
            }
        }
        for span in episodes::recoveries(flow) {
            panel.band(root, span, ROSE)?;
        }
    }
    panel.draw_axes(root, false)?;
    for (flow, colour) in record.flows.iter().zip(FLOWS.into_iter().cycle()) {
        let is_alone = record.flows.len() == 1;
        let samples = || flow.samples.iter();
        let flights = samples().map(|s| (seconds(s), in_unit(s.in_flight)));
        let threshold = if is_alone {
            panel.area(root, flights, GREY.mix(0.3))?;
            ORANGE.mix(1.0)
        } else {
            let flights = flights.map(|(at, bytes)| (at, Some(bytes)));
            panel.line(root, flights, colour.mix(0.4).stroke_width(1))?;
            colour.mix(0.6)
        };
        let thresholds = samples().map(|s| (seconds(s), s.ssthresh.map(in_unit)));
        panel.line(root, thresholds, threshold.stroke_width(2))?;
        let windows = samples().map(|s| (seconds(s), Some(in_unit(s.cwnd))));
        panel.line(root, windows, colour.stroke_width(3))?;
        for (at, _) in episodes::steps(&flow.samples, |sample| sample.recoveries) {
            let before = samples().take_while(|sample| sample.at < at).last();
            let height = in_unit(before.map_or(0, |sample| sample.cwnd));
            let point = (panel.x(at.as_secs_f64()), panel.y(height));
            pin(root, (pixel(point.0), pixel(point.1)), RED)?;
        }
        for (at, _) in episodes::steps(&flow.samples, |sample| sample.timeouts) {
            let x = pixel(panel.x(at.as_secs_f64()));
            let bottom = frame.top + frame.height;
            fill(root, (x - 1, frame.top), (x + 2, bottom), INK)?;
        }
        if is_alone {
            name_phases(root, &panel, flow)?;
        }
    }
    let alone = [
        ("cwnd", BLUE),
        ("ssthresh", ORANGE),
        ("bytes in flight", GREY),
    ];
    let together = flow_entries(record);
    let entries = match record.flows.as_slice() {
        [_] => &alone,
        _ => together.as_slice(),
    };
    legend(root, frame, &name, entries)
}

/// Writes beside CUBIC's curve which part of it this is.
fn name_phases(root: &Root<'_>, panel: &Panel, flow: &Flow) -> Painted<()> {
    if flow.controller.title() != "CUBIC" {
        return Ok(());
    }
    for (span, shape) in episodes::curves(flow) {
        let what = match shape {
            Shape::Concave => "concave",
            Shape::Convex => "convex",
        };
        let (left, right) = panel.columns(span);
        if right - left < 90 {
            continue;
        }
        let bottom = panel.frame.top + panel.frame.height;
        let at = (i32::midpoint(left, right), bottom - 18);
        let style = (Align::Middle, TEXT, BLUE);
        text(root, what, at, style, FontStyle::Italic)?;
    }
    Ok(())
}

fn draw_events(root: &Root<'_>, scale: &Scale, record: &Record, frame: Frame) -> Painted<()> {
    let panel = scale.panel(frame, 1.0);
    let mut top = frame.top;
    for (flow, flow_colour) in record.flows.iter().zip(FLOWS.into_iter().cycle()) {
        let instants = |counter: fn(&Sample) -> u64| -> Vec<Span> {
            let steps = episodes::steps(&flow.samples, counter);
            let spans = steps.into_iter().map(|(at, _)| Span {
                from: at,
                until: at,
            });
            spans.collect()
        };
        let rows = [
            ("recovery", episodes::recoveries(flow), RED),
            ("timeout", instants(|sample| sample.timeouts), INK),
            ("lost", instants(|sample| sample.lost), RED),
            ("resent", instants(|sample| sample.retransmitted), ORANGE),
        ];
        for (what, spans, colour) in rows {
            let is_alone = record.flows.len() == 1;
            let (colour, ink) = if is_alone {
                (colour, INK)
            } else {
                (flow_colour, flow_colour)
            };
            let middle = top + ROW / 2;
            let right = frame.left + frame.width;
            fill(
                root,
                (panel.frame.left, top + ROW - 1),
                (right, top + ROW),
                super::paint::GRID,
            )?;
            let style = (Align::Right, TEXT * 0.8, ink);
            text(
                root,
                what,
                (panel.frame.left - 8, middle),
                style,
                FontStyle::Normal,
            )?;
            for (left, right) in merged(&panel, &spans) {
                fill(root, (left, top + 4), (right, top + ROW - 5), colour)?;
            }
            top += ROW;
        }
    }
    let mut entries = Vec::new();
    if let [flow] = record.flows.as_slice() {
        let seen = |(phase, ..): &(&str, _, _)| !episodes::phases(flow, phase).is_empty();
        let phases = PHASES.iter().filter(|entry| seen(entry));
        entries.extend(phases.map(|(_, shown, colour)| (*shown, *colour)));
        entries.push(("fast recovery", ROSE));
    }
    entries.push(("fast retransmit", RED));
    let timeouts = |flow: &Flow| flow.samples.last().is_some_and(|last| last.timeouts > 0);
    if record.flows.iter().any(timeouts) {
        entries.push(("timeout", INK));
    }
    let name = if frame.width < ONE_COLUMN {
        ""
    } else {
        "events"
    };
    legend(root, frame, name, &entries)
}

/// Returns the columns of pixels that times cover; neighbours become one.
fn merged(panel: &Panel, spans: &[Span]) -> Vec<(i32, i32)> {
    let mut merged: Vec<(i32, i32)> = Vec::new();
    for span in spans {
        let (left, right) = panel.columns(*span);
        match merged.last_mut() {
            Some(last) if left <= last.1 => last.1 = last.1.max(right),
            _ => merged.push((left, right)),
        }
    }
    merged
}

fn draw_rtt(root: &Root<'_>, scale: &Scale, record: &Record, frame: Frame) -> Painted<()> {
    let panel = scale.panel(frame, scale.rtt);
    panel.draw_axes(root, false)?;
    for (flow, colour) in record.flows.iter().zip(FLOWS.into_iter().cycle()) {
        let colour = if record.flows.len() == 1 {
            PURPLE
        } else {
            colour
        };
        let millis = |sample: &Sample| sample.rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
        let rtts = flow.samples.iter().map(|s| (seconds(s), millis(s)));
        panel.line(root, rtts, colour.stroke_width(2))?;
    }
    legend(root, frame, "round-trip time, ms", &[])
}

/// Returns the middles of the intervals, and what arrived in each, in Mbit/s.
#[expect(clippy::cast_precision_loss, reason = "heights in a picture")]
pub(crate) fn delivered(scene: &Scene, samples: &[Sample]) -> Vec<(f64, f64)> {
    let arrived = |until: Duration| {
        let before = samples.partition_point(|sample| sample.at <= until);
        before.checked_sub(1).map_or(0, |i| samples[i].arrived) as f64
    };
    per_interval(scene, |from, until| arrived(until) - arrived(from))
}

/// Returns the same for what the bottleneck could have carried.
fn capacity(scene: &Scene) -> Vec<(f64, f64)> {
    per_interval(scene, |from, until| scene.capacity(from, until))
}

fn per_interval(scene: &Scene, bytes: impl Fn(Duration, Duration) -> f64) -> Vec<(f64, f64)> {
    let mut from = Duration::ZERO;
    let mut rates = Vec::new();
    while from < scene.length {
        let until = from + scene.interval;
        if until > scene.length {
            break;
        }
        let rate = bytes(from, until) * 8e-6 / scene.interval.as_secs_f64();
        rates.push(((from + scene.interval / 2).as_secs_f64(), rate));
        from = until;
    }
    rates
}

#[expect(clippy::cast_precision_loss, reason = "heights in a picture")]
fn draw_rate(
    root: &Root<'_>,
    scene: &Scene,
    scale: &Scale,
    record: &Record,
    frame: Frame,
) -> Painted<()> {
    let panel = scale.panel(frame, scale.rate);
    panel.draw_axes(root, false)?;
    let capacity = capacity(scene).into_iter();
    let capacity = capacity.map(|(at, rate)| (at, Some(rate)));
    panel.line(root, capacity, GREY.stroke_width(2))?;
    for (flow, colour) in record.flows.iter().zip(FLOWS.into_iter().cycle()) {
        let colour = if record.flows.len() == 1 {
            GREEN
        } else {
            colour
        };
        let pacing = flow.samples.iter();
        let pacing = pacing.map(|s| (seconds(s), s.pacing_rate.map(|rate| rate as f64 * 8e-6)));
        panel.line(root, pacing, colour.mix(0.5).stroke_width(2))?;
        let rates = delivered(scene, &flow.samples).into_iter();
        let first = flow.samples.first().map_or(0.0, seconds) - scene.interval.as_secs_f64();
        let rates = rates.map(|(at, rate)| (at, (at >= first).then_some(rate)));
        panel.line(root, rates, colour.stroke_width(3))?;
    }
    let name = format!("delivered per {}, Mbit/s", show_time(scene.interval));
    let link = match scene.rate {
        Rate::Constant(_) => ("the link's rate", GREY),
        Rate::Trace(_) => ("the trace's rate", GREY),
    };
    let paces = |flow: &Flow| {
        flow.samples
            .iter()
            .any(|sample| sample.pacing_rate.is_some())
    };
    let pacing = ("pacing rate", RGBColor(138, 192, 158));
    let pacing = record.flows.iter().any(paces).then_some(pacing);
    let entries: Vec<_> = pacing.into_iter().chain([link]).collect();
    legend(root, frame, &name, &entries)
}

fn draw_queue(
    root: &Root<'_>,
    scene: &Scene,
    scale: &Scale,
    record: &Record,
    frame: Frame,
) -> Painted<()> {
    let panel = scale.panel(frame, scale.queue);
    panel.draw_axes(root, true)?;
    let (unit, unit_name) = scale.unit;
    let limit = pixel(panel.y(queue_limit(scene, unit)));
    let right = frame.left + frame.width;
    fill(
        root,
        (panel.frame.left, limit - 1),
        (right, limit + 1),
        GREY,
    )?;
    let looks = record.queue.iter();
    let looks = looks.map(|look| (look.at.as_secs_f64(), Some(waiting(scene, look, unit))));
    panel.line(root, looks, BROWN.stroke_width(2))?;
    for pair in record.queue.windows(2) {
        let [before, after] = pair else { continue };
        if after.dropped > before.dropped {
            let x = pixel(panel.x(after.at.as_secs_f64()));
            fill(root, (x - 1, frame.top), (x + 1, frame.top + 12), RED)?;
        }
    }
    let name = match scene.queue {
        Queue::Bdp(_) => format!("queue at the bottleneck, {unit_name}"),
        Queue::Datagrams(_) => "queue at the bottleneck, datagrams".to_owned(),
    };
    legend(root, frame, &name, &[("limit", GREY), ("dropped", RED)])
}

/// Returns what waits in the unit of the queue's limit.
#[expect(clippy::cast_precision_loss, reason = "heights in a picture")]
fn waiting(scene: &Scene, look: &QueueSample, unit: f64) -> f64 {
    match scene.queue {
        Queue::Bdp(_) => look.queue.bytes as f64 / unit,
        Queue::Datagrams(_) => look.queue.datagrams as f64,
    }
}

#[expect(clippy::cast_precision_loss, reason = "heights in a picture")]
fn queue_limit(scene: &Scene, unit: f64) -> f64 {
    match scene.queue {
        Queue::Bdp(_) => scene.queue_bytes().unwrap_or(0) as f64 / unit,
        Queue::Datagrams(datagrams) => datagrams as f64,
    }
}
