//! A U-Net's passes from its configuration alone: which layers of `nn` each step has, with values that have no numbers.

use candle_core::Result;

use super::config::UNetConfig;
use crate::model::network::Segment;
use crate::model::network::spec::{Groups, Kind, Spec};
use crate::nn::counting::{Parameters, Pass, Rows, Value};

/// Tokens of a prompt.
const TOKENS: usize = 77;

/// A U-Net whose layers have shapes and no numbers.
pub struct Counted {
    specs: Vec<Spec>,
    segments: Vec<Segment>,
    /// The weights of each step, in the order of their use.
    weights: Vec<Vec<Parameters>>,
    embedding: Vec<Parameters>,
    /// Widths of the time, of the pooled text with its sizes, and of the text.
    widths: [usize; 3],
    batch: usize,
    latents: (usize, usize),
    trained: bool,
}

/// What a pass leaves: the outputs of the stages, and the prediction last.
pub type Outputs = Vec<Value>;

impl UNetConfig {
    /// This U-Net for a batch of latents of this height and width. The weights of one that is trained are f32.
    pub fn counted(
        &self,
        pass: &mut Pass,
        batch: usize,
        latents: (usize, usize),
        trained: bool,
    ) -> Result<Counted> {
        let inventory = self.inventory();
        let specs = inventory.specs().to_vec();
        let mut shapes = vec![[self.time_embed_dim, self.levels[0].channels]];
        shapes.extend(self.text_time.map(|text_time| [self.time_embed_dim, text_time.input_dim]));
        let mut embedding = Vec::new();
        for first in shapes {
            embedding.push(pass.parameters(&first, true, trained)?);
            embedding.push(pass.parameters(&[self.time_embed_dim; 2], true, trained)?);
        }
        let pooled = self.text_time.map_or(0, |text_time| text_time.input_dim);
        let widths = [self.levels[0].channels, pooled, self.innermost().cross_attention_dim];
        let mut weights = Vec::new();
        for spec in &specs {
            let all = shapes_of(&spec.kind);
            let all = all.iter().map(|(shape, bias)| pass.parameters(shape, *bias, trained));
            weights.push(all.collect::<Result<Vec<_>>>()?);
        }
        let segments = inventory.segments(latents.0, latents.1);
        Ok(Counted { specs, segments, weights, embedding, widths, batch, latents, trained })
    }
}

/// The weights of a step in the order of their use: the shape, and whether there is a bias of the first dimension. A norm has a
/// weight and a bias.
fn shapes_of(kind: &Kind) -> Vec<(Vec<usize>, bool)> {
    let conv = |inputs, outputs, kernel| (vec![outputs, inputs, kernel, kernel], true);
    let linear = |inputs, outputs, bias| (vec![outputs, inputs], bias);
    let norm = |channels| (vec![channels], true);
    match *kind {
        Kind::PushSkip | Kind::Concatenate | Kind::Block | Kind::Stage => Vec::new(),
        Kind::ConvIn { inputs, outputs } => vec![conv(inputs, outputs, 3)],
        Kind::Shortcut { inputs, outputs } => vec![conv(inputs, outputs, 1)],
        Kind::Map { channels } => vec![linear(channels, channels, true)],
        Kind::Resnet { inputs, outputs, time, .. } => {
            let mut all = vec![norm(inputs), linear(time, outputs, true), conv(inputs, outputs, 3)];
            all.extend([norm(outputs), conv(outputs, outputs, 3)]);
            all.extend((inputs != outputs).then(|| conv(inputs, outputs, 1)));
            all
        }
        Kind::Enter { channels, linear: true, .. } => vec![norm(channels), linear(channels, channels, true)],
        Kind::Enter { channels, .. } => vec![norm(channels), conv(channels, channels, 1)],
        Kind::Exit { channels, linear: true } => vec![linear(channels, channels, true)],
        Kind::Exit { channels, .. } => vec![conv(channels, channels, 1)],
        Kind::SelfAttention { channels, .. } => attention(channels, channels),
        Kind::CrossAttention { channels, context, .. } => attention(channels, context),
        Kind::FeedForward { channels } => {
            vec![norm(channels), linear(channels, 8 * channels, true), linear(4 * channels, channels, true)]
        }
        Kind::Downsample { channels } | Kind::Upsample { channels } => vec![conv(channels, channels, 3)],
        Kind::ConvOut { inputs, outputs, .. } => vec![norm(inputs), conv(inputs, outputs, 3)],
    }
}

