//! Two whole training steps against torch and diffusers (`tests/golden_distill/step.py`): terms, gradients, updated weights
//! and their average.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use safetensors::SafeTensors;
use serde_json::json;

use super::batches::TrainingBatch;
use super::feature_maps::{common_paths, predict};
use super::losses::{Normalisation, mean_square};
use super::parameters::{DistillParameters, FeatureTaps};
use super::term_weights::{Measured, TermWeights};
use crate::base::Real;
use crate::model::UNetConfig;
use crate::model::network::Conditioning;
use crate::model::unet::UNet;
use crate::nn::gradients::Gradients;
use crate::sample::NoiseSchedule;
use crate::train::collective::Alone;
use crate::train::{ActivationCheckpointing, Average, Input, Moments, Optimiser, Shards, Trainable};

/// f32 through some forty layers and back.
const TOLERANCE: f64 = 1e-4;

type Outcome = Result<(), Box<dyn Error>>;

/// A file of tensors, and the configuration in its header.
struct Golden {
    tensors: HashMap<String, Tensor>,
    config: Option<String>,
}

impl Golden {
    fn open(name: &str) -> Result<Self, Box<dyn Error>> {
        // At run time: a test that was built here may run from a copy of the repository elsewhere.
        let root = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
        let bytes = std::fs::read(root.join("tests").join(name))?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let config = header.metadata().as_ref().and_then(|metadata| metadata.get("config").cloned());
        Ok(Self { tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?, config })
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("there is no {name}"))
    }
}

/// A tensor's L2 norm and at most 16 of its numbers.
fn summary(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    let numbers = tensor.flatten_all()?.to_vec1::<f32>()?;
    let norm = numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt() as f32;
    let step = numbers.len().div_ceil(16);
    Ok([norm].into_iter().chain(numbers.into_iter().step_by(step)).collect())
}

/// Compares the summaries of all tensors, in the order of their names, each relative to its tensor's size.
fn compare(what: &str, tensors: &BTreeMap<String, Tensor>, expected: &[f32]) -> Outcome {
    let mut rest = expected;
    for (name, tensor) in tensors {
        let found = summary(tensor)?;
        let (expected, after) = rest.split_at(found.len());
        rest = after;
        let norm = |numbers: &mut dyn Iterator<Item = f64>| {
            numbers.map(|number| number * number).sum::<f64>().sqrt()
        };
        let off = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
        let size = norm(&mut expected.iter().map(|number| f64::from(*number)));
        assert!(off <= TOLERANCE * size.max(1e-9), "{what} of {name}: {found:?} is not {expected:?}");
    }
    assert!(rest.is_empty(), "{what}: {} numbers too many", rest.len());
    Ok(())
}

/// Student and teacher of a case, and its batch.
struct Case {
    student: Trainable,
    /// The feature maps that are compared.
    paths: Vec<String>,
    batch: TrainingBatch,
    /// What torch computed.
    steps: Golden,
    name: &'static str,
}

