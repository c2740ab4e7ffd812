//! Scorers with OpenCLIP's names and configuration, against OpenCLIP; and scorers in two folders.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use laptop_diff::model::{ModelError, ScorerFolders};

use super::golden::{TOLERANCE, folder, max_difference};

type Fallible = Result<(), Box<dyn std::error::Error>>;

fn golden() -> PathBuf {
    folder().with_file_name("golden_open_clip")
}

fn scorer(model: &Path) -> ScorerFolders {
    ScorerFolders { model: model.to_owned(), processor: Some(folder().join("tokenizer")) }
}

/// Compares the features of texts and pictures with those of OpenCLIP.
fn assert_same(folder: &Path) -> Fallible {
    let scorer = scorer(folder).load(DType::F32, &Device::Cpu)?;
    let expected: HashMap<String, Tensor> =
        candle_core::safetensors::load(folder.join("expected.safetensors"), &Device::Cpu)?;
    let close = |name: &str, found: &Tensor| -> Fallible {
        let norm = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
        let needed = &expected[name];
        let off = f64::from(norm(&(found - needed)?)? / norm(needed)?);
        assert!(off < TOLERANCE, "{name} is {off} away");
        Ok(())
    };
    close("text_features", &scorer.model.text_features(&expected["ids"].to_dtype(DType::U32)?)?)?;
    close("image_features", &scorer.model.image_features(&expected["pictures"])?)?;
    let scale = f64::from(expected["logit_scale"].to_vec1::<f32>()?[0]);
    assert!((scorer.model.logit_scale() / scale - 1.0).abs() < TOLERANCE);
    Ok(())
}

#[test]
fn features_are_those_of_open_clip() -> Fallible {
    assert_same(&golden())
}

#[test]
#[ignore = "needs a model of a real shape: tests/golden_open_clip/make.py --shape ViT-H-14 FOLDER"]
fn features_of_a_real_shape_are_those_of_open_clip() -> Fallible {
    let folder = std::env::var_os("LAPTOP_DIFF_TEST_OPEN_CLIP").expect("it names the folder");
    assert_same(Path::new(&folder))
}

/// A copy of the golden model whose configuration is `change`d.
fn changed(change: impl FnOnce(&str) -> String) -> Result<String, ModelError> {
    let copy = tempfile::tempdir().expect("a temporary folder can be written");
    for name in ["open_clip_model.safetensors", "open_clip_config.json"] {
        fs::copy(golden().join(name), copy.path().join(name)).expect("as above");
    }
    let config = copy.path().join("open_clip_config.json");
    let text = change(&fs::read_to_string(&config).expect("text"));
    fs::write(&config, text).expect("as above");
    scorer(copy.path()).check().map(|(name, _)| name)
}

#[test]
fn a_configuration_is_read_as_open_clip_reads_it() {
    assert_eq!(changed(str::to_owned).expect("it fits"), "ViT-2x16/8 at 24 pixels");
    // As open_clip's own list of models has it, and with the head width that is the default.
    let bare = |text: &str| {
        let file: serde_json::Value = serde_json::from_str(text).expect("JSON");
        file["model_cfg"].to_string()
    };
    assert!(changed(bare).is_ok());
    let default_heads = changed(|text| text.replace("\"head_width\": 8,", "")).expect_err("64 is too wide");
    assert!(default_heads.to_string().contains("`head_width` 64 must divide `width` 16"), "{default_heads}");
    let pooled = changed(|text| text.replace("\"layers\": 2,", "\"layers\": 2, \"pool_type\": \"last\","));
    assert!(pooled.expect_err("it is not supported").to_string().contains("pool_type"));
    let padded =
        changed(|text| text.replacen('{', "{ \"preprocess_cfg\": { \"resize_mode\": \"longest\" },", 1));
    assert!(padded.expect_err("it is not supported").to_string().contains("`resize_mode` is longest"));
}

#[test]
fn what_a_scorer_lacks_comes_from_its_processor_or_is_assumed() -> Fallible {
    let (model, processor) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let nano = folder().join("../../examples/nano-sd/scorer");
    for entry in fs::read_dir(&nano)? {
        let path = entry?.path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let of_model = ["config.json", "model.safetensors"].contains(&name.as_str());
        let target = if of_model { &model } else { &processor };
        fs::copy(&path, target.path().join(name))?;
    }
    let alone = ScorerFolders::one(model.path()).check().expect_err("no tokenizer");
    assert!(alone.to_string().contains("contains no tokenizer"), "{alone}");
    let folders =
        ScorerFolders { model: model.path().to_owned(), processor: Some(processor.path().to_owned()) };
    assert_eq!(folders.check()?.1, None);
    let whole = ScorerFolders::one(&nano).load(DType::F32, &Device::Cpu)?;
    let parts = folders.load(DType::F32, &Device::Cpu)?;
    let picture = image::RgbImage::from_fn(80, 96, |x, y| image::Rgb([x as u8, y as u8, 99]));
    let (one, two) = (whole.preprocess.prepare(&picture)?, parts.preprocess.prepare(&picture)?);
    assert_eq!(max_difference(&one, &two), 0.0);
    fs::remove_file(processor.path().join("preprocessor_config.json"))?;
    let (_, assumed) = folders.check()?;
    assert!(assumed.is_some_and(|note| note.contains("64 pixels of its configuration")));
    Ok(())
}
