//! Fewer points that draw the same line.

/// Thins a line whose unit is the pixel, ordered by x: per `column` pixels its lowest and its highest point,
/// and of these only what is further than `tolerance` from a line through the others.
pub(crate) fn thin(points: &[(f64, f64)], column: f64, tolerance: f64) -> Vec<(f64, f64)> {
    simplify(&extremes(points, column), tolerance)
}

/// Keeps the first, the last, the lowest and the highest point of each column.
fn extremes(points: &[(f64, f64)], column: f64) -> Vec<(f64, f64)> {
    let number = |point: &(f64, f64)| (point.0 / column).floor();
    let same_column = |a: &(f64, f64), b: &(f64, f64)| number(a).total_cmp(&number(b)).is_eq();
    let mut kept = Vec::new();
    for chunk in points.chunk_by(same_column) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut few: Vec<(f64, f64)> = [
            chunk.first(),
            chunk.iter().min_by(by_height),
            chunk.iter().max_by(by_height),
            chunk.last(),
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect();
        few.sort_by(|a, b| a.0.total_cmp(&b.0));
        few.dedup();
        kept.extend(few);
    }
    kept
}

/// The algorithm of Ramer, Douglas and Peucker.
fn simplify(points: &[(f64, f64)], tolerance: f64) -> Vec<(f64, f64)> {
    let Some(last) = points.len().checked_sub(1) else {
        return Vec::new();
    };
    let mut keep = vec![false; points.len()];
    keep[0] = true;
    keep[last] = true;
    let mut spans = vec![(0, last)];
    while let Some((from, until)) = spans.pop() {
        let inner = from + 1..until;
        let farthest = inner
            .map(|i| (distance(points[i], points[from], points[until]), i))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((distance, index)) = farthest.filter(|(distance, _)| *distance > tolerance) {
            debug_assert!(distance.is_finite());
            keep[index] = true;
            spans.extend([(from, index), (index, until)]);
        }
    }
    let kept = points.iter().zip(keep).filter(|(_, keep)| *keep);
    kept.map(|(point, _)| *point).collect()
}

/// Returns how far a point is from the line through two others, or from them if they are one.
fn distance(point: (f64, f64), from: (f64, f64), until: (f64, f64)) -> f64 {
    let (dx, dy) = (until.0 - from.0, until.1 - from.1);
    let (px, py) = (point.0 - from.0, point.1 - from.1);
    // `hypot` and other functions of the platform's library may differ in the last bit; roots do not.
    let length = (dx * dx + dy * dy).sqrt();
    if length == 0.0 {
        return (px * px + py * py).sqrt();
    }
    (dx * py - dy * px).abs() / length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_are_left_out_and_corners_stay() {
        let line: Vec<(f64, f64)> = (0..100)
            .map(f64::from)
            .map(|x| (x, if x < 50.0 { x } else { 100.0 - x }))
            .collect();
        assert_eq!(
            thin(&line, 1.0, 0.5),
            [(0.0, 0.0), (50.0, 50.0), (99.0, 1.0)]
        );
    }

    #[test]
    fn a_spike_within_a_column_stays() {
        let points = [(0.0, 1.0), (0.2, 1.0), (0.4, 90.0), (0.6, 1.0), (9.0, 1.0)];
        let thinned = thin(&points, 2.0, 0.5);
        assert!(thinned.contains(&(0.4, 90.0)), "{thinned:?}");
        assert_eq!(thin(&[], 2.0, 0.5), []);
        assert_eq!(thin(&points[..1], 2.0, 0.5), points[..1]);
    }
}
