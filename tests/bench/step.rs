//! What the benchmarks of retraining share: a training of a few steps on random data, measured from outside.

use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use candle_core::{DType, Device};
use laptop_diff::backend::{Random, memory};
use laptop_diff::base::{Interrupt, Progress, Whole};
use laptop_diff::data::{LatentBatch, Latents};
use laptop_diff::distill::{Cadence, DistillParameters, Distillation};
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::model::{ModelDirectory, UNet};
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::train::collective::Alone;
use laptop_diff::train::watch::Watchers;
use laptop_diff::train::{ActivationCheckpointing, Trainable};
use serde::{Deserialize, Serialize};

/// What is trained, and how.
pub(crate) struct Training<'a> {
    /// The teacher.
    pub(crate) directory: &'a ModelDirectory,
    /// Type of the teacher's weights.
    pub(crate) dtype: DType,
    /// Whether the teacher is held in memory.
    pub(crate) held: bool,
    /// The student, on the weights of the same file.
    pub(crate) student: &'a UNetConfig,
    /// Height and width of the latents.
    pub(crate) size: usize,
    pub(crate) parameters: DistillParameters,
    pub(crate) checkpointing: ActivationCheckpointing,
    pub(crate) device: &'a Device,
}

/// Of one process.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Of the fastest step after the second.
    pub(crate) seconds: f64,
    /// What a step needs in addition to weights, moments and gradients.
    pub(crate) activation_bytes: u64,
    /// Of the whole process.
    pub(crate) peak_bytes: u64,
}

impl Training<'_> {
    /// Trains; `prepare` sees the student before the first step, and `after` after the last one.
    pub(crate) fn measure(
        &self,
        prepare: impl FnOnce(&Trainable) -> candle_core::Result<()>,
        after: impl FnOnce(&Trainable) -> candle_core::Result<()>,
    ) -> Result<Measured, Box<dyn Error>> {
        let (config, device) = (self.directory.unet_config()?, self.device);
        let weights = self.directory.unet_weights()?;
        let teacher = UNet::load_held(config, &weights, self.dtype, device, self.held)?;
        let student = Trainable::read(self.student, &weights, |_| false, DType::F32, device)?;
        prepare(&student)?;
        let scratch = tempfile::tempdir()?;
        self.make_data(scratch.path())?;
        let watch = Watch { gradients: 4 * self.student.inventory().parameters(), state: Mutex::default() };
        let schedule = serde_json::json!({ "beta_schedule": "scaled_linear" });
        let training = Distillation {
            teacher: &teacher,
            student: &student,
            schedule: &NoiseSchedule::from_config(&schedule)?,
            data: &Latents::open(scratch.path())?,
            parameters: &self.parameters,
            checkpointing: self.checkpointing,
            device,
            random: &Random::new(1, "bench"),
            checkpoint: scratch.path(),
            cadence: Cadence { steps: None, seconds: f64::INFINITY, ..Cadence::default() },
            easel: None,
            watcher: &Watchers(Vec::new()),
            progress: &watch,
            interrupt: &Interrupt::default(),
            collective: &Alone,
        };
        training.run()?;
        after(&student)?;
        let state = watch.state.into_inner()?;
        Ok(Measured {
            seconds: state.fastest,
            activation_bytes: state.activation_bytes,
            peak_bytes: state.peak_bytes.max(memory::peak_bytes().unwrap_or_default()),
        })
    }

    /// Random latents and texts.
    fn make_data(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let (random, rows) = (Random::new(1, "data"), 2 * self.parameters.batch_size.get());
        let pooled = self.student.pooled_width();
        let text = |rows: usize| -> candle_core::Result<Conditioning> {
            let normal =
                |what: &'static str, shape: &[usize]| random.normal(what, rows as u64, shape, &Device::Cpu);
            let width = self.student.innermost().cross_attention_dim;
            Ok(Conditioning {
                encoder_hidden_states: normal("text", &[rows, 77, width])?,
                text_embeds: pooled.map(|width| normal("pooled", &[rows, width])).transpose()?,
                time_ids: pooled.map(|_| normal("ids", &[rows, 6])).transpose()?,
            })
        };
        let shape = [rows, self.student.in_channels, self.size, self.size];
        let latents = random.normal("latents", 0, &shape, &Device::Cpu)?;
        let captions: Vec<String> = (0..rows).map(|row| row.to_string()).collect();
        let empty = Conditioning { time_ids: None, ..text(1)? };
        Ok(Latents::save(folder, &LatentBatch { latents, conditioning: text(rows)? }, &captions, &empty)?)
    }
}

/// What all benchmarks set alike.
pub(crate) fn parameters(batch: u32, steps: u32) -> DistillParameters {
    DistillParameters {
        steps: Whole::new(steps),
        batch_size: Whole::new(batch),
        normalisation_batches: Whole::new(1),
        ..Default::default()
    }
}

/// Measures the steps from outside: their time, and the memory of the second.
struct Watch {
    gradients: u64,
    state: Mutex<State>,
}

struct State {
    begun: Instant,
    before: u64,
    fastest: f64,
    activation_bytes: u64,
    peak_bytes: u64,
}

impl Default for State {
    fn default() -> Self {
        let fastest = f64::INFINITY;
        Self { begun: Instant::now(), before: 0, fastest, activation_bytes: 0, peak_bytes: 0 }
    }
}

impl Progress for Watch {
    fn length(&self, _total: u64, _unit: &'static str) {}

    fn position(&self, done: u64) {
        let mut state = self.state.lock().expect("nobody panicked");
        let peak = memory::peak_bytes().unwrap_or_default();
        state.peak_bytes = state.peak_bytes.max(peak);
        match done {
            0 => {}
            1 => {
                memory::give_back();
                memory::reset_peak();
                state.before = memory::resident_bytes().unwrap_or_default();
            }
            _ => {
                if done == 2 {
                    let needed = peak.saturating_sub(state.before);
                    state.activation_bytes = needed.saturating_sub(self.gradients);
                }
                state.fastest = state.fastest.min(state.begun.elapsed().as_secs_f64());
            }
        }
        state.begun = Instant::now();
    }

    fn note(&self, _text: &str) {}
}
