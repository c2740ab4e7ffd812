//! The parameters of validation while training: the `validation:` block in `training:`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::bounded::Guidance;
use crate::base::{Manifest, Real, Whole};

/// `validation:` in the block `training:`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ValidationParameters {
    /// Steps between two validations; there is one before the first step and one after the last. Default 100.
    pub every: Whole<1, 1_000_000_000>,
    /// Number of rows of the data, drawn by the seed, that are never trained on and that the losses are measured on, each
    /// at one timestep: the timesteps are spread evenly. Default 64; with 0, no losses are measured and all rows are
    /// trained on.
    pub rows: Whole<0, 1_000_000>,
    /// Prompts that a picture is drawn of each time. Default: none.
    pub prompts: Vec<String>,
    /// Steps of the sampler for the pictures. Default 10, enough to see progress.
    pub steps: Whole<1, 10_000>,
    /// Guidance scale of the pictures. Default 7.5, Stable Diffusion's.
    pub guidance_scale: Real<Guidance>,
}

impl Default for ValidationParameters {
    fn default() -> Self {
        Self {
            every: Whole::new(100),
            rows: Whole::new(64),
            prompts: Vec::new(),
            steps: Whole::new(10),
            guidance_scale: Real::new(7.5),
        }
    }
}

impl ValidationParameters {
    /// Names every value: each changes what is trained on, or the files beside the weights.
    pub(super) fn describe(&self, manifest: &mut Manifest) {
        manifest
            .field("validation.every", self.every)
            .field("validation.rows", self.rows)
            .list("validation.prompts", &self.prompts)
            .field("validation.steps", self.steps)
            .float("validation.guidance-scale", self.guidance_scale.get());
    }

    /// Whether there is a validation after so many of `steps` steps.
    pub(super) fn is_due(&self, done: u64, steps: u64) -> bool {
        done.is_multiple_of(self.every.into()) || done == steps
    }
}
