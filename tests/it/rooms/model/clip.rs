//! CLIP and its tokenizer against transformers.

use std::collections::HashMap;

use candle_core::{DType, Device, Result};
use candle_nn::VarBuilder;
use image::RgbImage;
use laptop_diff::model::clip::{ClipConfig, ClipModel, ClipPreprocess, ClipTextModel, TextConfig};
use laptop_diff::model::clip::{ClipTokenizer, TokenizerError, write_for};
use serde::Deserialize;

use super::golden::{Golden, folder, max_difference};

fn text_config(golden: &Golden) -> TextConfig {
    serde_json::from_str(&golden.config).expect("transformers wrote it")
}

#[test]
fn text_states_are_those_of_transformers() -> Result<()> {
    let golden = Golden::open("text_encoder");
    let output = ClipTextModel::new(&text_config(&golden), golden.builder())?.forward(&ids(&golden)?)?;
    golden.assert_close("last_hidden_state", &output.last_hidden_state);
    golden.assert_close("pooled", &output.pooled);
    assert!(output.text_embeds.is_none());
    let golden = Golden::open("text_encoder_2");
    let output = ClipTextModel::new(&text_config(&golden), golden.builder())?.forward(&ids(&golden)?)?;
    golden.assert_close("penultimate", &output.penultimate_hidden_state);
    golden.assert_close("text_embeds", &output.text_embeds.expect("the weights have a projection"));
    Ok(())
}

fn ids(golden: &Golden) -> Result<candle_core::Tensor> {
    golden.input("ids").to_dtype(DType::U32)
}

/// transformers 5 leaves out `text_model.`.
#[test]
fn names_without_the_prefix_are_read() -> Result<()> {
    let golden = Golden::open("text_encoder");
    let bare: HashMap<_, _> = golden
        .weights()
        .into_iter()
        .map(|(name, tensor)| (name.trim_start_matches("text_model.").to_owned(), tensor))
        .collect();
    let vb = VarBuilder::from_tensors(bare, DType::F32, &Device::Cpu);
    let output = ClipTextModel::new(&text_config(&golden), vb)?.forward(&ids(&golden)?)?;
    golden.assert_close("pooled", &output.pooled);
    Ok(())
}

#[test]
fn a_token_beyond_the_vocabulary_is_an_error() -> Result<()> {
    let golden = Golden::open("text_encoder");
    let ids = candle_core::Tensor::new(&[[97u32, 99, 98]], &Device::Cpu)?;
    let error =
        ClipTextModel::new(&text_config(&golden), golden.builder())?.forward(&ids).expect_err("no token 99");
    assert!(error.to_string().contains("99"), "{error}");
    Ok(())
}

#[test]
fn features_and_logits_are_those_of_transformers() -> Result<()> {
    let golden = Golden::open("scorer");
    let config: ClipConfig = serde_json::from_str(&golden.config).expect("transformers wrote it");
    let model = ClipModel::new(&config, golden.builder())?;
    let text = model.text_features(&ids(&golden)?)?;
    let image = model.image_features(&golden.input("pictures"))?;
    golden.assert_close("text_features", &text);
    golden.assert_close("image_features", &image);
    let unit = |x: &candle_core::Tensor| x.broadcast_div(&x.sqr()?.sum_keepdim(1)?.sqrt()?);
    let logits = (unit(&text)?.matmul(&unit(&image)?.t()?)? * model.logit_scale())?;
    golden.assert_close("logits_per_text", &logits);
    Ok(())
}

#[test]
fn pictures_are_prepared_as_by_pillow() -> Result<()> {
    let golden = Golden::open("scorer");
    let picture = golden.input("picture"); // [3, 53, 80]
    let (_, height, width) = picture.dims3()?;
    let bytes = picture.permute((1, 2, 0))?.flatten_all()?.to_vec1::<u8>()?;
    let picture = RgbImage::from_raw(width as u32, height as u32, bytes).expect("as many bytes as pixels");
    let preprocess: ClipPreprocess =
        serde_json::from_str(r#"{"size": {"shortest_edge": 24}, "crop_size": 24}"#)
            .expect("both forms are read");
    let prepared = preprocess.prepare(&picture)?;
    let needed = golden.input("pictures").narrow(0, 0, 1)?.squeeze(0)?;
    // Pillow rounds to a byte after each of its two passes, we once: two steps of 1/255 by a deviation of 0.26.
    let difference = max_difference(&prepared, &needed);
    assert!(difference <= 2.1 / 255.0 / 0.26, "{difference}");
    Ok(())
}

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<String>,
    /// Ids by the padding token.
    ids: HashMap<String, Vec<Vec<u32>>>,
}

