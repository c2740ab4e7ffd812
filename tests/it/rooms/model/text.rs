//! The text side of a model directory against diffusers' SDXL pipeline.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use laptop_diff::base::Progress;
use laptop_diff::data::Encoder;
use laptop_diff::model::ModelDirectory;
use serde_json::{Value, json};

use super::golden::{Golden, folder, max_difference};

/// A model directory with SDXL's text side; its pictures are those of latents of 10 x 13.
fn write(directory: &Path, golden: &Golden, config: &Value) -> std::io::Result<()> {
    for (tokenizer, pad) in [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")] {
        fs::create_dir_all(directory.join(tokenizer))?;
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            fs::copy(folder().join("tokenizer").join(name), directory.join(tokenizer).join(name))?;
        }
        let special = json!({ "pad_token": pad }).to_string();
        fs::write(directory.join(tokenizer).join("special_tokens_map.json"), special)?;
    }
    for part in ["text_encoder", "text_encoder_2"] {
        fs::create_dir_all(directory.join(part))?;
        fs::write(directory.join(part).join("config.json"), config[part].to_string())?;
        let own =
            |(name, tensor): (String, _)| Some((name.strip_prefix(&format!("{part}."))?.to_owned(), tensor));
        let weights: HashMap<_, _> = golden.weights().into_iter().filter_map(own).collect();
        candle_core::safetensors::save(&weights, directory.join(part).join("model.safetensors"))
            .map_err(std::io::Error::other)?;
    }
    for (part, golden) in [("unet", "unet_sdxl"), ("vae", "vae")] {
        fs::create_dir_all(directory.join(part))?;
        fs::write(directory.join(part).join("config.json"), Golden::open(golden).config)?;
    }
    Ok(())
}

/// Remembers what it is told.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn length(&self, _: u64, _: &'static str) {}
    fn position(&self, _: u64) {}
    fn note(&self, text: &str) {
        self.0.lock().expect("nobody panics while it holds this").push(text.to_owned());
    }
}

#[test]
fn sdxl_reads_prompts_as_its_pipeline_does() -> Result<(), Box<dyn std::error::Error>> {
    let golden = Golden::open("sdxl_text");
    let config: Value = serde_json::from_str(&golden.config).expect("make.py wrote it");
    let prompts: Vec<String> = serde_json::from_value(config["prompts"].clone()).expect("a list of texts");
    let negative = config["negative_prompt"].as_str().expect("a text");
    let directory = tempfile::tempdir().expect("a temporary folder can be written");
    write(directory.path(), &golden, &config).expect("as above");
    let open = || -> Result<Encoder, Box<dyn std::error::Error>> {
        Ok(Encoder::open(&ModelDirectory::open(directory.path())?, DType::F32, &Device::Cpu)?)
    };

    let encoder = open()?;
    let both = encoder.encode(&prompts)?;
    golden.assert_close("encoder_hidden_states", &both.encoder_hidden_states);
    golden.assert_close("text_embeds", &both.text_embeds.expect("SDXL has them"));
    golden.assert_close("time_ids", &both.time_ids.expect("SDXL has them"));
    let without = encoder.unconditional(negative, 2)?;
    golden.assert_close("negative.encoder_hidden_states", &without.encoder_hidden_states);
    golden.assert_close("negative.text_embeds", &without.text_embeds.expect("SDXL has them"));
    golden.assert_close("time_ids", &without.time_ids.expect("SDXL has them"));

    // make.py saw to it that no negative prompt is zeros.
    let sum = |tensor: &Tensor| tensor.abs()?.sum_all()?.to_scalar::<f32>();
    let empty = encoder.unconditional("", 2)?;
    assert_eq!(sum(&empty.encoder_hidden_states)?, 0.0);
    assert_eq!(sum(&empty.text_embeds.expect("SDXL has them"))?, 0.0);
    golden.assert_close("time_ids", &empty.time_ids.expect("SDXL has them"));
    let index = json!({ "force_zeros_for_empty_prompt": false }).to_string();
    fs::write(directory.path().join("model_index.json"), index).expect("as above");
    let encoder = open()?;
    let (empty, encoded) = (encoder.unconditional("", 1)?, encoder.encode(&[""])?);
    assert_eq!(max_difference(&empty.encoder_hidden_states, &encoded.encoder_hidden_states), 0.0);
    assert!(sum(&empty.encoder_hidden_states)? > 0.0);

    let notes = Notes::default();
    let (short, long) = (prompts[0].as_str(), prompts[1].as_str());
    let longer = format!("{long} again");
    // A prompt that is given twice counts once.
    for prompts in [&[short, negative][..], &[short, long, long], &[long, short, &longer]] {
        encoder.note_truncated(prompts.iter().copied(), &notes)?;
    }
    let told = notes.0.into_inner().expect("nobody panicked");
    let one = "cut to 75 tokens: `the cat and the dog on the mat the cat a...` of 160";
    assert_eq!(told, [one.to_owned(), format!("{one}, and 1 more")]);
    Ok(())
}
