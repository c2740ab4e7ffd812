//! Line and scatter plots as inline SVG, all of one size. The legend stands below as text, so it never moves the plot. Each
//! point has a tooltip, and the label of the plot says in words what the curves do.
//!
//! A series is told apart by its colour, its dashes and the shape of its marks. The colours are classes of the page's style,
//! so that they suit a light and a dark page and paper.

mod scale;

use maud::{Markup, html};

use scale::{Scale, Tick};
pub(super) use scale::{number, power, trimmed};

/// One named set of points.
pub(super) struct Series {
    /// Legend text.
    pub(super) name: String,
    /// Points (x, y).
    pub(super) points: Vec<(f64, f64)>,
    /// Whether a line joins the points.
    pub(super) line: bool,
}

/// What an axis shows.
#[derive(Clone, Copy)]
pub(super) struct Axis<'a> {
    /// Text beside the axis.
    pub(super) label: &'a str,
    /// Whether it is logarithmic; points at or below zero are then left out.
    pub(super) log: bool,
}

/// The two axes of a plot.
pub(super) struct Chart<'a> {
    /// The horizontal axis.
    pub(super) x: Axis<'a>,
    /// The vertical axis.
    pub(super) y: Axis<'a>,
}

/// Width and height of every plot.
const SIZE: (f64, f64) = (600.0, 330.0);
/// The edges of the part between the axes.
const LEFT: f64 = 72.0;
const TOP: f64 = 12.0;
const RIGHT: f64 = 588.0;
const BOTTOM: f64 = 282.0;
/// A line has at most about this many visible marks; every point has a tooltip.
const MARKS: usize = 12;
/// The number of colours in the page's style, and of shapes of marks.
const COLOURS: usize = 7;
const SHAPES: usize = 5;

impl<'a> Axis<'a> {
    pub(super) const fn linear(label: &'a str) -> Self {
        Self { label, log: false }
    }

    pub(super) const fn log(label: &'a str) -> Self {
        Self { label, log: true }
    }

    fn shows(self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }
}

/// The plot with its legend, or a note that there is nothing to plot.
pub(super) fn plot(chart: &Chart<'_>, series: &[Series]) -> Markup {
    let shown = |&&(x, y): &&(f64, f64)| chart.x.shows(x) && chart.y.shows(y);
    let points = |one: &Series| one.points.iter().filter(shown).copied().collect();
    let series: Vec<Series> = series
        .iter()
        .map(|one| Series { name: one.name.clone(), points: points(one), line: one.line })
        .filter(|one| !one.points.is_empty())
        .collect();
    let all = || series.iter().flat_map(|one| &one.points);
    let scales = (
        Scale::around(all().map(|point| point.0), chart.x.log),
        Scale::around(all().map(|point| point.1), chart.y.log),
    );
    let (Some(x), Some(y)) = scales else { return html! { p class="soft" { "Nothing to plot." } } };
    html! {
        div class="plot" {
            svg viewBox=(format!("0 0 {} {}", SIZE.0, SIZE.1)) role="img" aria-label=(in_words(chart, &series)) {
                (axes(chart, &x, &y))
                @for (index, one) in series.iter().enumerate() { (curve(chart, index, one, &x, &y)) }
            }
            @if series.len() > 1 {
                ul class="legend" {
                    @for (index, one) in series.iter().enumerate() { li { (key(index, one)) (one.name) } }
                }
            }
        }
    }
}

/// Grid, ticks and the names of the axes.
fn axes(chart: &Chart<'_>, x: &Scale, y: &Scale) -> Markup {
    let right = |tick: &Tick| LEFT + tick.at * (RIGHT - LEFT);
    let down = |tick: &Tick| BOTTOM - tick.at * (BOTTOM - TOP);
    let class = |tick: &Tick| if tick.label.is_empty() { "grid fine" } else { "grid" };
    html! {
        @for tick in x.ticks() {
            path class=(class(&tick)) d=(format!("M{:.1} {TOP}V{BOTTOM}", right(&tick))) {}
            text class="tick" x=(format!("{:.1}", right(&tick))) y=(BOTTOM + 17.0) text-anchor="middle" { (tick.label) }
        }
        @for tick in y.ticks() {
            path class=(class(&tick)) d=(format!("M{LEFT} {:.1}H{RIGHT}", down(&tick))) {}
            text class="tick" x=(LEFT - 8.0) y=(format!("{:.1}", down(&tick) + 4.0)) text-anchor="end" { (tick.label) }
        }
        path class="axis" d=(format!("M{LEFT} {TOP}V{BOTTOM}H{RIGHT}")) {}
        text class="name" x=((LEFT + RIGHT) / 2.0) y=(SIZE.1 - 10.0) text-anchor="middle" { (chart.x.label) }
        text class="name" transform=(format!("translate(16 {}) rotate(-90)", (TOP + BOTTOM) / 2.0)) text-anchor="middle" {
            (chart.y.label)
        }
    }
}