#[test]
fn ids_are_those_of_transformers() {
    let text = std::fs::read(folder().join("tokenizer/expected.json")).expect("the file is in git");
    let expected: Expected = serde_json::from_slice(&text).expect("make.py wrote it");
    let prompts: Vec<_> = expected.prompts.iter().map(String::as_str).collect();
    for (pad, rows) in expected.ids {
        let copy = tempfile::tempdir().expect("a temporary folder can be written");
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            std::fs::copy(folder().join("tokenizer").join(name), copy.path().join(name)).expect("as above");
        }
        let special = serde_json::json!({ "pad_token": { "content": pad, "lstrip": false } }).to_string();
        std::fs::write(copy.path().join("special_tokens_map.json"), special).expect("as above");
        let tokens =
            ClipTokenizer::open(copy.path()).expect("a whole folder").encode(&prompts).expect("any text");
        let found = tokens.ids.to_vec2::<u32>().expect("rows of ids");
        for ((prompt, row), needed) in prompts.iter().zip(&found).zip(&rows) {
            assert_eq!(row, needed, "{prompt:?} padded with {pad}");
        }
        assert_eq!(tokens.truncated.len(), 1, "{:?}", tokens.truncated);
        assert_eq!(tokens.truncated[0].0, prompts.len() - 1);
    }
}

#[derive(Deserialize)]
struct Added {
    prompts: Vec<String>,
    cases: Vec<AddedCase>,
}

/// One layout: the files that differ from the plain tokenizer, and the ids without padding.
#[derive(Deserialize)]
struct AddedCase {
    files: HashMap<String, String>,
    ids: Vec<Vec<u32>>,
}

#[test]
fn added_tokens_have_the_ids_of_transformers() {
    let text = std::fs::read(folder().join("added_tokens.json")).expect("the file is in git");
    let Added { prompts, cases } = serde_json::from_slice(&text).expect("make.py wrote it");
    let prompts: Vec<_> = prompts.iter().map(String::as_str).collect();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let copy = tempfile::tempdir().expect("a temporary folder can be written");
        if !case.files.contains_key("tokenizer.json") {
            for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
                std::fs::copy(folder().join("tokenizer").join(name), copy.path().join(name))
                    .expect("as above");
            }
        }
        for (name, text) in &case.files {
            std::fs::write(copy.path().join(name), text).expect("as above");
        }
        // A single file's tokenizer is copied; its words come along.
        let second = copy.path().join("copy");
        write_for(copy.path(), false, &second).expect("a whole folder");
        for place in [copy.path(), &second] {
            let tokens =
                ClipTokenizer::open(place).expect("a whole folder").encode(&prompts).expect("any text");
            for ((prompt, row), needed) in
                prompts.iter().zip(tokens.ids.to_vec2::<u32>().expect("rows")).zip(&case.ids)
            {
                let end = row[76];
                let row: Vec<u32> = row.into_iter().take_while(|id| *id != end).collect();
                assert_eq!(&row, needed, "{prompt:?} with {:?}", case.files.keys());
            }
        }
    }
}

#[test]
fn an_added_token_whose_id_leaves_a_gap_is_refused() {
    let copy = tempfile::tempdir().expect("a temporary folder can be written");
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(folder().join("tokenizer").join(name), copy.path().join(name)).expect("as above");
    }
    std::fs::write(copy.path().join("added_tokens.json"), r#"{"<cat-toy>": 9000}"#).expect("as above");
    let error = ClipTokenizer::open(copy.path()).expect_err("transformers would renumber it").to_string();
    assert!(error.contains("<cat-toy>") && error.contains("9000"), "{error}");
}

#[test]
fn a_folder_without_a_vocabulary_is_named() {
    let empty = tempfile::tempdir().expect("a temporary folder can be written");
    assert!(matches!(ClipTokenizer::open(empty.path()), Err(TokenizerError::Missing { .. })));
    std::fs::write(empty.path().join("tokenizer.json"), "{").expect("as above");
    assert!(matches!(ClipTokenizer::open(empty.path()), Err(TokenizerError::Read { .. })));
}
