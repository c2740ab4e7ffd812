//! Retraining small random U-Nets: it learns, it stops and goes on without a trace, it refuses what cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress, Real, UnitId, Whole};
use laptop_diff::data::{LatentBatch, Latents};
use laptop_diff::distill::history::{self, HistoryLine};
use laptop_diff::distill::{
    self, Cadence, DistillError, DistillParameters, Distillation, Distilled, FeatureTaps, Normalisation,
    ValidationParameters, validation,
};
use laptop_diff::model::UNet;
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::sample::NoiseSchedule;
use laptop_diff::train::collective::Alone;
use laptop_diff::train::watch::{Drawn, Watcher, Watchers};
use laptop_diff::train::{ActivationCheckpointing, Moments, Trainable};

type Outcome = Result<(), Box<dyn Error>>;

const CPU: Device = Device::Cpu;

/// A teacher, its schedule, and latents on disk.
struct Setup {
    _folder: tempfile::TempDir,
    teacher: UNet,
    weights: BTreeMap<String, Tensor>,
    schedule: NoiseSchedule,
    data: Latents,
}

impl Setup {
    fn new() -> Result<Self, Box<dyn Error>> {
        // Two shards, so that rows are found across files.
        Self::of("epsilon", 7)
    }

    /// `copies` of 20 rows.
    fn of(prediction_type: &str, copies: u32) -> Result<Self, Box<dyn Error>> {
        let config = UNetConfig::parse(
            &serde_json::json!({
                "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 16],
                "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
                "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
                "layers_per_block": 2, "cross_attention_dim": 12, "attention_head_dim": 2, "norm_num_groups": 4,
            })
            .to_string(),
        )?;
        let random = Random::new(1, "classroom");
        let mut weights = BTreeMap::new();
        for (index, entry) in config.inventory().tensors().enumerate() {
            let tensor = random.normal("weight", index as u64, &entry.shape, &CPU)?;
            let tensor = match entry.shape[..] {
                // Norms start at one, biases are small, the rest keeps the variance.
                [_] if entry.name.contains("norm") && entry.name.ends_with("weight") => {
                    ((tensor * 0.1)? + 1.0)?
                }
                [_] => (tensor * 0.1)?,
                _ => (tensor * (entry.shape[1..].iter().product::<usize>() as f64).powf(-0.5))?,
            };
            weights.insert(entry.name.clone(), tensor);
        }
        let tensors = weights.clone().into_iter().collect();
        let teacher = UNet::new(config, VarBuilder::from_tensors(tensors, DType::F32, &CPU))?;
        let schedule = NoiseSchedule::from_config(&serde_json::json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
            "prediction_type": prediction_type,
        }))?;
        let folder = tempfile::tempdir()?;
        let (latents, conditioning): (Vec<_>, Vec<_>) = [(0, 13), (1, 7)]
            .into_iter()
            .map(|(index, rows)| {
                Ok((random.normal("latents", index, &[rows, 4, 8, 8], &CPU)?, text(&random, index, rows)?))
            })
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?
            .into_iter()
            .unzip();
        let rows = 20 * copies;
        let repeated = Tensor::new((0..rows).map(|row| row % 20).collect::<Vec<_>>(), &CPU)?;
        let batch = LatentBatch {
            latents: Tensor::cat(&latents, 0)?.index_select(&repeated, 0)?,
            conditioning: Conditioning::cat(&conditioning.iter().collect::<Vec<_>>())?.select(&repeated)?,
        };
        let captions: Vec<String> = (0..rows).map(|row| format!("caption {row}")).collect();
        Latents::save(folder.path(), &batch, &captions, &text(&random, 2, 1)?)?;
        let data = Latents::open(folder.path())?;
        Ok(Self { _folder: folder, teacher, weights, schedule, data })
    }

    /// The teacher without `removed`, on variables of its own.
    fn student(&self, removed: &[&str], parameters: &DistillParameters) -> Result<Trainable, Box<dyn Error>> {
        let removed: BTreeSet<UnitId> = removed.iter().map(|id| UnitId::from(*id)).collect();
        let config = self.teacher.config().prune(&removed)?;
        let mut variables = BTreeMap::new();
        for entry in config.inventory().tensors() {
            variables.insert(entry.name.clone(), Var::from_tensor(&self.weights[&entry.name].copy()?)?);
        }
        let frozen = |name: &str| parameters.freezes(name);
        Ok(Trainable::new(&config, variables, frozen, DType::F32, &CPU)?)
    }

    /// Retrains a student from the checkpoint in `folder`, if there is one.
    fn distil(
        &self,
        parameters: &DistillParameters,
        folder: &Path,
        watch: &Watch,
    ) -> Result<Distilled, Box<dyn Error>> {
        self.distil_this(&self.student(&REMOVED, parameters)?, parameters, folder, watch)
    }

    fn distil_this(
        &self,
        student: &Trainable,
        parameters: &DistillParameters,
        folder: &Path,
        watch: &Watch,
    ) -> Result<Distilled, Box<dyn Error>> {
        self.distil_watched(student, parameters, folder, watch, &Watchers::default())
    }

    fn distil_watched(
        &self,
        student: &Trainable,
        parameters: &DistillParameters,
        folder: &Path,
        watch: &Watch,
        watcher: &dyn Watcher,
    ) -> Result<Distilled, Box<dyn Error>> {
        let distillation = Distillation {
            teacher: &self.teacher,
            student,
            schedule: &self.schedule,
            data: &self.data,
            parameters,
            checkpointing: parameters.activation_checkpointing.unwrap_or_default(),
            device: &CPU,
            random: &Random::new(42, "retrained"),
            checkpoint: folder,
            cadence: watch.cadence,
            easel: None,
            watcher,
            progress: watch,
            interrupt: &watch.interrupt,
            collective: &Alone,
        };
        Ok(distillation.run()?)
    }
}

