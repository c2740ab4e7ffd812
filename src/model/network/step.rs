//! One step of a U-Net and its effect on the state of a walk.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::condition::Condition;
use super::spec::{ENTER, Groups, Kind, MAP, Spec, norm_of};
use super::state::WalkState;
use super::tail::Tail;
use crate::model::blocks::{Attention, Enter, Exit, FeedForward, Reading, ResnetBlock, shortcut};
use crate::nn::{Conv2d, GroupNorm, Linear, image, upsample_nearest_2x};

/// One step of a U-Net's list. Cheap to clone: tensors are shared.
#[derive(Clone, Debug)]
pub struct Step {
    path: String,
    op: Op,
}

#[derive(Clone, Debug)]
enum Op {
    ConvIn(Conv2d),
    PushSkip,
    Concatenate,
    Resnet(Box<ResnetBlock>),
    Shortcut(Conv2d),
    Map(Linear),
    Enter(Enter),
    SelfAttention(Box<Attention>),
    CrossAttention(Box<Attention>),
    FeedForward(Box<FeedForward>),
    Exit(Exit),
    Downsample(Conv2d),
    Upsample(Conv2d),
    Output,
    ConvOut(GroupNorm, Conv2d),
}

/// The part of a step that depends only on the condition, computed before any features are needed.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The time embedding's contribution to a ResNet's features, [b, c].
    time: Option<Tensor>,
    /// Keys and values of the text, [b, m, c].
    text: Option<Reading>,
}

impl Shared {
    /// Repeats the condition for this many states in one batch.
    fn repeat(&self, states: usize) -> Result<Self> {
        let text = |text: &Reading| -> Result<Reading> {
            let repeat = |tensor: &Tensor| tensor.repeat((states, 1, 1));
            Ok(Reading { keys: repeat(&text.keys)?, values: repeat(&text.values)? })
        };
        Ok(Self {
            time: self.time.as_ref().map(|time| time.repeat((states, 1))).transpose()?,
            text: self.text.as_ref().map(text).transpose()?,
        })
    }
}

impl Step {
    /// Reads the weights of one step; `vb` is at the network's root.
    pub(super) fn new(spec: &Spec, vb: &VarBuilder) -> Result<Self> {
        let here = vb.pp(&spec.path);
        let norm =
            || vb.pp(norm_of(&spec.path).expect("BUG: this step is not a part of a transformer block"));
        let op = match spec.kind {
            Kind::ConvIn { inputs, outputs } => Op::ConvIn(Conv2d::new(inputs, outputs, 3, 1, 1, here)?),
            Kind::PushSkip => Op::PushSkip,
            Kind::Concatenate => Op::Concatenate,
            Kind::Resnet { inputs, outputs, time, norm: Groups { groups, eps } } => {
                Op::Resnet(Box::new(ResnetBlock::new(inputs, outputs, Some(time), groups, eps, here)?))
            }
            Kind::Shortcut { inputs, outputs } => Op::Shortcut(shortcut(inputs, outputs, here)?),
            Kind::Map { channels } => Op::Map(Linear::new(channels, channels, true, here.pp(MAP))?),
            Kind::Enter { channels, groups, linear } => {
                let shell = spec.path.trim_end_matches(ENTER);
                Op::Enter(Enter::new(channels, groups, linear, vb.pp(shell))?)
            }
            Kind::SelfAttention { channels, heads } => {
                Op::SelfAttention(Box::new(Attention::new(channels, channels, heads, norm(), here)?))
            }
            Kind::CrossAttention { channels, heads, context } => {
                Op::CrossAttention(Box::new(Attention::new(channels, context, heads, norm(), here)?))
            }
            Kind::FeedForward { channels } => {
                Op::FeedForward(Box::new(FeedForward::new(channels, norm(), here)?))
            }
            Kind::Exit { channels, linear } => Op::Exit(Exit::new(channels, linear, here)?),
            Kind::Downsample { channels } => {
                Op::Downsample(Conv2d::new(channels, channels, 3, 2, 1, here.pp("conv"))?)
            }
            Kind::Upsample { channels } => {
                Op::Upsample(Conv2d::new(channels, channels, 3, 1, 1, here.pp("conv"))?)
            }
            Kind::Block | Kind::Stage => Op::Output,
            Kind::ConvOut { inputs, outputs, norm: Groups { groups, eps } } => {
                let norm = GroupNorm::new(inputs, groups, eps, vb.pp("conv_norm_out"))?;
                Op::ConvOut(norm, Conv2d::new(inputs, outputs, 3, 1, 1, here)?)
            }
        };
        Ok(Self { path: spec.path.clone(), op })
    }

