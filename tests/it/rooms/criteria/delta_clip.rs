//! The criterion that draws pictures, against a gallery drawn by hand; and what the stage says of missing blocks.

use super::model::{CPU, mean, without};
use crate::common::{Sandbox, expect_code, root};
use candle_core::DType;
use laptop_diff::backend::Random;
use laptop_diff::base::Interrupt;
use laptop_diff::base::progress::Silent;
use laptop_diff::data::{Encoder, pictures, prompts};
use laptop_diff::metric::{Gallery, cosines, picture_features, picture_path, text_features};
use laptop_diff::model::unet::UNet;
use laptop_diff::model::{ModelDirectory, ScorerFolders};
use laptop_diff::sample::{self, Generator, NoiseSchedule};
use laptop_diff::score::Scores;

const PIPELINE: &str = "\
format: 1
name: clip
seed: 7
stages:
  - { id: teacher, use: load, with: { model: '{nano}' } }
  - { id: points, use: calibrate, with: { model: teacher, prompts: '{nano}/prompts/calibration.txt', samples: 2, drawing: { steps: 2 } } }
  - id: scores
    use: score
    with:
      model: teacher
      calibration: points
      criteria: [output-loss, delta-clip]
      additivity-sets: 7
      delta-clip:
        scorer: '{nano}/scorer'
        prompts: '{nano}/prompts/evaluation.txt'
        pictures: 3
        drawing: { sampler: euler, steps: 2, guidance-scale: 2, batch: 2 }
";

/// The mean CLIP score of three pictures.
fn clip_score(directory: &ModelDirectory, unet: &UNet) -> Result<f64, Box<dyn std::error::Error>> {
    let nano = root().join("examples/nano-sd");
    let mut prompts = prompts::read(&nano.join("prompts/evaluation.txt"))?;
    prompts.truncate(3);
    let encoder = Encoder::open(directory, DType::F32, &CPU)?;
    let (conditioning, unconditional) = (encoder.encode(&prompts)?, encoder.unconditional("", 3)?);
    let schedule = NoiseSchedule::from_config(&directory.scheduler_config()?)?;
    let vae = directory.vae(DType::F32, &CPU)?;
    let scorer = ScorerFolders::one(&nano.join("scorer")).load(DType::F32, &CPU)?;
    let texts = text_features(&scorer, &prompts, &Silent, &Interrupt::default())?;
    let gallery = Gallery {
        prompts: &prompts,
        vae: &vae,
        conditioning: &conditioning,
        unconditional: Some(&unconditional),
        latent: [4, 16, 16],
        batch: 2,
        random: &Random::new(7, "scores"),
        seed: 0,
    };
    let sampler = sample::find("euler")?;
    let generator = Generator { unet, schedule: &schedule, sampler, steps: 2, guidance_scale: 2.0 };
    let folder = tempfile::tempdir()?;
    gallery.draw(&generator, folder.path(), &Interrupt::default(), &Silent)?;
    let mut drawn = Vec::new();
    for index in 0..prompts.len() {
        drawn.push(pictures::read(&picture_path(&folder.path().join("images"), index))?);
    }
    let cosines = cosines(&picture_features(&scorer, &drawn, &CPU, |_| String::new())?, &texts)?;
    Ok(mean(cosines.iter().map(|cosine| 100.0 * cosine.max(0.0))))
}

#[test]
fn delta_clip_is_the_drop_that_a_gallery_by_hand_shows() -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = Sandbox::new();
    sandbox.write("clip.yaml", PIPELINE);
    expect_code(&sandbox.run(&["run", "clip.yaml"]), 0);
    let scores = Scores::open(&sandbox.path("runs/clip/scores"))?;
    let page = std::fs::read_to_string(sandbox.path("runs/clip/report.html"))?;
    let agreement = &scores.additivity.as_ref().expect("it was asked for").agreement;
    for (name, label) in [
        ("output-loss", "sum of <code>output-loss</code>"),
        ("delta-clip", "sum of <code>delta-clip</code>"),
        ("gram", "Gram matrix"),
    ] {
        let row = format!(
            "<td>{label}</td><td class=\"number\">{:.3}</td><td class=\"number\">{:.3}</td>",
            agreement[name].r2, agreement[name].spearman
        );
        assert!(page.contains(&row), "{row}");
    }

    let directory = ModelDirectory::open(&root().join("examples/nano-sd"))?;
    let unet = directory.unet(DType::F32, &CPU)?;
    let with = clip_score(&directory, &unet)?;
    for place in [0, 5, unet.units().len() - 1] {
        let unit = &unet.units()[place];
        let drop = with - clip_score(&directory, &without(&unet, unit))?;
        let found = scores.units[place].scores["delta-clip"];
        assert!((found - drop).abs() < 1e-9, "{}: {found} or {drop}", unit.id);
    }
    assert!(scores.units.iter().any(|unit| unit.scores["delta-clip"].abs() > 0.1), "pictures did not change");
    Ok(())
}

#[test]
fn what_the_stage_lacks_is_said_with_its_place() {
    let sandbox = Sandbox::new();
    for (parameters, words) in [
        ("criteria: [delta-clip]", "delta-clip: { scorer: FOLDER, prompts: FILE }"),
        (
            "criteria: [diff-pruning], diff-pruning: { threshold: 1 }",
            "`diff-pruning.threshold` of stage `scores` (use: score): found `1.0`",
        ),
        ("timestep-weighted: { weighting: snr }", "unknown value `snr`"),
        ("criteria: [tailor]", "taylor"),
        ("diff-prunning: { threshold: 0.5 }", "did you mean `diff-pruning`"),
        ("magnitude: {}", "magnitude"),
        (
            "delta-clip: { scorer: s, prompts: p, drawing: { steps: 0 } }",
            "`delta-clip.drawing.steps` of stage `scores` (use: score): found `0`",
        ),
        ("delta-clip: { scorer: s, prompts: p, drawing: { sampler: eular } }", "did you mean `euler`"),
    ] {
        let text = format!(
            "format: 1\nname: wrong\nseed: 1\nstages:\n  - {{ id: scores, use: score, with: {{ model: m, calibration: c, {parameters} }} }}\n"
        );
        sandbox.write("wrong.yaml", &text);
        let output = sandbox.run(&["plan", "wrong.yaml"]);
        expect_code(&output, 3);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Lines are broken to the width of a terminal, with a rule at their left.
        let said = said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
        assert!(said.contains(words) && said.contains("wrong.yaml:5:"), "{parameters}: {said}");
    }
}
