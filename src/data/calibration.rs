//! Calibration points: noisy latents with their timestep and text, on which models are compared.
//!
//! The file may come from the user, so it is treated as untrusted input: every error names the tensor.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{DataError, finite, fit};
use crate::base::files;
use crate::model::files::weights;
use crate::model::network::Conditioning;
use crate::model::unet::{SIZES, UNetConfig};

/// The file of the points in a calibration artefact.
pub const FILE: &str = "calibration.safetensors";
/// The file of the points' prompts in a calibration artefact: a JSON list.
pub const PROMPTS_FILE: &str = "prompts.json";

/// N points; all floats are f32.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Noisy latents, [N, channels, h, w]. A model with more input channels than noise has, such as one for inpainting,
    /// has the others after them.
    pub sample: Tensor,
    /// The noise in them: `sample = alpha * x0 + sigma * noise`, [N, channels, h, w].
    pub noise: Tensor,
    /// The clean latents x0, in the shape of `noise`. Present where the noise schedule ends in pure noise, because they
    /// do not follow from the noisy latents there.
    pub latents: Option<Tensor>,
    /// `[N]` i64.
    pub timestep: Tensor,
    /// [N, tokens, d].
    pub encoder_hidden_states: Tensor,
    /// SDXL: the pooled text, [N, p].
    pub text_embeds: Option<Tensor>,
    /// SDXL: sizes and crops, [N, 6].
    pub time_ids: Option<Tensor>,
}

/// A calibration artefact: points, and the prompt that each came from.
#[derive(Clone, Debug)]
pub struct Points {
    /// The points.
    pub calibration: Calibration,
    /// Their prompts, one per point; empty if the user's points came without them.
    pub prompts: Vec<String>,
}

