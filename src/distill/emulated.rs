//! A training as on a GPU, on a CPU: what it waits for, and what it finds out late.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::thread;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use super::draws::Ahead;
use super::history;
use super::{Cadence, DistillError, DistillParameters, Distillation, Distilled, HistoryLine};
use crate::backend::Random;
use crate::base::progress::Silent;
use crate::base::{Interrupt, Real, Whole};
use crate::data::{LatentBatch, Latents};
use crate::model::network::Conditioning;
use crate::model::unet::{UNet, UNetConfig};
use crate::nn::{Traffic, copies_to_host, emulating};
use crate::sample::NoiseSchedule;
use crate::train::collective::Alone;
use crate::train::watch::Watchers;
use crate::train::{ActivationCheckpointing, Moments, Trainable};

type Outcome = Result<(), Box<dyn Error>>;

const CPU: Device = Device::Cpu;
const STEPS: u64 = 4;
const CONFIG: &str = r#"{
    "attention_head_dim": 1, "block_out_channels": [8, 40], "cross_attention_dim": 8, "layers_per_block": 1,
    "norm_num_groups": 4, "sample_size": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]
}"#;

fn random() -> Random {
    Random::new(5, "emulated training")
}

/// Weights that keep the variance, a little different for each `name`.
fn weights(config: &UNetConfig, name: &str) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let drawn = |name: &str, shape: &[usize]| random().normal(name, 0, shape, &CPU);
    let mut weights = BTreeMap::new();
    for entry in config.inventory().tensors() {
        let inputs: usize = entry.shape.iter().skip(1).product();
        let own = (drawn(&format!("{name} {}", entry.name), &entry.shape)? * 0.3)?;
        let weight = ((drawn(&entry.name, &entry.shape)? + own)? * (inputs as f64).sqrt().recip().min(0.3))?;
        let is_norm = entry.shape.len() == 1 && entry.name.ends_with("weight");
        weights.insert(entry.name.clone(), if is_norm { (weight + 1.0)? } else { weight });
    }
    Ok(weights)
}

/// Eight latents with their text, kept in `folder`.
fn data(folder: &Path) -> Result<Latents, Box<dyn Error>> {
    let text = |rows: usize| -> candle_core::Result<Conditioning> {
        let encoder_hidden_states = random().normal("text", rows as u64, &[rows, 3, 8], &CPU)?;
        Ok(Conditioning { encoder_hidden_states, text_embeds: None, time_ids: None })
    };
    let latents = random().normal("latents", 0, &[8, 4, 4, 4], &CPU)?;
    let captions: Vec<String> = (0..8).map(|row| format!("caption {row}")).collect();
    Latents::save(folder, &LatentBatch { latents, conditioning: text(8)? }, &captions, &text(1)?)?;
    Ok(Latents::open(folder)?)
}

fn parameters(moments: Moments) -> DistillParameters {
    DistillParameters {
        moments,
        steps: Whole::new(STEPS as u32),
        batch_size: Whole::new(2),
        learning_rate: Real::new(1e-3),
        normalisation_batches: Whole::new(1),
        history_every: Whole::new(1),
        ..Default::default()
    }
}

/// Trains on this thread.
fn train(
    student: &Trainable,
    moments: Moments,
    folder: &Path,
) -> Result<Result<Distilled, DistillError>, Box<dyn Error>> {
    let config = UNetConfig::parse(CONFIG)?;
    let teacher = weights(&config, "teacher")?.into_iter().collect();
    let (data_folder, checkpoint) = (folder.join("data"), folder.join("checkpoint"));
    fs::create_dir_all(&data_folder)?;
    fs::create_dir_all(&checkpoint)?;
    let training = Distillation {
        teacher: &UNet::new(config, VarBuilder::from_tensors(teacher, DType::F32, &CPU))?,
        student,
        schedule: &NoiseSchedule::from_config(&serde_json::json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        }))?,
        data: &data(&data_folder)?,
        parameters: &parameters(moments),
        checkpointing: ActivationCheckpointing::None,
        device: &CPU,
        random: &random(),
        checkpoint: &checkpoint,
        cadence: Cadence { seconds: f64::INFINITY, ..Cadence::default() },
        easel: None,
        watcher: &Watchers::default(),
        progress: &Silent,
        interrupt: &Interrupt::default(),
        collective: &Alone,
    };
    Ok(thread::scope(|scope| {
        let batches = training.batches()?;
        let ahead = Ahead::start(scope, batches.draws());
        training.train(batches, ahead)
    }))
}

fn student() -> Result<Trainable, Box<dyn Error>> {
    let config = UNetConfig::parse(CONFIG)?;
    let mut variables = BTreeMap::new();
    for (name, weight) in weights(&config, "student")? {
        variables.insert(name, Var::from_tensor(&weight)?);
    }
    Ok(Trainable::new(&config, variables, |_| false, DType::F32, &CPU)?)
}

fn lines(moments: Moments) -> Result<Vec<HistoryLine>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let distilled = train(&student()?, moments, folder.path())??;
    Ok(history::read(&distilled.history)?)
}

/// Two copies a step, one of the losses and one of the norm; each is waited for once the next step is queued whole.
#[test]
fn a_step_waits_for_nothing_but_the_step_before() -> Outcome {
    [Moments::F32, Moments::EightBit].into_iter().try_for_each(check)
}

fn check(moments: Moments) -> Outcome {
    let (found, copies) = copies_to_host(|| emulating(|| lines(moments)).0);
    let (found, wanted) = (found?, lines(moments)?);
    let sent = |copy: &Traffic| if let Traffic::Sent(at) = copy { Some(*at) } else { None };
    let read = |copy: &Traffic| if let Traffic::Read(at) = copy { Some(*at) } else { None };
    let sent: Vec<u64> = copies.iter().filter_map(sent).collect();
    let read: Vec<u64> = copies.iter().filter_map(read).collect();
    assert_eq!((sent.len() as u64, read.len() as u64), (2 * STEPS, 2 * STEPS), "{copies:?}");
    for step in 0..sent.len() / 2 - 1 {
        let norm_of_next = sent[2 * step + 3];
        // The update comes after the norm.
        assert!(read[2 * step] > norm_of_next, "step {step}: {copies:?}");
    }
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found.step, wanted.step);
        for (found, wanted) in [(found.total, wanted.total), (found.gradient_norm, wanted.gradient_norm)] {
            assert!((found - wanted).abs() < 1e-3 * wanted, "{found}, on the CPU {wanted}");
        }
    }
    Ok(())
}

/// The next step is queued before it is known, but neither changes a weight.
#[test]
fn a_norm_that_is_not_finite_ends_the_training_with_sound_weights() -> Outcome {
    let student = student()?;
    let bits = || -> candle_core::Result<Vec<Vec<u32>>> {
        let numbers = |(_, weight): (&str, &Var)| weight.flatten_all()?.to_vec1::<f32>();
        let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect();
        student.variables().map(|variable| numbers(variable).map(bits)).collect()
    };
    let (_, bias) = student.variables().find(|(name, _)| *name == "conv_out.bias").expect("it has one");
    bias.set(&(bias.as_tensor() * f64::NAN)?)?;
    let (before, folder) = (bits()?, tempfile::tempdir()?);
    let error =
        emulating(|| train(&student, Moments::F32, folder.path())).0?.expect_err("the loss is not a number");
    let DistillError::NotFinite { step: 0, term, .. } = &error else { panic!("{error}") };
    assert_eq!(term, "task loss");
    assert_eq!(bits()?, before);
    Ok(())
}
