//! CLIP's text tower, the prompt encoder of Stable Diffusion.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::config::TextConfig;
use super::encoder::{Layer, Shape, check_sizes};
use crate::nn::{LayerNorm, Linear, pointwise};

/// A `CLIPTextModel`, or a `CLIPTextModelWithProjection` if the weights contain the projection.
#[derive(Clone, Debug)]
pub struct ClipTextModel {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: u32,
}

/// The output of a text encoder.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// The states after the last norm, [n, context, hidden]: the condition of SD 1.x and 2.x.
    pub last_hidden_state: Tensor,
    /// The states before the last layer, without the norm, [n, context, hidden]: the condition of SDXL.
    pub penultimate_hidden_state: Tensor,
    /// The last state at the end of each text, [n, hidden].
    pub pooled: Tensor,
    /// `pooled`, projected, [n, projection]: SDXL's `text_embeds`.
    pub text_embeds: Option<Tensor>,
}

impl ClipTextModel {
    /// Reads the weights; `vb` is at the root of the file.
    pub fn new(config: &TextConfig, vb: VarBuilder) -> Result<Self> {
        // transformers 5 writes a bare text model without the prefix of older files.
        let bare = vb.contains_tensor("embeddings.token_embedding.weight");
        let tower = if bare { vb.clone() } else { vb.pp("text_model") };
        let hidden = config.hidden_size;
        check_sizes(&[hidden, config.vocab_size, config.projection_dim, config.max_position_embeddings])?;
        let shape = Shape {
            hidden,
            intermediate: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            eps: config.layer_norm_eps,
            causal: true,
        };
        let embeddings = tower.pp("embeddings");
        let positions = (config.max_position_embeddings, hidden);
        Ok(Self {
            token_embedding: embeddings.get((config.vocab_size, hidden), "token_embedding.weight")?,
            position_embedding: pointwise(&embeddings, positions, "position_embedding.weight")?,
            layers: Layer::stack(shape, &tower)?,
            final_layer_norm: LayerNorm::new(hidden, config.layer_norm_eps, tower.pp("final_layer_norm"))?,
            text_projection: match vb.contains_tensor("text_projection.weight") {
                true => Some(Linear::new(hidden, config.projection_dim, false, vb.pp("text_projection"))?),
                false => None,
            },
            eos_token_id: config.eos_token_id,
        })
    }

    /// Token ids [n, length] u32, at most as long as the context.
    pub fn forward(&self, ids: &Tensor) -> Result<TextOutput> {
        let (n, length) = ids.dims2()?;
        let (vocabulary, hidden) = self.token_embedding.dims2()?;
        let rows = ids.to_vec2::<u32>()?;
        if let Some(id) = rows.iter().flatten().find(|&&id| id as usize >= vocabulary) {
            bail!(
                "token {id} is outside the text encoder's vocabulary of {vocabulary}; \
                 does the tokenizer belong to this model?"
            )
        }
        let flat = ids.flatten_all()?.to_device(self.token_embedding.device())?;
        let tokens = self.token_embedding.index_select(&flat, 0)?.reshape((n, length, hidden))?;
        let positions = self.position_embedding.narrow(0, 0, length)?;
        let mut x = tokens.to_dtype(positions.dtype())?.broadcast_add(&positions)?;
        let mut penultimate_hidden_state = x.clone();
        for layer in &self.layers {
            penultimate_hidden_state = std::mem::replace(&mut x, penultimate_hidden_state);
            x = layer.forward(&penultimate_hidden_state)?;
        }
        let last_hidden_state = self.final_layer_norm.forward(&x)?;
        let ends: Vec<u32> =
            rows.iter().enumerate().map(|(row, ids)| (row * length + self.end(ids)) as u32).collect();
        let ends = Tensor::from_vec(ends, n, last_hidden_state.device())?;
        let pooled = last_hidden_state.flatten_to(1)?.index_select(&ends, 0)?;
        let text_embeds = self.text_projection.as_ref().map(|proj| proj.forward(&pooled)).transpose()?;
        Ok(TextOutput { last_hidden_state, penultimate_hidden_state, pooled, text_embeds })
    }

    /// The end of a text: its first end token, or, in models whose configuration names the wrong one, its first largest
    /// id.
    fn end(&self, ids: &[u32]) -> usize {
        let end = match self.eos_token_id {
            2 => ids.iter().copied().max().unwrap_or(0),
            id => id,
        };
        ids.iter().position(|&id| id == end).unwrap_or(0)
    }
}
