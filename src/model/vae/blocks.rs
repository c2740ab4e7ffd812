//! The blocks that only autoencoders have.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::{Conv2d, GroupNorm, Linear, attention, image};

/// Epsilon of every norm; diffusers fixes it.
pub(super) const EPS: f64 = 1e-6;

/// Self-attention over pixels, one head.
#[derive(Clone, Debug)]
pub(super) struct AttentionBlock {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl AttentionBlock {
    pub(super) fn new(channels: usize, groups: usize, vb: VarBuilder) -> Result<Self> {
        // Files written before diffusers 0.16, including Stable Diffusion 1.5, have the older names.
        let names = match vb.contains_tensor("query.weight") {
            true => ["query", "key", "value", "proj_attn"],
            false => ["to_q", "to_k", "to_v", "to_out.0"],
        };
        let linear = |name| Linear::new(channels, channels, true, vb.pp(name));
        Ok(Self {
            group_norm: GroupNorm::new(channels, groups, EPS, vb.pp("group_norm"))?,
            to_q: linear(names[0])?,
            to_k: linear(names[1])?,
            to_v: linear(names[2])?,
            to_out: linear(names[3])?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = image::tokens(&self.group_norm.forward(x)?)?;
        let (q, k, v) =
            (self.to_q.forward(&tokens)?, self.to_k.forward(&tokens)?, self.to_v.forward(&tokens)?);
        let tokens = self.to_out.forward(&attention(&q, &k, &v, 1, false)?)?;
        x + image::pixels(&tokens, x)?
    }
}

/// Three convolutions beside a shortcut.
#[derive(Clone, Debug)]
pub(super) struct TinyBlock([Conv2d; 3]);

impl TinyBlock {
    pub(super) fn new(width: usize, vb: VarBuilder) -> Result<Self> {
        let conv = |index: usize| Conv2d::new(width, width, 3, 1, 1, vb.pp("conv").pp(index));
        Ok(Self([conv(0)?, conv(2)?, conv(4)?]))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second, third] = &self.0;
        let inner = second.forward(&first.forward(x)?.relu()?)?.relu()?;
        (third.forward(&inner)? + x)?.relu()
    }
}
