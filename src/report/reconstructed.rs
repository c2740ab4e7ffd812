//! What a reconstruction after removal did: the joint loss before and after, and each layer.

use maud::{Markup, html};

use super::chart::number;
use super::tables::{Cell, Column, Table};
use crate::prune::{LayerRecord, Reconstruction};

pub(super) fn section(stage: &str, record: &Reconstruction) -> Markup {
    html! {
        h2 { "Reconstruction: " code { (stage) } }
        p {
            "The joint output loss on " (record.held_out) " held-out points goes from " b { (number(record.before)) } " to "
            b { (number(record.after)) } ", without training. " (record.taken()) " of " (record.layers.len())
            " layers have new weights, solved by least squares over " (record.points - record.held_out) " points so that the \
            state after the layer is the teacher's. A layer keeps its weights where the error on the held-out points does not fall."
        }
        details {
            summary { "All " (record.layers.len()) " layers" }
            (layers(record).html())
        }
    }
}

fn layers(record: &Reconstruction) -> Table {
    let row = |layer: &LayerRecord| {
        vec![
            Cell::text(&layer.layer),
            Cell::number(layer.before, number(layer.before)),
            Cell::number(layer.after, number(layer.after)),
            Cell::number(layer.strength, number(layer.strength)),
            Cell::text(if layer.taken { "yes" } else { "no" }),
        ]
    };
    Table {
        name: "layers",
        caption: "Layers of the reconstruction".to_owned(),
        columns: vec![
            Column::text("layer"),
            Column::number("error before"),
            Column::number("error after"),
            Column::number("strength of the ridge"),
            Column::text("new weights"),
        ],
        rows: record.layers.iter().map(row).collect(),
    }
}
