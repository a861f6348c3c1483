//! Pixels, colours, axes: what panels are made of.

use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::episodes::Span;
use super::thin::thin;

pub(crate) const INK: RGBColor = RGBColor(31, 41, 55);
pub(crate) const GRID: RGBColor = RGBColor(226, 230, 236);
pub(crate) const GREY: RGBColor = RGBColor(148, 158, 172);
pub(crate) const BLUE: RGBColor = RGBColor(29, 95, 191);
pub(crate) const ORANGE: RGBColor = RGBColor(224, 123, 0);
pub(crate) const PURPLE: RGBColor = RGBColor(122, 51, 184);
pub(crate) const GREEN: RGBColor = RGBColor(21, 128, 61);
pub(crate) const BROWN: RGBColor = RGBColor(146, 84, 22);
pub(crate) const RED: RGBColor = RGBColor(205, 28, 40);
pub(crate) const TEAL: RGBColor = RGBColor(13, 134, 148);
/// Behind slow start and BBR's startup.
pub(crate) const MINT: RGBColor = RGBColor(214, 240, 222);
/// Behind the slow start that HyStart++ makes conservative, and where BBR probes for bandwidth.
pub(crate) const SAND: RGBColor = RGBColor(252, 238, 184);
/// Where BBR probes for the round-trip time.
pub(crate) const LILAC: RGBColor = RGBColor(222, 214, 250);
/// Behind recoveries.
pub(crate) const ROSE: RGBColor = RGBColor(250, 208, 210);

/// Height of ordinary text, in the library's measure.
pub(crate) const TEXT: f64 = 25.0;
/// Room for the numbers at an axis.
const LABELS: i32 = 84;
/// Room for the numbers of the time axis and its name.
pub(crate) const TIME_AXIS: i32 = 64;
/// Of a line's columns, in pixels, and how far a point that is left out may be from it.
const COLUMN: f64 = 2.0;
const TOLERANCE: f64 = 0.9;

pub(crate) type Painted<T> = Result<T, DrawingAreaErrorKind<io::Error>>;
pub(crate) type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Where text stands with respect to its point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Align {
    Left,
    Middle,
    Right,
}

/// Writes a line of text; its middle is at the height of the point.
pub(crate) fn text(
    root: &Root<'_>,
    what: &str,
    at: (i32, i32),
    (align, size, colour): (Align, f64, RGBColor),
    style: FontStyle,
) -> Painted<()> {
    let horizontal = match align {
        Align::Left => HPos::Left,
        Align::Middle => HPos::Center,
        Align::Right => HPos::Right,
    };
    let font = ("sans-serif", size).into_font().style(style);
    let style = font.color(&colour).pos(Pos::new(horizontal, VPos::Center));
    root.draw(&Text::new(what.to_owned(), at, style))
}

/// Fills a rectangle given by two corners; it is one pixel wide at least.
pub(crate) fn fill(
    root: &Root<'_>,
    (left, top): (i32, i32),
    (right, bottom): (i32, i32),
    colour: impl Color,
) -> Painted<()> {
    let corners = [(left, top), (right.max(left + 1), bottom)];
    root.draw(&Rectangle::new(corners, colour.filled()))
}

/// Marks a point with a small triangle that stands on it.
pub(crate) fn pin(root: &Root<'_>, (x, y): (i32, i32), colour: RGBColor) -> Painted<()> {
    let corners = vec![(x, y - 4), (x - 8, y - 20), (x + 8, y - 20)];
    root.draw(&Polygon::new(corners, colour.filled()))
}

/// Rounds to a pixel.
#[expect(clippy::cast_possible_truncation, reason = "saturates")]
pub(crate) fn pixel(position: f64) -> i32 {
    position.round() as i32
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) left: i32,
    pub(crate) top: i32,
    pub(crate) width: i32,
    pub(crate) height: i32,
}

/// A rectangle with axes, in which lines are drawn.
#[derive(Debug)]
pub(crate) struct Panel {
    /// Without the numbers beside it.
    pub(crate) frame: Frame,
    x: Range<f64>,
    y: Range<f64>,
}

impl Panel {
    /// Makes one without drawing anything.
    pub(crate) fn new(frame: Frame, x: Range<f64>, y: Range<f64>) -> Self {
        let frame = Frame {
            left: frame.left + LABELS,
            width: frame.width - LABELS,
            ..frame
        };
        Self { frame, x, y }
    }

