//! DINOv2, Inception v3 and ImageReward against the packages of their authors, on random weights (tests/golden_scorers).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{D, DType, Device, Tensor};
use image::RgbImage;
use laptop_diff::metric::{cmmd, frechet};
use laptop_diff::model::{PictureModel, ScorerFolders};

use super::golden::folder;

type Fallible = Result<(), Box<dyn std::error::Error>>;

/// Compares a scorer in a folder with expected numbers in another.
type Check = fn((&Path, &Path)) -> Fallible;

/// Half precision in the files loses nothing; what is left is the order of f32 sums in up to fifty layers.
const TOLERANCE: f64 = 1e-4;

fn golden() -> PathBuf {
    folder().with_file_name("golden_scorers")
}

/// The folder of the small scorers and that of the expected numbers; the real ones, where a test is given them.
fn small() -> (PathBuf, PathBuf) {
    (folder().join("../../examples/nano-sd/scorers"), golden())
}

fn load(folder: &Path, name: &str) -> Result<PictureModel, Box<dyn std::error::Error>> {
    Ok(PictureModel::load(&ScorerFolders::one(&folder.join(name)), DType::F32, &Device::Cpu)?)
}

fn expected(folder: &Path, name: &str) -> candle_core::Result<HashMap<String, Tensor>> {
    candle_core::safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu)
}

/// `waves` of make.py.
fn waves(shape: (usize, usize, usize, usize)) -> candle_core::Result<Tensor> {
    let count = shape.0 * shape.1 * shape.2 * shape.3;
    let value = |index: usize| (0.37 * index as f64 + (0.011 * index as f64).sin()).sin() as f32;
    Tensor::from_vec((0..count).map(value).collect::<Vec<_>>(), shape, &Device::Cpu)
}

fn pictures() -> Result<Vec<RgbImage>, Box<dyn std::error::Error>> {
    let tensors = expected(&golden(), "pictures")?;
    let picture = |index: usize| {
        let tensor = &tensors[&format!("picture.{index}")];
        let (height, width, _) = tensor.dims3()?;
        let bytes = tensor.flatten_all()?.to_vec1::<u8>()?;
        Ok(RgbImage::from_raw(width as u32, height as u32, bytes).expect("three bytes per pixel"))
    };
    (0..2).map(picture).collect()
}

/// The distance of each row from the expected one, relative to its length.
#[expect(clippy::print_stdout, reason = "the output of a script")]
fn assert_close(what: &str, found: &Tensor, needed: &Tensor, tolerance: f64) -> Fallible {
    assert_eq!(found.dims(), needed.dims(), "{what}");
    let (found, needed) = (found.to_dtype(DType::F64)?, needed.to_dtype(DType::F64)?);
    let norm = |x: &Tensor| x.sqr()?.sum_keepdim(D::Minus1)?.sqrt();
    let off = norm(&(&found - &needed)?)?.broadcast_div(&norm(&needed)?)?.max_all()?.to_scalar::<f64>()?;
    println!("{what} {:?}: relative error {off:.1e}", needed.dims());
    assert!(off < tolerance, "{what} is {off} away");
    Ok(())
}

/// Every so many pixels of prepared pictures.
fn assert_prepared(model: &PictureModel, every: usize, needed: &Tensor) -> Fallible {
    let prepared = model.prepare(&pictures()?)?;
    let side = prepared.dim(2)?;
    let places: Vec<u32> = (0..side as u32).step_by(every).collect();
    let places = Tensor::new(places, &Device::Cpu)?;
    let found = prepared.index_select(&places, 2)?.index_select(&places, 3)?;
    let off = (found - needed)?.abs()?.max_all()?.to_scalar::<f32>()?;
    // Far below a step of one of 255.
    assert!(off < 1e-5, "a pixel is {off} away");
    Ok(())
}

fn dinov2((scorers, numbers): (&Path, &Path)) -> Fallible {
    let (model, expected) = (load(scorers, "dinov2")?, expected(numbers, "dinov2")?);
    let PictureModel::DinoV2(network) = &model else { panic!("it is a DINOv2") };
    assert_close(
        "features",
        &network.features(&waves((2, 3, 224, 224))?)?,
        &expected["features"],
        TOLERANCE,
    )?;
    assert_prepared(&model, 16, &expected["prepared"])?;
    let found = network.features(&model.prepare(&pictures()?)?)?;
    assert_close("picture features", &found, &expected["picture_features"], TOLERANCE)
}