fn attention(channels: usize, context: usize) -> Vec<(Vec<usize>, bool)> {
    let linear = |inputs, bias| (vec![channels, inputs], bias);
    vec![
        (vec![channels], true),
        linear(channels, false),
        linear(context, false),
        linear(context, false),
        linear(channels, true),
    ]
}

/// The state of a walk.
struct State {
    hidden: Value,
    skips: Vec<Value>,
    residual: Option<Value>,
    embedding: Value,
    text: Value,
    size: (usize, usize),
    outputs: Outputs,
}

impl Counted {
    /// A pass. With a graph, if it is trained: segment by segment, as in `train`.
    pub fn forward(&self, pass: &mut Pass) -> Result<Outputs> {
        let (height, width) = self.latents;
        let embedding = self.embed(pass)?;
        // Its graph is differentiated last; within the others, copies stand for it.
        let text = pass.input(&[self.batch, TOKENS, self.widths[2]])?;
        let hidden = pass.input(&[self.batch, height, width, self.first()])?;
        let (skips, outputs) = (Vec::new(), Vec::new());
        let mut state =
            State { hidden, skips, residual: None, embedding, text, size: (height, width), outputs };
        let whole = state.embedding.clone();
        let mut segments = self.segments.iter().peekable();
        for (index, (spec, weights)) in self.specs.iter().zip(&self.weights).enumerate() {
            if let Some(segment) = segments.next_if(|segment| segment.steps.start == index)
                && self.trained
            {
                state.enter(pass, segment, &whole, index > 0)?;
            }
            self.step(pass, &mut state, spec, weights)?;
        }
        state.outputs.push(state.hidden);
        Ok(state.outputs)
    }

    fn first(&self) -> usize {
        match self.specs[0].kind {
            Kind::ConvIn { inputs, .. } => inputs,
            _ => 0,
        }
    }

    /// The time embedding, [b, time]: two linear layers for the time and two for the pooled text.
    fn embed(&self, pass: &mut Pass) -> Result<Value> {
        let mut sum: Option<Value> = None;
        for (layers, width) in self.embedding.chunks(2).zip(self.widths) {
            // Sines and cosines of a few numbers, their conversions, and two SiLUs.
            pass.charge_small(14);
            let input = pass.input(&[self.batch, width])?;
            let hidden = pass.linear(&input, &layers[0], None)?;
            let hidden = pass.linear(&hidden, &layers[1], None)?;
            sum = Some(match sum {
                Some(sum) => pass.add(&sum, &hidden)?,
                None => hidden,
            });
        }
        Ok(sum.expect("a U-Net has a time embedding"))
    }

    fn step(&self, pass: &mut Pass, state: &mut State, spec: &Spec, weights: &[Parameters]) -> Result<()> {
        let x = state.hidden.clone();
        let silu = |norm: Groups| Rows::Groups { groups: norm.groups, silu: true };
        state.hidden = match spec.kind {
            Kind::ConvIn { .. } | Kind::Shortcut { .. } => pass.conv(&x, &weights[0], 1, false, None)?,
            Kind::Map { .. } => pass.linear(&x, &weights[0], None)?,
            Kind::Resnet { norm, .. } => resnet(pass, &x, &state.embedding, weights, silu(norm))?,
            Kind::Concatenate => {
                let skip = state.skips.pop().expect("BUG: every concatenation has a skip");
                pass.concatenate(&x, &skip)?
            }
            Kind::Enter { channels, groups, linear } => {
                state.residual = Some(x.clone());
                let tokens = [self.batch, state.size.0 * state.size.1, channels];
                let normed = pass.norm(&x, &weights[0], Rows::Groups { groups, silu: false })?;
                project(pass, &normed, &weights[1], linear, &tokens, true)?
            }
            Kind::Exit { channels, linear } => {
                let pixels = [self.batch, state.size.0, state.size.1, channels];
                let branch = project(pass, &x, &weights[0], linear, &pixels, false)?;
                let residual = state.residual.take().expect("BUG: every shell was entered");
                pass.add(&residual, &branch)?
            }
            Kind::SelfAttention { heads, .. } => attend(pass, &x, None, weights, heads)?,
            Kind::CrossAttention { heads, .. } => attend(pass, &x, Some(&state.text), weights, heads)?,
            Kind::FeedForward { .. } => {
                let normed = pass.norm(&x, &weights[0], Rows::Last)?;
                let gated = pass.linear(&normed, &weights[1], None)?;
                pass.gated_linear(&gated, &weights[2], &x)?
            }
            Kind::Downsample { .. } => {
                state.size = (state.size.0.div_ceil(2), state.size.1.div_ceil(2));
                pass.conv(&x, &weights[0], 2, false, None)?
            }
            Kind::Upsample { .. } => {
                state.size = (2 * state.size.0, 2 * state.size.1);
                pass.conv(&x, &weights[0], 1, true, None)?
            }
            Kind::ConvOut { norm, .. } => {
                let normed = pass.norm(&x, &weights[0], silu(norm))?;
                pass.conv(&normed, &weights[1], 1, false, None)?
            }
            Kind::PushSkip => {
                state.skips.push(x.clone());
                x
            }
            Kind::Stage => {
                state.outputs.push(x.clone());
                x
            }
            Kind::Block => x,
        };
        Ok(())
    }
}