const REMOVED: [&str; 4] = [
    "down_blocks.0.attentions.1",
    "up_blocks.0.resnets.1",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "up_blocks.1.attentions.2.transformer_blocks.0.ff",
];

fn text(random: &Random, index: u64, rows: usize) -> Result<Conditioning, Box<dyn Error>> {
    let encoder_hidden_states = random.normal("text", index, &[rows, 5, 12], &CPU)?;
    Ok(Conditioning { encoder_hidden_states, text_embeds: None, time_ids: None })
}

fn few_steps() -> DistillParameters {
    DistillParameters {
        steps: Whole::new(12),
        batch_size: Whole::new(4),
        learning_rate: Real::new(2e-3),
        warm_up_steps: Whole::new(3),
        normalisation_batches: Whole::new(2),
        ..Default::default()
    }
}

/// Asks for a stop after one step, or copies the checkpoint folder as a power cut would leave it.
struct Watch {
    interrupt: Interrupt,
    stop_at: Option<u64>,
    copy_at: Option<(u64, Box<dyn Fn() + Sync>)>,
    cadence: Cadence,
}

impl Watch {
    fn nothing() -> Self {
        let cadence = Cadence { seconds: f64::INFINITY, ..Cadence::default() };
        Self { interrupt: Interrupt::default(), stop_at: None, copy_at: None, cadence }
    }
}

impl Progress for Watch {
    fn length(&self, total: u64, unit: &'static str) {
        Silent.length(total, unit);
    }

    fn position(&self, done: u64) {
        if self.stop_at == Some(done) {
            self.interrupt.ask();
        }
        if let Some((at, copy)) = &self.copy_at
            && *at == done
        {
            copy();
        }
    }

    fn note(&self, text: &str) {
        Silent.note(text);
    }
}

/// The weights' bits and the history's text.
type Bytes = (BTreeMap<String, Vec<u32>>, String);

fn bytes(distilled: &Distilled) -> Result<Bytes, Box<dyn Error>> {
    let mut weights = BTreeMap::new();
    for (name, tensor) in &distilled.weights {
        let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        weights.insert(name.clone(), numbers.into_iter().map(f32::to_bits).collect());
    }
    Ok((weights, fs::read_to_string(&distilled.history)?))
}

