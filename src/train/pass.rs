//! The forward and the backward pass of a U-Net, in segments.
//!
//! Each segment is recorded on a tape of its own. After its backward pass, the gradients of its inputs are passed on to the
//! segments that made them. A tape exists while its group of segments is differentiated: all tapes at once, or made again
//! from the state before the group (see [`ActivationCheckpointing`]). The sums are the same in either case, so the
//! gradients are too, bit by bit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use candle_core::{Result, Tensor};

use super::activation_checkpointing::ActivationCheckpointing;
use super::network::Trainable;
use crate::model::network::{Condition, Conditioning, Segment, WalkState};
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::nn::{self, Tape};

/// The inputs of a U-Net.
pub struct Input {
    /// Noisy latents, [batch, channels, height, width].
    pub sample: Tensor,
    /// `[batch]`, i64.
    pub timestep: Tensor,
    /// The text states of the same samples.
    pub conditioning: Conditioning,
}

/// The addend of the loss that depends on the output of the step with this path, a scalar in f32; `None` for most steps.
pub type Loss<'a> = dyn FnMut(&str, &Tensor) -> Result<Option<Tensor>> + 'a;

impl Trainable {
    /// Adds the gradients of a loss to `into`, in the order of [`Trainable::variables`].
    pub fn differentiate(
        &self,
        input: &Input,
        checkpointing: ActivationCheckpointing,
        loss: &mut Loss<'_>,
        into: &mut Gradients,
    ) -> Result<()> {
        let (_, _, height, width) = input.sample.dims4()?;
        let segments = self.unet().inventory().segments(height, width);
        let groups = checkpointing.groups(&segments);
        let (condition, embedding_tape) =
            nn::record(|| self.unet().condition(&input.timestep, &input.conditioning))?;
        let mut pass = Pass {
            network: self,
            text: condition.encoder_hidden_states.detach(),
            values: vec![Some(condition.embedding.clone())],
            gradients: vec![None],
        };
        let mut entries = vec![pass.begin(&input.sample)?];
        for group in &groups[..groups.len() - 1] {
            let entry = entries.last().expect("the list begins with one");
            let steps = segments[group.start].steps.start..segments[group.end - 1].steps.end;
            let exit = pass.skim(steps, entry)?;
            entries.push(exit);
        }
        let mut exit = None;
        for (group, entry) in groups.into_iter().zip(entries).rev() {
            let mut place = entry.clone();
            let recorded: Vec<Recorded> = segments[group]
                .iter()
                .map(|segment| pass.record(segment, &mut place, loss))
                .collect::<Result<_>>()?;
            if let Some(exit) = exit.replace(entry) {
                pass.join(&place, &exit)?;
            }
            for segment in recorded.into_iter().rev() {
                pass.backward(segment, into)?;
            }
        }
        let Some(gradient) = pass.gradients[EMBEDDING].take() else { return Ok(()) };
        let mut found = embedding_tape.backward([(condition.embedding, gradient)])?;
        into.add(&mut found, self.variables().map(|(_, variable)| variable))
    }
}

/// The place of the time embedding among the values.
const EMBEDDING: usize = 0;
/// The place of the noisy latents.
const SAMPLE: usize = 1;

/// A pass under way. Every tensor that passes from one segment to another has a place in these lists.
struct Pass<'a> {
    network: &'a Trainable,
    /// The text states, for which there is no gradient.
    text: Tensor,
    /// The values, until they are not needed any more.
    values: Vec<Option<Tensor>>,
    /// What is known of their gradients.
    gradients: Vec<Option<Tensor>>,
}

/// A state of the walk, by the places of its tensors.
#[derive(Clone)]
struct Places {
    hidden: usize,
    skips: Vec<usize>,
    residual: Option<usize>,
}

/// A segment on its tape.
struct Recorded {
    inputs: BTreeMap<usize, Tensor>,
    outputs: Vec<(usize, Tensor)>,
    loss: Option<Tensor>,
    tape: Tape,
}

