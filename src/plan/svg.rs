//! Draws a graph as SVG, in layers from left to right (a small version of Sugiyama, Tagawa, Toda 1981).
//!
//! A stage's layer is one more than the highest layer among its inputs. An artefact that is read several layers later
//! crosses the layers between in its own lane, shared by all its readers. The slots of a layer, lanes and stages, are
//! ordered by the mean position of their inputs. Strokes and text use the current colour, so that the drawing is
//! readable on light and dark backgrounds.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::{Graph, draw};

const BOX_WIDTH: f64 = 132.0;
const BOX_HEIGHT: f64 = 44.0;
const LANE_HEIGHT: f64 = 14.0;
const GAP_X: f64 = 46.0;
const GAP_Y: f64 = 16.0;
const MARGIN: f64 = 8.0;

/// A slot of a layer: a stage, or the lane of a stage's artefact.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Slot {
    Stage(usize),
    Lane(usize),
}

/// The drawing, as one `<svg>` element.
pub fn svg(graph: &Graph) -> String {
    let depth = depth(graph);
    let layers = layers(graph, &depth);
    let height = layers.iter().map(|layer| height(layer)).fold(0.0, f64::max);
    let places = place(&layers, height);
    let width = layers.len() as f64 * (BOX_WIDTH + GAP_X) - GAP_X + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pipeline-graph\" role=\"img\" \
         aria-label=\"the stages of the pipeline\" viewBox=\"0 0 {width} {full}\" width=\"{width}\" height=\"{full}\">\n\
         <style>.pipeline-graph {{ color: #1f2328; font: 13px system-ui, sans-serif; }}\n\
         @media (prefers-color-scheme: dark) {{ .pipeline-graph {{ color: #e6edf3; }} }}\n\
         .pipeline-graph text {{ fill: currentColor; text-anchor: middle; }}\n\
         .pipeline-graph .name {{ font-size: 11px; opacity: 0.75; }}\n\
         .pipeline-graph rect {{ fill: currentColor; fill-opacity: 0.06; stroke: currentColor; }}\n\
         .pipeline-graph path {{ fill: none; stroke: currentColor; stroke-opacity: 0.55; stroke-width: 1.5; }}</style>\n",
        full = height + 2.0 * MARGIN,
    );
    for index in 0..graph.stages().count() {
        for from in draw::sources(graph, index) {
            let path = path(&places, (from, depth[&from]), (index, depth[&index]));
            let [from, to] = [from, index].map(|index| escape(graph.stage(index).id.as_str()));
            let _ = writeln!(svg, "<path d=\"{path}\"><title>{to} reads {from}</title></path>");
        }
    }
    for (index, node) in graph.stages().enumerate() {
        let (x, y) = places[&(depth[&index], Slot::Stage(index))];
        let (left, top, middle) = (x, y - BOX_HEIGHT / 2.0, x + BOX_WIDTH / 2.0);
        let (id, name) = (escape(&shortened(node.id.as_str())), escape(&node.stage));
        let _ = writeln!(
            svg,
            "<g><title>{}: {name}, makes {}</title>\
             <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"7\"/>\
             <text x=\"{middle:.1}\" y=\"{:.1}\">{id}</text>\
             <text class=\"name\" x=\"{middle:.1}\" y=\"{:.1}\">{name}</text></g>",
            escape(node.id.as_str()),
            node.output,
            y - 3.0,
            y + 13.0,
        );
    }
    svg + "</svg>\n"
}

/// The layer of each stage.
fn depth(graph: &Graph) -> HashMap<usize, usize> {
    let mut depth = HashMap::new();
    for &index in graph.order() {
        let below = draw::sources(graph, index).iter().map(|from| depth[from] + 1).max();
        depth.insert(index, below.unwrap_or(0_usize));
    }
    depth
}

