//! Teacher and student side by side. The student stands before a step, the teacher before what corresponds to it.
//!
//! The states of all points are kept if they fit into memory. Otherwise each batch walks again from the start whenever its
//! states are needed, with the same numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Tensor};

use super::error::ReconstructError;
use super::places::places;
use super::work::Reconstructing;
use crate::backend::memory;
use crate::data::Calibration;
use crate::model::network::{Condition, Step, Tail, TailKind, WalkState};
use crate::model::unet::UNet;
use crate::nn::{accumulation_dtype, image};

/// Both walks of the points.
pub(super) struct Walk<'a> {
    work: &'a Reconstructing<'a>,
    batches: Vec<Range<usize>>,
    /// For each step of the student, the place of the corresponding one in the teacher.
    places: Vec<usize>,
    /// The student's steps that were changed.
    replaced: BTreeMap<usize, Step>,
    /// The student's next step.
    next: usize,
    /// The states of each batch, if they are kept.
    kept: Option<Vec<Pair>>,
}

/// The states of one batch.
#[derive(Clone)]
struct Pair {
    teacher: WalkState,
    student: WalkState,
}

/// The linear maps that the student's file does not have, by their steps.
fn new_maps(work: &Reconstructing<'_>) -> Result<BTreeMap<usize, Step>, ReconstructError> {
    let inventory = work.student.inventory();
    let is_new = |step: &usize| {
        let tail = inventory.tail(*step).filter(|tail| tail.kind == TailKind::Linear);
        tail.is_some_and(|tail| !work.weights.contains(&format!("{}.weight", tail.name)))
    };
    let new = (0..inventory.paths().len()).filter(is_new);
    new.map(|step| Ok((step, work.student.identity(step)?))).collect()
}

/// What one batch brings along.
struct Given {
    teacher: Condition,
    student: Condition,
}

impl<'a> Walk<'a> {
    pub(super) fn new(work: &'a Reconstructing<'a>) -> Result<Self, ReconstructError> {
        let (points, held) = (work.points.len(), work.held_out);
        if held == 0 || held >= points {
            return Err(ReconstructError::Points { points, held_out: held });
        }
        let places = places(work.teacher, work.student)?;
        let size = work.batch.max(1);
        let part = |range: Range<usize>| {
            let end = range.end;
            range.step_by(size).map(move |start| start..end.min(start + size))
        };
        // No batch has points of both parts.
        let batches = part(0..points - held).chain(part(points - held..points)).collect();
        let replaced = new_maps(work)?;
        let mut walk = Self { work, batches, places, replaced, next: 0, kept: None };
        if walk.fits()? {
            let pairs = (0..walk.batches.len()).map(|batch| walk.begin(batch).map(|begun| begun.1));
            walk.kept = Some(pairs.collect::<Result<_, _>>()?);
        }
        Ok(walk)
    }

    /// Whether the states of all points take at most a half of the memory that is free.
    fn fits(&self) -> Result<bool, ReconstructError> {
        let (_, _, height, width) = self.work.points.sample.dims4()?;
        let elements = |unet: &UNet| unet.inventory().state_elements(height, width);
        let of_point = elements(self.work.teacher) + elements(self.work.student);
        let bytes = of_point * (self.work.points.len() * self.work.student.dtype().size_in_bytes()) as u64;
        Ok(bytes <= memory::budget(self.work.student.device()) / 2)
    }

    /// The layers of these kinds from the first removed unit on, with the steps that they end.
    pub(super) fn layers(&self, kinds: &[TailKind]) -> Vec<(usize, Tail)> {
        let student = self.work.student.inventory();
        let loses = |step: &usize| {
            self.target(*step) > self.places[*step] + 1
                || student
                    .tail(*step)
                    .is_some_and(|tail| matches!(tail.kind, TailKind::Shortcut | TailKind::Linear))
        };
        let Some(first) = (0..self.places.len()).find(loses) else { return Vec::new() };
        let tails = (first..self.places.len()).filter_map(|step| Some((step, student.tail(step)?)));
        tails.filter(|(_, tail)| kinds.contains(&tail.kind)).collect()
    }

    /// The teacher's step whose input the student should have after a step.
    fn target(&self, step: usize) -> usize {
        self.places.get(step + 1).copied().unwrap_or_else(|| self.work.teacher.inventory().paths().len())
    }

    fn points(&self, batch: usize) -> Result<Calibration, ReconstructError> {
        Ok(self.work.points.batch_on(self.batches[batch].clone(), self.work.student.device())?)
    }

    fn given(&self, points: &Calibration) -> Result<Given, ReconstructError> {
        let condition = |unet: &UNet| unet.condition(&points.timestep, &points.conditioning());
        Ok(Given { teacher: condition(self.work.teacher)?, student: condition(self.work.student)? })
    }

    /// A batch before the first steps.
    fn begin(&self, batch: usize) -> Result<(Given, Pair), ReconstructError> {
        let points = self.points(batch)?;
        let begin = |unet: &UNet| unet.begin(&points.sample);
        let pair = Pair { teacher: begin(self.work.teacher)?, student: begin(self.work.student)? };
        Ok((self.given(&points)?, pair))
    }

