//! The pipeline that `init` writes, and its numbers for each family of models.

use std::path::Path;

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
        let Self { name, preset, .. } = self;
        let Preset { family, dtype, calibration, scoring, latents, training, held_out, pictures, drawing } =
            preset;
        let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
        let prompts = |file: &str| {
            let folder = if has_prompts(model) { self.model.join("prompts") } else { "prompts".into() };
            quoted(&folder.join(file))
        };
        let (model, run) = (quoted(self.model), serde_json::Value::from(format!("{name}-50")));
        let [for_points, for_training, for_pictures] =
            ["calibration.txt", "training.txt", "evaluation.txt"].map(prompts);
        format!(
            "\
# Half of the U-Net of {name} ({family}), retrained against the original.
#   laptop-diff plan FILE      what would run, and why
#   laptop-diff doctor FILE    whether it fits into memory and on the disk
#   laptop-diff run FILE       run it; the same command resumes it
# `laptop-diff list` prints the names of stages, criteria, metrics and so on. `laptop-diff schema > pipeline.schema.json`
# writes the schema with which an editor completes and checks this file. Paths are relative to its folder.
format: 1
name: {run}
seed: 42
stages:
  # dtype: the type in which later stages compute; bf16 halves the memory.
  - id: teacher
    use: load
    with: {{ model: {model}, dtype: {dtype} }}

  # Units are scored on points along the teacher's own sampling trajectories.
  - id: points
    use: calibrate
    with: {{ model: teacher, prompts: {for_points}, {calibration} }}

  # The output loss of each unit: how much the prediction changes without it. Magnitude costs nothing and is a baseline.
  - id: scores
    use: score
    with: {{ model: teacher, calibration: points, criteria: [output-loss, magnitude]{scoring} }}

  # ratio: the share of the U-Net's parameters to remove. Try others with --set selection.ratio=0.3, or several with
  # --over selection.ratio=0.3,0.5,0.7.
  - id: selection
    use: select
    with: {{ scores: scores, ratio: 0.5 }}

  - id: student
    use: prune
    with: {{ model: teacher, selection: selection }}

  # Training data: clean latents that the teacher draws. For your own pictures, write `pictures: FOLDER` instead of `prompts`.
  - id: latents
    use: encode
    with: {{ model: teacher, prompts: {for_training}, {latents} }}

  # More steps are better; a run with more of them goes on from where this one ended.
  - id: retrained
    use: distill
    with:
      teacher: teacher
      student: student
      data: latents
      training: {{ {training} }}

  # Points that neither scoring nor training has seen.
  - id: held-out
    use: calibrate
    with: {{ model: teacher, prompts: {for_pictures}, {held_out} }}

  # PickScore, CLIP score and other metrics of pictures need a scorer: see `laptop-diff list metrics` and examples/evaluating.md.
  - id: result
    use: evaluate
    with:
      models: {{ teacher: teacher, pruned: student, retrained: retrained }}
      metrics: [output-loss, parameters, macs, latency, peak-memory]
      prompts: {for_pictures}
      pictures: {pictures}
      points: held-out
      selection: selection
      drawing: {{ {drawing} }}

  # For diffusers' own classes; `to: comfyui` and `to: sdcpp` write a single file.
  - id: portable
    use: export
    with: {{ model: retrained, to: diffusers }}
"
        )
    }
}