    /// The path of the diffusers module whose output the step completes: `down_blocks.1.resnets.0`. The first half of a
    /// transformer's shell ends in `.proj_in`; `down_blocks.1.skips.0` is a skip connection.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A linear map that changes nothing.
    pub(in crate::model) fn identity(spec: &Spec, dtype: DType, device: &Device) -> Result<Self> {
        let Some(tail) = Tail::of(spec).filter(|_| spec.is_map()) else {
            bail!("BUG: `{}` is no linear map", spec.path)
        };
        let one = Tensor::eye(tail.inputs, DType::F32, device)?.to_dtype(dtype)?;
        let weight = match spec.kind {
            Kind::Shortcut { .. } => one.reshape((tail.outputs, tail.inputs, 1, 1))?,
            _ => one,
        };
        let bias = Tensor::zeros(tail.outputs, dtype, device)?;
        let named = [("weight", weight), ("bias", bias)];
        let tensors: HashMap<_, _> =
            named.into_iter().map(|(part, tensor)| (format!("{}.{part}", tail.name), tensor)).collect();
        Self::new(spec, &VarBuilder::from_tensors(tensors, dtype, device))
    }

    /// The type of the weights of the first convolution.
    pub(super) fn dtype_of_first(&self) -> Option<DType> {
        match &self.op {
            Op::ConvIn(conv) => Some(conv.weight.dtype()),
            _ => None,
        }
    }

    /// The learned shortcut, if the step has one.
    fn shortcut(&self) -> Option<&Conv2d> {
        match &self.op {
            Op::Resnet(block) => block.conv_shortcut.as_ref(),
            Op::Shortcut(conv) => Some(conv),
            _ => None,
        }
    }

    /// The step without its branch; the linear map in place of a branch is itself without one.
    pub(super) fn without_branch(&self) -> Self {
        let shortcut = self.shortcut().expect("BUG: a step can only lose its branch if it has a shortcut");
        Self { path: self.path.clone(), op: Op::Shortcut(shortcut.clone()) }
    }

    /// What the linear layer at the end of the step reads, before the step is taken: pixels [b, c, h, w] or tokens
    /// [b, n, c]; `None` if it ends with none.
    pub fn features(&self, state: &WalkState, shared: &Shared) -> Result<Option<Tensor>> {
        let x = &state.hidden;
        Ok(Some(match &self.op {
            Op::Shortcut(_) | Op::Map(_) | Op::Exit(_) => x.clone(),
            Op::Resnet(block) => block.features(x, shared.time.as_ref())?,
            Op::SelfAttention(part) => part.features(x, None)?,
            Op::CrossAttention(part) => part.features(x, shared.text.as_ref())?,
            Op::FeedForward(part) => part.features(x)?,
            Op::ConvOut(norm, _) => norm.forward_silu(x)?,
            _ => return Ok(None),
        }))
    }

    /// The step with another weight and bias in the linear layer at its end, in the types of the present ones.
    pub fn with_tail(&self, weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let mut step = self.clone();
        let (old, old_bias) = match &mut step.op {
            Op::Shortcut(conv) | Op::ConvOut(_, conv) => (&mut conv.weight, &mut conv.bias),
            Op::Resnet(block) => block.tail(),
            Op::SelfAttention(part) | Op::CrossAttention(part) => part.tail(),
            Op::FeedForward(part) => part.tail(),
            Op::Exit(shell) => shell.tail(),
            Op::Map(map) => (&mut map.weight, &mut map.bias),
            _ => panic!("BUG: `{}` does not end with a linear layer", self.path),
        };
        let like = |new: &Tensor, old: &Tensor| {
            new.reshape(old.shape())?.to_device(old.device())?.to_dtype(old.dtype())
        };
        if let Some(old) = old_bias {
            *old = like(bias, old)?;
        }
        *old = like(weight, old)?;
        Ok(step)
    }

    /// Skips the unit that starts with this step: applies only its learned shortcut, if it has one.
    pub fn bypass(&self, state: &mut WalkState) -> Result<()> {
        if let Some(shortcut) = self.shortcut() {
            state.hidden = shortcut.forward(&state.hidden)?;
        }
        Ok(())
    }