#[test]
fn the_loss_falls_and_every_term_is_told() -> Outcome {
    let setup = Setup::of("epsilon", 1)?;
    let folder = tempfile::tempdir()?;
    // Without the task: a random teacher predicts no noise, so learning to do so leads away from it.
    let parameters = DistillParameters {
        steps: Whole::new(90),
        task_weight: Real::new(0.0),
        ema_decay: Real::new(0.0),
        ..few_steps()
    };
    let distilled = setup.distil(&parameters, folder.path(), &Watch::nothing())?;
    let lines = history::read(&distilled.history)?;
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), (0..90).collect::<Vec<_>>());
    let mean = |lines: &[HistoryLine], pick: &dyn Fn(&HistoryLine) -> f32| {
        lines.iter().map(pick).sum::<f32>() / lines.len() as f32
    };
    let feature = |line: &HistoryLine| line.features.values().map(|loss| loss.weighted).sum::<f32>();
    for (name, pick) in
        [("output", &(|line: &HistoryLine| line.output) as &dyn Fn(&_) -> f32), ("feature", &feature)]
    {
        let (first, last) = (mean(&lines[..10], pick), mean(&lines[80..], pick));
        assert!(last < 0.6 * first, "{name} loss went from {first} to {last}");
    }
    let paths: Vec<_> = lines[0].features.keys().map(String::as_str).collect();
    assert_eq!(paths, ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]);
    for line in &lines {
        let sum = line.weighted.output + feature(line);
        assert!((line.total - sum).abs() < 1e-4 * sum, "step {}: {} is not {sum}", line.step, line.total);
    }
    assert!(lines[0].learning_rate < lines[2].learning_rate);
    Ok(())
}

#[test]
fn a_student_that_is_the_teacher_loses_nothing() -> Outcome {
    let setup = Setup::of("v_prediction", 7)?;
    let folder = tempfile::tempdir()?;
    let parameters = DistillParameters { steps: Whole::new(1), features: FeatureTaps::Units, ..few_steps() };
    let student = setup.student(&[], &parameters)?;
    let distilled = setup.distil_this(&student, &parameters, folder.path(), &Watch::nothing())?;
    let line = &history::read(&distilled.history)?[0];
    assert_eq!(line.output, 0.0);
    assert!(line.features.values().all(|loss| loss.plain == 0.0 && loss.weighted == 0.0));
    assert!(line.features.contains_key("mid_block.attentions.0"), "{:?}", line.features.keys());
    assert!(line.task > 0.0);
    Ok(())
}

#[test]
fn every_normalisation_starts_at_the_plain_sum() -> Outcome {
    let setup = Setup::new()?;
    let first_line = |normalisation| -> Result<HistoryLine, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let parameters = DistillParameters {
            steps: Whole::new(1),
            normalisation,
            normalisation_batches: Whole::new(1),
            ..few_steps()
        };
        let distilled = setup.distil(&parameters, folder.path(), &Watch::nothing())?;
        Ok(history::read(&distilled.history)?.remove(0))
    };
    let plain = first_line(Normalisation::None)?;
    let sum = |line: &HistoryLine| line.features.values().map(|loss| loss.weighted).sum::<f32>();
    for normalisation in [Normalisation::InverseNorm, Normalisation::InverseSquareNorm] {
        let line = first_line(normalisation)?;
        assert!((sum(&line) - sum(&plain)).abs() < 1e-5 * sum(&plain), "{normalisation:?}");
        assert_ne!(line.features, plain.features, "{normalisation:?}");
    }
    let alike = first_line(Normalisation::InitialLoss)?.weighted;
    for (kind, value) in [("task", alike.task), ("output", alike.output), ("features", alike.features)] {
        assert!((value - 1.0).abs() < 1e-5, "{kind} begins at {value}");
    }
    Ok(())
}

