//! DINOv2, whose features see what Inception does not: Oquab et al. 2023; Stein et al. 2023 for distances of pictures.
//! Names and configuration are those of `Dinov2Model` in transformers, such as `facebook/dinov2-large`. Pictures are scaled to
//! 224 x 224 as a whole, as in the code of Stein et al. (dgm-eval), not cropped as by transformers' processor. Positions are
//! interpolated as in transformers.

use candle_core::{Device, IndexOp, Result, Tensor};
use candle_nn::VarBuilder;
use image::RgbImage;
use serde::Deserialize;

use super::resample::{Kernel, interpolate};
use super::vit::{Feed, Layer, Vit};
use crate::model::clip::{ClipPreprocess, MOST_LAYERS, bicubic, check_sizes};
use crate::nn::{Conv2d, LayerNorm, Linear, pointwise};

/// The side of a prepared picture.
const SIDE: usize = 224;
/// ImageNet's colours, which DINOv2 was trained with.
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// `config.json` of a `Dinov2Model`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default = "four")]
    mlp_ratio: f64,
    image_size: usize,
    patch_size: usize,
    layer_norm_eps: f64,
    #[serde(default)]
    use_swiglu_ffn: bool,
    #[serde(default = "yes")]
    qkv_bias: bool,
    #[serde(default = "gelu")]
    hidden_act: String,
}

fn four() -> f64 {
    4.0
}

fn yes() -> bool {
    true
}

fn gelu() -> String {
    "gelu".to_owned()
}

/// A `Dinov2Model` for pictures of 224 x 224.
#[derive(Clone, Debug)]
pub struct DinoV2(Vit);

impl Config {
    /// The kind of model, such as `DINOv2 24x1024/14`.
    pub(super) fn name(&self) -> String {
        format!("DINOv2 {}x{}/{}", self.num_hidden_layers, self.hidden_size, self.patch_size)
    }

    /// Fails, with the reason, if no network can be built.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if self.model_type != "dinov2" {
            return Err(format!("`model_type` is {}; it must be dinov2", self.model_type));
        }
        if self.hidden_act != "gelu" {
            return Err(format!("`hidden_act` is {}; it must be gelu", self.hidden_act));
        }
        let (patch, heads) = (self.patch_size, self.num_attention_heads);
        if patch == 0 || !SIDE.is_multiple_of(patch) || !self.image_size.is_multiple_of(patch) {
            return Err(format!(
                "`patch_size` {patch} must divide {SIDE} and `image_size` {}",
                self.image_size
            ));
        }
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            return Err(format!(
                "`num_attention_heads` {heads} must divide `hidden_size` {}",
                self.hidden_size
            ));
        }
        if self.num_hidden_layers > MOST_LAYERS || !(0.1..=64.0).contains(&self.mlp_ratio) {
            return Err("`num_hidden_layers` or `mlp_ratio` is out of range".to_owned());
        }
        check_sizes(&[self.hidden_size, self.image_size]).map_err(|error| error.to_string())
    }

    /// Width of the feed-forward part: `Dinov2SwiGLUFFN` keeps two thirds, rounded up to a multiple of 8.
    fn inner(&self) -> usize {
        let width = (self.hidden_size as f64 * self.mlp_ratio) as usize;
        if self.use_swiglu_ffn { (width * 2 / 3).div_ceil(8) * 8 } else { width }
    }
}

impl DinoV2 {
    pub(super) fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        let embeddings = vb.pp("embeddings");
        let trained = config.image_size / patch;
        let positions = pointwise(&embeddings, (1, trained * trained + 1, hidden), "position_embeddings")?;
        let projection = embeddings.pp("patch_embeddings.projection");
        let layers =
            (0..config.num_hidden_layers).map(|layer| self::layer(config, vb.pp("encoder.layer").pp(layer)));
        Ok(Self(Vit {
            patches: Conv2d::new(3, hidden, patch, patch, 0, projection)?,
            class: pointwise(&embeddings, (1, 1, hidden), "cls_token")?,
            positions: interpolated(&positions, trained, SIDE / patch)?,
            layers: layers.collect::<Result<_>>()?,
            norm: LayerNorm::new(hidden, config.layer_norm_eps, vb.pp("layernorm"))?,
        }))
    }

    /// A picture of any size -> [3, 224, 224] f32 on the CPU: Pillow's bicubic filter, ImageNet's colours.
    pub fn prepare(&self, picture: &RgbImage) -> Result<Tensor> {
        let colours = ClipPreprocess::of_side(SIDE).coloured(Some(MEAN), Some(STD));
        colours.prepare(&bicubic(picture, SIDE as u32, SIDE as u32))
    }

    /// Prepared pictures [n, 3, 224, 224] -> the state of the class token after the last norm, [n, hidden].
    pub fn features(&self, pictures: &Tensor) -> Result<Tensor> {
        self.0.forward(pictures)?.i((.., 0))
    }
}

/// Where the network is in its file: at the top, or under its name in a classifier.
pub(super) fn root(vb: VarBuilder<'_>) -> VarBuilder<'_> {
    if vb.contains_tensor("dinov2.embeddings.cls_token") { vb.pp("dinov2") } else { vb }
}

fn layer(config: &Config, vb: VarBuilder) -> Result<Layer> {
    let (hidden, inner) = (config.hidden_size, config.inner());
    let norm = |name| LayerNorm::new(hidden, config.layer_norm_eps, vb.pp(name));
    let attention =
        |name| Linear::new(hidden, hidden, config.qkv_bias, vb.pp("attention.attention").pp(name));
    let scale = |name| pointwise(&vb.pp(name), hidden, "lambda1");
    let mlp = vb.pp("mlp");
    let feed = match config.use_swiglu_ffn {
        true => Feed {
            first: Linear::new(hidden, 2 * inner, true, mlp.pp("weights_in"))?,
            second: Linear::new(inner, hidden, true, mlp.pp("weights_out"))?,
            gated: true,
        },
        false => Feed {
            first: Linear::new(hidden, inner, true, mlp.pp("fc1"))?,
            second: Linear::new(inner, hidden, true, mlp.pp("fc2"))?,
            gated: false,
        },
    };
    Ok(Layer {
        norm1: norm("norm1")?,
        query: attention("query")?,
        key: attention("key")?,
        value: attention("value")?,
        output: Linear::new(hidden, hidden, true, vb.pp("attention.output.dense"))?,
        norm2: norm("norm2")?,
        feed,
        scales: Some([scale("layer_scale1")?, scale("layer_scale2")?]),
        heads: config.num_attention_heads,
    })
}

/// The positions of `trained` x `trained` patches for `side` x `side`; that of the class token stays.
fn interpolated(positions: &Tensor, trained: usize, side: usize) -> Result<Tensor> {
    if trained == side {
        return Ok(positions.clone());
    }
    let (_, count, hidden) = positions.dims3()?;
    let values = positions.narrow(1, 1, count - 1)?.to_device(&Device::Cpu)?;
    let values = values.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let scaled = interpolate(&values, (trained, trained), side, Kernel::Bicubic);
    let scaled = Tensor::from_vec(scaled, (1, side * side, hidden), positions.device())?;
    Tensor::cat(&[positions.narrow(1, 0, 1)?, scaled.to_dtype(positions.dtype())?], 1)
}