impl Pass<'_> {
    fn begin(&mut self, sample: &Tensor) -> Result<Places> {
        let hidden = self.add(self.network.unet().begin(sample)?.hidden);
        Ok(Places { hidden, skips: Vec::new(), residual: None })
    }

    fn add(&mut self, value: Tensor) -> usize {
        self.values.push(Some(value));
        self.gradients.push(None);
        self.values.len() - 1
    }

    fn value(&self, place: usize) -> Tensor {
        self.values[place].clone().expect("BUG: a value was dropped before its last use")
    }

    /// Walks without a graph.
    fn skim(&mut self, steps: Range<usize>, entry: &Places) -> Result<Places> {
        let mut state = self.state(entry, &BTreeMap::new());
        let known = places(entry, &state);
        let condition =
            Condition { embedding: self.value(EMBEDDING), encoder_hidden_states: self.text.clone() };
        walk(self.network.unet(), steps, &mut state, &condition, &mut |_, _| Ok(()))?;
        Ok(self.place(&state, known).0)
    }

    /// Records a segment, and moves `place` behind it.
    fn record(&mut self, segment: &Segment, place: &mut Places, loss: &mut Loss<'_>) -> Result<Recorded> {
        let read = place.skips.len() - segment.skips;
        let needed = [EMBEDDING, place.hidden].into_iter().chain(place.residual);
        let needed: BTreeSet<usize> = needed.chain(place.skips[read..].iter().copied()).collect();
        // Nobody asks for the gradient of the latents.
        let needed = needed.into_iter().filter(|place| *place != SAMPLE);
        let tracked = |place| Ok((place, nn::tracked(&self.value(place))?));
        let inputs = needed.map(tracked).collect::<Result<BTreeMap<usize, Tensor>>>()?;
        let mut state = self.state(place, &inputs);
        let known = places(place, &state);
        let condition =
            Condition { embedding: inputs[&EMBEDDING].clone(), encoder_hidden_states: self.text.clone() };
        let mut sum: Option<Tensor> = None;
        let unet = self.network.unet();
        let ((), tape) = nn::record(|| {
            walk(unet, segment.steps.clone(), &mut state, &condition, &mut |path, hidden| {
                if let Some(addend) = loss(path, hidden)? {
                    sum = Some(plus(sum.take(), addend)?);
                }
                Ok(())
            })?;
            state.each(nn::settled)
        })?;
        let (after, outputs) = self.place(&state, known);
        *place = after;
        Ok(Recorded { inputs, outputs, loss: sum, tape })
    }

    /// The tensors at these places, which can be given.
    fn state(&self, place: &Places, given: &BTreeMap<usize, Tensor>) -> WalkState {
        let tensor = |place: &usize| given.get(place).cloned().unwrap_or_else(|| self.value(*place));
        WalkState {
            hidden: tensor(&place.hidden),
            skips: place.skips.iter().map(tensor).collect(),
            residual: place.residual.as_ref().map(tensor),
        }
    }

    /// Gives places to the tensors of a state that have none yet, and lists these.
    fn place(&mut self, state: &WalkState, mut known: Known) -> (Places, Vec<(usize, Tensor)>) {
        let mut outputs = Vec::new();
        let mut of = |tensor: &Tensor| match known.iter().find(|(id, _)| *id == tensor.id()) {
            Some((_, place)) => *place,
            None => {
                let place = self.add(tensor.clone());
                known.push((tensor.id(), place));
                outputs.push((place, tensor.clone()));
                place
            }
        };
        let places = Places {
            hidden: of(&state.hidden),
            skips: state.skips.iter().map(&mut of).collect(),
            residual: state.residual.as_ref().map(of),
        };
        (places, outputs)
    }

    /// Passes the gradients of `exit`, where a group ended when it was walked first, on to the same tensors of the group
    /// that was recorded.
    fn join(&mut self, recorded: &Places, exit: &Places) -> Result<()> {
        for (place, known) in recorded.iter().zip(exit.iter()).filter(|(place, known)| place != known) {
            self.values[known] = None;
            if let Some(gradient) = self.gradients[known].take() {
                self.gradients[place] = Some(plus(self.gradients[place].take(), gradient)?);
            }
        }
        Ok(())
    }

    /// Differentiates a segment, whose outputs have all their gradients by now.
    fn backward(&mut self, segment: Recorded, into: &mut Gradients) -> Result<()> {
        let mut known = Vec::new();
        if let Some(loss) = segment.loss {
            known.push((loss.clone(), loss.ones_like()?));
        }
        for (place, output) in segment.outputs {
            self.values[place] = None;
            if let Some(gradient) = self.gradients[place].take() {
                known.push((output, gradient));
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let mut found = segment.tape.backward(known)?;
        for (place, input) in &segment.inputs {
            if let Some(gradient) = found.remove(input) {
                self.gradients[*place] = Some(plus(self.gradients[*place].take(), gradient)?);
            }
        }
        into.add(&mut found, self.network.variables().map(|(_, variable)| variable))
    }
}

impl Places {
    fn iter(&self) -> impl Iterator<Item = usize> {
        [self.hidden].into_iter().chain(self.skips.iter().copied()).chain(self.residual)
    }
}

/// Tensors with their places.
type Known = Vec<(candle_core::TensorId, usize)>;

fn places(place: &Places, state: &WalkState) -> Known {
    let tensors = [&state.hidden].into_iter().chain(&state.skips).chain(&state.residual);
    tensors.map(Tensor::id).zip(place.iter()).collect()
}

fn plus(sum: Option<Tensor>, addend: Tensor) -> Result<Tensor> {
    match sum {
        Some(sum) => nn::add(&sum, &addend),
        None => Ok(addend),
    }
}

fn walk(
    unet: &UNet,
    steps: Range<usize>,
    state: &mut WalkState,
    condition: &Condition,
    see: &mut dyn FnMut(&str, &Tensor) -> Result<()>,
) -> Result<()> {
    for step in unet.steps_in(steps) {
        let step = step?;
        step.advance(state, condition)?;
        see(step.path(), &state.hidden)?;
    }
    Ok(())
}