#[test]
fn frozen_tensors_keep_their_bytes() -> Outcome {
    let setup = Setup::new()?;
    let student = setup.student(&REMOVED, &few_steps())?;
    let before = student.weights();
    let run = |freeze: &[&str]| {
        let freeze = freeze.iter().map(|pattern| (*pattern).to_owned()).collect();
        let folder = tempfile::tempdir()?;
        setup.distil(&DistillParameters { freeze, ..few_steps() }, folder.path(), &Watch::nothing())
    };
    let weights = run(&["down_blocks.0.*", "conv_in.weight"])?.weights;
    assert_eq!(weights.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    for (name, weight) in &weights {
        let same = weight.flatten_all()?.to_vec1::<f32>()? == before[name].flatten_all()?.to_vec1::<f32>()?;
        let frozen = name.starts_with("down_blocks.0.") || name == "conv_in.weight";
        assert_eq!(same, frozen, "{name}");
    }
    for (freeze, words) in [(&["*"], "no tensor of the student to train"), (&["conv_in"], "`conv_in`")] {
        let error = run(freeze).expect_err("there is nothing to train, or nothing of that name").to_string();
        assert!(error.contains(words), "{error}");
    }
    Ok(())
}

#[test]
fn what_is_computed_again_changes_no_byte() -> Outcome {
    let setup = Setup::new()?;
    let run = |checkpointing| -> Result<_, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let parameters = DistillParameters { activation_checkpointing: Some(checkpointing), ..few_steps() };
        let distilled = setup.distil(&parameters, folder.path(), &Watch::nothing())?;
        let numbers = |weight: &Tensor| weight.flatten_all()?.to_vec1::<f32>();
        let weights = distilled.weights.values().map(numbers).collect::<Result<Vec<_>, _>>()?;
        Ok((weights, fs::read(&distilled.history)?))
    };
    let [none, stage, unit] = ActivationCheckpointing::ALL.map(run);
    let none = none?;
    assert!(none == stage? && none == unit?);
    Ok(())
}

#[test]
fn moments_in_8_bits_train_as_well() -> Outcome {
    let setup = Setup::new()?;
    let last = |moments| -> Result<f32, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let parameters = DistillParameters { steps: Whole::new(60), moments, ..few_steps() };
        let distilled = setup.distil(&parameters, folder.path(), &Watch::nothing())?;
        let lines = history::read(&distilled.history)?;
        Ok(lines[50..].iter().map(|line| line.total).sum::<f32>() / 10.0)
    };
    let (full, eight) = (last(Moments::F32)?, last(Moments::EightBit)?);
    assert!(eight < 1.1 * full, "{eight} with 8 bits, {full} with 32");
    Ok(())
}

#[test]
fn batches_are_drawn_as_asked() -> Outcome {
    let setup = Setup::new()?;
    let run = |change: fn(&mut DistillParameters)| -> Result<Vec<HistoryLine>, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let mut parameters = DistillParameters { learning_rate: Real::new(1e-18), ..few_steps() };
        change(&mut parameters);
        Ok(history::read(&setup.distil(&parameters, folder.path(), &Watch::nothing())?.history)?)
    };
    let plain = run(|_| {})?;
    let shuffled = run(|p| p.random_conditioning_lambda = Some(Real::new(1e-9)))?;
    let rarely = run(|p| p.random_conditioning_lambda = Some(Real::new(1e9)))?;
    let offset = run(|p| p.noise_offset = Real::new(0.5))?;
    let weighted = run(|p| p.min_snr_gamma = Some(Real::new(5.0)))?;
    let differ = |lines: &[HistoryLine], pick: fn(&HistoryLine) -> f32| {
        lines.iter().zip(&plain).filter(|(line, plain)| pick(line) != pick(plain)).count()
    };
    // Every sample has another caption with all but certainty, or none has.
    assert!(differ(&shuffled, |line| line.output) == 12 && differ(&rarely, |line| line.output) == 0);
    // Random captions leave the noise as it is; the offset changes it.
    assert_eq!(differ(&offset, |line| line.task), 12);
    // Only the task loss is weighted, and never by more than one.
    assert!(weighted.iter().zip(&plain).all(|(weighted, plain)| weighted.task <= plain.task));
    assert!(differ(&weighted, |line| line.task) > 0 && differ(&weighted, |line| line.output) == 0);
    Ok(())
}

