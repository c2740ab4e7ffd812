//! Calibration points and evaluations of the small Stable Diffusion in `examples/nano-sd`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::{Interrupt, Progress, progress::Silent};
use laptop_diff::data::picture::Buckets;
use laptop_diff::data::{
    Calibration, Captioned, DataError, Encoder, Points, Preparation, Rules, SampleFiles, SampleList,
    Trajectories, pictures, sources,
};
use laptop_diff::metric::{
    self, Better, Candidate, Evaluation, Judge, METRICS, Method, Metric, MetricError, Need, Outcome, Part,
    picture_path,
};
use laptop_diff::model::network::Conditioning;
use laptop_diff::model::unet::UNet;
use laptop_diff::model::vae::Autoencoder;
use laptop_diff::model::{ModelDirectory, ModelError, PictureModel, Scorer, ScorerFolders, ScorerKind};
use laptop_diff::sample::{self, Generator, Noise, NoiseSchedule};

type Fallible = Result<(), Box<dyn std::error::Error>>;

/// The model and its inputs, for all tests of this file.
struct Nano {
    directory: ModelDirectory,
    unet: UNet,
    schedule: NoiseSchedule,
    encoder: Encoder,
    vae: Autoencoder,
    scorer: Scorer,
    random: Random,
}

impl Nano {
    fn open() -> Result<Self, Box<dyn std::error::Error>> {
        let directory = ModelDirectory::open(&folder())?;
        Ok(Self {
            unet: directory.unet(DType::F32, &Device::Cpu)?,
            schedule: NoiseSchedule::from_config(&directory.scheduler_config()?)?,
            encoder: Encoder::open(&directory, DType::F32, &Device::Cpu)?,
            vae: directory.vae(DType::F32, &Device::Cpu)?,
            scorer: ScorerFolders::one(&folder().join("scorer")).load(DType::F32, &Device::Cpu)?,
            random: Random::new(1, "test"),
            directory,
        })
    }

    fn generator(&self, guidance_scale: f64) -> Generator<'_> {
        let (unet, schedule, sampler) = (&self.unet, &self.schedule, sample::SAMPLERS[0]);
        Generator { unet, schedule, sampler, steps: 4, guidance_scale }
    }

    fn without(&self, unit: &str) -> Result<UNet, ModelError> {
        Ok(self.unet.prune(&BTreeSet::from([unit.into()])).expect("nano-sd has the unit"))
    }
}

/// What was used and what was dropped of a checkpoint.
#[derive(Default)]
struct Watch(Mutex<Vec<String>>);

impl Watch {
    fn push(&self, text: String) {
        self.0.lock().expect("nobody panics while it holds this").push(text);
    }
}

