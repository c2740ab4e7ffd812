//! The survey of a single file.

use std::path::Path;

use super::error::SurveyError;
use super::fit::{self, Configs};
use super::{Depth, State, Survey};
use crate::model::clip::ClipTokenizer;
use crate::model::{Checkpoint, ModelError, Part};

/// Opens every model of the single file in `path`. Its noise schedule follows from the file; its tokenizer is the one in
/// the folder `tokenizer`.
pub fn survey_file(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Path>,
    depth: Depth,
) -> Result<Survey, SurveyError> {
    let found = checkpoint.survey(depth == Depth::Weights)?;
    let tokenizer = tokenizer.map(ClipTokenizer::open).transpose().map_err(ModelError::from)?;
    let mut configs = Configs {
        unet: Some(checkpoint.unet_config().clone()),
        vae: found.vae,
        text: found.text,
        tokenizers: Vec::new(),
    };
    for (part, _) in configs.text.iter().filter(|_| tokenizer.is_some()) {
        let of = if *part == Part::TextEncoder { Part::Tokenizer } else { Part::Tokenizer2 };
        configs.tokenizers.extend(tokenizer.clone().map(|tokenizer| (of, tokenizer)));
    }
    let usable = |part: Part| match part {
        Part::UNet | Part::Scheduler => true,
        Part::Vae => configs.vae.is_some(),
        Part::TextEncoder | Part::TextEncoder2 => configs.text.iter().any(|(found, _)| *found == part),
        Part::Tokenizer | Part::Tokenizer2 => configs.tokenizers.iter().any(|(found, _)| *found == part),
    };
    let state = |part: Part| if usable(part) { State::Usable } else { State::Absent };
    let parts = Part::ALL.into_iter().map(|part| (part, state(part))).collect();
    let mut survey = Survey { parts, notes: found.note.into_iter().collect() };
    fit::check(&mut survey, &configs, checkpoint.path());
    Ok(survey)
}
