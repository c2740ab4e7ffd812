//! Whether latents and text states have the sizes that a U-Net reads. Without this check, data of another model would fail
//! inside a layer.

use std::path::Path;

use candle_core::Tensor;

use super::DataError;
use crate::model::network::Conditioning;
use crate::model::unet::UNetConfig;

/// Fails unless each of `latents`, a name, a tensor [n, c, h, w] and the channels that it needs, and the text states fit
/// the U-Net. `place` is named in errors.
pub(super) fn check(
    place: &Path,
    latents: &[(&'static str, &Tensor, usize)],
    text: &Conditioning,
    unet: &UNetConfig,
) -> Result<(), DataError> {
    let wrong = |tensor, found: &Tensor, needed: String| DataError::Shape {
        place: place.to_owned(),
        tensor,
        found: found.dims().to_vec(),
        needed: format!("{needed} for this U-Net"),
    };
    for (tensor, found, channels) in latents {
        if found.dim(1)? != *channels {
            return Err(wrong(tensor, found, format!("[points, {channels}, height, width]")));
        }
    }
    let states = &text.encoder_hidden_states;
    if let Some(width) = unet.other_text_width(states.dim(2)?) {
        return Err(wrong("encoder_hidden_states", states, format!("[points, tokens, {width}]")));
    }
    let Some(width) = unet.pooled_width() else { return Ok(()) };
    match &text.text_embeds {
        None => Err(DataError::MissingTensor { path: place.to_owned(), tensor: "text_embeds" }),
        Some(pooled) if pooled.dim(1)? != width => {
            Err(wrong("text_embeds", pooled, format!("[points, {width}]")))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn data_of_another_model_is_refused_by_the_tensor() -> candle_core::Result<()> {
        let sdxl = r#"{ "cross_attention_dim": 12, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 58 }"#;
        let sdxl = UNetConfig::parse(sdxl).expect("it is supported");
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
        let text = |width: usize, pooled: Option<usize>| -> candle_core::Result<Conditioning> {
            Ok(Conditioning {
                encoder_hidden_states: zeros(&[2, 7, width])?,
                text_embeds: pooled.map(|width| zeros(&[2, width])).transpose()?,
                time_ids: None,
            })
        };
        let check = |channels: usize, text: &Conditioning| {
            let latents = zeros(&[2, channels, 8, 8]).expect("a small tensor");
            let checked = check(Path::new("points"), &[("sample", &latents, 4)], text, &sdxl);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(4, &text(12, Some(10))?), Ok(()));
        for (channels, text, words) in [
            (
                9,
                text(12, Some(10))?,
                "`sample` has shape [2, 9, 8, 8]; [points, 4, height, width] for this U-Net",
            ),
            (4, text(16, Some(10))?, "`encoder_hidden_states` has shape [2, 7, 16]; [points, tokens, 12]"),
            (4, text(12, Some(16))?, "`text_embeds` has shape [2, 16]; [points, 10] for this U-Net"),
            (4, text(12, None)?, "`text_embeds`"),
        ] {
            let error = check(channels, &text).expect_err("of another model");
            assert!(error.contains(words), "{error}");
        }
        Ok(())
    }
}