impl Case {
    fn open(
        name: &'static str,
        model: &str,
        prediction: &str,
        gamma: Option<f64>,
    ) -> Result<Self, Box<dyn Error>> {
        let golden = Golden::open(&format!("golden/{model}.safetensors"))?;
        let steps = Golden::open("golden_distill/steps.safetensors")?;
        let config = UNetConfig::parse(golden.config.as_ref().expect("it has a config"))?;
        let mut variables = BTreeMap::new();
        let mut teacher = HashMap::new();
        for entry in config.inventory().tensors() {
            let weight = Var::from_tensor(golden.get(&format!("weights.{}", entry.name)))?;
            teacher.insert(entry.name.clone(), (weight.as_detached_tensor() * 1.25)?);
            variables.insert(entry.name.clone(), weight);
        }
        let student = Trainable::new(&config, variables, |_| false, DType::F32, &Device::Cpu)?;
        let teacher = UNet::new(config, VarBuilder::from_tensors(teacher, DType::F32, &Device::Cpu))?;
        let schedule = NoiseSchedule::from_config(&json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": prediction,
        }))?;
        let [latents, noise] = ["latents", "noise"].map(|tensor| steps.get(&format!("{name}.{tensor}")));
        let timesteps = [700i64, 20];
        let timestep = Tensor::new(&timesteps, &Device::Cpu)?;
        let weights = gamma.map(|gamma| schedule.min_snr_weights(&timesteps, gamma));
        let input = Input {
            sample: schedule.add_noise(latents, noise, &timestep)?,
            conditioning: Conditioning {
                encoder_hidden_states: golden.get("inputs.encoder_hidden_states").clone(),
                text_embeds: golden.tensors.get("inputs.text_embeds").cloned(),
                time_ids: golden.tensors.get("inputs.time_ids").cloned(),
            },
            timestep: timestep.clone(),
        };
        let paths = common_paths(&input, student.unet(), &teacher, FeatureTaps::Stages)?;
        let batch = TrainingBatch {
            target: schedule.target(latents, noise, &timestep)?,
            sample_weights: weights.map(|weights| Tensor::new(weights, &Device::Cpu)).transpose()?,
            teacher: predict(&teacher, &input, &paths)?,
            input,
        };
        Ok(Self { student, paths, batch, steps, name })
    }

    fn expected(&self, name: &str) -> candle_core::Result<Vec<f32>> {
        self.steps.get(&format!("{}.{name}", self.name)).to_vec1()
    }

    /// Compares numbers, each relative to its own size.
    fn compare(&self, what: &str, found: &[f32]) -> Outcome {
        let expected = self.expected(what)?;
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() <= TOLERANCE as f32 * expected,
                "{what}: {found} is not {expected}"
            );
        }
        Ok(())
    }

    /// Compares one tensor for each variable.
    fn compare_all(&self, what: &str, tensors: Vec<Tensor>) -> Outcome {
        let named = self.student.weights().keys().cloned().zip(tensors).collect();
        compare(what, &named, &self.expected(what)?)
    }

    /// The weights of the terms, measured on the batch.
    fn weights(&self, parameters: &DistillParameters, terms: &[f32]) -> Result<TermWeights, Box<dyn Error>> {
        let square = |map: &Tensor| Ok(f64::from(mean_square(map)?.to_scalar::<f32>()?));
        let squares = self.batch.teacher.features.iter().map(square);
        let squares = squares.collect::<candle_core::Result<Vec<f64>>>()?;
        let terms: Vec<f64> = terms.iter().map(|term| f64::from(*term)).collect();
        let measured = Measured::new(parameters.normalisation, &self.paths, &squares, &terms);
        self.compare("scale", &measured.features.iter().map(|(_, scale)| *scale).collect::<Vec<_>>())?;
        Ok(TermWeights::new(parameters, &measured))
    }

    /// The gradients; the terms that come with them must be `expected`.
    fn gradients(
        &self,
        checkpointing: ActivationCheckpointing,
        weights: &[f32],
        expected: &[f32],
    ) -> Result<Gradients, Box<dyn Error>> {
        let mut gradients = Gradients::default();
        let (student, paths) = (&self.student, &self.paths);
        let terms = self.batch.differentiate(student, paths, checkpointing, weights, &mut gradients)?;
        let terms = terms.to_vec1::<f32>()?;
        assert_eq!(terms, expected);
        Ok(gradients)
    }

    fn two_steps(&self) -> Outcome {
        let parameters = DistillParameters {
            learning_rate: Real::new(1e-3),
            normalisation: Normalisation::InverseSquareNorm,
            ..Default::default()
        };
        let average = Average::On(Device::Cpu);
        let optimiser = Optimiser::new(self.student.variables(), Moments::F32, &average)?;
        let mut weights = None;
        for step in 0..2 {
            let numbers = self.batch.terms(self.student.unet(), &self.paths)?.to_vec1::<f32>()?;
            self.compare(&format!("terms.{step}"), &numbers)?;
            let weights = match &mut weights {
                Some(weights) => weights,
                none => none.insert(self.weights(&parameters, &numbers)?),
            };
            let gradients = self.gradients(ActivationCheckpointing::None, &weights.divided(1), &numbers)?;
            for checkpointing in [ActivationCheckpointing::Stage, ActivationCheckpointing::Unit] {
                let again = self.gradients(checkpointing, &weights.divided(1), &numbers)?;
                for (one, other) in gradients.iter().flatten().zip(again.iter().flatten()) {
                    let (one, other) = (one.flatten_all()?.to_vec1::<f32>()?, other.flatten_all()?);
                    assert!(one == other.to_vec1::<f32>()?, "{checkpointing:?} gives other gradients");
                }
            }
            let norm = gradients.norm()?;
            self.compare(&format!("norm.{step}"), &[norm as f32])?;
            if step == 0 {
                let gradients = gradients.iter().map(|gradient| gradient.expect("it has one").clone());
                self.compare_all("gradient", gradients.collect())?;
            }
            let clip = gradients.clip(parameters.gradient_clip.get())?;
            optimiser.update(&gradients, &clip, &parameters.update(step))?;
        }
        let weights = self.student.weights().values().map(|weight| weight.as_detached_tensor());
        self.compare_all("weight", weights.collect())?;
        self.compare_all(
            "average",
            optimiser
                .result(&Shards::new(&Alone, &vec![1; self.student.weights().len()]))?
                .into_values()
                .collect(),
        )
    }
}

#[test]
fn steps_of_sd15_are_those_of_torch() -> Outcome {
    Case::open("sd15", "unet_sd15", "epsilon", None)?.two_steps()
}

#[test]
fn steps_of_a_model_that_predicts_velocities_are_those_of_torch() -> Outcome {
    Case::open("velocity", "unet_sd15", "v_prediction", Some(5.0))?.two_steps()
}

#[test]
fn steps_of_sdxl_are_those_of_torch() -> Outcome {
    Case::open("sdxl", "unet_sdxl", "epsilon", Some(5.0))?.two_steps()
}
