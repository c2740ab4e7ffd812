//! The pipeline that `init` writes, and its numbers for each family of models.

use std::path::Path;

/// The pipeline, with a name in braces for each value.
const PIPELINE: &str = include_str!("pipeline.yaml");

/// The numbers of a pipeline; their sources are the pipelines named there.
pub(super) struct Preset {
    /// The family in words.
    family: &'static str,
    dtype: &'static str,
    calibration: &'static str,
    scoring: &'static str,
    latents: &'static str,
    training: &'static str,
    held_out: &'static str,
    pictures: &'static str,
    drawing: &'static str,
}

/// `pipelines/nano50.yaml`.
const SMALL: Preset = Preset {
    family: "a small model",
    dtype: "f32",
    calibration: "samples: 64, points-per-trajectory: 2, drawing: { steps: 20, guidance-scale: 3 }",
    scoring: "",
    latents: "samples: 256, drawing: { steps: 10, guidance-scale: 3, batch: 64 }",
    training: "steps: 400, batch-size: 16, learning-rate: 5e-4, learning-rate-schedule: cosine, warm-up-steps: 20",
    held_out: "samples: 32, points-per-trajectory: 2, drawing: { steps: 20, guidance-scale: 3 }",
    pictures: "16",
    drawing: "sampler: dpm-solver++-2m, steps: 10, guidance-scale: 3, batch: 16",
};

/// `pipelines/sd15-50.yaml`.
const SD: Preset = Preset {
    family: "Stable Diffusion 1.x or 2.x",
    dtype: "bf16",
    calibration: "samples: 256, points-per-trajectory: 4",
    scoring: "",
    latents: "samples: 4096, drawing: { steps: 20 }",
    training: "steps: 50000, batch-size: 64, gradient-accumulation: 8",
    held_out: "samples: 64, points-per-trajectory: 2",
    pictures: "16",
    drawing: "sampler: pndm, steps: 25, batch: 8",
};

/// `pipelines/sdxl50.yaml`.
const SDXL: Preset = Preset {
    family: "Stable Diffusion XL",
    dtype: "bf16",
    calibration: "samples: 128, points-per-trajectory: 2, drawing: { sampler: euler, guidance-scale: 5, batch: 2 }",
    scoring: ", batch: 2",
    latents: "samples: 2048, drawing: { steps: 20, guidance-scale: 5, batch: 4 }",
    training: "steps: 50000, batch-size: 32, gradient-accumulation: 16",
    held_out: "samples: 32, drawing: { sampler: euler, guidance-scale: 5, batch: 2 }",
    pictures: "16",
    drawing: "sampler: euler, steps: 25, guidance-scale: 5, batch: 2",
};

/// More parameters than any model for tests, fewer than any that people use: the smallest published student of SD v1.5 has
/// 330 M (BK-SDM-Tiny).
const SMALL_PARAMETERS: u64 = 100_000_000;

impl Preset {
    pub(super) fn of(has_second_encoder: bool, parameters: u64) -> Self {
        match (has_second_encoder, parameters) {
            (_, parameters) if parameters < SMALL_PARAMETERS => SMALL,
            (true, _) => SDXL,
            (false, _) => SD,
        }
    }
}

/// What the text is made of.
pub(super) struct Template<'a> {
    pub(super) name: &'a str,
    /// The model's folder, seen from the pipeline's.
    pub(super) model: &'a Path,
    pub(super) preset: Preset,
}

/// Whether a model brings prompts of its own, as the small model of laptop-diff does.
pub(super) fn has_prompts(model: &Path) -> bool {
    ["calibration.txt", "training.txt", "evaluation.txt"]
        .iter()
        .all(|name| model.join("prompts").join(name).is_file())
}

impl Template<'_> {
    /// The text of the pipeline; `model` is the model's folder, seen from here.
    pub(super) fn text(&self, model: &Path) -> String {
        let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
        let folder = if has_prompts(model) { self.model.join("prompts") } else { "prompts".into() };
        let prompts = |file: &str| quoted(&folder.join(file));
        let preset = &self.preset;
        let values = [
            ("{name}", self.name.to_owned()),
            ("{run}", serde_json::Value::from(format!("{}-50", self.name)).to_string()),
            ("{model}", quoted(self.model)),
            ("{for_points}", prompts("calibration.txt")),
            ("{for_training}", prompts("training.txt")),
            ("{for_pictures}", prompts("evaluation.txt")),
            ("{family}", preset.family.to_owned()),
            ("{dtype}", preset.dtype.to_owned()),
            ("{calibration}", preset.calibration.to_owned()),
            ("{scoring}", preset.scoring.to_owned()),
            ("{latents}", preset.latents.to_owned()),
            ("{training}", preset.training.to_owned()),
            ("{held_out}", preset.held_out.to_owned()),
            ("{pictures}", preset.pictures.to_owned()),
            ("{drawing}", preset.drawing.to_owned()),
        ];
        values.iter().fold(PIPELINE.to_owned(), |text, (place, value)| text.replace(place, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PipelineFile;
    use crate::plan::ResolvedPipeline;

    #[test]
    fn the_pipeline_of_every_family_is_right() {
        for (has_second_encoder, parameters) in
            [(false, 3_000_000), (false, 859_520_964), (true, 2_567_463_684)]
        {
            let preset = Preset::of(has_second_encoder, parameters);
            let (family, model) = (preset.family, Path::new("models/it's \"one\""));
            let text = Template { name: "one", model, preset }.text(model);
            let pipeline =
                PipelineFile::parse("one.yaml".as_ref(), &text, &[]).and_then(ResolvedPipeline::new);
            let pipeline = pipeline.unwrap_or_else(|error| panic!("{family}: {error}"));
            assert_eq!((pipeline.name.as_str(), pipeline.stages.len()), ("one-50", 10), "{family}");
        }
    }
}