#[test]
fn gradients_of_each_kind_are_measured_without_a_change() -> Outcome {
    let setup = Setup::new()?;
    let run = |every: Option<u32>, output_weight: f64| -> Result<_, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let parameters = DistillParameters {
            gradient_norms_every: every.map(Whole::new),
            gradient_accumulation: Whole::new(2),
            output_weight: Real::new(output_weight),
            ..few_steps()
        };
        let distilled = setup.distil(&parameters, folder.path(), &Watch::nothing())?;
        Ok((bytes(&distilled)?.0, history::read(&distilled.history)?))
    };
    let ((plain, _), (measured, lines)) = (run(None, 0.0)?, run(Some(5), 0.0)?);
    assert_eq!(plain, measured);
    for line in &lines {
        let Some(norms) = line.gradient_norms else {
            assert!(!line.step.is_multiple_of(5));
            continue;
        };
        assert!(line.step.is_multiple_of(5) && norms.output == 0.0 && norms.task > 0.0, "{norms:?}");
        // A sum is no longer than its parts together.
        assert!(line.gradient_norm <= 1.0001 * (norms.task + norms.features), "{norms:?}");
        let sum = line.weighted.task + line.weighted.output + line.weighted.features;
        assert!((sum - line.total).abs() < 1e-4 * line.total);
    }
    Ok(())
}

#[test]
fn an_interrupted_run_leaves_no_trace() -> Outcome {
    let setup = Setup::new()?;
    let undisturbed = tempfile::tempdir()?;
    let expected = bytes(&setup.distil(&few_steps(), undisturbed.path(), &Watch::nothing())?)?;

    let folder = tempfile::tempdir()?;
    // Twice at the same place: a run may be stopped before it did anything.
    for stop_at in [0, 1, 1, 5, 11] {
        let watch = Watch { stop_at: Some(stop_at), ..Watch::nothing() };
        let error = setup.distil(&few_steps(), folder.path(), &watch).expect_err("it was asked to stop");
        assert!(matches!(error.downcast_ref(), Some(DistillError::Interrupted(_))), "{error}");
    }
    assert_eq!(bytes(&setup.distil(&few_steps(), folder.path(), &Watch::nothing())?)?, expected);
    // And once more when all is done.
    assert_eq!(bytes(&setup.distil(&few_steps(), folder.path(), &Watch::nothing())?)?, expected);
    Ok(())
}

#[test]
fn a_killed_run_leaves_no_trace() -> Outcome {
    let setup = Setup::new()?;
    let undisturbed = tempfile::tempdir()?;
    let parameters = DistillParameters {
        history_every: Whole::new(2),
        gradient_accumulation: Whole::new(2),
        normalisation: Normalisation::InitialLoss,
        gradient_norms_every: Some(Whole::new(3)),
        random_conditioning_lambda: Some(Real::new(2.0)),
        noise_offset: Real::new(0.1),
        min_snr_gamma: Some(Real::new(5.0)),
        freeze: vec!["conv_in.*".to_owned()],
        ..few_steps()
    };
    let expected = bytes(&setup.distil(&parameters, undisturbed.path(), &Watch::nothing())?)?;

    for killed_at in [1, 4, 8] {
        let (folder, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let (from, to) = (folder.path().to_owned(), copy.path().to_owned());
        let watch = Watch {
            cadence: Cadence { steps: Some(3), seconds: f64::INFINITY, keep: 2 },
            copy_at: Some((killed_at, Box::new(move || copy_as_after_a_crash(&from, &to)))),
            ..Watch::nothing()
        };
        assert_eq!(bytes(&setup.distil(&parameters, folder.path(), &watch)?)?, expected);
        assert_eq!(
            bytes(&setup.distil(&parameters, copy.path(), &Watch::nothing())?)?,
            expected,
            "{killed_at}"
        );
    }
    Ok(())
}

/// Copies the files, with half a line at the end of the history and half a checkpoint in the making.
fn copy_as_after_a_crash(from: &Path, to: &Path) {
    let entries = fs::read_dir(from).expect("the checkpoint folder is there");
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        let mut bytes = fs::read(&path).expect("the file can be read");
        if path.ends_with("losses.jsonl") {
            bytes.extend_from_slice(br#"{"step":99,"task":0."#);
        }
        fs::write(to.join(path.file_name().expect("a file has a name")), bytes)
            .expect("the copy can be written");
    }
    let unfinished = to.join(".distill.safetensors.unfinished");
    fs::create_dir(&unfinished).expect("the copy can be written");
    fs::write(unfinished.join(".tmp123"), b"half").expect("the copy can be written");
}

#[test]
fn pieces_of_a_batch_add_up_to_it() -> Outcome {
    let setup = Setup::new()?;
    let run = |gradient_accumulation| -> Result<HistoryLine, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let parameters =
            DistillParameters { gradient_accumulation, normalisation: Normalisation::None, ..few_steps() };
        let distilled = setup.distil(&parameters, folder.path(), &Watch::nothing())?;
        Ok(history::read(&distilled.history)?.pop().expect("there are twelve steps"))
    };
    let (whole, pieces) = (run(Whole::new(1))?, run(Whole::new(2))?);
    // The same numbers are drawn; sums are taken in another order, twelve steps long.
    assert!((whole.total - pieces.total).abs() < 1e-3 * whole.total, "{} and {}", whole.total, pieces.total);
    assert!((whole.gradient_norm - pieces.gradient_norm).abs() < 1e-2 * whole.gradient_norm);
    Ok(())
}

