//! Training data from the small Stable Diffusion in `examples/nano-sd`: what lies in it, and that an interruption or a
//! damaged shard leaves no trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Digest, Interrupt, Progress};
use laptop_diff::data::picture::Buckets;
use laptop_diff::data::sample::{Candidate, Found};
use laptop_diff::data::{
    Captions, DataError, Encoder, Encoding, LatentDrawing, Latents, Preparation, Rules, SampleFiles,
    SampleList, Texts, pictures, sources,
};
use laptop_diff::model::unet::UNetConfig;
use laptop_diff::model::{ModelDirectory, UNet};
use laptop_diff::sample::{Generator, NoiseSchedule, SAMPLERS};

use crate::common::root;

pub(super) type Outcome = Result<(), Box<dyn std::error::Error>>;

const CPU: Device = Device::Cpu;

/// The teacher, and three prompts of which two are the same.
pub(super) struct Nano {
    directory: ModelDirectory,
    unet: UNet,
    encoder: Encoder,
    schedule: NoiseSchedule,
}

impl Nano {
    pub(super) fn open() -> Result<Self, Box<dyn std::error::Error>> {
        let directory = ModelDirectory::open(&root().join("examples/nano-sd"))?;
        Ok(Self {
            unet: directory.unet(DType::F32, &CPU)?,
            encoder: Encoder::open(&directory, DType::F32, &CPU)?,
            schedule: NoiseSchedule::from_config(&directory.scheduler_config()?)?,
            directory,
        })
    }

    /// What the autoencoder's latents are multiplied by.
    pub(super) fn scaling_factor(&self) -> f64 {
        self.directory.vae_config().expect("it has one").scaling_factor()
    }

    /// Lets the teacher draw the samples into `folder`.
    fn draw(&self, list: &SampleList, folder: &Path, watch: &Watch) -> Outcome {
        let encoding = Encoding { list, folder, device: &CPU, progress: watch, interrupt: &watch.interrupt };
        let time_ids = encoding.texts(&self.encoder)?;
        let (unet, schedule, sampler) = (&self.unet, &self.schedule, SAMPLERS[0]);
        let drawing = LatentDrawing {
            generator: Generator { unet, schedule, sampler, steps: 1, guidance_scale: 2.0 },
            latent: [4, 16, 16],
            batch: 32,
            unconditional: &self.encoder.unconditional("", 1)?,
            random: &Random::new(3, "latents"),
        };
        encoding.draw(&drawing, time_ids.as_ref())?;
        Ok(encoding.finish()?)
    }
}

/// Asks for a stop once so many rows are done.
#[derive(Default)]
pub(super) struct Watch {
    interrupt: Interrupt,
    stop_at: Option<u64>,
    pub(super) notes: Mutex<Vec<String>>,
}

impl Progress for Watch {
    fn length(&self, total: u64, unit: &'static str) {
        Silent.length(total, unit);
    }

    fn position(&self, done: u64) {
        if self.stop_at == Some(done) {
            self.interrupt.ask();
        }
    }

    fn note(&self, text: &str) {
        self.notes.lock().expect("nobody panicked").push(text.to_owned());
    }
}

fn list() -> SampleList {
    let prompts = ["a red circle", "a blue star", "a red circle"].map(str::to_owned);
    // Two shards.
    SampleList::from_prompts(&prompts, Some(140))
}

/// The files of a folder, without the hidden digests.
fn bytes(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, std::io::Error> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let named = entries.into_iter().map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry));
    let seen = named.filter(|(name, _)| !name.starts_with('.'));
    seen.map(|(name, entry)| Ok((name, fs::read(entry.path())?))).collect()
}

