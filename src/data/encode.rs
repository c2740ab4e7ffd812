//! Encodes a list of samples into a latents artefact, shard by shard. Finished shards survive a crash, and at most
//! one shard of latents is in memory. A damaged shard is made again. Noise has one stream per sample and batches do not
//! cross the ends of shards, so a resumed run gives the same bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::encode_files::SampleFiles;
use super::index::{
    Entry, SHARD_ROWS, SHARD_TEXTS, empty_path, latents_path, texts_path, write_index, write_latents,
    write_texts,
};
use super::records::{self, Record, Row, part_path, read_part, write_part};
use super::sample::LeftOut;
use super::samples::{Rules, reasons, tell_skipped};
use super::texts::Texts;
use super::{DataError, Encoder, SampleList};
use crate::backend::Random;
use crate::base::{Interrupt, Progress, kept};
use crate::model::network::Conditioning;
use crate::sample::{Generator, Noise, Visit};

/// The samples to encode, and where to write them.
pub struct Encoding<'a> {
    /// The samples.
    pub list: &'a SampleList,
    /// The folder of the shards, which outlives a crash.
    pub folder: &'a Path,
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
    /// Samples drawn together.
    pub batch: usize,
    /// The text states of the negative prompt, a batch of one.
    pub unconditional: &'a Conditioning,
    /// The random noise, one stream per row.
    pub random: &'a Random,
}