/// One series: its line, its marks, and a place with a tooltip at each point.
fn curve(chart: &Chart<'_>, index: usize, series: &Series, x: &Scale, y: &Scale) -> Markup {
    let place = |point: &(f64, f64)| {
        (LEFT + x.place(point.0) * (RIGHT - LEFT), BOTTOM - y.place(point.1) * (BOTTOM - TOP))
    };
    let every = if series.line { series.points.len().div_ceil(MARKS) } else { 1 };
    let is_marked = |at: usize| at.is_multiple_of(every) || at + 1 == series.points.len();
    let at = |point| {
        let (x, y) = place(point);
        format!("{x:.1} {y:.1}")
    };
    html! {
        g class=(class(index)) {
            @if series.line {
                path class="line" d=(format!("M{}", series.points.iter().map(at).collect::<Vec<_>>().join("L"))) {}
            }
            @for (number, point) in series.points.iter().enumerate() {
                @let (right, down) = place(point);
                g {
                    title { (series.name) "\n" (told(chart.x, point.0)) "\n" (told(chart.y, point.1)) }
                    @if is_marked(number) { path class="mark" d=(mark(index, right, down)) {} }
                    circle cx=(format!("{right:.1}")) cy=(format!("{down:.1}")) r="7" {}
                }
            }
        }
    }
}

fn class(index: usize) -> String {
    // Lines differ in their dashes too, so that a print without colours can be read.
    format!("s{} d{}", index % COLOURS, index % SHAPES)
}

fn told(axis: Axis<'_>, value: f64) -> String {
    format!("{}: {}", axis.label, number(value))
}

/// The mark of a series around a point: circle, square, triangle, diamond, triangle on its tip.
fn mark(index: usize, x: f64, y: f64) -> String {
    let shape = match index % SHAPES {
        0 => "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
        1 => "m-3.5 -3.5h7v7h-7z",
        2 => "m0 -4.5l4.5 8h-9z",
        3 => "m0 -5l4.5 5l-4.5 5l-4.5 -5z",
        _ => "m0 4.5l4.5 -8h-9z",
    };
    format!("M{x:.1} {y:.1}{shape}")
}

/// The line and the mark of a series, for the legend.
fn key(index: usize, series: &Series) -> Markup {
    html! {
        svg class="sign" viewBox="0 0 34 14" aria-hidden="true" {
            g class=(class(index)) {
                @if series.line { path class="line" d="M1 7H33" {} }
                path class="mark" d=(mark(index, 17.0, 7.0)) {}
            }
        }
    }
}

/// What a reader would say who looks at the plot.
fn in_words(chart: &Chart<'_>, series: &[Series]) -> String {
    let one = |one: &Series| {
        let lowest = one.points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let highest = one.points.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        let ends = (one.points.first(), one.points.last());
        match ends {
            (Some(first), Some(last)) if one.line && one.points.len() > 1 => format!(
                "{} goes from {} at {} to {} at {}, between {} and {}",
                one.name,
                number(first.1),
                number(first.0),
                number(last.1),
                number(last.0),
                number(lowest),
                number(highest)
            ),
            (Some(only), _) if one.points.len() == 1 => {
                format!("{} is {} at {}", one.name, number(only.1), number(only.0))
            }
            _ => format!(
                "{}: {} points between {} and {}",
                one.name,
                one.points.len(),
                number(lowest),
                number(highest)
            ),
        }
    };
    let series: Vec<String> = series.iter().map(one).collect();
    format!("{} against {}: {}.", chart.y.label, chart.x.label, series.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(points: &[(f64, f64)]) -> String {
        let series = |name: &str, line| Series { name: name.to_owned(), points: points.to_vec(), line };
        let chart = Chart { x: Axis::linear("step"), y: Axis::log("loss") };
        plot(&chart, &[series("task", true), series("output", false)]).into_string()
    }

    #[test]
    fn every_point_has_a_tooltip_and_the_label_tells_the_curve() {
        let page = draw(&[(0.0, 0.5), (10.0, 2e-3), (20.0, 0.0), (30.0, f64::NAN)]);
        assert_eq!(page.matches("<title>").count(), 4, "{page}");
        assert!(page.contains("<title>task\nstep: 10\nloss: 2×10⁻³</title>"), "{page}");
        assert!(page.contains("loss against step: task goes from 0.5 at 0 to 2×10⁻³ at 10, between 2×10⁻³ and 0.5; output: 2 points"));
        assert!(page.contains(">10⁻²</text>"), "{page}");
    }

    #[test]
    fn all_plots_have_one_size() {
        let size = format!("viewBox=\"0 0 {} {}\"", SIZE.0, SIZE.1);
        assert!(draw(&[(1.0, 1.0)]).contains(&size) && draw(&[(0.0, 1e-9), (5e6, 1e9)]).contains(&size));
        assert!(draw(&[(1.0, 0.0)]).contains("Nothing to plot."));
    }
}
