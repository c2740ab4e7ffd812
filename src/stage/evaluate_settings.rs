//! `settings:` of an evaluation: other guidance scales, resolutions or samplers, at which pictures are drawn and judged once
//! more. Preference scores rise with the guidance scale, and a pruned model can break at another resolution.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::BadValue;
use super::drawing::Drawing;
use super::size::PictureSize;
use crate::base::bounded::Guidance;
use crate::base::{Manifest, Real, Whole};
use crate::metric;

/// What differs from `drawing`, by the name of each setting.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(super) struct Settings(BTreeMap<String, Setting>);

/// What differs from `drawing`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Setting {
    /// The sampler.
    sampler: Option<String>,
    /// Steps of the sampler.
    steps: Option<Whole<1, 10_000>>,
    /// Guidance scale.
    guidance_scale: Option<Real<Guidance>>,
    /// Width and height of the pictures in pixels.
    size: Option<PictureSize>,
}

impl Setting {
    fn of(&self, drawing: &Drawing) -> Drawing {
        let Self { sampler, steps, guidance_scale, size } = self.clone();
        Drawing {
            sampler: sampler.or_else(|| drawing.sampler.clone()),
            steps: steps.unwrap_or(drawing.steps),
            guidance_scale: guidance_scale.unwrap_or(drawing.guidance_scale),
            size: size.or(drawing.size),
            ..drawing.clone()
        }
    }
}

impl Settings {
    /// How pictures are drawn in each setting.
    pub(super) fn drawings(&self, drawing: &Drawing) -> Vec<(&str, Drawing)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting.of(drawing))).collect()
    }

    pub(super) fn describe(&self, drawing: &Drawing, manifest: &mut Manifest) {
        for (name, drawing) in self.drawings(drawing) {
            drawing.describe(manifest, &format!("settings.{name}"));
        }
    }

    /// Fails if a setting's name cannot name a folder or gives a model the name of another one.
    pub(super) fn check(&self, drawing: &Drawing, models: &[&str]) -> Result<(), BadValue> {
        for (name, drawing) in self.drawings(drawing) {
            let bad = |message: String| Err(BadValue::new("settings", message));
            if !metric::names_a_folder(name) {
                return bad(format!("the name `{name}` cannot name a folder"));
            }
            if let Some(model) =
                models.iter().map(|model| at(model, name)).find(|both| models.contains(&both.as_str()))
            {
                return bad(format!("`{model}` is a model already; name the setting differently"));
            }
            drawing.check(|field| format!("settings.{name}.{field}"))?;
        }
        Ok(())
    }

    /// The models, and the models in each setting.
    pub(super) fn columns(&self, models: &[&str]) -> Vec<String> {
        let in_settings = self.0.keys().flat_map(|name| models.iter().map(move |model| at(model, name)));
        models.iter().map(|&model| model.to_owned()).chain(in_settings).collect()
    }
}

/// The name of a model in a setting, in files, reports and gates.
pub(super) fn at(model: &str, setting: &str) -> String {
    format!("{model}.{setting}")
}