    /// Replaces `state` with the state after this step. After the last step, `state.hidden` is the prediction.
    pub fn advance(&self, state: &mut WalkState, condition: &Condition) -> Result<()> {
        self.advance_with(state, &self.share(condition)?)
    }

    /// Precomputes what this step derives from the condition, for states that are advanced together.
    pub fn share(&self, condition: &Condition) -> Result<Shared> {
        Ok(match &self.op {
            Op::Resnet(block) => Shared { time: block.time(&condition.embedding)?, text: None },
            Op::CrossAttention(part) => {
                Shared { time: None, text: Some(part.read(&condition.encoder_hidden_states)?) }
            }
            _ => Shared::default(),
        })
    }

    /// Advances states that are at this step as one batch. `shared` is for one of them; all have the same number of
    /// samples.
    pub fn advance_all(&self, states: &mut [&mut WalkState], shared: &Shared) -> Result<()> {
        let computes = !matches!(self.op, Op::PushSkip | Op::Concatenate | Op::Output);
        if states.len() < 2 || !computes {
            return states.iter_mut().try_for_each(|state| self.advance_with(state, shared));
        }
        let together = |part: &dyn Fn(&WalkState) -> Option<Tensor>| {
            let parts: Option<Vec<_>> = states.iter().map(|state| part(state)).collect();
            parts.map(|parts| Tensor::cat(&parts, 0)).transpose()
        };
        let mut batch = WalkState {
            hidden: together(&|state| Some(state.hidden.clone()))?.expect("BUG: every state has features"),
            // Upsampling reads the size of the newest skip.
            skips: states[0].skips.last().cloned().into_iter().collect(),
            residual: match self.op {
                Op::Exit(_) => together(&|state| state.residual.clone())?,
                _ => None,
            },
        };
        self.advance_with(&mut batch, &shared.repeat(states.len())?)?;
        let samples = batch.hidden.dim(0)? / states.len();
        for (index, state) in states.iter_mut().enumerate() {
            let entered =
                std::mem::replace(&mut state.hidden, batch.hidden.narrow(0, index * samples, samples)?);
            match self.op {
                Op::Enter(_) => state.residual = Some(entered),
                Op::Exit(_) => state.residual = None,
                _ => {}
            }
        }
        Ok(())
    }

    /// Like [`Step::advance`], with the result of [`Step::share`].
    pub fn advance_with(&self, state: &mut WalkState, shared: &Shared) -> Result<()> {
        let x = &state.hidden;
        state.hidden = match &self.op {
            Op::ConvIn(conv) | Op::Shortcut(conv) | Op::Downsample(conv) => conv.forward(x)?,
            Op::Map(map) => map.forward(x)?,
            Op::Resnet(block) => block.forward(x, shared.time.as_ref())?,
            Op::SelfAttention(part) => part.forward(x, None)?,
            Op::CrossAttention(part) => part.forward(x, shared.text.as_ref())?,
            Op::FeedForward(part) => part.forward(x)?,
            Op::ConvOut(norm, conv) => image::end(&conv.forward(&norm.forward_silu(x)?)?)?,
            Op::Upsample(conv) => upsample(conv, x, state.skips.last())?,
            Op::Concatenate => match state.skips.pop() {
                Some(skip) => image::concatenate([x, &skip])?,
                None => bail!("`{}` has no features to append: a step may be missing", self.path),
            },
            Op::Enter(shell) => {
                let tokens = shell.forward(x)?;
                state.residual = Some(std::mem::replace(&mut state.hidden, tokens));
                return Ok(());
            }
            Op::Exit(shell) => match state.residual.take() {
                Some(residual) => shell.forward(x, &residual)?,
                None => bail!("`{}` closes a shell that was not entered", self.path),
            },
            Op::PushSkip => {
                state.skips.push(x.clone());
                return Ok(());
            }
            Op::Output => return Ok(()),
        };
        Ok(())
    }
}

/// Doubles an image and convolves it. The doubled features lose their last row or column if those of the down path have an
/// odd size; this equals nearest interpolation to the odd size.
fn upsample(conv: &Conv2d, x: &Tensor, skip: Option<&Tensor>) -> Result<Tensor> {
    let (_, _, height, width) = image::size(x)?;
    match skip.map(image::size).transpose()? {
        Some((_, _, h, w)) if (h, w) != (2 * height, 2 * width) => {
            conv.forward(&image::crop(&upsample_nearest_2x(x)?, h, w)?)
        }
        _ => conv.forward_upsampled(x),
    }
}