impl State {
    /// Begins a segment at copies of what it reads.
    fn enter(
        &mut self,
        pass: &mut Pass,
        segment: &Segment,
        embedding: &Value,
        has_input: bool,
    ) -> Result<()> {
        let read = self.skips.len() - segment.skips;
        let mut inputs = vec![embedding.clone()];
        inputs.extend(has_input.then(|| self.hidden.clone()));
        inputs.extend(self.residual.clone());
        inputs.extend(self.skips[read..].iter().cloned());
        let mut copies = pass.segment(&inputs)?.into_iter();
        self.embedding = copies.next().expect("a copy of each");
        if has_input {
            self.hidden = copies.next().expect("a copy of each");
        }
        if let Some(residual) = &mut self.residual {
            *residual = copies.next().expect("a copy of each");
        }
        self.skips.truncate(read);
        self.skips.extend(copies);
        Ok(())
    }
}

fn resnet(
    pass: &mut Pass,
    x: &Value,
    embedding: &Value,
    weights: &[Parameters],
    norm: Rows,
) -> Result<Value> {
    let normed = pass.norm(x, &weights[0], norm)?;
    let time = pass.linear(embedding, &weights[1], None)?;
    let hidden = pass.conv(&normed, &weights[2], 1, false, Some(&time))?;
    let hidden = pass.norm(&hidden, &weights[3], norm)?;
    let hidden = pass.conv(&hidden, &weights[4], 1, false, None)?;
    let shortcut = match weights.get(5) {
        Some(shortcut) => &pass.conv(x, shortcut, 1, false, None)?,
        None => x,
    };
    pass.add(shortcut, &hidden)
}

/// A shell's projection, a linear layer over tokens or a convolution of pixels, with a change to `shape` on the way in or out.
fn project(
    pass: &mut Pass,
    x: &Value,
    weights: &Parameters,
    linear: bool,
    shape: &[usize],
    enters: bool,
) -> Result<Value> {
    match (linear, enters) {
        (true, true) => {
            let tokens = pass.reshape(x, shape)?;
            pass.linear(&tokens, weights, None)
        }
        (true, false) => {
            let tokens = pass.linear(x, weights, None)?;
            pass.reshape(&tokens, shape)
        }
        (false, true) => {
            let pixels = pass.conv(x, weights, 1, false, None)?;
            pass.reshape(&pixels, shape)
        }
        (false, false) => {
            let pixels = pass.reshape(x, shape)?;
            pass.conv(&pixels, weights, 1, false, None)
        }
    }
}

fn attend(
    pass: &mut Pass,
    x: &Value,
    text: Option<&Value>,
    weights: &[Parameters],
    heads: usize,
) -> Result<Value> {
    let normed = pass.norm(x, &weights[0], Rows::Last)?;
    let q = pass.linear(&normed, &weights[1], None)?;
    let context = text.unwrap_or(&normed);
    let (k, v) = (pass.linear(context, &weights[2], None)?, pass.linear(context, &weights[3], None)?);
    let read = pass.attention([&q, &k, &v], heads)?;
    pass.linear(&read, &weights[4], Some(x))
}
