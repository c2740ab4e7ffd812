//! The vision transformer that DINOv2 and BLIP share: a class token and patches with positions, layers whose parts come after a
//! norm, and a last norm. Dosovitskiy et al. 2021; DINOv2 scales what each part adds (Touvron et al. 2021).

use candle_core::{Result, Tensor};

use crate::nn::{Conv2d, LayerNorm, Linear, attention, gelu, image, silu};

/// A vision transformer.
#[derive(Clone, Debug)]
pub(super) struct Vit {
    pub(super) patches: Conv2d,
    /// [1, 1, hidden]
    pub(super) class: Tensor,
    /// [1, 1 + patches, hidden]
    pub(super) positions: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: LayerNorm,
}

/// One layer.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) norm1: LayerNorm,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) norm2: LayerNorm,
    pub(super) feed: Feed,
    /// What attention and feed-forward are multiplied by.
    pub(super) scales: Option<[Tensor; 2]>,
    pub(super) heads: usize,
}

/// The feed-forward part of a layer.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) first: Linear,
    pub(super) second: Linear,
    /// Whether the first gives gates and values (Shazeer 2020) and not values for GELU.
    pub(super) gated: bool,
}

impl Vit {
    /// Prepared pictures [n, 3, side, side] -> [n, 1 + patches, hidden]
    pub(super) fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let pictures = pictures.to_dtype(self.class.dtype())?;
        let patches = image::tokens(&self.patches.forward(&image::begin(&pictures)?)?)?;
        let (n, _, hidden) = patches.dims3()?;
        let class = self.class.expand((n, 1, hidden))?;
        let tokens = Tensor::cat(&[class, patches.contiguous()?], 1)?.broadcast_add(&self.positions)?;
        let last = self.layers.iter().try_fold(tokens, |x, layer| layer.forward(&x))?;
        self.norm.forward(&last)
    }
}

impl Layer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let scaled = |x: Tensor, place: usize| match &self.scales {
            Some(scales) => x.broadcast_mul(&scales[place]),
            None => Ok(x),
        };
        let normed = self.norm1.forward(x)?;
        let (q, k, v) =
            (self.query.forward(&normed)?, self.key.forward(&normed)?, self.value.forward(&normed)?);
        let attended = self.output.forward(&attention(&q, &k, &v, self.heads, false)?)?;
        let x = (x + scaled(attended, 0)?)?;
        &x + scaled(self.feed.forward(&self.norm2.forward(&x)?)?, 1)?
    }
}

impl Feed {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.first.forward(x)?;
        let inner = if self.gated {
            let halves = inner.chunk(2, 2)?;
            (silu(&halves[0])? * &halves[1])?
        } else {
            gelu(&inner)?
        };
        self.second.forward(&inner)
    }
}