#[test]
fn a_loss_that_is_no_number_stops_with_its_name() -> Outcome {
    let setup = Setup::new()?;
    let folder = tempfile::tempdir()?;
    let parameters =
        DistillParameters { learning_rate: Real::new(1e18), warm_up_steps: Whole::new(0), ..few_steps() };
    let error =
        setup.distil(&parameters, folder.path(), &Watch::nothing()).expect_err("no number survives that");
    match error.downcast_ref() {
        Some(DistillError::NotFinite { step: 1, term, .. }) => assert_eq!(term, "task loss"),
        _ => panic!("{error}"),
    }
    Ok(())
}

#[test]
fn validation_changes_no_weight_and_leaves_no_trace_of_an_interruption() -> Outcome {
    let setup = Setup::new()?;
    let parameters = |every: u32| DistillParameters {
        history_every: Whole::new(5),
        validation: Some(ValidationParameters {
            every: Whole::new(every),
            rows: Whole::new(6),
            ..ValidationParameters::default()
        }),
        ..few_steps()
    };
    let folder = tempfile::tempdir()?;
    let distilled = setup.distil(&parameters(4), folder.path(), &Watch::nothing())?;
    let (expected, validated) = (bytes(&distilled)?, fs::read_to_string(&distilled.validation)?);
    let lines = validation::read(folder.path())?;
    assert_eq!(lines.iter().map(|line| line.step).collect::<Vec<_>>(), [0, 4, 8, 12]);
    assert!(lines[0].output > 0.0 && lines[0].total != lines[3].total, "{lines:?}");
    let sum = lines[0].weighted.task + lines[0].weighted.output + lines[0].weighted.features;
    assert!((sum - lines[0].total).abs() < 1e-4 * sum);

    // Held-out rows are not trained on, but measuring them changes nothing.
    let other = tempfile::tempdir()?;
    assert_eq!(bytes(&setup.distil(&parameters(100), other.path(), &Watch::nothing())?)?, expected);
    let lines = validation::read(other.path())?;
    assert_eq!(
        lines.iter().map(|line| line.step).collect::<Vec<_>>(),
        [0, 12],
        "at the start and at the end"
    );
    let none = tempfile::tempdir()?;
    let without = DistillParameters { validation: None, ..parameters(4) };
    assert_ne!(bytes(&setup.distil(&without, none.path(), &Watch::nothing())?)?.0, expected.0);

    let folder = tempfile::tempdir()?;
    for stop_at in [1, 4, 4, 9] {
        let watch = Watch { stop_at: Some(stop_at), ..Watch::nothing() };
        assert!(setup.distil(&parameters(4), folder.path(), &watch).is_err());
    }
    let resumed = setup.distil(&parameters(4), folder.path(), &Watch::nothing())?;
    assert_eq!((bytes(&resumed)?, fs::read_to_string(&resumed.validation)?), (expected, validated));
    Ok(())
}