fn inception((scorers, numbers): (&Path, &Path)) -> Fallible {
    let (model, expected) = (load(scorers, "inception")?, expected(numbers, "inception")?);
    let PictureModel::Inception(network) = &model else { panic!("it is an Inception") };
    assert_close(
        "features",
        &network.features(&waves((2, 3, 299, 299))?)?,
        &expected["features"],
        TOLERANCE,
    )?;
    assert_prepared(&model, 23, &expected["prepared"])?;
    let found = network.features(&model.prepare(&pictures()?)?)?;
    assert_close("picture features", &found, &expected["picture_features"], TOLERANCE)
}

fn image_reward((scorers, numbers): (&Path, &Path)) -> Fallible {
    let (model, expected) = (load(scorers, "image-reward")?, expected(numbers, "image-reward")?);
    let PictureModel::ImageReward(network, tokenizer) = &model else { panic!("it is an ImageReward") };
    let texts = std::fs::read_to_string(golden().join("image-reward-texts.json"))?;
    let texts: Vec<String> = serde_json::from_str(&texts)?;
    let ids = expected["ids"].to_dtype(DType::I64)?.to_vec2::<i64>()?;
    let side = model.prepare(&pictures()?)?.dim(2)?;
    let scores = |pictures: &Tensor| -> Result<Tensor, Box<dyn std::error::Error>> {
        let states = network.look(pictures)?;
        let mut scores = Vec::new();
        for row in 0..2 {
            for text in &texts {
                scores.push(network.score(&states.narrow(0, row, 1)?, &tokenizer.encode(text)?)?);
            }
        }
        Ok(Tensor::from_vec(scores, (2, texts.len()), &Device::Cpu)?)
    };
    for (text, ids) in texts.iter().zip(&ids) {
        // The reference pads with 0.
        let needed: Vec<u32> = ids.iter().map(|&id| id as u32).take_while(|&id| id != 0).collect();
        assert_eq!(tokenizer.encode(text)?, needed, "{text}");
    }
    assert_close("scores", &scores(&waves((2, 3, side, side))?)?, &expected["scores"], TOLERANCE)?;
    assert_prepared(&model, 16, &expected["prepared"])?;
    let found = scores(&model.prepare(&pictures()?)?)?;
    assert_close("picture scores", &found, &expected["picture_scores"], TOLERANCE)
}

/// The scores of the trained CLIP are compared elsewhere; this is for one of the real shape.
fn pick_score((scorers, numbers): (&Path, &Path)) -> Fallible {
    let processor = Some(folder().join("tokenizer"));
    let folders = ScorerFolders { model: scorers.join("pick-score"), processor };
    let (scorer, expected) = (folders.load(DType::F32, &Device::Cpu)?, expected(numbers, "pick-score")?);
    let unit = |x: Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?);
    let text = unit(scorer.model.text_features(&expected["ids"].to_dtype(DType::U32)?)?)?;
    let image = unit(scorer.model.image_features(&waves((2, 3, 224, 224))?)?)?;
    assert_close("text features", &text, &expected["text_embeds"], TOLERANCE)?;
    assert_close("picture features", &image, &expected["image_embeds"], TOLERANCE)?;
    let scores = (text.matmul(&image.t()?)? * scorer.model.logit_scale())?;
    assert_close("scores", &scores, &expected["scores"], TOLERANCE)
}

#[test]
fn features_of_dinov2_are_those_of_transformers() -> Fallible {
    let (scorers, numbers) = small();
    dinov2((&scorers, &numbers))
}

#[test]
fn features_of_inception_are_those_of_pytorch_fid() -> Fallible {
    let (scorers, numbers) = small();
    inception((&scorers, &numbers))
}

#[test]
fn scores_of_image_reward_are_those_of_its_package() -> Fallible {
    let (scorers, numbers) = small();
    image_reward((&scorers, &numbers))
}

#[test]
#[ignore = "needs scorers of the real shapes: tests/parity/scorers.sh"]
#[expect(clippy::print_stdout, reason = "the script's output is this")]
fn scorers_of_real_shapes_are_those_of_their_packages() -> Fallible {
    let folder = std::env::var_os("LAPTOP_DIFF_TEST_SCORERS").expect("it names the folder");
    let folder = Path::new(&folder);
    let checks: [(&str, Check); 4] = [
        ("dinov2", dinov2),
        ("inception", inception),
        ("image-reward", image_reward),
        ("pick-score", pick_score),
    ];
    let made = |name: &str| folder.join(format!("{name}.safetensors")).is_file();
    let there: Vec<_> = checks.into_iter().filter(|(name, _)| made(name)).collect();
    assert!(!there.is_empty(), "no expected numbers in {}", folder.display());
    for (name, check) in there {
        check((folder, folder))?;
        println!("{name} agrees");
    }
    Ok(())
}

