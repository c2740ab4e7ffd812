//! What a network is told besides the latents.

use candle_core::Tensor;

/// The text, as the text encoders put it.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// [b, tokens, cross_attention_dim]
    pub encoder_hidden_states: Tensor,
    /// SDXL: the pooled text, [b, projection].
    pub text_embeds: Option<Tensor>,
    /// SDXL: original height and width, crop top and left, target height and width, [b, 6].
    pub time_ids: Option<Tensor>,
}

/// What every step of a walk reads: the same for all of them, computed once.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The time embedding after its SiLU, [b, time].
    pub embedding: Tensor,
    /// [b, tokens, cross_attention_dim]
    pub encoder_hidden_states: Tensor,
}