impl Encoding<'_> {
    /// Encodes each distinct caption and the empty prompt. Returns SDXL's `time_ids` of a picture of the default size.
    pub fn texts(&self, encoder: &Encoder) -> Result<Option<Tensor>, DataError> {
        self.captions(encoder)?;
        let empty = encoder.unconditional("", 1)?;
        write_texts(&empty_path(self.folder), &empty)?;
        Ok(empty.time_ids)
    }

    /// Encodes each distinct caption as texts without pictures, which then are a whole artefact.
    pub fn only_texts(&self, encoder: &Encoder) -> Result<(), DataError> {
        self.captions(encoder)?;
        Texts::finish(self.folder, &self.list.captions)
    }

    fn captions(&self, encoder: &Encoder) -> Result<(), DataError> {
        let captions = &self.list.captions;
        encoder.note_truncated(captions.iter().map(String::as_str), self.progress)?;
        self.progress.length(captions.len() as u64, "captions");
        let is_whole = |start| Ok(kept::is_whole(&texts_path(self.folder, start), self.progress)?);
        for part in self.unfinished(captions.len(), SHARD_TEXTS, is_whole)? {
            let texts = encoder.encode_watched(&captions[part.clone()], &mut |done, _| {
                self.progress.position((part.start + done) as u64);
                Ok(self.interrupt.check()?)
            })?;
            kept::write(&texts_path(self.folder, part.start), |path| write_texts(path, &texts))?;
            self.progress.position(part.end as u64);
        }
        Ok(())
    }

    /// Lets the teacher draw the latents of every sample, each along its own trajectory. Call [`Encoding::texts`] first.
    pub fn draw(&self, drawing: &LatentDrawing<'_>, time_ids: Option<&Tensor>) -> Result<(), DataError> {
        let texts = Texts::unfinished(self.folder, &self.list.captions)?;
        for samples in self.missing("samples")? {
            let mut rows = Vec::new();
            for first in samples.clone().step_by(drawing.batch) {
                let batch = first..samples.end.min(first + drawing.batch);
                let latents = self.draw_batch(drawing, &texts, batch.clone(), time_ids)?;
                for (row, index) in batch.clone().enumerate() {
                    rows.push(self.drawn(index, latents.get(row)?));
                }
                self.progress.position(batch.end as u64);
            }
            self.write_shard(samples.start, rows, time_ids)?;
        }
        Ok(())
    }

    fn draw_batch(
        &self,
        drawing: &LatentDrawing<'_>,
        texts: &Texts,
        batch: Range<usize>,
        time_ids: Option<&Tensor>,
    ) -> Result<Tensor, DataError> {
        let rows: Vec<usize> = batch.collect();
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
        let latents = generator.run(&noise, &prompts, &conditioning, Some(&unconditional), observe)?;
        Ok(latents.to_device(&Device::Cpu)?)
    }

    fn drawn(&self, index: usize, latents: Tensor) -> Row {
        let sample = &self.list.samples[index];
        let record = Record {
            sample: sample.name.clone(),
            caption: Some(self.list.captions[sample.caption].clone()),
            repeats: sample.repeats,
            ..Record::default()
        };
        Row { record, caption: sample.caption, latents: Some(latents), sizes: None }
    }

    /// Encodes samples that lie in files. `time_ids` are those of [`Encoding::texts`]: SDXL gets the true sizes of each
    /// picture. Fails as soon as more are skipped than `rules` permit.
    pub fn files(
        &self,
        files: &SampleFiles<'_>,
        time_ids: Option<&Tensor>,
        rules: Rules,
    ) -> Result<(), DataError> {
        let missing = self.missing("pictures")?;
        let mut skipped = self.skipped_before(&missing)?;
        let wanted: Vec<usize> = missing.iter().cloned().flatten().collect();
        files.encode(&wanted, |next| {
            for samples in missing {
                let mut position = samples.start as u64;
                let mut done = || {
                    position += 1;
                    self.progress.position(position);
                };
                let rows = next(samples.len(), &mut done)?;
                skipped.extend(rows.iter().filter_map(|row| row.record.as_left_out()));
                self.write_shard(samples.start, rows, time_ids)?;
                rules.check_skipped(&skipped, self.list.samples.len())?;
            }
            rules.check_skipped(&skipped, self.list.samples.len())
        })
    }

    /// The samples that earlier attempts skipped.
    fn skipped_before(&self, missing: &[Range<usize>]) -> Result<Vec<LeftOut>, DataError> {
        let mut skipped = Vec::new();
        for shard in self.shards().filter(|shard| !missing.contains(shard)) {
            skipped.extend(read_part(self.folder, shard.start)?.iter().filter_map(Record::as_left_out));
        }
        Ok(skipped)
    }

    /// Writes the list of the samples and the index, and notes what was skipped. Call it once all shards exist.
    pub fn finish(&self) -> Result<(), DataError> {
        let (mut records, mut entries) = (Vec::new(), Vec::new());
        for shard in self.shards() {
            let part = read_part(self.folder, shard.start)?;
            let rows = by_shape(part.iter().map(|record| record.latents).enumerate());
            let file = |place| latents_path(self.folder, shard.start, place);
            entries.extend(
                rows.into_values().enumerate().map(|(place, rows)| Entry::new(&file(place), rows.len())),
            );
            records.extend(part);
        }
        records.extend(self.list.left_out.iter().map(Record::of_left_out));
        let skipped: Vec<LeftOut> = records.iter().filter_map(Record::as_left_out).collect();
        tell_skipped(&skipped, records.len(), self.progress);
        let noted: Vec<LeftOut> = records
            .iter()
            .filter(|record| !record.notes.is_empty())
            .map(|record| LeftOut { name: record.sample.clone(), reason: record.notes.join("; ") })
            .collect();
        if !noted.is_empty() {
            self.progress.note(&format!("not all of {} samples was used: {}", noted.len(), reasons(&noted)));
        }
        records::write(&self.folder.join(records::FILE), records.iter())?;
        write_index(self.folder, entries, &self.list.captions)
    }

    /// The samples of each shard.
    fn shards(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        ranges(self.list.samples.len(), SHARD_ROWS)
    }

    /// The shards that no earlier attempt has made.
    fn missing(&self, unit: &'static str) -> Result<Vec<Range<usize>>, DataError> {
        self.progress.length(self.list.samples.len() as u64, unit);
        self.unfinished(self.list.samples.len(), SHARD_ROWS, |start| self.is_whole(start))
    }

    /// The parts that are not whole. How far an earlier attempt came is told first.
    fn unfinished(
        &self,
        count: usize,
        size: usize,
        is_whole: impl Fn(usize) -> Result<bool, DataError>,
    ) -> Result<Vec<Range<usize>>, DataError> {
        let mut unfinished = Vec::new();
        for part in ranges(count, size) {
            self.interrupt.check()?;
            if !is_whole(part.start)? {
                unfinished.push(part);
            }
        }
        let resumed = unfinished.first().map_or(count, |part| part.start);
        if resumed > 0 {
            self.progress.resumed(resumed as u64);
            self.progress.position(resumed as u64);
        }
        Ok(unfinished)
    }

    fn is_whole(&self, start: usize) -> Result<bool, DataError> {
        if !kept::is_whole(&part_path(self.folder, start), self.progress)? {
            return Ok(false);
        }
        let part = read_part(self.folder, start)?;
        let files = by_shape(part.iter().map(|record| record.latents).enumerate()).len();
        for place in 0..files {
            if !kept::is_whole(&latents_path(self.folder, start, place), self.progress)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the latents of the samples from `start` on, one file for each shape, and then their part of the list.
    fn write_shard(
        &self,
        start: usize,
        mut rows: Vec<Row>,
        time_ids: Option<&Tensor>,
    ) -> Result<(), DataError> {
        for row in &mut rows {
            let size = row.latents.as_ref().map(|latents| latents.dims3()).transpose()?;
            row.record.latents = size.map(|(_, height, width)| (height, width));
        }
        let shapes = by_shape(rows.iter().map(|row| row.record.latents).enumerate());
        for (place, places) in shapes.into_values().enumerate() {
            let rows = || places.iter().map(|&place| &rows[place]);
            let latents: Vec<&Tensor> = rows().filter_map(|row| row.latents.as_ref()).collect();
            let sizes = time_ids.map(|default| {
                let of = |row: &Row| match row.sizes {
                    Some(sizes) => Tensor::new(&[sizes], &Device::Cpu),
                    None => default.to_device(&Device::Cpu),
                };
                Tensor::cat(&rows().map(of).collect::<candle_core::Result<Vec<_>>>()?, 0)
            });
            let (latents, sizes) = (Tensor::stack(&latents, 0)?, sizes.transpose()?);
            let captions: Vec<(usize, u32)> = rows().map(|row| (row.caption, row.record.repeats)).collect();
            let path = latents_path(self.folder, start, place);
            kept::write(&path, |path| write_latents(path, &latents, &captions, sizes.as_ref()))?;
        }
        let records: Vec<Record> = rows.into_iter().map(|row| row.record).collect();
        write_part(self.folder, start, &records)
    }
}

/// The numbers below `count` in parts of this size.
fn ranges(count: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(size).map(move |start| start..count.min(start + size))
}

/// The places of the samples of each shape; those without latents are left out.
fn by_shape<S: Ord>(shapes: impl Iterator<Item = (usize, Option<S>)>) -> BTreeMap<S, Vec<usize>> {
    let mut places: BTreeMap<S, Vec<usize>> = BTreeMap::new();
    for (place, shape) in shapes {
        if let Some(shape) = shape {
            places.entry(shape).or_default().push(place);
        }
    }
    places
}

/// A batch of one, repeated `count` times, in f32.
fn repeat(one: &Conditioning, count: usize) -> candle_core::Result<Conditioning> {
    let rows = Tensor::zeros(count, DType::U32, one.encoder_hidden_states.device())?;
    one.to_dtype(DType::F32)?.select(&rows)
}