impl Progress for Watch {
    fn length(&self, _total: u64, _unit: &'static str) {}
    fn position(&self, _done: u64) {}
    fn note(&self, _text: &str) {}
    fn resumed(&self, done: u64) {
        self.push(format!("resumed {done}"));
    }
    fn dropped(&self, file: &str, _reason: &str) {
        self.push(format!("dropped {file}"));
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nano-sd")
}

fn prompts(count: usize) -> Result<Vec<String>, Box<DataError>> {
    let mut prompts = laptop_diff::data::prompts::read(&folder().join("prompts/evaluation.txt"))?;
    prompts.truncate(count);
    Ok(prompts)
}

fn distance(a: &Tensor, b: &Tensor) -> candle_core::Result<f32> {
    (a - b)?.abs()?.max_all()?.to_scalar()
}

#[test]
fn guidance_of_one_is_none_and_batches_do_not_matter() -> Fallible {
    let nano = Nano::open()?;
    let texts = nano.encoder.encode(&prompts(2)?)?;
    let nothing = nano.encoder.unconditional("", 2)?;
    let run = |scale: f64, samples: &[usize], texts: &Conditioning, nothing: Option<&Conditioning>| {
        let noise = Noise { random: &nano.random, samples, latent: [4, 16, 16], device: &Device::Cpu };
        nano.generator(scale)
            .run::<sample::SampleError>(&noise, &["one", "two"], texts, nothing, &mut |_| Ok(()))
    };
    let plain = run(1.0, &[0, 1], &texts, None)?;
    assert_eq!(distance(&run(1.0, &[0, 1], &texts, Some(&nothing))?, &plain)?, 0.0);
    let guided = run(4.0, &[0, 1], &texts, Some(&nothing))?;
    assert!(distance(&guided, &plain)? > 0.01);

    let second = |tensor: &Tensor| tensor.narrow(0, 1, 1);
    let alone = Conditioning {
        encoder_hidden_states: second(&texts.encoder_hidden_states)?,
        text_embeds: None,
        time_ids: None,
    };
    let single = run(4.0, &[1], &alone, Some(&nano.encoder.unconditional("", 1)?))?;
    // Sums of another order: f32 rounding through four guided steps.
    assert!(distance(&single, &second(&guided)?)? < 1e-3);
    Ok(())
}

#[test]
fn points_lie_on_trajectories_and_survive_an_interruption() -> Fallible {
    let nano = Nano::open()?;
    let prompts = prompts(3)?;
    let trajectories = Trajectories {
        generator: nano.generator(2.0),
        latent: [4, 16, 16],
        encoder: &nano.encoder,
        prompts: &prompts,
        negative_prompt: "",
        samples: 7,
        per_trajectory: 2,
        batch: 2,
        random: &nano.random,
    };
    let (whole, cut) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let points = trajectories.points(whole.path(), &Silent, &Interrupt::default())?;
    assert_eq!(points.calibration.len(), 7);
    // Two points a trajectory, the prompts in turn.
    let expected = [0, 0, 1, 1, 2, 2, 0].map(|prompt: usize| prompts[prompt].clone());
    assert_eq!(points.prompts, expected);

    // All points of a trajectory stand for the same clean latents: those at its end.
    let Calibration { sample, noise, timestep, .. } = &points.calibration;
    let clean = nano.schedule.latents_in(sample, noise, timestep)?;
    assert!(distance(&clean.get(0)?, &clean.get(1)?)? < 1e-4);
    assert!(distance(&clean.get(0)?, &clean.get(2)?)? > 0.1);

    let interrupt = Interrupt::default();
    interrupt.ask();
    let stopped = trajectories.points(cut.path(), &Silent, &interrupt);
    assert!(matches!(stopped, Err(DataError::Interrupted(_))));
    // As if it had been interrupted after the first batch, which is damaged at first.
    let name = "trajectories-000000.safetensors";
    for name in [name, &format!(".{name}.digest")] {
        std::fs::copy(whole.path().join(name), cut.path().join(name))?;
    }
    let mut flipped = std::fs::read(whole.path().join(name))?;
    *flipped.last_mut().expect("a file of points has bytes") ^= 1;
    std::fs::write(cut.path().join(name), flipped)?;
    let watch = Watch::default();
    assert!(trajectories.points(cut.path(), &watch, &interrupt).is_err(), "the first batch is walked again");
    std::fs::copy(whole.path().join(name), cut.path().join(name))?;
    let digest = format!(".{name}.digest");
    std::fs::copy(whole.path().join(&digest), cut.path().join(&digest))?;
    let resumed = trajectories.points(cut.path(), &watch, &Interrupt::default())?;
    let told = watch.0.into_inner().expect("nobody panicked");
    assert_eq!(told, [format!("dropped {name}"), "resumed 2".to_owned()]);
    let (one, two) = (tempfile::tempdir()?, tempfile::tempdir()?);
    points.save(one.path())?;
    resumed.save(two.path())?;
    for file in ["calibration.safetensors", "prompts.json"] {
        assert_eq!(std::fs::read(one.path().join(file))?, std::fs::read(two.path().join(file))?, "{file}");
    }
    Ok(())
}

#[test]
fn points_come_from_pictures_too() -> Fallible {
    let nano = Nano::open()?;
    let interrupt = Interrupt::default();
    let place = folder().join("pictures");
    let rules = Rules::default();
    let list = SampleList::draw(sources::folder(&place, None)?, &place, rules, None, &nano.random)?;
    let files = SampleFiles {
        list: &list,
        vae: &nano.vae,
        preparation: &Preparation::new(Buckets::one((64, 64)), [255; 3], nano.vae.downscale()),
        batch: 8,
        device: &Device::Cpu,
        interrupt: &interrupt,
    };
    let captioned = Captioned::from_pictures(&files, rules, &nano.encoder, &Silent)?;
    assert_eq!(captioned.latents.dims()[1..], [4, 16, 16]);
    // The autoencoder brings back what it was given: pictures and latents are in the scale it expects.
    let first = &list.samples[0];
    let picture = pictures::to_tensor(&pictures::read(&place.join(&first.name))?, &Device::Cpu)?;
    let back = nano.vae.decode(&captioned.latents.narrow(0, 0, 1)?)?.get(0)?;
    let off = (back - picture)?.abs()?.mean_all()?.to_scalar::<f32>()?;
    assert!(off < 0.1, "pictures come back {off} away, of a range of 2");
    let Points { calibration, prompts } = captioned.points(&nano.schedule, 5, &nano.random)?;
    assert_eq!((calibration.len(), prompts[0].as_str()), (5, list.captions[first.caption].as_str()));
    Ok(())
}

/// The teacher, the teacher under another name, and a pruned teacher, with two pictures of each prompt.
fn evaluate(
    nano: &Nano,
    metrics: &[&'static dyn Metric],
    output: &Path,
    checkpoint: &Path,
) -> Result<Outcome, MetricError> {
    let prompts = prompts(6).map_err(|error| *error)?;
    let conditioning = nano.encoder.encode(&prompts)?;
    let unconditional = nano.encoder.unconditional("", prompts.len())?;
    let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect();
    let points = Captioned {
        latents: nano.random.normal("latents", 0, &[6, 4, 16, 16], &Device::Cpu)?,
        conditioning: conditioning.clone(),
        captions: prompts.clone(),
    }
    .points(&nano.schedule, 4, &nano.random)?;
    let of = |kind: ScorerKind| {
        let scored = metrics.iter().filter(|metric| metric.needs().contains(&Need::Scorer));
        scored.filter(|metric| metric.scorers()[0] == kind).map(|metric| metric.name()).collect()
    };
    let small = |name: &str| {
        let folder = folder().join("scorers").join(name);
        move || PictureModel::load(&ScorerFolders::one(&folder), DType::F32, &Device::Cpu)
    };
    let (dino, inception, reward) = (small("dinov2"), small("inception"), small("image-reward"));
    let clip = || Ok(PictureModel::Clip(nano.scorer.clone()));
    let judge = |name, kind, load| Judge { name, kind, metrics: of(kind), load };
    let judges: [Judge<'_>; 4] = [
        judge("a small CLIP", ScorerKind::Clip, &clip),
        judge("a small DINOv2", ScorerKind::DinoV2, &dino),
        judge("a small Inception", ScorerKind::Inception, &inception),
        judge("a small ImageReward", ScorerKind::ImageReward, &reward),
    ];
    Evaluation {
        models: &[
            Candidate { name: "pruned", load: &|| nano.without("up_blocks.1.attentions.1") },
            Candidate { name: "teacher", load: &|| nano.directory.unet(DType::F32, &Device::Cpu) },
            Candidate { name: "same", load: &|| Ok(nano.unet.clone()) },
        ],
        teacher: "teacher",
        metrics,
        schedule: &nano.schedule,
        sampler: sample::find("dpm-solver++-2m")?,
        steps: 4,
        guidance_scale: 3.0,
        latent: [4, 16, 16],
        vae: Some(&nano.vae),
        judges: &judges,
        reference: None,
        small_sets: true,
        differences: &BTreeMap::new(),
        outside: None,
        prompts: &prompts,
        seeds: 2,
        conditioning: &conditioning,
        unconditional: Some(&unconditional),
        captions: &[],
        attributes: &BTreeMap::from([(
            "shape".to_owned(),
            words(&["circle", "square", "triangle", "star", "cross", "ring", "heart", "moon"]),
        )]),
        points: Some(&points.calibration),
        batch: 4,
        random: &nano.random,
    }
    .run(
        output,
        &|part, fill| {
            let name = match part {
                Part::Gallery { model, seed } => format!("gallery-{model}-{seed}"),
                other => format!("{other:?}"),
            };
            let checkpoint = checkpoint.join(&name);
            // Written each time, so that only checkpoints are kept.
            std::fs::create_dir_all(&checkpoint).expect("a writable folder");
            let filled = output.join(name);
            std::fs::create_dir_all(&filled).expect("as above");
            fill(&filled, &checkpoint)?;
            Ok(filled)
        },
        &Silent,
        &Interrupt::default(),
    )
}

#[test]
fn an_evaluation_tells_models_apart_and_resumes() -> Fallible {
    let nano = Nano::open()?;
    let lasting: Vec<&'static dyn Metric> =
        METRICS.iter().copied().filter(|metric| metric.reproducible()).collect();
    let (output, checkpoint) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let outcome = evaluate(&nano, &lasting, output.path(), checkpoint.path())?;
    let get =
        |model: &str, metric: &str| outcome.metrics.get(model, metric).expect("it was measured").clone();

    for metric in &lasting {
        let (teacher, same) = (get("teacher", metric.name()), get("same", metric.name()));
        if matches!(metric.method(), Method::Set(_)) {
            // Equal sets, but for the rounding of sums.
            let far = get("pruned", metric.name()).value;
            assert!(
                teacher.value == 0.0 && same.value.abs() < 1e-3 * far,
                "{} {}",
                metric.name(),
                same.value
            );
            continue;
        }
        assert_eq!(teacher.value, same.value, "{}", metric.name());
        assert_eq!(teacher.of_teacher, None);
        if teacher.value != 0.0 && metric.has_zero() {
            assert_eq!(same.of_teacher, Some(100.0), "{}", metric.name());
        }
        if metric.needs().contains(&Need::Scorer) {
            let paired = same.paired.expect("it has a value per prompt");
            assert_eq!(
                (paired.difference.value, paired.wins.value, paired.deviation),
                (0.0, 50.0, Some(0.0))
            );
        }
    }
    assert_eq!(outcome.metrics.scorers["pick-score"], "a small CLIP");
    // The captions fit the pictures: the floor is clearly lower.
    let score = get("same", "pick-score");
    assert!(score.floor < Some(score.value) && get("teacher", "pick-score").floor == score.floor);
    assert_eq!(score.retained.map(|kept| (kept.value, kept.low)), Some((100.0, Some(100.0))));
    let pruned = get("pruned", "pick-score").retained.expect("as for the teacher");
    assert!(pruned.value < 100.0, "{pruned:?}");
    assert_eq!(get("teacher", "output-loss").value, 0.0);
    assert!(get("pruned", "output-loss").value > 0.0);
    let latents = |model: usize, seed: usize| {
        let path = output.path().join(format!("gallery-{model}-{seed}/latents/003.safetensors"));
        Ok::<_, candle_core::Error>(candle_core::safetensors::load(path, &Device::Cpu)?["latents"].clone())
    };
    let between = |seed| (latents(0, seed)? - latents(1, seed)?)?.sqr()?.mean_all()?.to_scalar::<f32>();
    let (by_hand, pruned) = ((between(0)? + between(1)?) / 2.0, &outcome.values.models[0]);
    let found = pruned.values["trajectory-loss"][3];
    assert!(found > 0.0 && (found / f64::from(by_hand) - 1.0).abs() < 1e-5, "{found} is not {by_hand}");
    assert!(get("pruned", "parameters").of_teacher < Some(100.0));
    assert!(get("pruned", "macs").of_teacher < Some(100.0));
    // The same cosine in two units.
    let ratio = get("teacher", "pick-score").value / get("teacher", "clip-score").value;
    assert!((ratio - nano.scorer.model.logit_scale() / 100.0).abs() < 1e-9);
    let order: Vec<_> = outcome.metrics.models.iter().map(|model| model.model.as_str()).collect();
    assert_eq!(order, ["pruned", "teacher", "same"]);

    // As if it had been interrupted while the pruned model drew its second batch.
    let (again, kept) = (tempfile::tempdir()?, checkpoint.path().join("gallery-0-0/images"));
    std::fs::remove_file(picture_path(&kept, 5))?;
    std::fs::remove_dir_all(checkpoint.path().join("gallery-2-1/images"))?;
    // The latents of a picture are lost.
    std::fs::remove_file(checkpoint.path().join("gallery-2-0/latents/002.safetensors"))?;
    // Another picture has taken the place of one of the teacher's.
    let teachers = checkpoint.path().join("gallery-1-0/images");
    std::fs::remove_file(picture_path(&teachers, 0))?;
    std::fs::copy(picture_path(&teachers, 1), picture_path(&teachers, 0))?;
    let resumed = evaluate(&nano, &lasting, again.path(), checkpoint.path())?;
    assert_eq!((&resumed.metrics, &resumed.values), (&outcome.metrics, &outcome.values));
    for model in order {
        for index in 0..6 {
            let read = |root: &Path, seed: &str| {
                std::fs::read(picture_path(&root.join("images").join(model).join(seed), index))
            };
            for seed in ["", "seed-1"] {
                assert_eq!(read(output.path(), seed)?, read(again.path(), seed)?, "{model} {index} {seed}");
            }
            assert_ne!(
                read(output.path(), "")?,
                read(output.path(), "seed-1")?,
                "the noise of a seed is its own"
            );
        }
    }
    Ok(())
}

#[test]
fn time_and_memory_are_kept_apart() -> Fallible {
    let nano = Nano::open()?;
    let (output, checkpoint) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let metrics = [metric::find("latency")?, metric::find("parameters")?];
    let outcome = evaluate(&nano, &metrics, output.path(), checkpoint.path())?;
    assert!(outcome.metrics.get("teacher", "latency").is_none());
    let latency = outcome.timings.get("teacher", "latency").expect("it was measured");
    assert!(latency.value > 0.0 && latency.count >= 3);
    assert!(outcome.values.models.iter().all(|model| !model.values.contains_key("latency")));
    Ok(())
}

#[test]
#[cfg(target_os = "linux")]
fn a_forward_pass_needs_more_memory_than_its_weights() -> Fallible {
    let nano = Nano::open()?;
    let (output, checkpoint) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let outcome = evaluate(&nano, &[metric::find("peak-memory")?], output.path(), checkpoint.path())?;
    // A container may forbid resetting the mark; then the row must say so.
    if let Some(reason) = outcome.timings.models[0].unavailable.get("peak-memory") {
        assert!(reason.contains("the system does not"), "{reason}");
        return Ok(());
    }
    let peak = outcome.timings.get("teacher", "peak-memory").expect("it was measured").value;
    assert!(peak >= (4 * nano.unet.parameters()) as f64, "{peak}");
    Ok(())
}

/// A metric that the device cannot measure.
struct Nowhere {
    reproducible: bool,
}

impl Metric for Nowhere {
    fn name(&self) -> &'static str {
        if self.reproducible { "nowhere" } else { "nowhere-timed" }
    }

    fn summary(&self) -> &'static str {
        "nothing"
    }

    fn unit(&self) -> &'static str {
        "B"
    }