/// Writes the tensors of safetensors files as the pickles that authors release.
const PICKLE: &str = "
import sys, torch
from safetensors.torch import load_file
for kind, source, target in zip(*[iter(sys.argv[1:])] * 3):
    tensors = load_file(source)
    if kind == 'open-clip':
        tensors = {'epoch': 3, 'state_dict': {'module.' + name: value for name, value in tensors.items()}}
    torch.save(tensors, target)
";

#[test]
#[ignore = "needs Python with torch in LAPTOP_DIFF_TEST_PYTHON"]
fn released_checkpoints_become_folders_with_the_same_tensors() -> Fallible {
    let python = std::env::var("LAPTOP_DIFF_TEST_PYTHON").expect("it is set");
    let run = |arguments: &[&OsStr]| -> Fallible {
        let output = Command::new(&python).args(arguments).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let (work, (scorers, _)) = (tempfile::tempdir()?, small());
    let open_clip = folder().with_file_name("golden_open_clip");
    let cases = [
        ("open-clip", open_clip.as_path(), "open_clip_model.safetensors", "open_clip_config.json"),
        ("image-reward", &scorers.join("image-reward"), "model.safetensors", "med_config.json"),
        ("inception", &scorers.join("inception"), "model.safetensors", ""),
    ];
    let checkpoint = |name: &str| work.path().join(name).join("checkpoint.pt");
    let mut pickle: Vec<OsString> = vec!["-c".into(), PICKLE.into()];
    for (name, from, weights, config) in &cases {
        std::fs::create_dir(work.path().join(name))?;
        if !config.is_empty() {
            std::fs::copy(from.join(config), work.path().join(name).join(config))?;
        }
        pickle.extend([name.into(), from.join(weights).into(), checkpoint(name).into()]);
    }
    run(&pickle.iter().map(OsString::as_os_str).collect::<Vec<_>>())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/convert-weights.py");
    for (name, from, weights, _) in cases {
        let to = work.path().join("converted").join(name);
        run(&[script.as_os_str(), checkpoint(name).as_os_str(), to.as_os_str()])?;
        let read = |folder: &Path| candle_core::safetensors::load(folder.join(weights), &Device::Cpu);
        let (released, converted) = (read(from)?, read(&to)?);
        assert_eq!(released.len(), converted.len(), "{name}");
        for (tensor, value) in released {
            let found = &converted[&tensor];
            assert_eq!(found.dtype(), value.dtype(), "{name}: {tensor}");
            let off = (found.to_dtype(DType::F64)? - value.to_dtype(DType::F64)?)?.abs()?.sum_all()?;
            assert_eq!(off.to_scalar::<f64>()?, 0.0, "{name}: {tensor}");
        }
        let processor = match name {
            "open-clip" => Some(folder().join("tokenizer")),
            "image-reward" => Some(from.to_owned()),
            _ => None,
        };
        PictureModel::check(&ScorerFolders { model: to, processor })?;
    }
    Ok(())
}

#[test]
fn distances_of_sets_are_those_of_pytorch_fid_and_of_the_authors_of_cmmd() -> Fallible {
    let sets = expected(&golden(), "sets")?;
    for name in ["many", "few"] {
        let set = |which: &str| sets[&format!("{name}.{which}")].clone();
        let (one, other) = (set("one"), set("other"));
        let needed = set("expected").to_vec1::<f64>()?;
        let unit = |x: &Tensor| {
            let x = x.to_dtype(DType::F64)?;
            x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?)
        };
        for (what, found, needed) in [
            ("frechet", frechet(&one, &other)?, needed[0]),
            ("cmmd", cmmd(&unit(&one)?, &unit(&other)?)?, needed[1]),
        ] {
            assert!((found / needed - 1.0).abs() < 1e-6, "{what} of {name}: {found} {needed}");
        }
        // Roots of eigenvalues that are 0 but for rounding, of variances of some hundred.
        assert!(frechet(&one, &one)?.abs() < 1e-4);
    }
    Ok(())
}