#[test]
fn an_interrupted_run_and_a_damaged_shard_leave_no_trace() -> Outcome {
    let nano = Nano::open()?;
    let (whole, stopped) = (tempfile::tempdir()?, tempfile::tempdir()?);
    nano.draw(&list(), whole.path(), &Watch::default())?;
    let expected = bytes(whole.path())?;
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    let shards = ["latents-000000000.safetensors", "latents-000000128.safetensors"];
    assert_eq!(
        names,
        [
            "empty.safetensors",
            shards[0],
            shards[1],
            "latents.json",
            "samples.jsonl",
            "texts-000000000.safetensors"
        ]
    );

    for stop_at in [64, 128] {
        let watch = Watch { stop_at: Some(stop_at), ..Watch::default() };
        assert!(nano.draw(&list(), stopped.path(), &watch).is_err(), "it was asked to stop");
    }
    // A flipped bit in a number leaves a shard that can be read.
    let mut flipped = expected[shards[0]].clone();
    *flipped.last_mut().expect("a shard has bytes") ^= 1;
    for damaged in [&expected[shards[0]][..100], &flipped] {
        fs::write(stopped.path().join(shards[0]), damaged)?;
        nano.draw(&list(), stopped.path(), &Watch::default())?;
        assert_eq!(bytes(stopped.path())?, expected);
    }
    Ok(())
}

#[test]
fn captions_are_encoded_with_progress_and_can_be_stopped() -> Outcome {
    let nano = Nano::open()?;
    let captions: Vec<String> = (0..200).map(|number| format!("a red circle, {number}")).collect();
    let expected = nano.encoder.encode(&captions)?;
    let watch = Watch::default();
    let found = nano.encoder.encode_all(&captions, &watch, &watch.interrupt)?;
    let difference = (found.encoder_hidden_states - expected.encoder_hidden_states)?;
    assert_eq!(difference.abs()?.max_all()?.to_scalar::<f32>()?, 0.0);
    let watch = Watch { stop_at: Some(0), ..Watch::default() };
    let stopped = nano.encoder.encode_all(&captions, &watch, &watch.interrupt);
    assert!(matches!(stopped, Err(DataError::Interrupted(_))), "it was asked to stop after the first batch");
    Ok(())
}

#[test]
fn rows_have_their_captions_and_noise_of_their_own() -> Outcome {
    let nano = Nano::open()?;
    let folder = tempfile::tempdir()?;
    nano.draw(&list(), folder.path(), &Watch::default())?;
    let latents = Latents::open(folder.path())?;
    assert_eq!(
        (latents.rows(), latents.caption(1), latents.caption(5)),
        (140, "a blue star", "a red circle")
    );
    let batch = latents.fetch(&[5, 1, 0], &CPU)?;
    let texts = nano.encoder.encode(&["a red circle", "a blue star", "a red circle"])?;
    let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let states = |tensor: &Tensor| numbers(&tensor.to_dtype(DType::F32)?);
    assert_eq!(states(&batch.conditioning.encoder_hidden_states)?, states(&texts.encoder_hidden_states)?);
    assert_ne!(numbers(&batch.latents.get(0)?)?, numbers(&batch.latents.get(2)?)?);
    let empty = latents.unconditional(&CPU)?.encoder_hidden_states;
    assert_eq!(states(&empty)?, states(&nano.encoder.unconditional("", 1)?.encoder_hidden_states)?);
    Ok(())
}

