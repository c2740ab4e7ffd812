//! The ResNet of Stable Diffusion: two convolutions, each after a norm. In a U-Net the time embedding is added between
//! them.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::{Conv2d, GroupNorm, Linear};

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time_emb_proj(embedding))))`.
#[derive(Clone, Debug)]
pub(in crate::model) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    /// Absent in an autoencoder, which has no time embedding.
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    pub(in crate::model) conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(in crate::model) fn new(
        inputs: usize,
        outputs: usize,
        time: Option<usize>,
        groups: usize,
        eps: f64,
        vb: VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            norm1: GroupNorm::new(inputs, groups, eps, vb.pp("norm1"))?,
            conv1: Conv2d::new(inputs, outputs, 3, 1, 1, vb.pp("conv1"))?,
            time_emb_proj: match time {
                Some(time) => Some(Linear::new(time, outputs, true, vb.pp("time_emb_proj"))?),
                None => None,
            },
            norm2: GroupNorm::new(outputs, groups, eps, vb.pp("norm2"))?,
            conv2: Conv2d::new(outputs, outputs, 3, 1, 1, vb.pp("conv2"))?,
            conv_shortcut: match inputs == outputs {
                true => None,
                false => Some(shortcut(inputs, outputs, vb)?),
            },
        })
    }

    /// The time embedding's contribution between the convolutions: embedding [b, time] after its SiLU -> [b, outputs,
    /// 1, 1].
    pub(in crate::model) fn time(&self, embedding: &Tensor) -> Result<Option<Tensor>> {
        let project = |proj: &Linear| proj.forward(embedding)?.unsqueeze(2)?.unsqueeze(3);
        self.time_emb_proj.as_ref().map(project).transpose()
    }

    /// What the second convolution reads, [b, outputs, h, w]; arguments are those of [`Self::forward`].
    pub(in crate::model) fn features(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let mut hidden = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        if let Some(time) = time {
            hidden = hidden.broadcast_add(time)?;
        }
        self.norm2.forward_silu(&hidden)
    }

    /// Weight and bias of the second convolution.
    pub(in crate::model) fn tail(&mut self) -> (&mut Tensor, &mut Option<Tensor>) {
        (&mut self.conv2.weight, &mut self.conv2.bias)
    }

    /// x [b, inputs, h, w] and the output of [`Self::time`] -> [b, outputs, h, w].
    pub(in crate::model) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let hidden = self.conv2.forward(&self.features(x, time)?)?;
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x)? + hidden,
            None => x + hidden,
        }
    }
}

/// The learned shortcut of a ResNet, which remains when its branch is removed; `vb` is at the ResNet.
pub(in crate::model) fn shortcut(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Conv2d> {
    Conv2d::new(inputs, outputs, 1, 1, 0, vb.pp("conv_shortcut"))
}