    /// A batch where the walk stands.
    fn standing(&self, batch: usize) -> Result<(Given, Pair), ReconstructError> {
        match &self.kept {
            Some(kept) => Ok((self.given(&self.points(batch)?)?, kept[batch].clone())),
            None => {
                let (given, mut pair) = self.begin(batch)?;
                self.take(&given, &mut pair, 0..self.next)?;
                Ok((given, pair))
            }
        }
    }

    /// The student's steps in `steps`, and the teacher's up to the target of the last of them.
    fn take(&self, given: &Given, pair: &mut Pair, steps: Range<usize>) -> Result<(), ReconstructError> {
        if steps.is_empty() {
            return Ok(());
        }
        self.lead(given, &mut pair.teacher, self.places[steps.start]..self.target(steps.end - 1))?;
        for (place, step) in steps.clone().zip(self.work.student.steps_in(steps)) {
            let step = self.replaced.get(&place).cloned().map_or(step, |step| Ok(Cow::Owned(step)))?;
            step.advance(&mut pair.student, &given.student)?;
        }
        Ok(())
    }

    /// The teacher's steps in `places`.
    fn lead(
        &self,
        given: &Given,
        state: &mut WalkState,
        places: Range<usize>,
    ) -> Result<(), ReconstructError> {
        for step in self.work.teacher.steps_in(places) {
            step?.advance(state, &given.teacher)?;
        }
        Ok(())
    }

    /// Goes on until `step` is the student's next.
    pub(super) fn advance(&mut self, step: usize) -> Result<(), ReconstructError> {
        if let Some(mut kept) = self.kept.take() {
            for (batch, pair) in kept.iter_mut().enumerate() {
                self.work.interrupt.check()?;
                let given = self.given(&self.points(batch)?)?;
                self.take(&given, pair, self.next..step)?;
            }
            self.kept = Some(kept);
        }
        self.next = step;
        Ok(())
    }

    /// Gives `receive`, batch by batch, whether the batch is held out, what the layer at the end of the student's next step
    /// reads, and what the state after that step lacks.
    pub(super) fn lacks(
        &self,
        mut receive: impl FnMut(bool, &Tensor, &Tensor) -> Result<(), ReconstructError>,
    ) -> Result<(), ReconstructError> {
        let fitted = self.work.points.len() - self.work.held_out;
        for (batch, range) in self.batches.iter().enumerate() {
            let (given, mut pair) = self.standing(batch)?;
            let step = self.own(self.next)?;
            let shared = step.share(&given.student)?;
            let features = step.features(&pair.student, &shared)?;
            let features = features.expect("BUG: the step does not end with a linear layer");
            step.advance_with(&mut pair.student, &shared)?;
            self.lead(&given, &mut pair.teacher, self.places[self.next]..self.target(self.next))?;
            let wide = |tensor: &Tensor| tensor.to_dtype(accumulation_dtype(tensor.dtype()));
            let lack = (wide(&pair.teacher.hidden)? - wide(&pair.student.hidden)?)?;
            let pixels = |x: &Tensor| if x.rank() == 4 { image::end(x) } else { Ok(x.clone()) };
            // The walk's own output is no image any more.
            let lack = if self.next + 1 == self.work.student.steps().len() { lack } else { pixels(&lack)? };
            receive(range.start >= fitted, &pixels(&features)?, &lack)?;
        }
        Ok(())
    }

    /// Gives a step new weights.
    pub(super) fn replace(
        &mut self,
        step: usize,
        weight: &Tensor,
        bias: &Tensor,
    ) -> Result<(), ReconstructError> {
        let new = self.own(step)?.with_tail(weight, bias)?;
        self.replaced.insert(step, new);
        Ok(())
    }

    /// A step of the student as it is now.
    fn own(&self, step: usize) -> Result<Cow<'_, Step>, ReconstructError> {
        if let Some(step) = self.replaced.get(&step) {
            return Ok(Cow::Borrowed(step));
        }
        let own = self.work.student.steps_in(step..step + 1).next();
        Ok(own.expect("BUG: the student has no such step")?)
    }

    /// The joint loss on the held-out points, with the weights of the student, or with the `new` ones.
    pub(super) fn loss(&self, new: bool) -> Result<f64, ReconstructError> {
        let fitted = self.work.points.len() - self.work.held_out;
        let (mut sum, mut elements) = (0.0, 0);
        for batch in (0..self.batches.len()).filter(|batch| self.batches[*batch].start >= fitted) {
            self.work.interrupt.check()?;
            let (given, mut pair) = if new { self.standing(batch)? } else { self.begin(batch)? };
            let from = if new { self.next } else { 0 };
            self.take(&given, &mut pair, from..self.places.len())?;
            let lack =
                (pair.teacher.hidden.to_dtype(DType::F64)? - pair.student.hidden.to_dtype(DType::F64)?)?;
            sum += lack.sqr()?.sum_all()?.to_scalar::<f64>()?;
            elements += lack.elem_count();
        }
        let loss = sum / elements.max(1) as f64;
        if loss.is_finite() { Ok(loss) } else { Err(ReconstructError::NotFinite { loss }) }
    }
}
