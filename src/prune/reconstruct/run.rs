//! A reconstruction from the first layer to the last.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::error::ReconstructError;
use super::kept_layers::Kept;
use super::places::gaps;
use super::record::Reconstruction;
use super::ridge::{self, Solved};
use super::walk::Walk;
use super::work::Reconstructing;
use crate::backend::memory;
use crate::base::units;
use crate::model::network::{Tail, TailKind};
use crate::nn::least_squares::Normal;

impl Reconstructing<'_> {
    /// The new weights by name, and how each layer fared.
    pub fn run(&self) -> Result<(BTreeMap<String, Tensor>, Reconstruction), ReconstructError> {
        match self.kinds.contains(&TailKind::Linear) {
            true => {
                let maps = gaps(self.teacher, self.student)?;
                let student = self.student.with_maps(&maps)?;
                Reconstructing { student: &student, ..*self }.solved()
            }
            false => self.solved(),
        }
    }

    fn solved(&self) -> Result<(BTreeMap<String, Tensor>, Reconstruction), ReconstructError> {
        let mut walk = Walk::new(self)?;
        let layers: Vec<(usize, Tail)> = walk.layers(self.kinds);
        self.require_memory(&layers)?;
        self.progress.length(layers.len() as u64, "layers");
        let kept = Kept::new(self.checkpoint);
        let mut record = Reconstruction::new(self.points.len(), self.held_out, walk.loss(false)?);
        let mut new = BTreeMap::new();
        let done = kept.count(layers.len(), self.progress)?;
        if done > 0 {
            self.progress.resumed(done as u64);
        }
        for (number, (step, tail)) in layers.iter().enumerate() {
            self.interrupt.check()?;
            walk.advance(*step)?;
            if number >= done {
                let solved = self.solve(&walk, tail)?;
                kept.write(number, &solved)?;
            }
            // What was just written is read back too, so that a resumed run cannot differ.
            let (layer, weights) = kept.read(number)?;
            record.add_map(self, *step, tail, weights.is_some());
            if let Some((weight, bias)) = weights {
                walk.replace(*step, &weight, &bias)?;
                new.insert(format!("{}.weight", tail.name), weight);
                new.insert(format!("{}.bias", tail.name), bias);
            }
            record.layers.push(layer);
            self.progress.position(number as u64 + 1);
        }
        record.after = walk.loss(true)?;
        self.progress.note(&record.in_words());
        Ok((new, record))
    }

    /// Solves the layer that the student's next step ends with.
    fn solve(&self, walk: &Walk<'_>, tail: &Tail) -> Result<Solved, ReconstructError> {
        let features = tail.inputs * tail.kernel * tail.kernel;
        let mut fitted = Normal::new(features, tail.outputs)?;
        let mut held = Normal::new(features, tail.outputs)?;
        walk.lacks(|is_held_out, features, lack| {
            self.interrupt.check()?;
            let sums = if is_held_out { &mut held } else { &mut fitted };
            Ok(sums.add(features, tail.kernel, lack)?)
        })?;
        ridge::solve(tail, self.weights, &fitted, &held)
    }

    /// Fails if the sums of the largest layer do not fit into memory: those of the fitted and of the held-out points, the
    /// matrix with its ridge, and its factor.
    fn require_memory(&self, layers: &[(usize, Tail)]) -> Result<(), ReconstructError> {
        let bytes = |tail: &Tail| 4 * Normal::bytes(tail.inputs * tail.kernel * tail.kernel, tail.outputs);
        let Some((_, largest)) = layers.iter().max_by_key(|(_, tail)| bytes(tail)) else { return Ok(()) };
        let (needed, free) = (bytes(largest), memory::free(&Device::Cpu));
        match needed <= free {
            true => Ok(()),
            false => Err(ReconstructError::Memory {
                layer: largest.name.clone(),
                needed: units::bytes(needed),
                free: units::bytes(free),
            }),
        }
    }
}
