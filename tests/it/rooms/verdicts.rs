//! Evaluations whose verdict is known: the teacher's pictures against themselves, against those of another seed, against noise,
//! and against pictures of other prompts. No U-Net is loaded by the evaluation: the galleries are there already.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use image::RgbImage;
use laptop_diff::backend::Random;
use laptop_diff::base::{Interrupt, progress::Silent};
use laptop_diff::data::{Encoder, pictures};
use laptop_diff::metric::{
    self, Candidate, Evaluation, Gallery, Judge, Metric, MetricError, Outcome, Outside, Part, Reference,
    picture_path,
};
use laptop_diff::model::{ModelDirectory, PictureModel, ScorerFolders, ScorerKind};
use laptop_diff::sample::{self, Generator, NoiseSchedule};

type Fallible = Result<(), Box<dyn std::error::Error>>;

const PROMPTS: usize = 12;
const SEEDS: usize = 2;
const METRICS: [&str; 8] =
    ["clip-score", "pick-score", "hps-v2", "image-reward", "seed-diversity", "cmmd", "fd-dinov2", "fid"];

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nano-sd")
}

/// What a model's gallery shows for a prompt and a seed.
fn shown(model: &str, prompt: usize, seed: usize) -> Result<RgbImage, Box<dyn std::error::Error>> {
    let path = |index: usize| nano().join(format!("pictures/{index:02}.png"));
    let turned = |picture: RgbImage| match seed {
        0 => picture,
        _ => image::imageops::flip_horizontal(&picture),
    };
    Ok(match model {
        "teacher" | "again" => turned(pictures::read(&path(prompt))?),
        // Every picture is that of the next prompt.
        "shifted" => turned(pictures::read(&path((prompt + 1) % PROMPTS))?),
        _ => {
            let mut state = (prompt * SEEDS + seed) as u32 + 1;
            RgbImage::from_fn(64, 64, |_, _| {
                image::Rgb([(); 3].map(|()| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                }))
            })
        }
    })
}

/// The captions of the small model's pictures.
fn prompts() -> Result<Vec<String>, std::io::Error> {
    let captions =
        (0..PROMPTS).map(|index| fs::read_to_string(nano().join(format!("pictures/{index:02}.txt"))));
    captions.map(|text| Ok(text?.trim().to_owned())).collect()
}