#[test]
fn more_steps_go_on_from_the_last_checkpoint_of_fewer() -> Outcome {
    let setup = Setup::new()?;
    // The last lines of twelve steps are in none of the files of twenty.
    let parameters = |steps: u32| DistillParameters {
        steps: Whole::new(steps),
        history_every: Whole::new(5),
        validation: Some(ValidationParameters {
            every: Whole::new(7),
            rows: Whole::new(4),
            ..Default::default()
        }),
        ..few_steps()
    };
    let (once, twice) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let all = |distilled: &Distilled| -> Result<_, Box<dyn Error>> {
        Ok((bytes(distilled)?, fs::read_to_string(&distilled.validation)?))
    };
    let expected = all(&setup.distil(&parameters(20), once.path(), &Watch::nothing())?)?;
    setup.distil(&parameters(12), twice.path(), &Watch::nothing())?;
    assert_eq!(all(&setup.distil(&parameters(20), twice.path(), &Watch::nothing())?)?, expected);
    Ok(())
}

/// Keeps what watchers are told.
#[derive(Default)]
struct Heard(Mutex<Vec<(u64, String)>>);

impl Watcher for Heard {
    fn begin(&self, step: u64) {
        self.0.lock().expect("nobody panicked").push((step, "begin".to_owned()));
    }

    fn numbers(&self, step: u64, numbers: &[(String, f64)]) {
        let mut heard = self.0.lock().expect("nobody panicked");
        heard.extend(numbers.iter().map(|(name, _)| (step, name.clone())));
    }

    fn picture(&self, picture: &Drawn<'_>) {
        self.0.lock().expect("nobody panicked").push((picture.step, picture.name.to_owned()));
    }

    fn end(&self) {}
}

#[test]
fn watchers_hear_of_every_line() -> Outcome {
    let setup = Setup::new()?;
    let (folder, heard) = (tempfile::tempdir()?, Heard::default());
    let validation = ValidationParameters { every: Whole::new(6), rows: Whole::new(4), ..Default::default() };
    let parameters =
        DistillParameters { history_every: Whole::new(4), validation: Some(validation), ..few_steps() };
    let watch = Watch::nothing();
    let student = setup.student(&REMOVED, &parameters)?;
    setup.distil_watched(&student, &parameters, folder.path(), &watch, &heard)?;
    let steps = |name: &str| -> Vec<u64> {
        let heard = heard.0.lock().expect("nobody panicked");
        heard.iter().filter(|(_, heard)| heard == name).map(|(step, _)| *step).collect()
    };
    assert_eq!(steps("begin"), [0]);
    assert_eq!(steps("loss/total"), [0, 4, 8, 11]);
    assert_eq!(steps("training/learning_rate"), [0, 4, 8, 11]);
    assert_eq!(steps("feature/mid_block"), [0, 4, 8, 11]);
    assert_eq!(steps("validation/output"), [0, 6, 12]);
    let longer = DistillParameters { steps: Whole::new(16), ..parameters };
    let student = setup.student(&REMOVED, &longer)?;
    setup.distil_watched(&student, &longer, folder.path(), &watch, &heard)?;
    assert_eq!(steps("begin"), [0, 12]);
    assert_eq!(steps("validation/output"), [0, 6, 12, 12, 16]);
    Ok(())
}

#[test]
fn a_training_that_diverges_ends_and_its_last_checkpoint_is_from_before() -> Outcome {
    let setup = Setup::new()?;
    let folder = tempfile::tempdir()?;
    // The rate rises until the loss does.
    let parameters = DistillParameters {
        steps: Whole::new(400),
        warm_up_steps: Whole::new(400),
        learning_rate: Real::new(1.0),
        ..few_steps()
    };
    let watch = Watch { cadence: Cadence { steps: Some(1), ..Watch::nothing().cadence }, ..Watch::nothing() };
    let error = setup.distil(&parameters, folder.path(), &watch).expect_err("no student survives that");
    let Some(DistillError::Diverged { step, last, total, median, .. }) = error.downcast_ref() else {
        panic!("{error}")
    };
    assert!(f64::from(*total) > 10.0 * median);
    let newest = distill::steps(folder.path())?[0];
    assert!(newest + 19 <= *step && newest > 20, "the checkpoint of step {newest}, diverged at {step}");
    assert_eq!(*last, format!("the checkpoint of step {newest} is sound"));
    Ok(())
}
