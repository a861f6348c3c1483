//! Cases, what they measured, and the table of it.

use std::fmt::Write as _;

/// One line or a few of the table.
pub(crate) struct Case {
    pub(crate) scenario: String,
    /// The controller, or those that are compared.
    pub(crate) controller: String,
    /// Takes too long for every change.
    pub(crate) is_long: bool,
    pub(crate) run: Box<dyn Fn(u64) -> Vec<Row> + Send + Sync>,
}

impl Case {
    pub(crate) fn new(
        scenario: impl Into<String>,
        controller: impl Into<String>,
        run: impl Fn(u64) -> Vec<Row> + Send + Sync + 'static,
    ) -> Self {
        Self {
            scenario: scenario.into(),
            controller: controller.into(),
            is_long: false,
            run: Box::new(run),
        }
    }

    pub(crate) fn long(mut self) -> Self {
        self.is_long = true;
        self
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.scenario, self.controller)
    }
}

/// What was measured of one flow, or of several together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) controller: String,
    /// In bits per second.
    pub(crate) goodput: f64,
    /// The same as a part of what the link could carry of payload.
    pub(crate) share: Option<f64>,
    /// Payload that was sent again, as a part of all.
    pub(crate) again: f64,
    /// Mean and 95th percentile of the queueing delay in ms.
    pub(crate) queueing: Option<[f64; 2]>,
    pub(crate) timeouts: u64,
    pub(crate) checks: Vec<Check>,
}

impl Row {
    pub(crate) fn is_met(&self) -> bool {
        self.checks.iter().all(Check::is_met)
    }

    fn has_bound(&self) -> bool {
        self.checks.iter().any(|check| check.bound.is_some())
    }

    /// Adds what has to be at least `bound`.
    pub(crate) fn at_least(mut self, what: &str, value: f64, bound: f64) -> Self {
        self.checks
            .push(Check::new(what, value, Some((bound, true))));
        self
    }

    /// Adds what may be at most `bound`.
    pub(crate) fn at_most(mut self, what: &str, value: f64, bound: f64) -> Self {
        self.checks
            .push(Check::new(what, value, Some((bound, false))));
        self
    }

    /// Adds what has no bound.
    pub(crate) fn noted(mut self, what: &str, value: f64) -> Self {
        self.checks.push(Check::new(what, value, None));
        self
    }
}

/// A measured value, with its bound if it has one.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    what: String,
    value: f64,
    bound: Option<(f64, bool)>,
}

impl Check {
    fn new(what: &str, value: f64, bound: Option<(f64, bool)>) -> Self {
        Self {
            what: what.to_owned(),
            value,
            bound,
        }
    }

    fn is_met(&self) -> bool {
        match self.bound {
            None => true,
            Some((bound, true)) => self.value >= bound,
            Some((bound, false)) => self.value <= bound,
        }
    }

    fn text(&self) -> String {
        let value = number(self.value);
        match self.bound {
            None => format!("{} {value}", self.what),
            Some((bound, is_least)) => {
                let sign = if is_least { '≥' } else { '≤' };
                format!("{} {value} {sign} {}", self.what, number(bound))
            }
        }
    }
}

/// Three digits, or all before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Markdown,
}

const HEAD: [&str; 9] = [
    "scenario",
    "controller",
    "Mbit/s",
    "of link",
    "again %",
    "queue ms: mean, p95",
    "RTOs",
    "measured, bound",
    "verdict",
];

/// Lays the rows out.
pub(crate) fn table(rows: &[(&Case, &Row)], style: Style) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(|(case, row)| cells(case, row)));
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        let padded = line.iter().zip(widths);
        match style {
            Style::Plain => {
                let cells = padded.map(|(cell, width)| format!("{cell:<width$}"));
                let text = cells.collect::<Vec<_>>().join("  ");
                let _ = writeln!(out, "{}", text.trim_end());
            }
            Style::Markdown => {
                let _ = writeln!(out, "| {} |", line.join(" | "));
                if index == 0 {
                    let _ = writeln!(out, "|{}", " --- |".repeat(line.len()));
                }
            }
        }
    }
    out
}

fn cells(case: &Case, row: &Row) -> [String; HEAD.len()] {
    let verdict = match (row.has_bound(), row.is_met()) {
        (false, _) => "reported",
        (true, true) => "met",
        (true, false) => "MISSED",
    };
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let checks: Vec<_> = row.checks.iter().map(Check::text).collect();
    [
        case.scenario.clone(),
        row.controller.clone(),
        number(row.goodput / 1e6),
        or_nothing(row.share.map(|share| format!("{share:.3}"))),
        format!("{:.2}", row.again * 100.0),
        or_nothing(
            row.queueing
                .map(|[mean, p95]| format!("{mean:.1}, {p95:.1}")),
        ),
        row.timeouts.to_string(),
        checks.join("; "),
        verdict.to_owned(),
    ]
}
