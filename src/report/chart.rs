//! Line and scatter plots as inline SVG.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// One named set of points.
pub(super) struct Series {
    /// Legend text.
    pub(super) name: String,
    /// Points (x, y).
    pub(super) points: Vec<(f64, f64)>,
    /// Joined by a line, or single marks.
    pub(super) line: bool,
}

/// A plot's words and scales.
pub(super) struct Chart<'a> {
    /// Text under the x axis.
    pub(super) x: &'a str,
    /// Text beside the y axis.
    pub(super) y: &'a str,
    /// Whether y is logarithmic; points at or below zero are then left out.
    pub(super) log: bool,
}

// Okabe and Ito's palette, which people with colour-blindness can tell apart; marks, dashes after the first round of
// colours, and the legend's order say the same again.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];
const SIZE: (u32, u32) = (620, 330);
/// A line of at most so many points has a mark at each.
const MARKED: usize = 24;

type DrawError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// The plot as an `<svg>` element, or nothing when there is no point to draw.
pub(super) fn draw(chart: &Chart<'_>, series: &[Series]) -> Option<String> {
    let shown = |&&(x, y): &&(f64, f64)| x.is_finite() && y.is_finite() && (!chart.log || y > 0.0);
    let series: Vec<Series> = series
        .iter()
        .map(|s| Series {
            name: s.name.clone(),
            points: s.points.iter().filter(shown).copied().collect(),
            line: s.line,
        })
        .filter(|s| !s.points.is_empty())
        .collect();
    let all = || series.iter().flat_map(|s| &s.points);
    let range = |pick: fn(&(f64, f64)) -> f64| {
        all().map(pick).fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (x, y) = (range(|p| p.0), range(|p| p.1));
    if !x.0.is_finite() {
        return None;
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let wide = |(low, high): (f64, f64)| {
            let margin = if high > low { (high - low) * 0.04 } else { high.abs().max(1.0) * 0.1 };
            low - margin..high + margin
        };
        let drawn = if chart.log {
            plot(&area, chart, &series, wide(x), (y.0 / 1.3..y.1 * 1.3).log_scale())
        } else {
            plot(&area, chart, &series, wide(x), wide(y))
        };
        drawn.expect("writing into a string cannot fail");
    }
    Some(svg)
}

fn plot<'a, Y>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    chart: &Chart<'_>,
    series: &[Series],
    x: std::ops::Range<f64>,
    y: Y,
) -> Result<(), DrawError<'a>>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut context = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    context
        .configure_mesh()
        .x_desc(chart.x)
        .y_desc(chart.y)
        .x_labels(8)
        .y_labels(7)
        .y_label_formatter(&short)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 12))
        .draw()?;
    for (index, one) in series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = || one.points.iter().copied();
        let is_marked = !one.line || one.points.len() <= MARKED;
        if one.line && index >= COLOURS.len() {
            context.draw_series(DashedLineSeries::new(points(), 7, 4, colour.stroke_width(2)))?;
        } else if one.line {
            context.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?;
        }
        let mark = move || Polygon::new(if is_marked { shape(index) } else { Vec::new() }, colour.filled());
        let marks = points().filter(|_| is_marked).map(|point| EmptyElement::at(point) + mark());
        let line = if one.line { vec![(-9, 0), (9, 0)] } else { Vec::new() };
        context.draw_series(marks)?.label(&one.name).legend(move |(x, y)| {
            let line = PathElement::new(line.clone(), colour.stroke_width(2));
            EmptyElement::at((x + 10, y)) + line + mark()
        });
    }
    if series.len() > 1 {
        context
            .configure_series_labels()
            .position(free_corner(series, chart.log))
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font(("sans-serif", 12))
            .draw()?;
    }
    Ok(())
}

/// The outline of a series' marks, in pixels around the point: circle, square, triangle, diamond, triangle on its tip.
fn shape(index: usize) -> Vec<(i32, i32)> {
    match index % 5 {
        0 => vec![(-2, -4), (2, -4), (4, -2), (4, 2), (2, 4), (-2, 4), (-4, 2), (-4, -2)],
        1 => vec![(-4, -4), (4, -4), (4, 4), (-4, 4)],
        2 => vec![(0, -5), (5, 4), (-5, 4)],
        3 => vec![(0, -6), (5, 0), (0, 6), (-5, 0)],
        _ => vec![(0, 5), (5, -4), (-5, -4)],
    }
}

/// The corner of the plot with the fewest points: the legend goes there.
fn free_corner(series: &[Series], log: bool) -> SeriesLabelPosition {
    let scaled = |y: f64| if log { y.ln() } else { y };
    let points = || series.iter().flat_map(|one| one.points.iter().map(|&(x, y)| (x, scaled(y))));
    let middle = |pick: fn((f64, f64)) -> f64| {
        let (low, high) = points()
            .map(pick)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        (low + high) / 2.0
    };
    let (x, y) = (middle(|point| point.0), middle(|point| point.1));
    let corners = [
        (SeriesLabelPosition::UpperRight, true, true),
        (SeriesLabelPosition::UpperLeft, false, true),
        (SeriesLabelPosition::LowerRight, true, false),
        (SeriesLabelPosition::LowerLeft, false, false),
    ];
    let crowd = |right: bool, upper: bool| {
        points().filter(|point| (point.0 > x) == right && (point.1 > y) == upper).count()
    };
    let corners = corners.into_iter().min_by_key(|(_, right, upper)| crowd(*right, *upper));
    corners.map_or(SeriesLabelPosition::UpperRight, |(corner, ..)| corner)
}

fn short(value: &f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e4).contains(&size) => format!("{value:.0e}"),
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
