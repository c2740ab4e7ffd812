//! BERT whose every layer attends to a picture too: BLIP's `med.py` in the mode `multimodal`. Padding is left out instead of
//! masked, which gives the same state of the first token.

use candle_core::{IndexOp, Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::Deserialize;

use crate::model::clip::{MOST_LAYERS, check_sizes};
use crate::nn::{LayerNorm, Linear, attention, gelu, pointwise};

/// `med_config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::model::scorers) struct Config {
    pub(super) hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    pub(in crate::model::scorers) vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    #[serde(default = "gelu_name")]
    hidden_act: String,
}

fn gelu_name() -> String {
    "gelu".to_owned()
}

impl Config {
    /// Fails, with the reason, if no network can be built.
    pub(in crate::model::scorers) fn check(&self) -> std::result::Result<(), String> {
        if self.hidden_act != "gelu" {
            return Err(format!("`hidden_act` is {}; it must be gelu", self.hidden_act));
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if heads == 0 || !hidden.is_multiple_of(heads) || self.num_hidden_layers > MOST_LAYERS {
            return Err(format!("{heads} heads must divide `hidden_size` {hidden}"));
        }
        check_sizes(&[hidden, self.intermediate_size, self.vocab_size, self.max_position_embeddings])
            .map_err(|error| error.to_string())
    }
}

/// The text encoder.
#[derive(Clone, Debug)]
pub(super) struct Bert {
    words: Tensor,
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

/// One layer: attention to the text, attention to the picture, feed-forward; a norm after each.
#[derive(Clone, Debug)]
struct Layer {
    text: Attention,
    picture: Attention,
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
}

#[derive(Clone, Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl Bert {
    /// `width` is that of the states of a picture.
    pub(super) fn new(config: &Config, width: usize, vb: VarBuilder) -> Result<Self> {
        let hidden = config.hidden_size;
        let embeddings = vb.pp("embeddings");
        let layers = vb.pp("encoder.layer");
        let layer = |index: usize| Layer::new(config, width, layers.pp(index));
        Ok(Self {
            words: embeddings.get((config.vocab_size, hidden), "word_embeddings.weight")?,
            positions: pointwise(
                &embeddings,
                (config.max_position_embeddings, hidden),
                "position_embeddings.weight",
            )?,
            norm: LayerNorm::new(hidden, config.layer_norm_eps, embeddings.pp("LayerNorm"))?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// The ids of a text, and the states of a picture [1, tokens, width] -> the last state of the first token, [hidden].
    pub(super) fn first_state(&self, ids: &[u32], picture: &Tensor) -> Result<Tensor> {
        let (vocabulary, _) = self.words.dims2()?;
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            bail!("token {id} is outside the text encoder's vocabulary of {vocabulary}")
        }
        let words = self.words.index_select(&Tensor::new(ids, self.words.device())?, 0)?;
        let positions = self.positions.narrow(0, 0, ids.len())?;
        let x = self.norm.forward(&(words.to_dtype(positions.dtype())? + positions)?.unsqueeze(0)?)?;
        self.layers.iter().try_fold(x, |x, layer| layer.forward(&x, picture))?.i((0, 0))
    }
}

impl Layer {
    fn new(config: &Config, width: usize, vb: VarBuilder) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            text: Attention::new(config, hidden, vb.pp("attention"))?,
            picture: Attention::new(config, width, vb.pp("crossattention"))?,
            intermediate: Linear::new(hidden, inner, true, vb.pp("intermediate.dense"))?,
            output: Linear::new(inner, hidden, true, vb.pp("output.dense"))?,
            norm: LayerNorm::new(hidden, config.layer_norm_eps, vb.pp("output.LayerNorm"))?,
        })
    }

    fn forward(&self, x: &Tensor, picture: &Tensor) -> Result<Tensor> {
        let x = self.text.forward(x, x)?;
        let x = self.picture.forward(&x, picture)?;
        let inner = gelu(&self.intermediate.forward(&x)?)?;
        self.norm.forward(&(self.output.forward(&inner)? + x)?)
    }
}

impl Attention {
    fn new(config: &Config, width: usize, vb: VarBuilder) -> Result<Self> {
        let hidden = config.hidden_size;
        let of = |name: &str, input| Linear::new(input, hidden, true, vb.pp("self").pp(name));
        Ok(Self {
            query: of("query", hidden)?,
            key: of("key", width)?,
            value: of("value", width)?,
            dense: Linear::new(hidden, hidden, true, vb.pp("output.dense"))?,
            norm: LayerNorm::new(hidden, config.layer_norm_eps, vb.pp("output.LayerNorm"))?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor, source: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.query.forward(x)?, self.key.forward(source)?, self.value.forward(source)?);
        let attended = attention(&q, &k, &v, self.heads, false)?;
        self.norm.forward(&(self.dense.forward(&attended)? + x)?)
    }
}
