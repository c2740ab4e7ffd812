//! `reconstruction.json`: what a reconstruction did, layer by layer.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::work::Reconstructing;
use crate::base::{UnitId, files};
use crate::model::network::{Tail, TailKind};

/// The version of the file.
const FORMAT: u32 = 1;
/// Its name, beside the model.
pub const FILE: &str = "reconstruction.json";

/// What a reconstruction did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Version of the file.
    pub format: u32,
    /// Number of points.
    pub points: usize,
    /// How many of them were held out.
    pub held_out: usize,
    /// The joint output loss on the held-out points before.
    pub before: f64,
    /// And after.
    pub after: f64,
    /// The removed units that have a linear map in their place now.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub linear_units: BTreeSet<UnitId>,
    /// The parameters of the maps that were added.
    #[serde(default)]
    pub added_parameters: u64,
    /// The layers in walk order.
    pub layers: Vec<LayerRecord>,
}

/// How one layer fared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The layer: `mid_block.resnets.0.conv2`.
    pub layer: String,
    /// The mean squared error of the state after it on the held-out points, with the weights that it had.
    pub before: f64,
    /// The same with the best new weights.
    pub after: f64,
    /// Their ridge, relative to the mean of the diagonal.
    pub strength: f64,
    /// Whether they were taken, which is where the error falls.
    pub taken: bool,
}

impl Reconstruction {
    pub(super) fn new(points: usize, held_out: usize, before: f64) -> Self {
        Self {
            format: FORMAT,
            points,
            held_out,
            before,
            after: before,
            linear_units: BTreeSet::new(),
            added_parameters: 0,
            layers: Vec::new(),
        }
    }

    /// Counts the layer at the end of a step, if it is a linear map that was there before or was taken.
    pub(super) fn add_map(&mut self, work: &Reconstructing<'_>, step: usize, tail: &Tail, taken: bool) {
        let is_new = !work.weights.contains(&format!("{}.weight", tail.name));
        if tail.kind != TailKind::Linear || is_new && !taken {
            return;
        }
        let path = work.student.inventory().paths().nth(step).expect("BUG: the student has no such step");
        self.linear_units.insert(UnitId::from(path));
        if is_new {
            self.added_parameters += (tail.inputs as u64 + 1) * tail.outputs as u64;
        }
    }

    /// Writes the file into the folder of a model.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        files::write_json(&folder.join(FILE), self)
    }

    /// Reads it from there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        files::read_json_of(&folder.join(FILE), FORMAT, |record: &Self| record.format)
    }

    /// How many layers have new weights.
    pub fn taken(&self) -> usize {
        self.layers.iter().filter(|layer| layer.taken).count()
    }

    /// `12 of 14 layers have new weights; the joint loss on 64 held-out points falls from 4.3e-4 to 1.7e-4`.
    pub(super) fn in_words(&self) -> String {
        format!(
            "{} of {} layers have new weights; the joint loss on {} held-out points goes from {:.3e} to {:.3e}",
            self.taken(),
            self.layers.len(),
            self.held_out,
            self.before,
            self.after
        ) + &match self.linear_units.len() {
            0 => String::new(),
            maps => format!("; {maps} linear maps, {} new parameters", self.added_parameters),
        }
    }
}
