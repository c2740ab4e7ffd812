//! The transformer that both towers of CLIP use.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::config::Activation;
use crate::nn::{LayerNorm, Linear, attention, gelu, quick_gelu};

/// No real tower comes close; a larger value means a damaged configuration.
pub(in crate::model) const MOST_LAYERS: usize = 1 << 8;

/// No real vocabulary or layer comes close; larger values would overflow the arithmetic.
const MOST_WIDTH: usize = 1 << 20;

/// Fails on a size that no real tower has.
pub(in crate::model) fn check_sizes(sizes: &[usize]) -> Result<()> {
    match sizes.iter().find(|size| !(1..=MOST_WIDTH).contains(*size)) {
        Some(size) => bail!("a size of {size} in config.json is out of range"),
        None => Ok(()),
    }
}

/// Sizes that all layers of a tower share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    /// Whether a token attends only to the tokens before it.
    pub(super) causal: bool,
}

/// One layer: attention and feed-forward, each after a norm.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    shape: Shape,
}

impl Layer {
    /// All layers of a tower; `vb` is at the tower's path.
    pub(super) fn stack(shape: Shape, vb: &VarBuilder) -> Result<Vec<Self>> {
        let Shape { hidden, heads, layers, intermediate, .. } = shape;
        check_sizes(&[hidden, intermediate])?;
        if heads == 0 || !hidden.is_multiple_of(heads) || layers > MOST_LAYERS {
            bail!("CLIP with {layers} layers of {hidden} channels and {heads} heads cannot be built")
        }
        (0..shape.layers).map(|layer| Self::new(shape, vb.pp("encoder.layers").pp(layer))).collect()
    }

    fn new(shape: Shape, vb: VarBuilder) -> Result<Self> {
        let attention = |name| Linear::new(shape.hidden, shape.hidden, true, vb.pp("self_attn").pp(name));
        Ok(Self {
            layer_norm1: LayerNorm::new(shape.hidden, shape.eps, vb.pp("layer_norm1"))?,
            q_proj: attention("q_proj")?,
            k_proj: attention("k_proj")?,
            v_proj: attention("v_proj")?,
            out_proj: attention("out_proj")?,
            layer_norm2: LayerNorm::new(shape.hidden, shape.eps, vb.pp("layer_norm2"))?,
            fc1: Linear::new(shape.hidden, shape.intermediate, true, vb.pp("mlp.fc1"))?,
            fc2: Linear::new(shape.intermediate, shape.hidden, true, vb.pp("mlp.fc2"))?,
            shape,
        })
    }

    /// [b, n, hidden] -> [b, n, hidden]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.layer_norm1.forward(x)?;
        let (q, k, v) =
            (self.q_proj.forward(&normed)?, self.k_proj.forward(&normed)?, self.v_proj.forward(&normed)?);
        let attended = attention(&q, &k, &v, self.shape.heads, self.shape.causal)?;
        let x = (x + self.out_proj.forward(&attended)?)?;
        let inner = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        let inner = match self.shape.activation {
            Activation::QuickGelu => quick_gelu(&inner)?,
            Activation::Gelu => gelu(&inner)?,
        };
        &x + self.fc2.forward(&inner)?
    }
}
