//! Whether latents and text states have the sizes that a U-Net reads. Without this check, data of another model would fail
//! inside a layer.

use std::path::Path;

use candle_core::Tensor;

use super::DataError;
use crate::model::network::Conditioning;
use crate::model::unet::{SIZES, UNetConfig};

/// Fails unless the latents, each a name, a tensor [n, c, h, w] and the channels that it needs, and the text states fit the
/// U-Net. `place` is named in errors.
pub(super) fn check(
    place: &Path,
    latents: &[(&'static str, &Tensor, usize)],
    text: &Conditioning,
    unet: &UNetConfig,
) -> Result<(), DataError> {
    let size = |tensor, found: &Tensor, dimension, needed: usize, what| match found.dim(dimension)? == needed
    {
        true => Ok(()),
        false => Err(DataError::Fit {
            place: place.to_owned(),
            tensor,
            found: found.dims().to_vec(),
            needed: format!("{needed} {what}"),
        }),
    };
    for (tensor, found, channels) in latents {
        size(tensor, found, 1, *channels, "channels")?;
    }
    let states = &text.encoder_hidden_states;
    if let Some(width) = unet.other_text_width(states.dim(2)?) {
        size("encoder_hidden_states", states, 2, width, "numbers for each token")?;
    }
    let Some(width) = unet.pooled_width() else { return Ok(()) };
    for (tensor, found, needed) in
        [("text_embeds", &text.text_embeds, width), ("time_ids", &text.time_ids, SIZES)]
    {
        let missing = || DataError::MissingTensor { path: place.to_owned(), tensor };
        size(tensor, found.as_ref().ok_or_else(missing)?, 1, needed, "numbers for each sample")?;
    }
    Ok(())
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
        let text = |width: usize, pooled: Option<usize>, sizes: Option<usize>| -> candle_core::Result<_> {
            Ok(Conditioning {
                encoder_hidden_states: zeros(&[2, 7, width])?,
                text_embeds: pooled.map(|width| zeros(&[2, width])).transpose()?,
                time_ids: sizes.map(|sizes| zeros(&[2, sizes])).transpose()?,
            })
        };
        let check = |channels: usize, text: &Conditioning| {
            let latents = zeros(&[2, channels, 8, 8]).expect("a small tensor");
            let checked = check(Path::new("points"), &[("sample", &latents, 4)], text, &sdxl);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(4, &text(12, Some(10), Some(6))?), Ok(()));
        for (channels, text, words) in [
            (
                9,
                text(12, Some(10), Some(6))?,
                "`sample` has shape [2, 9, 8, 8], but this U-Net needs 4 channels",
            ),
            (
                4,
                text(16, Some(10), Some(6))?,
                "`encoder_hidden_states` has shape [2, 7, 16], but this U-Net needs 12 numbers for each token",
            ),
            (
                4,
                text(12, Some(16), Some(6))?,
                "`text_embeds` has shape [2, 16], but this U-Net needs 10 numbers",
            ),
            (4, text(12, Some(10), Some(5))?, "`time_ids` has shape [2, 5], but this U-Net needs 6 numbers"),
            (4, text(12, None, Some(6))?, "`text_embeds`"),
            (4, text(12, Some(10), None)?, "`time_ids`"),
        ] {
            let error = check(channels, &text).expect_err("of another model");
            assert!(error.contains(words), "{error}");
        }
        Ok(())
    }
}