impl Calibration {
    /// Reads and checks a file.
    pub fn load(path: &Path, device: &Device) -> Result<Self, DataError> {
        // Not reported as damage: a missing file is the more common mistake.
        std::fs::metadata(path).map_err(DataError::file(path))?;
        let mut tensors = candle_core::safetensors::load(path, device)
            .map_err(|source| DataError::Damaged { path: path.to_owned(), source })?;
        let mut float = |tensor: &'static str| match tensors.remove(tensor) {
            None => Ok(None),
            Some(found) if found.dtype().is_float() => {
                found.to_dtype(DType::F32).map(Some).map_err(DataError::from)
            }
            Some(found) => Err(wrong_dtype(path, tensor, &found, "f32, f16 or bf16")),
        };
        let missing = |tensor| DataError::MissingTensor { path: path.to_owned(), tensor };
        let calibration = Self {
            sample: float("sample")?.ok_or_else(|| missing("sample"))?,
            noise: float("noise")?.ok_or_else(|| missing("noise"))?,
            encoder_hidden_states: float("encoder_hidden_states")?
                .ok_or_else(|| missing("encoder_hidden_states"))?,
            latents: float("latents")?,
            text_embeds: float("text_embeds")?,
            time_ids: float("time_ids")?,
            timestep: tensors.remove("timestep").ok_or_else(|| missing("timestep"))?,
        };
        calibration.check(path)?;
        Ok(calibration)
    }

    /// Writes the file atomically; the same points give the same bytes.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        let tensors: HashMap<&str, Tensor> = self
            .named()
            .into_iter()
            .chain([("timestep", &self.timestep)])
            .map(|(name, tensor)| Ok((name, tensor.to_device(&Device::Cpu)?.contiguous()?)))
            .collect::<candle_core::Result<_>>()?;
        weights::write_with(path, tensors, None).map_err(DataError::file(path))
    }

    /// The number of points, never 0.
    pub fn len(&self) -> usize {
        self.timestep.elem_count()
    }

    /// Whether there are no points, which [`Self::check`] refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The points of a range, where they are.
    pub fn batch(&self, range: Range<usize>) -> candle_core::Result<Self> {
        self.map(|tensor| tensor.narrow(0, range.start, range.len()))
    }

    /// The points of a range, on `device`. All points together may be larger than a GPU's memory.
    pub fn batch_on(&self, range: Range<usize>, device: &Device) -> candle_core::Result<Self> {
        self.batch(range)?.map(|tensor| tensor.to_device(device))
    }

    /// The points of these indices, in their order.
    pub fn select(&self, points: &[u32]) -> candle_core::Result<Self> {
        let points = Tensor::new(points, self.sample.device())?;
        self.map(|tensor| tensor.index_select(&points, 0))
    }

    /// All points of `parts`, in their order.
    pub fn cat(parts: &[Self]) -> candle_core::Result<Self> {
        let texts: Vec<Conditioning> = parts.iter().map(Self::conditioning).collect();
        let texts = Conditioning::cat(&texts.iter().collect::<Vec<_>>())?;
        let every = |pick: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(pick).collect::<Vec<_>>(), 0);
        let latents: Option<Vec<&Tensor>> = parts.iter().map(|part| part.latents.as_ref()).collect();
        Ok(Self {
            sample: every(|part| &part.sample)?,
            noise: every(|part| &part.noise)?,
            latents: latents.map(|latents| Tensor::cat(&latents, 0)).transpose()?,
            timestep: every(|part| &part.timestep)?,
            encoder_hidden_states: texts.encoder_hidden_states,
            text_embeds: texts.text_embeds,
            time_ids: texts.time_ids,
        })
    }

    /// The inputs of the U-Net besides latents and timestep.
    pub fn conditioning(&self) -> Conditioning {
        Conditioning {
            encoder_hidden_states: self.encoder_hidden_states.clone(),
            text_embeds: self.text_embeds.clone(),
            time_ids: self.time_ids.clone(),
        }
    }

    /// Checks shapes, types and values; `place` is named in errors.
    pub fn check(&self, place: &Path) -> Result<(), DataError> {
        let wrong = |tensor, found: &Tensor, needed: String| DataError::Shape {
            place: place.to_owned(),
            tensor,
            found: found.dims().to_vec(),
            needed,
        };
        let &[n, channels, height, width] = self.sample.dims() else {
            return Err(wrong("sample", &self.sample, "[points, channels, height, width]".to_owned()));
        };
        if n * channels * height * width == 0 {
            return Err(wrong("sample", &self.sample, "at least one point".to_owned()));
        }
        let noisy = |&found: &usize| (1..=channels).contains(&found);
        let noisy = self.noise.dims().get(1).copied().filter(noisy).unwrap_or(channels);
        if self.noise.dims() != [n, noisy, height, width] {
            let needed = format!("that of `sample`, {:?}, or fewer channels", self.sample.dims());
            return Err(wrong("noise", &self.noise, needed));
        }
        if let Some(latents) = self.latents.as_ref().filter(|latents| latents.dims() != self.noise.dims()) {
            return Err(wrong("latents", latents, format!("that of `noise`, {:?}", self.noise.dims())));
        }
        if self.timestep.dims() != [n] {
            return Err(wrong("timestep", &self.timestep, format!("[{n}], as `sample` has {n} points")));
        }
        if !matches!(self.encoder_hidden_states.dims(), &[m, tokens, d] if m == n && tokens * d > 0) {
            return Err(wrong(
                "encoder_hidden_states",
                &self.encoder_hidden_states,
                format!("[{n}, tokens, d]"),
            ));
        }
        match (&self.text_embeds, &self.time_ids) {
            (None, None) => {}
            (None, Some(_)) => return Err(missing(place, "text_embeds")),
            (Some(_), None) => return Err(missing(place, "time_ids")),
            (Some(texts), Some(ids)) => {
                if !matches!(texts.dims(), &[m, p] if m == n && p > 0) {
                    return Err(wrong("text_embeds", texts, format!("[{n}, p]")));
                }
                if ids.dims() != [n, SIZES] {
                    return Err(wrong("time_ids", ids, format!("[{n}, {SIZES}]")));
                }
            }
        }
        self.check_values(place)
    }

    /// Checks that a U-Net takes these points; `place` is named in errors.
    pub fn check_fit(&self, unet: &UNetConfig, place: &Path) -> Result<(), DataError> {
        let latents = [("sample", &self.sample, unet.in_channels), ("noise", &self.noise, unet.out_channels)];
        fit::check(place, &latents, &self.conditioning(), unet)
    }

    fn check_values(&self, place: &Path) -> Result<(), DataError> {
        if self.timestep.dtype() != DType::I64 {
            return Err(wrong_dtype(place, "timestep", &self.timestep, "i64"));
        }
        for (point, timestep) in self.timestep.to_vec1::<i64>()?.into_iter().enumerate() {
            if timestep < 0 {
                let (place, found) = (place.to_owned(), timestep.to_string());
                return Err(DataError::BadValue { place, tensor: "timestep", found, point });
            }
        }
        self.named().into_iter().try_for_each(|(name, tensor)| finite::check(place, name, tensor))
    }

    /// The float tensors with their names in the file.
    fn named(&self) -> Vec<(&'static str, &Tensor)> {
        let optional =
            [("latents", &self.latents), ("text_embeds", &self.text_embeds), ("time_ids", &self.time_ids)];
        [
            ("sample", &self.sample),
            ("noise", &self.noise),
            ("encoder_hidden_states", &self.encoder_hidden_states),
        ]
        .into_iter()
        .chain(optional.into_iter().filter_map(|(name, tensor)| Some((name, tensor.as_ref()?))))
        .collect()
    }

    fn map(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> candle_core::Result<Self> {
        let Conditioning { encoder_hidden_states, text_embeds, time_ids } = self.conditioning().map(&f)?;
        Ok(Self {
            sample: f(&self.sample)?,
            noise: f(&self.noise)?,
            latents: self.latents.as_ref().map(&f).transpose()?,
            timestep: f(&self.timestep)?,
            encoder_hidden_states,
            text_embeds,
            time_ids,
        })
    }
}