#[test]
fn texts_without_pictures_are_what_random_captions_are_drawn_from() -> Outcome {
    let nano = Nano::open()?;
    let (data, texts) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let few = SampleList::from_prompts(&["a red circle", "a blue star"].map(str::to_owned), Some(3));
    nano.draw(&few, data.path(), &Watch::default())?;
    // Two shards, the second of which is made after a stop.
    let prompts: Vec<String> = (0..130).map(|number| format!("a green moon, {number}")).collect();
    let list = SampleList::from_prompts(&prompts, None);
    let encode = |watch: &Watch| {
        let (folder, interrupt) = (texts.path(), &watch.interrupt);
        let encoding = Encoding { list: &list, folder, device: &CPU, progress: watch, interrupt };
        encoding.only_texts(&nano.encoder).map_err(Box::new)
    };
    let stopped = encode(&Watch { stop_at: Some(128), ..Watch::default() });
    let stopped = stopped.expect_err("it was asked to stop between the shards");
    assert!(matches!(*stopped, DataError::Interrupted(_)), "{stopped}");
    encode(&Watch::default())?;
    assert_eq!(Texts::open(texts.path())?.count(), 130);

    let own = Latents::open(data.path())?;
    assert_eq!(own.random_captions(), 0..2);
    let latents = own.with_texts(texts.path(), nano.unet.config())?;
    assert_eq!((latents.random_captions(), latents.caption(1)), (2..132, "a blue star"));
    let batch = latents.fetch_with(&[0, 1, 2], &[131, 1, 2], &CPU)?;
    let expected = nano.encoder.encode(&["a green moon, 129", "a blue star", "a green moon, 0"])?;
    let difference = (batch.conditioning.encoder_hidden_states - expected.encoder_hidden_states)?;
    // The batches of the encoder are others.
    assert!(difference.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
    let other = UNetConfig::parse(r#"{ "cross_attention_dim": 12 }"#)?;
    let refused =
        Latents::open(data.path())?.with_texts(texts.path(), &other).err().map(|error| error.to_string());
    assert!(refused.is_some_and(|error| error.contains("needs 12 numbers for each token")));
    Ok(())
}

/// A folder of pictures of these sides, each with a caption.
fn folder_of(sides: &[(u32, u32)]) -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    for (index, &(width, height)) in sides.iter().enumerate() {
        let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 80]));
        pictures::write(&folder.path().join(format!("{index:03}.png")), &picture)?;
        fs::write(folder.path().join(format!("{index:03}.txt")), format!("caption {}", index % 2))?;
    }
    Ok(folder)
}

/// Encodes what was found, at 64x64 pixels or in buckets of that area.
pub(super) fn encode(
    nano: &Nano,
    found: Found,
    (buckets, rules): (Buckets, Rules),
    folder: &Path,
    watch: &Watch,
) -> Outcome {
    let list = SampleList::draw(found, Path::new("source"), rules, None, &Random::new(1, "latents"))?;
    let vae = nano.directory.vae(DType::F32, &CPU)?;
    let interrupt = &watch.interrupt;
    let encoding = Encoding { list: &list, folder, device: &CPU, progress: watch, interrupt };
    let preparation = Preparation::new(buckets, [255; 3], vae.downscale());
    let files =
        SampleFiles { list: &list, vae: &vae, preparation: &preparation, batch: 3, device: &CPU, interrupt };
    let time_ids = encoding.texts(&nano.encoder)?;
    encoding.files(&files, time_ids.as_ref(), rules)?;
    Ok(encoding.finish()?)
}

pub(super) fn one_size() -> (Buckets, Rules) {
    (Buckets::one((64, 64)), Rules::default())
}

#[test]
fn pictures_become_their_latents() -> Outcome {
    let nano = Nano::open()?;
    let (source, folder) = (folder_of(&[(64, 64), (80, 80), (64, 64)])?, tempfile::tempdir()?);
    encode(&nano, sources::folder(source.path(), None)?, one_size(), folder.path(), &Watch::default())?;
    let latents = Latents::open(folder.path())?;
    assert_eq!((latents.rows(), latents.caption(2)), (3, "caption 0"));
    let vae = nano.directory.vae(DType::F32, &CPU)?;
    let picture = pictures::to_tensor(&pictures::read(&source.path().join("002.png"))?, &CPU)?;
    let expected = vae.encode(&picture.unsqueeze(0)?)?;
    let found = latents.fetch(&[2], &CPU)?.latents;
    // Batches of another size may be summed in another order.
    let far = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(far < 1e-4, "{far}");
    let list = fs::read_to_string(folder.path().join("samples.jsonl"))?;
    let line: serde_json::Value = serde_json::from_str(list.lines().nth(1).expect("three samples"))?;
    assert_eq!((line["sample"].as_str(), line["caption"].as_str()), (Some("001.png"), Some("caption 1")));
    let bytes = fs::read(source.path().join("001.png"))?;
    assert_eq!(line["digest"].as_str(), Some(Digest::of(&bytes).to_string().as_str()));
    assert_eq!(line["bytes"].as_u64(), Some(bytes.len() as u64));
    Ok(())
}

