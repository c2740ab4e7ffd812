//! The transformer of Stable Diffusion: a shell that turns pixels into tokens and back, and blocks of three parts:
//! self-attention, attention to the text, and a gated feed-forward layer. Each part adds its result to its input.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::image::{pixels, tokens};
use crate::nn::{Conv2d, GroupNorm, LayerNorm, Linear, add, attention_of, geglu};

/// Epsilon of the shell's norm; diffusers fixes it, regardless of `norm_eps`.
const SHELL_EPS: f64 = 1e-6;
/// Epsilon of the blocks' norms.
const BLOCK_EPS: f64 = 1e-5;

/// A shell's projection: a 1x1 convolution of pixels in older models, a linear layer over tokens in newer ones.
#[derive(Clone, Debug)]
enum Projection {
    Convolution(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(channels: usize, linear: bool, vb: VarBuilder) -> Result<Self> {
        Ok(match linear {
            true => Self::Linear(Linear::new(channels, channels, true, vb)?),
            false => Self::Convolution(Conv2d::new(channels, channels, 1, 1, 0, vb)?),
        })
    }
}

/// The first half of a shell.
#[derive(Clone, Debug)]
pub(in crate::model) struct Enter {
    norm: GroupNorm,
    proj_in: Projection,
}

impl Enter {
    pub(in crate::model) fn new(
        channels: usize,
        groups: usize,
        linear: bool,
        vb: VarBuilder,
    ) -> Result<Self> {
        let norm = GroupNorm::new(channels, groups, SHELL_EPS, vb.pp("norm"))?;
        Ok(Self { norm, proj_in: Projection::new(channels, linear, vb.pp("proj_in"))? })
    }

    /// An image -> tokens [b, h*w, c].
    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.norm.forward(x)?;
        match &self.proj_in {
            Projection::Convolution(conv) => tokens(&conv.forward(&x)?),
            Projection::Linear(linear) => linear.forward(&tokens(&x)?),
        }
    }
}

/// The second half of a shell.
#[derive(Clone, Debug)]
pub(in crate::model) struct Exit {
    proj_out: Projection,
}

impl Exit {
    pub(in crate::model) fn new(channels: usize, linear: bool, vb: VarBuilder) -> Result<Self> {
        Ok(Self { proj_out: Projection::new(channels, linear, vb.pp("proj_out"))? })
    }

    /// Weight and bias of the projection.
    pub(in crate::model) fn tail(&mut self) -> (&mut Tensor, &mut Option<Tensor>) {
        match &mut self.proj_out {
            Projection::Convolution(conv) => (&mut conv.weight, &mut conv.bias),
            Projection::Linear(linear) => (&mut linear.weight, &mut linear.bias),
        }
    }

    /// Tokens [b, h*w, c] and the shell's input, an image -> an image.
    pub(in crate::model) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let branch = match &self.proj_out {
            Projection::Convolution(conv) => conv.forward(&pixels(x, residual)?)?,
            Projection::Linear(linear) => pixels(&linear.forward(x)?, residual)?,
        };
        add(residual, &branch)
    }
}

/// Keys and values.
#[derive(Clone, Debug)]
pub(in crate::model) struct Reading {
    pub(in crate::model) keys: Tensor,
    pub(in crate::model) values: Tensor,
}

/// An attention layer of a transformer block, with its norm: self-attention, or attention to the text.
#[derive(Clone, Debug)]
pub(in crate::model) struct Attention {
    norm: LayerNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    /// `norm` and `vb` are at the paths of the two modules.
    pub(in crate::model) fn new(
        channels: usize,
        context: usize,
        heads: usize,
        norm: VarBuilder,
        vb: VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::new(channels, BLOCK_EPS, norm)?,
            to_q: Linear::new(channels, channels, false, vb.pp("to_q"))?,
            to_k: Linear::new(context, channels, false, vb.pp("to_k"))?,
            to_v: Linear::new(context, channels, false, vb.pp("to_v"))?,
            to_out: Linear::new(channels, channels, true, vb.pp("to_out.0"))?,
            heads,
        })
    }

    /// The context to attend to, [b, m, context] -> keys and values, each [b, m, c].
    pub(in crate::model) fn read(&self, context: &Tensor) -> Result<Reading> {
        Ok(Reading { keys: self.to_k.forward(context)?, values: self.to_v.forward(context)? })
    }

    /// What `to_out` reads, [b, n, c]; arguments are those of [`Self::forward`].
    pub(in crate::model) fn features(&self, x: &Tensor, text: Option<&Reading>) -> Result<Tensor> {
        let normed = self.norm.forward(x)?;
        let q = self.to_q.forward(&normed)?;
        let Reading { keys, values } = match text {
            Some(text) => text,
            None => &self.read(&normed)?,
        };
        attention_of(self.to_q.weight.dtype(), &q, keys, values, self.heads, false)
    }

    /// Weight and bias of `to_out`.
    pub(in crate::model) fn tail(&mut self) -> (&mut Tensor, &mut Option<Tensor>) {
        (&mut self.to_out.weight, &mut self.to_out.bias)
    }

    /// tokens [b, n, c], and the keys and values of the text (`None` for self-attention) -> [b, n, c].
    pub(in crate::model) fn forward(&self, x: &Tensor, text: Option<&Reading>) -> Result<Tensor> {
        self.to_out.forward_onto(&self.features(x, text)?, x)
    }
}

/// The gated feed-forward layer of a transformer block, with its norm.
#[derive(Clone, Debug)]
pub(in crate::model) struct FeedForward {
    norm: LayerNorm,
    gated: Linear,
    out: Linear,
}

impl FeedForward {
    /// `norm` and `vb` are at the paths of the two modules.
    pub(in crate::model) fn new(channels: usize, norm: VarBuilder, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            norm: LayerNorm::new(channels, BLOCK_EPS, norm)?,
            gated: Linear::new(channels, 8 * channels, true, vb.pp("net.0.proj"))?,
            out: Linear::new(4 * channels, channels, true, vb.pp("net.2"))?,
        })
    }

    /// What the last layer reads, [b, n, 4 c].
    pub(in crate::model) fn features(&self, x: &Tensor) -> Result<Tensor> {
        geglu(&self.gated.forward(&self.norm.forward(x)?)?)
    }

    /// Weight and bias of the last layer.
    pub(in crate::model) fn tail(&mut self) -> (&mut Tensor, &mut Option<Tensor>) {
        (&mut self.out.weight, &mut self.out.bias)
    }

    /// tokens [b, n, c] -> [b, n, c].
    pub(in crate::model) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gated = self.gated.forward(&self.norm.forward(x)?)?;
        self.out.forward_gated_onto(&gated, x)
    }
}
