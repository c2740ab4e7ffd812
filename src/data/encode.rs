//! Encodes a list of samples into a latents artefact, shard by shard. Finished shards survive a crash, and at most
//! one shard is in memory. A damaged shard is made again. Noise has one stream per row, so a resumed run gives the same
//! bytes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::captioned::encode_pictures;
use super::latents::{
    SHARD_ROWS, SHARD_TEXTS, Texts, empty_path, latents_path, texts_path, write_index, write_latents,
    write_texts,
};
use super::{DataError, Encoder, SampleList};
use crate::backend::Random;
use crate::base::{Interrupt, Progress, kept};
use crate::model::network::Conditioning;
use crate::model::vae::Autoencoder;
use crate::sample::{Generator, Noise, Visit};

/// The samples to encode, and where to write them.
pub struct Encoding<'a> {
    /// The samples.
    pub list: &'a SampleList,
    /// The folder of the shards, which outlives a crash.
    pub folder: &'a Path,
    /// Samples drawn or encoded together.
    pub batch: usize,
    /// The device of all tensors.
    pub device: &'a Device,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
    /// Checked for a request to stop.
    pub interrupt: &'a Interrupt,
}

/// How the teacher draws latents.
pub struct LatentDrawing<'a> {
    /// The teacher with its sampler.
    pub generator: Generator<'a>,
    /// Channels, height and width of the latents.
    pub latent: [usize; 3],
    /// The text states of the negative prompt, a batch of one.
    pub unconditional: &'a Conditioning,
    /// The random noise, one stream per row.
    pub random: &'a Random,
}

impl Encoding<'_> {
    /// Encodes each distinct caption and the empty prompt. Returns SDXL's `time_ids`, which are the same for all
    /// rows.
    pub fn texts(&self, encoder: &Encoder) -> Result<Option<Tensor>, DataError> {
        let captions = &self.list.captions;
        encoder.note_truncated(captions.iter().map(String::as_str), self.progress)?;
        self.progress.length(captions.len() as u64, "captions");
        let reused = self.reused(captions.len(), SHARD_TEXTS, texts_path)?;
        for start in (0..captions.len()).step_by(SHARD_TEXTS) {
            self.interrupt.check()?;
            let part = &captions[start..captions.len().min(start + SHARD_TEXTS)];
            let path = texts_path(self.folder, start);
            if start >= reused && !kept::is_whole(&path, self.progress)? {
                let texts = encoder.encode_watched(part, &mut |done, _| {
                    self.progress.position((start + done) as u64);
                    Ok(self.interrupt.check()?)
                })?;
                kept::write(&path, |path| write_texts(path, &texts))?;
            }
            self.progress.position((start + part.len()) as u64);
        }
        let empty = encoder.unconditional("", 1)?;
        write_texts(&empty_path(self.folder), &empty)?;
        Ok(empty.time_ids)
    }

    /// Lets the teacher draw the latents of every row, each along its own trajectory. Call [`Encoding::texts`] first.
    pub fn draw(&self, drawing: &LatentDrawing<'_>, time_ids: Option<&Tensor>) -> Result<(), DataError> {
        let texts = Texts::open(self.folder, self.list.captions.len())?;
        self.shards(time_ids, &mut |rows: Range<usize>| {
            let rows: Vec<usize> = rows.collect();
            let captions: Vec<usize> = rows.iter().map(|&row| self.list.samples[row].caption).collect();
            let conditioning = Conditioning {
                time_ids: time_ids.map(|ids| ids.repeat((rows.len(), 1))).transpose()?,
                ..texts.fetch(&captions, self.device)?
            };
            let unconditional = repeat(drawing.unconditional, rows.len())?;
            let LatentDrawing { generator, latent, random, .. } = drawing;
            let noise = Noise { random, samples: &rows, latent: *latent, device: self.device };
            let observe = &mut |_: Visit<'_>| -> Result<(), DataError> { Ok(self.interrupt.check()?) };
            let prompts: Vec<&str> =
                captions.iter().map(|&caption| self.list.captions[caption].as_str()).collect();
            generator.run(&noise, &prompts, &conditioning, Some(&unconditional), observe)
        })
    }

    /// Encodes the pictures of every row, cropped to `size` (height, width) pixels.
    pub fn pictures(
        &self,
        vae: &Autoencoder,
        size: (usize, usize),
        time_ids: Option<&Tensor>,
    ) -> Result<(), DataError> {
        self.shards(time_ids, &mut |rows: Range<usize>| {
            self.interrupt.check()?;
            let paths = self.list.samples[rows].iter().filter_map(|sample| sample.picture.as_deref());
            encode_pictures(paths, size, vae, self.device)
        })
    }

    /// Writes the index. Call it once all shards exist.
    pub fn finish(&self) -> Result<(), DataError> {
        write_index(self.folder, self.list.samples.len(), &self.list.captions)
    }

    /// Makes the missing shards, one batch at a time.
    fn shards(
        &self,
        time_ids: Option<&Tensor>,
        make: &mut dyn FnMut(Range<usize>) -> Result<Tensor, DataError>,
    ) -> Result<(), DataError> {
        let samples = &self.list.samples;
        self.progress.length(samples.len() as u64, "samples");
        let reused = self.reused(samples.len(), SHARD_ROWS, latents_path)?;
        for start in (0..samples.len()).step_by(SHARD_ROWS) {
            let end = samples.len().min(start + SHARD_ROWS);
            let path = latents_path(self.folder, start);
            if start >= reused && !kept::is_whole(&path, self.progress)? {
                let mut parts = Vec::new();
                for first in (start..end).step_by(self.batch) {
                    let rows = first..end.min(first + self.batch);
                    parts.push(make(rows.clone())?.to_device(&Device::Cpu)?);
                    self.progress.position(rows.end as u64);
                }
                let caption_of: Vec<usize> =
                    samples[start..end].iter().map(|sample| sample.caption).collect();
                let time_ids = time_ids.map(|ids| ids.repeat((end - start, 1))).transpose()?;
                let latents = Tensor::cat(&parts, 0)?;
                kept::write(&path, |path| write_latents(path, &latents, &caption_of, time_ids.as_ref()))?;
            }
            self.progress.position(end as u64);
        }
        Ok(())
    }

    /// How many of `rows` rows are in whole shards at the beginning, which an earlier attempt left.
    fn reused(
        &self,
        rows: usize,
        shard_rows: usize,
        path: fn(&Path, usize) -> PathBuf,
    ) -> Result<usize, DataError> {
        let mut reused = 0;
        while reused < rows && kept::is_whole(&path(self.folder, reused), self.progress)? {
            reused = rows.min(reused + shard_rows);
        }
        if reused > 0 {
            self.progress.resumed(reused as u64);
        }
        Ok(reused)
    }
}

/// A batch of one, repeated `count` times, in f32.
fn repeat(one: &Conditioning, count: usize) -> candle_core::Result<Conditioning> {
    let rows = Tensor::zeros(count, DType::U32, one.encoder_hidden_states.device())?;
    one.to_dtype(DType::F32)?.select(&rows)
}
