//! The transformer of Stable Diffusion: a shell that turns pixels into tokens and back, and blocks
//! of self-attention, attention to the text, and a gated feed-forward layer.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::{Conv2d, GroupNorm, LayerNorm, Linear, attention, geglu};

/// Epsilon of the shell's norm; diffusers fixes it, whatever `norm_eps` is.
const SHELL_EPS: f64 = 1e-6;
/// Epsilon of the blocks' norms.
const BLOCK_EPS: f64 = 1e-5;

/// A shell's projection: older models convolve pixels, newer ones map tokens.
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

/// The way into a shell.
#[derive(Clone, Debug)]
pub(super) struct Enter {
    norm: GroupNorm,
    proj_in: Projection,
}

impl Enter {
    pub(super) fn new(channels: usize, groups: usize, linear: bool, vb: VarBuilder) -> Result<Self> {
        let norm = GroupNorm::new(channels, groups, SHELL_EPS, vb.pp("norm"))?;
        Ok(Self { norm, proj_in: Projection::new(channels, linear, vb.pp("proj_in"))? })
    }

    /// [b, c, h, w] -> tokens [b, h*w, c].
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.norm.forward(x)?;
        match &self.proj_in {
            Projection::Convolution(conv) => tokens(&conv.forward(&x)?),
            Projection::Linear(linear) => linear.forward(&tokens(&x)?),
        }
    }
}

/// The way out of a shell.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    proj_out: Projection,
}

impl Exit {
    pub(super) fn new(channels: usize, linear: bool, vb: VarBuilder) -> Result<Self> {
        Ok(Self { proj_out: Projection::new(channels, linear, vb.pp("proj_out"))? })
    }

    /// tokens [b, h*w, c] and what entered the shell [b, c, h, w] -> [b, c, h, w].
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let branch = match &self.proj_out {
            Projection::Convolution(conv) => conv.forward(&pixels(x, residual)?)?,
            Projection::Linear(linear) => pixels(&linear.forward(x)?, residual)?,
        };
        residual + branch
    }
}

/// One transformer block.
#[derive(Clone, Debug)]
pub(super) struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl TransformerBlock {
    pub(super) fn new(channels: usize, heads: usize, context: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::new(channels, BLOCK_EPS, vb.pp("norm1"))?,
            attn1: Attention::new(channels, channels, heads, vb.pp("attn1"))?,
            norm2: LayerNorm::new(channels, BLOCK_EPS, vb.pp("norm2"))?,
            attn2: Attention::new(channels, context, heads, vb.pp("attn2"))?,
            norm3: LayerNorm::new(channels, BLOCK_EPS, vb.pp("norm3"))?,
            ff_in: Linear::new(channels, 8 * channels, true, vb.pp("ff.net.0.proj"))?,
            ff_out: Linear::new(4 * channels, channels, true, vb.pp("ff.net.2"))?,
        })
    }

    /// tokens [b, n, c], text states [b, m, context] -> [b, n, c].
    pub(super) fn forward(&self, x: &Tensor, encoder_hidden_states: &Tensor) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let x = (x + self.attn1.forward(&normed, &normed)?)?;
        let normed = self.norm2.forward(&x)?;
        let x = (&x + self.attn2.forward(&normed, encoder_hidden_states)?)?;
        let normed = self.norm3.forward(&x)?;
        &x + self.ff_out.forward(&geglu(&self.ff_in.forward(&normed)?)?)?
    }
}

#[derive(Clone, Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn new(channels: usize, context: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            to_q: Linear::new(channels, channels, false, vb.pp("to_q"))?,
            to_k: Linear::new(context, channels, false, vb.pp("to_k"))?,
            to_v: Linear::new(context, channels, false, vb.pp("to_v"))?,
            to_out: Linear::new(channels, channels, true, vb.pp("to_out.0"))?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(context)?, self.to_v.forward(context)?);
        self.to_out.forward(&attention(&q, &k, &v, self.heads, false)?)
    }
}

/// [b, c, h, w] -> [b, h*w, c]
fn tokens(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

/// [b, h*w, c] -> the shape of `like`, [b, c, h, w]
fn pixels(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.contiguous()?.reshape(like.shape())
}
