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
    /// Whether a line joins the points.
    pub(super) line: bool,
}

/// The labels and scales of a plot.
pub(super) struct Chart<'a> {
    /// Text under the x axis.
    pub(super) x: &'a str,
    /// Text beside the y axis.
    pub(super) y: &'a str,
    /// Whether y is logarithmic; points at or below zero are then left out.
    pub(super) log: bool,
}

// The palette of Okabe and Ito, which colour-blind readers can distinguish. Marks, dashes after the first round of colours,
// and the order of the legend carry the same information.
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
/// The legend beside the plot: height of a line, space for a mark, approximate width of a letter.
const LEGEND: (u32, u32, u32) = (18, 40, 7);
/// A line of at most this many points has a mark at each.
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
        let names = series.iter().map(|one| one.name.chars().count() as u32);
        let legend = if series.len() > 1 { LEGEND.1 + LEGEND.2 * names.max().unwrap_or(0) } else { 0 };
        let size = (SIZE.0 + legend, SIZE.1.max(LEGEND.0 * (series.len() as u32 + 2)));
        let whole = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let (area, beside) = whole.split_horizontally(SIZE.0);
        let wide = |(low, high): (f64, f64)| {
            let margin = if high > low { (high - low) * 0.04 } else { high.abs().max(1.0) * 0.1 };
            low - margin..high + margin
        };
        let drawn = if chart.log {
            plot(&area, chart, &series, wide(x), (y.0 / 1.3..y.1 * 1.3).log_scale())
        } else {
            plot(&area, chart, &series, wide(x), wide(y))
        };
        let told = if legend > 0 { self::legend(&beside, &series) } else { Ok(()) };
        drawn.and(told).expect("writing into a string cannot fail");
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
        if one.line && is_dashed(index) {
            context.draw_series(DashedLineSeries::new(points(), 7, 4, colour.stroke_width(2)))?;
        } else if one.line {
            context.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?;
        }
        let marks = points().filter(|_| one.is_marked());
        context.draw_series(
            marks.map(|at| EmptyElement::at(at) + Polygon::new(shape(index), colour.filled())),
        )?;
    }
    Ok(())
}

/// A line for each series, beside the plot so that it hides nothing.
fn legend<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, series: &[Series]) -> Result<(), DrawError<'a>> {
    for (index, one) in series.iter().enumerate() {
        let (colour, y) = (COLOURS[index % COLOURS.len()], (LEGEND.0 * (index as u32 + 1)) as i32);
        let dashes: &[(i32, i32)] = match (one.line, is_dashed(index)) {
            (false, _) => &[],
            (true, false) => &[(4, 28)],
            (true, true) => &[(4, 12), (20, 28)],
        };
        for &(from, to) in dashes {
            area.draw(&PathElement::new([(from, y), (to, y)], colour.stroke_width(2)))?;
        }
        if one.is_marked() {
            area.draw(&(EmptyElement::at((16, y)) + Polygon::new(shape(index), colour.filled())))?;
        }
        area.draw(&Text::new(one.name.as_str(), (LEGEND.1 as i32 - 4, y - 6), ("sans-serif", 12)))?;
    }
    Ok(())
}

/// Lines are dashed once the colours are used up.
fn is_dashed(index: usize) -> bool {
    index >= COLOURS.len()
}

impl Series {
    fn is_marked(&self) -> bool {
        !self.line || self.points.len() <= MARKED
    }
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

fn short(value: &f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e4).contains(&size) => format!("{value:.0e}"),
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