    fn better(&self) -> Better {
        Better::Lower
    }

    fn reproducible(&self) -> bool {
        self.reproducible
    }

    fn method(&self) -> Method {
        Method::Network(|_, _| {
            Err(MetricError::Unavailable { metric: "nowhere", reason: "this device has no such thing" })
        })
    }
}

#[test]
fn a_metric_that_cannot_be_had_says_so_and_the_others_are_measured() -> Fallible {
    static KEPT: Nowhere = Nowhere { reproducible: true };
    static TIMED: Nowhere = Nowhere { reproducible: false };
    let nano = Nano::open()?;
    let (output, checkpoint) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let metrics: [&'static dyn Metric; 3] = [&KEPT, &TIMED, metric::find("parameters")?];
    let outcome = evaluate(&nano, &metrics, output.path(), checkpoint.path())?;
    for (file, name) in [(&outcome.metrics, "nowhere"), (&outcome.timings, "nowhere-timed")] {
        for model in &file.models {
            assert_eq!(
                model.unavailable.get(name).map(String::as_str),
                Some("this device has no such thing")
            );
            assert!(!model.metrics.contains_key(name));
        }
    }
    assert!(outcome.metrics.get("teacher", "parameters").is_some());
    // What was kept of a model is read back with the reason.
    let again = evaluate(&nano, &metrics, tempfile::tempdir()?.path(), checkpoint.path())?;
    assert_eq!(again.metrics, outcome.metrics);
    Ok(())
}