#[test]
fn pictures_stopped_anywhere_give_the_same_bytes_and_shapes_have_files_of_their_own() -> Outcome {
    let nano = Nano::open()?;
    let sides: Vec<(u32, u32)> = (0..150).map(|index| [(64, 64), (40, 70), (70, 40)][index % 3]).collect();
    let source = folder_of(&sides)?;
    fs::write(source.path().join("010.png"), b"\x89PNG\r\n\x1a\nno more")?;
    let buckets = || (Buckets::around((64, 64), 16), Rules::default());
    let (whole, stopped) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let found = || -> Result<_, Box<dyn std::error::Error>> { Ok(sources::folder(source.path(), None)?) };
    encode(&nano, found()?, buckets(), whole.path(), &Watch::default())?;
    for stop_at in [1, 77, 128, 140] {
        let watch = Watch { stop_at: Some(stop_at), ..Watch::default() };
        assert!(encode(&nano, found()?, buckets(), stopped.path(), &watch).is_err(), "it was asked to stop");
    }
    let expected = bytes(whole.path())?;
    // A damaged shard of the second shape.
    fs::write(stopped.path().join("latents-000000000-001.safetensors"), b"damaged")?;
    encode(&nano, found()?, buckets(), stopped.path(), &Watch::default())?;
    assert_eq!(bytes(stopped.path())?, expected);

    let latents = Latents::open(whole.path())?;
    let shapes = latents.shapes();
    assert_eq!((latents.rows(), latents.largest_size()), (149, (16, 16)));
    for (shape, size) in [(12, 20), (16, 16), (20, 12)].into_iter().enumerate() {
        let rows: Vec<usize> = (0..149).filter(|&row| shapes[row] == shape).collect();
        assert!(rows.len() >= 49, "{rows:?}");
        assert_eq!(latents.fetch(&rows, &CPU)?.latents.dims()[2..], [size.0, size.1]);
    }
    assert!(latents.fetch(&[0, 60], &CPU).is_err(), "rows of two shapes are no batch");
    Ok(())
}

#[test]
fn repeats_are_rows_and_skipped_samples_are_listed() -> Outcome {
    let nano = Nano::open()?;
    let (source, folder) = (folder_of(&[(64, 64), (64, 64)])?, tempfile::tempdir()?);
    let mut found = sources::folder(source.path(), None)?;
    found.candidates[1].repeats = 3;
    let lost = Candidate { name: "lost.png".into(), ..found.candidates[0].clone() };
    let place = laptop_diff::data::sample::Place::File(source.path().join("lost.png"));
    found.candidates.push(Candidate { place, ..lost });
    let strict = encode(&nano, found_again(&found), one_size(), folder.path(), &Watch::default());
    let error = strict.expect_err("one of three is more than 1 %").to_string();
    assert!(
        error.starts_with("1 of 3 samples are skipped, more than 1 %: lost.png (No such file"),
        "{error}"
    );
    let rules = Rules { captions: Captions::Required, max_skipped: "34 %".parse()? };
    let watch = Watch::default();
    encode(&nano, found, (Buckets::one((64, 64)), rules), folder.path(), &watch)?;
    let latents = Latents::open(folder.path())?;
    let captions: Vec<&str> = (0..latents.rows()).map(|row| latents.caption(row)).collect();
    assert_eq!(captions, ["caption 0", "caption 1", "caption 1", "caption 1"]);
    assert_eq!(latents.fetch(&[3, 0], &CPU)?.latents.dims(), [2, 4, 16, 16]);
    let list = fs::read_to_string(folder.path().join("samples.jsonl"))?;
    let last: serde_json::Value = serde_json::from_str(list.lines().last().expect("three samples"))?;
    assert!(last["skipped"].as_str().is_some_and(|reason| reason.starts_with("No such file")), "{last}");
    let notes = watch.notes.lock().expect("nobody panicked").join("\n");
    assert!(notes.contains("1 of 3 samples skipped: lost.png (No such file"), "{notes}");
    Ok(())
}

fn found_again(found: &Found) -> Found {
    Found { candidates: found.candidates.clone(), left_out: found.left_out.clone(), notes: Vec::new() }
}