    /// Draws the axes with their numbers; those of the time only where `with_time`.
    pub(crate) fn draw_axes(&self, root: &Root<'_>, with_time: bool) -> Painted<()> {
        let bottom = if with_time { TIME_AXIS } else { 0 };
        let (width, height) = (self.frame.width + LABELS, self.frame.height + bottom);
        let area = root
            .clone()
            .shrink((self.frame.left - LABELS, self.frame.top), (width, height));
        let mut chart = ChartBuilder::on(&area)
            .set_label_area_size(LabelAreaPosition::Left, LABELS)
            .set_label_area_size(LabelAreaPosition::Bottom, bottom)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        let number = |value: &f64| super::units::short(*value);
        let labels = ("sans-serif", TEXT).into_font().color(&INK);
        chart
            .configure_mesh()
            .max_light_lines(0)
            .x_labels(usize::try_from(self.frame.width / 110).unwrap_or(5))
            .y_labels(usize::try_from(self.frame.height / 42).unwrap_or(3))
            .bold_line_style(GRID)
            .axis_style(GREY)
            .label_style(labels.clone())
            .axis_desc_style(labels)
            .x_label_formatter(&number)
            .y_label_formatter(&number)
            .x_desc(if with_time { "time, s" } else { "" })
            .draw()
    }

    /// Returns where a value stands, in pixels.
    pub(crate) fn x(&self, seconds: f64) -> f64 {
        let share = (seconds - self.x.start) / (self.x.end - self.x.start);
        f64::from(self.frame.left) + share * f64::from(self.frame.width)
    }

    /// Returns where a value stands, in pixels; what is higher than the panel stands at its top.
    pub(crate) fn y(&self, value: f64) -> f64 {
        let share = (value - self.y.start) / (self.y.end - self.y.start);
        let bottom = f64::from(self.frame.top + self.frame.height);
        bottom - share.clamp(0.0, 1.0) * f64::from(self.frame.height)
    }

    /// Draws a line through what is known of it.
    pub(crate) fn line(
        &self,
        root: &Root<'_>,
        points: impl IntoIterator<Item = (f64, Option<f64>)>,
        style: impl Into<ShapeStyle>,
    ) -> Painted<()> {
        let style = style.into();
        let points: Vec<(f64, Option<f64>)> = points.into_iter().collect();
        for run in points.chunk_by(|a, b| a.1.is_some() == b.1.is_some()) {
            let pixels: Vec<(f64, f64)> = run
                .iter()
                .filter_map(|(x, y)| Some((self.x(*x), self.y((*y)?))))
                .collect();
            let line: Vec<(i32, i32)> = thin(&pixels, COLUMN, TOLERANCE)
                .into_iter()
                .map(|(x, y)| (pixel(x), pixel(y)))
                .collect();
            if !line.is_empty() {
                root.draw(&PathElement::new(line, style))?;
            }
        }
        Ok(())
    }

    /// Fills what is below a line.
    pub(crate) fn area(
        &self,
        root: &Root<'_>,
        points: impl IntoIterator<Item = (f64, f64)>,
        colour: impl Color,
    ) -> Painted<()> {
        let pixels = points.into_iter().map(|(x, y)| (self.x(x), self.y(y)));
        let mut corners: Vec<(i32, i32)> = thin(&pixels.collect::<Vec<_>>(), COLUMN, TOLERANCE)
            .into_iter()
            .map(|(x, y)| (pixel(x), pixel(y)))
            .collect();
        let (Some(first), Some(last)) = (corners.first().copied(), corners.last().copied()) else {
            return Ok(());
        };
        let bottom = self.frame.top + self.frame.height;
        corners.extend([(last.0, bottom), (first.0, bottom)]);
        root.draw(&Polygon::new(corners, colour.filled()))
    }

    /// Colours the background during a time.
    pub(crate) fn band(&self, root: &Root<'_>, span: Span, colour: RGBColor) -> Painted<()> {
        let (left, right) = self.columns(span);
        let bottom = self.frame.top + self.frame.height;
        fill(root, (left, self.frame.top), (right, bottom), colour)
    }

    /// Returns between which columns of pixels a time lies.
    pub(crate) fn columns(&self, span: Span) -> (i32, i32) {
        let left = pixel(self.x(span.from.as_secs_f64()));
        let right = pixel(self.x(span.until.as_secs_f64()));
        (left, right.max(left + 2))
    }
}
