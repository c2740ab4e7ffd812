//! Both towers of CLIP, for scoring pictures against prompts.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{ClipConfig, TextConfig};
use super::text::ClipTextModel;
use super::vision::ClipVisionModel;
use crate::nn::Linear;

/// Both towers of CLIP, which map pictures and texts into one space.
#[derive(Clone, Debug)]
pub struct ClipModel {
    text: ClipTextModel,
    vision: ClipVisionModel,
    visual_projection: Linear,
    logit_scale: f64,
}

impl ClipModel {
    /// Reads the weights of a `CLIPModel`.
    pub fn new(config: &ClipConfig, vb: VarBuilder) -> Result<Self> {
        let (dim, width) = (config.projection_dim, config.vision_config.hidden_size);
        let text_config = TextConfig { projection_dim: dim, ..config.text_config.clone() };
        let logit_scale = vb.get((), "logit_scale")?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(Self {
            text: ClipTextModel::new(&text_config, vb.clone())?,
            vision: ClipVisionModel::new(&config.vision_config, vb.pp("vision_model"))?,
            visual_projection: Linear::new(width, dim, false, vb.pp("visual_projection"))?,
            logit_scale: logit_scale.exp(),
        })
    }

    /// Token ids [n, context] -> features [n, projection_dim]. They are not normalised: normalise them before
    /// comparing.
    pub fn text_features(&self, ids: &Tensor) -> Result<Tensor> {
        match self.text.forward(ids)?.text_embeds {
            Some(features) => Ok(features),
            None => candle_core::bail!("the scorer's weights have no `text_projection`"),
        }
    }

    /// Prepared pictures [n, 3, size, size] -> features [n, projection_dim], not normalised.
    pub fn image_features(&self, pictures: &Tensor) -> Result<Tensor> {
        self.visual_projection.forward(&self.vision.forward(pictures)?)
    }

    /// Factor that turns the cosine of two features into a logit.
    pub fn logit_scale(&self) -> f64 {
        self.logit_scale
    }
}