/// The slots of each layer, from top to bottom.
fn layers(graph: &Graph, depth: &HashMap<usize, usize>) -> Vec<Vec<Slot>> {
    let mut layers = vec![Vec::new(); depth.values().max().map_or(0, |last| last + 1)];
    let mut last_reader: BTreeMap<usize, usize> = BTreeMap::new();
    for &index in graph.order() {
        layers[depth[&index]].push(Slot::Stage(index));
        for from in draw::sources(graph, index) {
            let last = last_reader.entry(from).or_default();
            *last = depth[&index].max(*last);
        }
    }
    for (&from, &last) in &last_reader {
        for layer in layers.iter_mut().take(last).skip(depth[&from] + 1) {
            layer.push(Slot::Lane(from));
        }
    }
    for layer in 1..layers.len() {
        let rows: HashMap<Slot, usize> =
            layers[layer - 1].iter().enumerate().map(|(row, &slot)| (slot, row)).collect();
        let row = |from: usize| rows.get(&Slot::Stage(from)).or(rows.get(&Slot::Lane(from))).copied();
        let rank = |slot: Slot| match slot {
            Slot::Lane(from) => mean(row(from).into_iter()),
            Slot::Stage(index) => mean(draw::sources(graph, index).into_iter().filter_map(row)),
        };
        let mut ranked: Vec<_> = layers[layer].iter().map(|&slot| (rank(slot), slot)).collect();
        // If both have the same inputs, the stage is placed above the lane.
        ranked.sort_by(|(one, a), (other, b)| one.total_cmp(other).then(a.cmp(b)));
        layers[layer] = ranked.into_iter().map(|(_, slot)| slot).collect();
    }
    layers
}

fn mean(rows: impl Iterator<Item = usize>) -> f64 {
    let (sum, count) = rows.fold((0, 0), |(sum, count), row| (sum + row, count + 1));
    if count == 0 { 0.0 } else { f64::from(sum as u32) / f64::from(count) }
}

fn slot_height(slot: &Slot) -> f64 {
    match slot {
        Slot::Stage(_) => BOX_HEIGHT,
        Slot::Lane(_) => LANE_HEIGHT,
    }
}

fn height(layer: &[Slot]) -> f64 {
    layer.iter().map(slot_height).sum::<f64>() + GAP_Y * layer.len().saturating_sub(1) as f64
}

/// Left edge and vertical centre of every slot; layers are centred.
fn place(layers: &[Vec<Slot>], full: f64) -> BTreeMap<(usize, Slot), (f64, f64)> {
    let mut places = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let x = MARGIN + index as f64 * (BOX_WIDTH + GAP_X);
        let mut y = MARGIN + (full - height(layer)) / 2.0;
        for slot in layer {
            places.insert((index, *slot), (x, y + slot_height(slot) / 2.0));
            y += slot_height(slot) + GAP_Y;
        }
    }
    places
}

/// The line from a stage to its reader, each given with its layer: curves between layers, straight lines along lanes, an
/// arrowhead at the reader.
fn path(
    places: &BTreeMap<(usize, Slot), (f64, f64)>,
    (from, start): (usize, usize),
    (to, end): (usize, usize),
) -> String {
    let (x, y) = places[&(start, Slot::Stage(from))];
    let mut here = (x + BOX_WIDTH, y);
    let mut path = format!("M{:.1} {:.1}", here.0, here.1);
    for layer in start + 1..=end {
        let slot = if layer == end { Slot::Stage(to) } else { Slot::Lane(from) };
        let (x, y) = places[&(layer, slot)];
        let middle = (here.0 + x) / 2.0;
        let _ = write!(path, " C{middle:.1} {:.1} {middle:.1} {y:.1} {x:.1} {y:.1}", here.1);
        here = (x, y);
        if layer < end {
            here.0 += BOX_WIDTH;
            let _ = write!(path, " H{:.1}", here.0);
        }
    }
    let _ = write!(path, " m-6 -4 l6 4 l-6 4");
    path
}

/// Truncates a text to the width of a box.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 17 { text.to_owned() } else { text.chars().take(16).chain(['…']).collect() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::draw::tests::graph;

    #[test]
    fn draws_every_stage_and_every_reader_once() {
        let svg = svg(&graph());
        assert_eq!(svg.matches("<rect ").count(), 4);
        assert_eq!(svg.matches("<path d=").count(), 4, "two references to one stage are one line");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn boxes_do_not_overlap() {
        let graph = graph();
        let layers = layers(&graph, &depth(&graph));
        let full = layers.iter().map(|layer| height(layer)).fold(0.0, f64::max);
        let places = place(&layers, full);
        for (index, layer) in layers.iter().enumerate() {
            for pair in layer.windows(2) {
                let [(_, a), (_, b)] = [pair[0], pair[1]].map(|slot| places[&(index, slot)]);
                assert!(b - a >= (slot_height(&pair[0]) + slot_height(&pair[1])) / 2.0);
            }
        }
    }

    #[test]
    fn text_from_a_record_is_escaped() {
        let text = serde_json::to_string(&graph()).expect("plain data");
        let hostile: Graph =
            serde_json::from_str(&text.replace("\"load\"", "\"<script>&\"")).expect("a graph");
        let svg = svg(&hostile);
        assert!(svg.contains("&lt;script&gt;&amp;") && !svg.contains("<script>"), "{svg}");
    }
}
