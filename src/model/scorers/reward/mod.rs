//! ImageReward: Xu et al. 2023. A picture goes through a vision transformer, the prompt through BERT with attention to the
//! picture (BLIP, Li et al. 2022), and the state of the first token through linear maps to one number.

mod bert;
mod tokenizer;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use image::RgbImage;

use self::bert::Bert;
pub(super) use self::bert::Config;
pub use self::tokenizer::BertTokenizer;
pub(super) use self::tokenizer::FILES;
use super::vit::{Feed, Layer, Vit};
use crate::model::clip::{ClipPreprocess, MOST_LAYERS, check_sizes};
use crate::model::files::Weights;
use crate::nn::{Conv2d, LayerNorm, Linear, pointwise};

/// The configuration of the text encoder, beside the weights.
pub(super) const CONFIG: &str = "med_config.json";
/// The mean and the deviation of the scores of the authors' training data.
const MEAN: f64 = 0.167_173_628_300_524_26;
const DEVIATION: f64 = 1.033_339_496_605_407_2;
/// The linear maps among the parts of the authors' `MLP`; between them were only dropouts.
const MAPS: [usize; 5] = [0, 2, 4, 6, 7];
/// Width of a head of BLIP's vision transformers, base and large.
const HEAD: usize = 64;

/// An `ImageReward`.
#[derive(Clone, Debug)]
pub struct ImageReward {
    vision: Vit,
    text: Bert,
    /// All linear maps together, [1, hidden] and one number.
    head: (Vec<f64>, f64),
    side: usize,
}

/// Sizes that the weights tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    hidden: usize,
    patch: usize,
    tokens: usize,
    layers: usize,
}

impl Sizes {
    /// Reads the shapes of the vision transformer. Fails with the reason.
    pub(super) fn of(weights: &Weights) -> std::result::Result<Self, String> {
        let shape = |name: &str| weights.shape(&format!("blip.visual_encoder.{name}")).unwrap_or_default();
        let (positions, patches) = (shape("pos_embed"), shape("patch_embed.proj.weight"));
        let ([_, tokens, hidden], [_, _, patch, _]) = (&positions[..], &patches[..]) else {
            return Err("the vision transformer has no `pos_embed` or no `patch_embed`".to_owned());
        };
        let exists =
            |layer: &usize| weights.contains(&format!("blip.visual_encoder.blocks.{layer}.norm1.weight"));
        let sizes = Self {
            hidden: *hidden,
            patch: *patch,
            tokens: *tokens,
            layers: (0..MOST_LAYERS).take_while(exists).count(),
        };
        check_sizes(&[*hidden, *patch, *tokens]).map_err(|error| error.to_string())?;
        match hidden.is_multiple_of(HEAD) && sizes.across().pow(2) + 1 == *tokens {
            true => Ok(sizes),
            false => {
                Err(format!("a vision transformer of width {hidden} with {tokens} positions is not BLIP's"))
            }
        }
    }

    /// Patches along a side.
    fn across(self) -> usize {
        (self.tokens - 1).isqrt()
    }

    /// What it is, such as `ImageReward, ViT-24x1024/16`.
    pub(super) fn name(self) -> String {
        format!("ImageReward, ViT-{}x{}/{}", self.layers, self.hidden, self.patch)
    }
}

impl ImageReward {
    pub(super) fn new(sizes: Sizes, config: &Config, weights: &Weights, vb: &VarBuilder) -> Result<Self> {
        let blip = vb.pp("blip");
        Ok(Self {
            vision: vision(sizes, blip.pp("visual_encoder"))?,
            text: Bert::new(config, sizes.hidden, blip.pp("text_encoder"))?,
            head: head(config.hidden_size, weights, &vb.pp("mlp.layers"))?,
            side: sizes.across() * sizes.patch,
        })
    }

    /// A picture of any size -> [3, side, side] f32 on the CPU, as for CLIP.
    pub fn prepare(&self, picture: &RgbImage) -> Result<Tensor> {
        ClipPreprocess::of_side(self.side).prepare(picture)
    }

