//! Whether the parts of a model belong together: what one hands to the next must have the size that it reads.

use std::path::Path;

use super::error::SurveyError;
use super::{State, Survey};
use crate::model::Part;
use crate::model::clip::{ClipTokenizer, TextConfig};
use crate::model::unet::{TextTime, UNetConfig};
use crate::model::vae::VaeConfig;
use crate::sample;

/// Embedded sizes in the second condition of SDXL's refiner, which has a score in place of two of SDXL's six.
const REFINER_SIZES: usize = 5;
/// Width of the only text encoder of SDXL's refiner.
const REFINER_WIDTH: usize = 1280;

/// The configurations of the parts that can be used by themselves.
#[derive(Default)]
pub(super) struct Configs {
    pub(super) unet: Option<UNetConfig>,
    pub(super) vae: Option<VaeConfig>,
    /// By the part of the text encoder.
    pub(super) text: Vec<(Part, TextConfig)>,
    /// By the part of the tokenizer.
    pub(super) tokenizers: Vec<(Part, ClipTokenizer)>,
}

/// Refuses SDXL's refiner, which would fail later on the sizes of tensors.
pub(super) fn check_refiner(survey: &Survey, unet: &UNetConfig, path: &Path) -> Result<(), SurveyError> {
    let Some(TextTime { time_dim, input_dim }) = unet.text_time else { return Ok(()) };
    let width = unet.innermost().cross_attention_dim;
    let absent = |part: Part| {
        survey.parts.iter().any(|(found, state)| *found == part && matches!(state, State::Absent))
    };
    let first = absent(Part::TextEncoder);
    let only_second = first && !absent(Part::TextEncoder2);
    let sizes = input_dim.checked_sub(REFINER_SIZES * time_dim) == Some(width);
    match only_second || first && sizes && width == REFINER_WIDTH {
        true => Err(SurveyError::Refiner { path: path.to_owned() }),
        false => Ok(()),
    }
}

/// Refuses the parts of the model in `path` that do not fit the others.
pub(super) fn check(survey: &mut Survey, configs: &Configs, path: &Path) {
    if let Some(Err(error)) = configs.unet.as_ref().map(sample::check_inputs) {
        survey.notes.push(format!(
            "{error}: `calibrate` can take points from a `file:` only, and nothing can be drawn or retrained"
        ));
    }
    let tokenizer = |tokenizer, encoder| (tokenizer, configs.tokenizer(tokenizer, encoder));
    for (part, reason) in [
        (Part::Vae, configs.vae()),
        (Part::TextEncoder, configs.text(survey)),
        tokenizer(Part::Tokenizer, Part::TextEncoder),
        tokenizer(Part::Tokenizer2, Part::TextEncoder2),
    ] {
        if let Some(reason) = reason {
            survey.refuse(part, SurveyError::Misfit { path: path.to_owned(), reason });
        }
    }
}

/// Why parts do not fit; `None` if they do, or if one of them cannot be used anyway.
impl Configs {
    fn text_of(&self, part: Part) -> Option<&TextConfig> {
        self.text.iter().find(|(found, _)| *found == part).map(|(_, config)| config)
    }

    fn vae(&self) -> Option<String> {
        let (needed, found) = (self.unet.as_ref()?.out_channels, self.vae.as_ref()?.latent_channels());
        let reason = || format!("`unet` predicts latents of {needed} channels, but `vae` has {found}");
        (needed != found).then(reason)
    }

    fn text(&self, survey: &Survey) -> Option<String> {
        let (unet, first) = (self.unet.as_ref()?, self.text_of(Part::TextEncoder)?);
        let second = self.text_of(Part::TextEncoder2);
        if second.is_none() && survey.is_refused(Part::TextEncoder2) {
            return None;
        }
        let names = match second {
            Some(_) => "`text_encoder` and `text_encoder_2` give",
            None => "`text_encoder` gives",
        };
        let width = first.hidden_size + second.map_or(0, |second| second.hidden_size);
        if let Some(needed) = unet.other_text_width(width) {
            return Some(format!("`unet` reads text states of width {needed}, but {names} {width}"));
        }
        let needed = unet.pooled_width()?;
        let Some(second) = second else {
            return Some(
                "`unet` is SDXL's, which reads two text encoders, but there is no `text_encoder_2`"
                    .to_owned(),
            );
        };
        let found = second.projection_dim;
        (needed != found).then(|| {
            format!("`unet` reads a pooled text of width {needed}, but `text_encoder_2` projects to {found}")
        })
    }

    fn tokenizer(&self, tokenizer: Part, encoder: Part) -> Option<String> {
        let config = self.text_of(encoder)?;
        let (_, tokenizer) = self.tokenizers.iter().find(|(found, _)| *found == tokenizer)?;
        tokenizer.check_fits(config.max_position_embeddings, config.vocab_size).err()
    }
}
