//! Training data from the small Stable Diffusion in `examples/nano-sd`: what lies in it, and that an interruption or a
//! damaged shard leaves no trace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use laptop_diff::backend::Random;
use laptop_diff::base::progress::Silent;
use laptop_diff::base::{Interrupt, Progress};
use laptop_diff::data::{DataError, Encoder, Encoding, LatentDrawing, Latents, SampleList, pictures};
use laptop_diff::model::{ModelDirectory, UNet};
use laptop_diff::sample::{Generator, NoiseSchedule, SAMPLERS};

use crate::common::root;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const CPU: Device = Device::Cpu;

/// The teacher, and three prompts of which two are the same.
struct Nano {
    directory: ModelDirectory,
    unet: UNet,
    encoder: Encoder,
    schedule: NoiseSchedule,
}

impl Nano {
    fn open() -> Result<Self, Box<dyn std::error::Error>> {
        let directory = ModelDirectory::open(&root().join("examples/nano-sd"))?;
        Ok(Self {
            unet: directory.unet(DType::F32, &CPU)?,
            encoder: Encoder::open(&directory, DType::F32, &CPU)?,
            schedule: NoiseSchedule::from_config(&directory.scheduler_config()?)?,
            directory,
        })
    }

    /// Lets the teacher draw the samples into `folder`.
    fn draw(&self, list: &SampleList, folder: &Path, watch: &Watch) -> Outcome {
        let encoding =
            Encoding { list, folder, batch: 32, device: &CPU, progress: watch, interrupt: &watch.interrupt };
        let time_ids = encoding.texts(&self.encoder)?;
        let (unet, schedule, sampler) = (&self.unet, &self.schedule, SAMPLERS[0]);
        let drawing = LatentDrawing {
            generator: Generator { unet, schedule, sampler, steps: 1, guidance_scale: 2.0 },
            latent: [4, 16, 16],
            unconditional: &self.encoder.unconditional("", 1)?,
            random: &Random::new(3, "latents"),
        };
        encoding.draw(&drawing, time_ids.as_ref())?;
        Ok(encoding.finish()?)
    }
}

/// Asks for a stop once so many rows are done.
#[derive(Default)]
struct Watch {
    interrupt: Interrupt,
    stop_at: Option<u64>,
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
        Silent.note(text);
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
        ["empty.safetensors", shards[0], shards[1], "latents.json", "texts-000000000.safetensors"]
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
fn pictures_become_their_latents() -> Outcome {
    let nano = Nano::open()?;
    let (source, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (index, side) in [64, 80, 64].into_iter().enumerate() {
        let picture = image::RgbImage::from_fn(side, side, |x, y| image::Rgb([x as u8, y as u8, 80]));
        pictures::write(&source.path().join(format!("{index}.png")), &picture)?;
        fs::write(source.path().join(format!("{index}.txt")), format!("caption {}", index % 2))?;
    }
    let list = SampleList::from_pictures(source.path(), None, &Random::new(1, "latents"))?;
    let vae = nano.directory.vae(DType::F32, &CPU)?;
    let watch = Watch::default();
    let encoding = Encoding {
        list: &list,
        folder: folder.path(),
        batch: 2,
        device: &CPU,
        progress: &watch,
        interrupt: &watch.interrupt,
    };
    let time_ids = encoding.texts(&nano.encoder)?;
    encoding.pictures(&vae, (64, 64), time_ids.as_ref())?;
    encoding.finish()?;
    let latents = Latents::open(folder.path())?;
    assert_eq!((latents.rows(), latents.caption(2)), (3, "caption 0"));
    let picture = pictures::to_tensor(&pictures::read(&source.path().join("2.png"))?, &CPU)?;
    let expected = vae.encode(&picture.unsqueeze(0)?)?;
    let found = latents.fetch(&[2], &CPU)?.latents;
    // Batches of another size may be summed in another order.
    let far = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(far < 1e-4, "{far}");
    Ok(())
}
