//! CLIP's image tower: a vision transformer over patches.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::VisionConfig;
use super::encoder::{Layer, Shape, check_sizes};
use crate::nn::{Conv2d, LayerNorm, image, pointwise};

/// The image tower of a `CLIPModel`.
#[derive(Clone, Debug)]
pub struct ClipVisionModel {
    patch_embedding: Conv2d,
    class_embedding: Tensor,
    position_embedding: Tensor,
    pre_layer_norm: LayerNorm,
    layers: Vec<Layer>,
    post_layer_norm: LayerNorm,
}

impl ClipVisionModel {
    /// Reads the weights; `vb` is at `vision_model`.
    pub fn new(config: &VisionConfig, vb: VarBuilder) -> Result<Self> {
        let VisionConfig { hidden_size: hidden, patch_size: patch, num_channels: colours, .. } = *config;
        check_sizes(&[hidden, patch, colours, config.image_size])?;
        if !config.image_size.is_multiple_of(patch) {
            candle_core::bail!("`patch_size` {patch} must divide `image_size` {}", config.image_size)
        }
        let shape = Shape {
            hidden,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
            causal: false,
        };
        let embeddings = vb.pp("embeddings");
        let tokens = (config.image_size / patch).pow(2) + 1;
        let norm = |name| LayerNorm::new(hidden, config.layer_norm_eps, vb.pp(name));
        Ok(Self {
            patch_embedding: Conv2d::without_bias(
                colours,
                hidden,
                patch,
                patch,
                0,
                embeddings.pp("patch_embedding"),
            )?,
            class_embedding: pointwise(&embeddings, hidden, "class_embedding")?,
            position_embedding: pointwise(&embeddings, (tokens, hidden), "position_embedding.weight")?,
            // The name is misspelled in the files.
            pre_layer_norm: norm("pre_layrnorm")?,
            layers: Layer::stack(shape, &vb)?,
            post_layer_norm: norm("post_layernorm")?,
        })
    }

    /// Prepared pictures [n, 3, size, size] -> the state of the class token, [n, hidden].
    pub fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let pictures = pictures.to_dtype(self.class_embedding.dtype())?;
        let patches = image::tokens(&self.patch_embedding.forward(&image::begin(&pictures)?)?)?; // [n, patches, c]
        let (n, _, hidden) = patches.dims3()?;
        let class = self.class_embedding.expand((n, 1, hidden))?;
        let x = Tensor::cat(&[class, patches], 1)?.broadcast_add(&self.position_embedding)?;
        let mut x = self.pre_layer_norm.forward(&x)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        self.post_layer_norm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}
