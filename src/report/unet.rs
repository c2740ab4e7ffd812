//! The U-Net from left to right in walk order: a bar for the score of each unit, a box for its size, and a cross if it was
//! removed.

use maud::{Markup, html};

use super::chart::{number, power};
use crate::base::units;

/// One unit to draw.
pub(super) struct UnitBar {
    /// Its diffusers path.
    pub(super) id: String,
    /// Its score. Bars are logarithmic, so a score of zero has no bar.
    pub(super) score: f64,
    /// Parameters of the branch.
    pub(super) parameters: u64,
    /// Whether the selection removes it.
    pub(super) removed: bool,
    /// Whether it is a ResNet; otherwise it is part of a transformer.
    pub(super) resnet: bool,
}

const PITCH: f64 = 22.0;
const LEFT: f64 = 64.0;
const BARS: f64 = 150.0;
const TOP: f64 = 14.0;
const LABELS: f64 = 46.0;

/// An SVG of all units, of any width; the page scrolls it.
pub(super) fn draw(bars: &[UnitBar], criterion: &str) -> Markup {
    let positive = || bars.iter().map(|bar| bar.score).filter(|score| *score > 0.0);
    let low = positive().fold(f64::INFINITY, f64::min).log10().floor();
    let high = positive().fold(f64::NEG_INFINITY, f64::max).log10().ceil();
    let (low, high) = if low.is_finite() { (low, high.max(low + 1.0)) } else { (0.0, 1.0) };
    let height = |score: f64| ((score.log10() - low) / (high - low)).clamp(0.02, 1.0) * BARS;
    let largest = bars.iter().map(|bar| bar.parameters).max().unwrap_or(1).max(1) as f64;
    let width = LEFT + bars.len() as f64 * PITCH + 10.0;
    let base = TOP + BARS;
    let boxes = base + 8.0;
    html! {
        svg class="unet" viewBox=(format!("0 0 {width} {}", boxes + PITCH + LABELS)) width=(width) role="img"
            aria-label=(format!("{criterion} of each unit along the U-Net; removed units are hollow and crossed")) {
            @for decade in low as i32..=high as i32 {
                @let y = base - (f64::from(decade) - low) / (high - low) * BARS;
                line class="grid" x1=(LEFT) x2=(width - 10.0) y1=(y) y2=(y) {}
                text class="tick" x=(LEFT - 6.0) y=(y + 4.0) text-anchor="end" { (power(decade)) }
            }
            text class="tick" x=(LEFT - 6.0) y=(boxes + 14.0) text-anchor="end" { "size" }
            @for (index, bar) in bars.iter().enumerate() {
                @let x = LEFT + index as f64 * PITCH;
                @let class = match (bar.resnet, bar.removed) {
                    (true, false) => "resnet",
                    (true, true) => "resnet removed",
                    (false, false) => "transformer",
                    (false, true) => "transformer removed",
                };
                @let side = 4.0 + (bar.parameters as f64 / largest).sqrt() * (PITCH - 8.0);
                g class=(class) {
                    title {
                        (bar.id) ": " (criterion) " " (number(bar.score)) ", "
                        (units::count(bar.parameters)) " parameters" @if bar.removed { ", removed" }
                    }
                    @if bar.score > 0.0 {
                        rect x=(x + 3.0) y=(base - height(bar.score)) width=(PITCH - 6.0) height=(height(bar.score)) {}
                    }
                    rect x=(x + (PITCH - side) / 2.0) y=(boxes + (PITCH - side) / 2.0) width=(side) height=(side) {}
                    @if bar.removed {
                        path class="cross" d=(format!(
                            "M{} {} l{s} {s} m0 -{s} l-{s} {s}", x + 4.0, boxes + 4.0, s = PITCH - 8.0
                        )) {}
                    }
                }
            }
            @for (stage, first, count) in stages(bars) {
                @let x = LEFT + first as f64 * PITCH;
                line class="bracket" x1=(x + 2.0) x2=(x + count as f64 * PITCH - 2.0)
                    y1=(boxes + PITCH + 6.0) y2=(boxes + PITCH + 6.0) {}
                text class="tick" x=(x + count as f64 * PITCH / 2.0) y=(boxes + PITCH + 22.0) text-anchor="middle" { (stage) }
            }
        }
    }
}

/// Runs of units in one stage of the U-Net: (`down 0`, index of the first, how many).
fn stages(bars: &[UnitBar]) -> Vec<(String, usize, usize)> {
    let mut runs: Vec<(String, usize, usize)> = Vec::new();
    for (index, bar) in bars.iter().enumerate() {
        let mut parts = bar.id.split('.');
        let name = match (parts.next(), parts.next()) {
            (Some("mid_block"), _) => "mid".to_owned(),
            (Some(block), Some(level)) => format!("{} {level}", block.trim_end_matches("_blocks")),
            _ => bar.id.clone(),
        };
        match runs.last_mut() {
            Some((last, _, count)) if *last == name => *count += 1,
            _ => runs.push((name, index, 1)),
        }
    }
    runs
}