    /// Prepared pictures [n, 3, side, side] -> the states that texts attend to, [n, tokens, hidden].
    pub fn look(&self, pictures: &Tensor) -> Result<Tensor> {
        self.vision.forward(pictures)
    }

    /// The score of one picture, [1, tokens, hidden] of [`ImageReward::look`], for the ids of one text.
    pub fn score(&self, picture: &Tensor, ids: &[u32]) -> Result<f64> {
        let state = self.text.first_state(ids, picture)?.to_device(&Device::Cpu)?;
        let state = state.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let (weight, bias) = &self.head;
        let reward = state.iter().zip(weight).map(|(state, weight)| state * weight).sum::<f64>() + bias;
        Ok((reward - MEAN) / DEVIATION)
    }
}

/// timm's vision transformer: queries, keys and values in one matrix.
fn vision(sizes: Sizes, vb: VarBuilder) -> Result<Vit> {
    let Sizes { hidden, patch, tokens, layers } = sizes;
    let norm = |vb: VarBuilder| LayerNorm::new(hidden, 1e-6, vb);
    let layer = |index: usize| {
        let vb = vb.pp("blocks").pp(index);
        let stacked = Linear::new(hidden, 3 * hidden, true, vb.pp("attn.qkv"))?;
        let part = |place: usize| {
            let weight = stacked.weight.narrow(0, place * hidden, hidden)?;
            let bias =
                stacked.bias.as_ref().map(|bias| bias.narrow(0, place * hidden, hidden)).transpose()?;
            Ok::<_, candle_core::Error>(Linear { weight, bias })
        };
        let mlp = vb.pp("mlp");
        Ok(Layer {
            norm1: norm(vb.pp("norm1"))?,
            query: part(0)?,
            key: part(1)?,
            value: part(2)?,
            output: Linear::new(hidden, hidden, true, vb.pp("attn.proj"))?,
            norm2: norm(vb.pp("norm2"))?,
            feed: Feed {
                first: Linear::new(hidden, 4 * hidden, true, mlp.pp("fc1"))?,
                second: Linear::new(4 * hidden, hidden, true, mlp.pp("fc2"))?,
                gated: false,
            },
            scales: None,
            heads: hidden / HEAD,
        })
    };
    Ok(Vit {
        patches: Conv2d::new(3, hidden, patch, patch, 0, vb.pp("patch_embed.proj"))?,
        class: pointwise(&vb, (1, 1, hidden), "cls_token")?,
        positions: pointwise(&vb, (1, tokens, hidden), "pos_embed")?,
        layers: (0..layers).map(layer).collect::<Result<_>>()?,
        norm: norm(vb.pp("norm"))?,
    })
}

/// The linear maps as one: their product, and the bias that comes out. In f64, because the weights are tiny.
fn head(hidden: usize, weights: &Weights, vb: &VarBuilder) -> Result<(Vec<f64>, f64)> {
    let mut maps = Vec::new();
    let mut input = hidden;
    for place in MAPS {
        // A missing tensor is reported when it is requested.
        let output = weights.shape(&format!("mlp.layers.{place}.weight")).ok();
        let output = output.and_then(|shape| shape.first().copied()).unwrap_or(1);
        let vb = vb.pp(place);
        let part = |tensor: Tensor| tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64);
        maps.push((part(vb.get((output, input), "weight")?)?, part(vb.get(output, "bias")?)?));
        input = output;
    }
    if input != 1 {
        candle_core::bail!("the last map of ImageReward gives {input} numbers; it must give one")
    }
    let mut weight = Tensor::ones((1, 1), DType::F64, &Device::Cpu)?;
    let mut bias = Tensor::zeros((1, 1), DType::F64, &Device::Cpu)?;
    for (map, shift) in maps.into_iter().rev() {
        bias = (bias + weight.matmul(&shift.contiguous()?.unsqueeze(1)?)?)?;
        weight = weight.matmul(&map.contiguous()?)?;
    }
    Ok((weight.flatten_all()?.to_vec1()?, bias.flatten_all()?.to_vec1::<f64>()?[0]))
}