/// Evaluates some models whose pictures are [`shown`].
fn evaluate(
    models: &[&str],
    metrics: &[&'static dyn Metric],
    (reference, outside): (Option<&Reference<'_>>, Option<&Outside>),
    (small_sets, output): (bool, &Path),
) -> Result<Outcome, Box<dyn std::error::Error>> {
    evaluate_galleries(models, metrics, &shown, (reference, outside), (small_sets, output))
}

/// What a model's gallery shows for a prompt and a seed.
type Show<'a> = dyn Fn(&str, usize, usize) -> Result<RgbImage, Box<dyn std::error::Error>> + 'a;

/// Evaluates some models whose pictures `show` gives.
fn evaluate_galleries(
    models: &[&str],
    metrics: &[&'static dyn Metric],
    show: &Show<'_>,
    (reference, outside): (Option<&Reference<'_>>, Option<&Outside>),
    (small_sets, output): (bool, &Path),
) -> Result<Outcome, Box<dyn std::error::Error>> {
    let directory = ModelDirectory::open(&nano())?;
    let encoder = Encoder::open(&directory, DType::F32, &Device::Cpu)?;
    let prompts = prompts()?;
    let conditioning = encoder.encode(&prompts)?;
    let place = |name: &str| nano().join(name);
    let load =
        |folder: PathBuf| move || PictureModel::load(&ScorerFolders::one(&folder), DType::F32, &Device::Cpu);
    let loaders = ["scorer", "scorers/dinov2", "scorers/inception", "scorers/image-reward"]
        .map(|name| load(place(name)));
    let kinds = [ScorerKind::Clip, ScorerKind::DinoV2, ScorerKind::Inception, ScorerKind::ImageReward];
    let of = |kind: ScorerKind| {
        metrics.iter().filter(|metric| metric.scorers()[0] == kind).map(|metric| metric.name()).collect()
    };
    let judges: Vec<Judge<'_>> = kinds
        .into_iter()
        .zip(&loaders)
        .map(|(kind, load)| Judge { name: kind.in_words(), kind, metrics: of(kind), load })
        .collect();
    let never = || panic!("no U-Net is needed");
    let candidates: Vec<Candidate<'_>> =
        models.iter().map(|&name| Candidate { name, load: &never }).collect();
    for (model, &name) in models.iter().enumerate() {
        for (seed, prompt) in (0..SEEDS).flat_map(|seed| (0..PROMPTS).map(move |prompt| (seed, prompt))) {
            let folder = output.join(format!("gallery-{model}-{seed}/images"));
            fs::create_dir_all(&folder)?;
            pictures::write(&picture_path(&folder, prompt), &show(name, prompt, seed)?)?;
        }
    }
    let evaluation = Evaluation {
        models: &candidates,
        teacher: "teacher",
        metrics,
        schedule: &NoiseSchedule::from_config(&directory.scheduler_config()?)?,
        sampler: sample::SAMPLERS[0],
        steps: 1,
        guidance_scale: 1.0,
        latent: [4, 16, 16],
        vae: Some(&directory.vae(DType::F32, &Device::Cpu)?),
        judges: &judges,
        prompts: &prompts,
        seeds: SEEDS,
        conditioning: &conditioning,
        unconditional: None,
        captions: &[],
        attributes: &BTreeMap::new(),
        reference,
        small_sets,
        differences: &BTreeMap::new(),
        outside,
        points: None,
        batch: 4,
        random: &Random::new(1, "test"),
    };
    let keep = |part: Part, fill: &metric::Fill<'_>| {
        if let Part::Gallery { model, seed } = part {
            return Ok(output.join(format!("gallery-{model}-{seed}")));
        }
        let folder = output.join(format!("{part:?}"));
        fs::create_dir_all(folder.join("checkpoint")).expect("a writable folder");
        fill(&folder, &folder.join("checkpoint"))?;
        Ok::<_, MetricError>(folder)
    };
    Ok(evaluation.run(&output.join("result"), &keep, &Silent, &Interrupt::default())?)
}

fn found(names: &[&str]) -> Vec<&'static dyn Metric> {
    names.iter().map(|name| metric::find(name).expect("it is in the table")).collect()
}

#[test]
fn the_same_pictures_retain_everything_and_noise_nothing() -> Fallible {
    let output = tempfile::tempdir()?;
    let models = ["teacher", "again", "shifted", "noise"];
    let outcome = evaluate(&models, &found(&METRICS), (None, None), (true, output.path()))?;
    let get =
        |model: &str, metric: &str| outcome.metrics.get(model, metric).expect("it was measured").clone();
    for metric in ["clip-score", "pick-score", "hps-v2", "image-reward", "seed-diversity"] {
        let same = get("again", metric).paired.expect("it is compared by prompt");
        assert_eq!(
            (same.difference.value, same.wins.value, same.deviation),
            (0.0, 50.0, Some(0.0)),
            "{metric}"
        );
    }
    // Only the CLIP is trained; the others measure something, but not quality.
    for metric in ["clip-score", "pick-score", "hps-v2"] {
        let retained =
            |model: &str| get(model, metric).retained.expect("the teacher is better than its floor");
        assert_eq!(retained("again").value, 100.0, "{metric}");
        for wrong in ["shifted", "noise"] {
            let (low, high) =
                (retained(wrong).low.expect("an interval"), retained(wrong).high.expect("as above"));
            assert!(high < 40.0 && low < 5.0, "{metric} of {wrong}: {low} to {high}");
            let wins = get(wrong, metric).paired.expect("by prompt").wins.value;
            assert!(wins < 20.0, "{metric} of {wrong}: better on {wins} %");
        }
    }
    for metric in ["cmmd", "fd-dinov2", "fid"] {
        let value = |model: &str| get(model, metric).value;
        assert_eq!(value("teacher"), 0.0);
        // The sets are equal, but for the order of sums; a shifted set is the same set.
        let noise = value("noise");
        for same in ["again", "shifted"] {
            assert!(value(same).abs() < 1e-4 * noise, "{metric} of {same}: {} of {noise}", value(same));
        }
        assert_eq!(get("noise", metric).count, PROMPTS * SEEDS);
    }
    let cmmd = get("noise", "cmmd");
    assert!(cmmd.low.is_some_and(|low| low > 0.0) && cmmd.high > Some(cmmd.value));
    assert_eq!(outcome.metrics.reference.as_deref(), Some("the pictures of teacher"));
    assert_eq!(get("noise", "image-reward").of_teacher, None, "its zero means nothing");
    Ok(())
}

/// Draws the prompts with the small model, with the noise of a seed.
fn drawn(seed: usize, output: &Path) -> Fallible {
    let directory = ModelDirectory::open(&nano())?;
    let encoder = Encoder::open(&directory, DType::F32, &Device::Cpu)?;
    let (prompts, schedule) = (prompts()?, NoiseSchedule::from_config(&directory.scheduler_config()?)?);
    let gallery = Gallery {
        prompts: &prompts,
        vae: &directory.vae(DType::F32, &Device::Cpu)?,
        conditioning: &encoder.encode(&prompts)?,
        unconditional: None,
        latent: [4, 16, 16],
        batch: PROMPTS,
        random: &Random::new(1, "test"),
        seed,
    };
    let unet = directory.unet(DType::F32, &Device::Cpu)?;
    let sampler = sample::find("dpm-solver++-2m")?;
    let generator = Generator { unet: &unet, schedule: &schedule, sampler, steps: 4, guidance_scale: 1.0 };
    Ok(gallery.draw(&generator, output, &Interrupt::default(), &Silent)?)
}

#[test]
fn another_seed_of_the_same_model_is_as_good() -> Fallible {
    let (pictures, output) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let place = |seed: usize| pictures.path().join(seed.to_string());
    (0..2 * SEEDS).try_for_each(|seed| drawn(seed, &place(seed)))?;
    let show = |model: &str, prompt: usize, seed: usize| match model {
        "noise" => shown(model, prompt, seed),
        "reseeded" => Ok(pictures::read(&picture_path(&place(SEEDS + seed).join("images"), prompt))?),
        _ => Ok(pictures::read(&picture_path(&place(seed).join("images"), prompt))?),
    };
    let metrics = found(&["pick-score", "cmmd"]);
    let models = ["teacher", "reseeded", "noise"];
    let outcome = evaluate_galleries(&models, &metrics, &show, (None, None), (true, output.path()))?;
    let get = |model: &str, metric: &str| outcome.metrics.get(model, metric).expect("measured").clone();
    let score = get("reseeded", "pick-score");
    let paired = score.paired.expect("it is compared by prompt");
    let retained = score.retained.expect("the teacher is better than its floors");
    for (what, of, truth) in
        [("difference", paired.difference, 0.0), ("wins", paired.wins, 50.0), ("retained", retained, 100.0)]
    {
        let (low, high) = (of.low.expect("an interval"), of.high.expect("as above"));
        assert!(low <= truth && truth <= high && low < high, "{what}: {of:?}");
    }
    // The pictures differ, and far less than noise does.
    let (own, noise) = (get("reseeded", "cmmd"), get("noise", "cmmd"));
    assert!(own.value > 0.0 && own.value < 0.1 * noise.value, "{own:?} {noise:?}");
    let lost = get("noise", "pick-score");
    assert!(lost.retained.is_some_and(|kept| kept.high < Some(25.0)), "{lost:?}");
    assert!(lost.floor.is_some() && lost.noise.is_some() && lost.floor != lost.noise, "{lost:?}");
    Ok(())
}

#[test]
fn real_pictures_are_a_reference_for_the_teacher_too() -> Fallible {
    let output = tempfile::tempdir()?;
    let real: Vec<PathBuf> = (12..24).map(|index| nano().join(format!("pictures/{index:02}.png"))).collect();
    let reference = Reference { name: "pictures", pictures: &real };
    let outcome = evaluate(
        &["teacher", "noise"],
        &found(&["cmmd", "fid"]),
        (Some(&reference), None),
        (true, output.path()),
    )?;
    for metric in ["cmmd", "fid"] {
        let value = |model: &str| outcome.metrics.get(model, metric).expect("measured").value;
        assert!(0.0 < value("teacher") && value("teacher") < value("noise"), "{metric}");
    }
    assert_eq!(outcome.metrics.reference.as_deref(), Some("12 pictures in pictures"));

    let refused = evaluate(&["teacher"], &found(&["fid"]), (None, None), (false, output.path()));
    let error = refused.expect_err("24 pictures are too few").to_string();
    assert_eq!(error, "fid needs 5000 pictures of each model, but there are 24");
    Ok(())
}

#[test]
fn scores_from_outside_stand_in_the_same_table() -> Fallible {
    let output = tempfile::tempdir()?;
    let values = |scale: f64| (0..PROMPTS).map(|prompt| scale * (1.0 + prompt as f64)).collect::<Vec<f64>>();
    let scores = BTreeMap::from([("teacher".to_owned(), values(1.0)), ("again".to_owned(), values(0.5))]);
    let outside = Outside {
        lines: (0..PROMPTS).map(|prompt| format!("{{\"prompt\":\"{prompt}\"}}")).collect(),
        styles: (0..PROMPTS).map(|prompt| ("photo".to_owned(), 10 * prompt)).collect(),
        scores: BTreeMap::from([("geneval".to_owned(), scores)]),
    };
    let outcome = evaluate(&["teacher", "again"], &[], (None, Some(&outside)), (true, output.path()))?;
    let again = outcome.metrics.get("again", "geneval").expect("it is in the table");
    assert_eq!((again.value, again.paired.map(|paired| paired.difference.value)), (3.25, Some(-3.25)));
    let result = output.path().join("result");
    let last = format!("pictures/again/{:05}", PROMPTS - 1);
    for path in ["samples/0000.png", "samples/0001.png"] {
        assert!(result.join(&last).join(path).is_file(), "{path}");
    }
    assert_eq!(fs::read_to_string(result.join(&last).join("metadata.jsonl"))?, "{\"prompt\":\"11\"}\n");
    assert!(result.join("hpsv2/teacher/photo/00110.jpg").is_file());
    Ok(())
}