impl Points {
    /// Reads a calibration artefact.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, DataError> {
        let calibration = Calibration::load(&folder.join(FILE), device)?;
        let path = folder.join(PROMPTS_FILE);
        let prompts = files::read_json(&path).map_err(DataError::file(&path))?;
        Ok(Self { calibration, prompts })
    }

    /// Writes a calibration artefact.
    pub fn save(&self, folder: &Path) -> Result<(), DataError> {
        self.calibration.save(&folder.join(FILE))?;
        let path = folder.join(PROMPTS_FILE);
        files::write_json(&path, &self.prompts).map_err(DataError::file(&path))
    }
}

fn missing(place: &Path, tensor: &'static str) -> DataError {
    DataError::MissingTensor { path: place.to_owned(), tensor }
}

fn wrong_dtype(place: &Path, tensor: &'static str, found: &Tensor, needed: &'static str) -> DataError {
    DataError::Dtype { place: place.to_owned(), tensor, found: found.dtype().as_str(), needed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(n: usize) -> candle_core::Result<Calibration> {
        let tensor = |dims: &[usize]| {
            let count = dims.iter().product::<usize>();
            Tensor::from_vec((0..count).map(|i| i as f32 / 7.0).collect(), dims, &Device::Cpu)
        };
        Ok(Calibration {
            sample: tensor(&[n, 4, 2, 2])?,
            noise: tensor(&[n, 4, 2, 2])?,
            latents: Some(tensor(&[n, 4, 2, 2])?),
            timestep: Tensor::arange(0i64, n as i64, &Device::Cpu)?,
            encoder_hidden_states: tensor(&[n, 3, 5])?,
            text_embeds: Some(tensor(&[n, 2])?),
            time_ids: Some(tensor(&[n, 6])?),
        })
    }

    #[test]
    fn what_is_saved_is_loaded() -> Result<(), DataError> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let saved = Points { calibration: points(3)?, prompts: ["a", "b", "c"].map(str::to_owned).to_vec() };
        saved.save(folder.path())?;
        let first = std::fs::read(folder.path().join(FILE)).expect("just written");
        saved.save(folder.path())?;
        assert_eq!(first, std::fs::read(folder.path().join(FILE)).expect("just written"));

        let loaded = Points::load(folder.path(), &Device::Cpu)?;
        assert_eq!(loaded.prompts, saved.prompts);
        assert_eq!(loaded.calibration.len(), 3);
        for ((name, ours), (_, theirs)) in loaded.calibration.named().iter().zip(saved.calibration.named()) {
            let (ours, theirs) = (ours.flatten_all()?, theirs.flatten_all()?);
            assert_eq!(ours.to_vec1::<f32>()?, theirs.to_vec1::<f32>()?, "{name}");
        }
        let middle = loaded.calibration.batch(1..2)?;
        assert_eq!(middle.timestep.to_vec1::<i64>()?, [1]);
        let again = Calibration::cat(&[middle.clone(), middle])?;
        again.check(Path::new("two points"))?;
        assert_eq!(again.len(), 2);
        Ok(())
    }

    #[test]
    fn hostile_points_are_named() -> candle_core::Result<()> {
        let change =
            |f: &dyn Fn(&mut Calibration) -> candle_core::Result<()>| -> candle_core::Result<String> {
                let mut calibration = points(2)?;
                f(&mut calibration)?;
                let error = calibration.check(Path::new("points")).expect_err("the points are bad");
                Ok(error.to_string())
            };
        let nan = change(&|c| {
            c.noise = Tensor::cat(&[c.noise.narrow(0, 0, 1)?, (c.noise.narrow(0, 1, 1)? * f64::NAN)?], 0)?;
            Ok(())
        })?;
        assert_eq!(nan, "points: `noise` holds NaN at point 1");
        let shape = change(&|c| {
            c.noise = c.noise.narrow(0, 0, 1)?;
            Ok(())
        })?;
        assert!(
            shape.contains("`noise` has shape [1, 4, 2, 2]") && shape.contains("[2, 4, 2, 2]"),
            "{shape}"
        );
        let latents = change(&|c| {
            c.latents = Some(c.latents.as_ref().expect("just made").narrow(1, 0, 3)?);
            Ok(())
        })?;
        assert!(latents.contains("`latents` has shape [2, 3, 2, 2]"), "{latents}");
        let half = change(&|c| {
            c.time_ids = None;
            Ok(())
        })?;
        assert!(half.contains("time_ids"), "{half}");
        let negative = change(&|c| {
            c.timestep = Tensor::new(&[3i64, -1], &Device::Cpu)?;
            Ok(())
        })?;
        assert!(negative.contains("`timestep` holds -1 at point 1"), "{negative}");
        let float = change(&|c| {
            c.timestep = c.timestep.to_dtype(DType::F32)?;
            Ok(())
        })?;
        assert!(float.contains("i64 is needed"), "{float}");
        Ok(())
    }

    #[test]
    fn hostile_files_are_errors() -> Result<(), DataError> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join(FILE);
        let load = || Calibration::load(&path, &Device::Cpu).expect_err("the file is bad");
        assert!(matches!(load(), DataError::File(_)));
        points(2)?.save(&path)?;
        let whole = std::fs::read(&path).expect("just written");
        std::fs::write(&path, &whole[..whole.len() - 9]).expect("ours");
        assert!(matches!(load(), DataError::Damaged { .. }));
        // A header that claims eight exabytes.
        std::fs::write(&path, [0xff; 64]).expect("ours");
        assert!(matches!(load(), DataError::Damaged { .. }));
        let lonely = HashMap::from([("sample", Tensor::zeros((1, 4, 2, 2), DType::F32, &Device::Cpu)?)]);
        candle_core::safetensors::save(&lonely, &path)?;
        assert!(matches!(load(), DataError::MissingTensor { tensor: "noise", .. }));
        Ok(())
    }
}
