//! Encodes samples that lie in files: read and decoded ahead in several threads, encoded in batches of one shape, and
//! given out in the order of the list. A sample that cannot be used is skipped.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::ahead::in_order;
use super::finite::check_result;
use super::prepare::{Data, Preparation, Prepared};
use super::records::{Record, Row};
use super::sources::Fetcher;
use super::{DataError, SampleList, pictures};
use crate::base::Interrupt;
use crate::model::Part;
use crate::model::vae::Autoencoder;

/// Samples in files, and how they are encoded.
pub struct SampleFiles<'a> {
    /// The list.
    pub list: &'a SampleList,
    /// The autoencoder.
    pub vae: &'a Autoencoder,
    /// How pictures become pixels.
    pub preparation: &'a Preparation,
    /// Pictures encoded together.
    pub batch: usize,
    /// The device of the autoencoder.
    pub device: &'a Device,
    /// Checked for a request to stop.
    pub interrupt: &'a Interrupt,
}

/// Pictures of one shape that wait for the others of their batch: the place of each among the rows, and its pixels.
type Waiting = BTreeMap<(u32, u32), Vec<(usize, Tensor)>>;

impl SampleFiles<'_> {
    /// Runs `consume` with a function that encodes the next samples of `wanted`, as many as asked, and calls its second
    /// argument after each.
    pub(super) fn encode<R>(
        &self,
        wanted: &[usize],
        consume: impl FnOnce(&mut dyn FnMut(usize, &mut dyn FnMut()) -> Result<Vec<Row>, DataError>) -> R,
    ) -> R {
        let threads = rayon::current_num_threads();
        let window = 2 * self.batch.max(threads);
        let mut fetcher = Fetcher::default();
        let begin = |index: usize| fetcher.fetch(&self.list.samples[wanted[index]].place);
        let finish = |_, fetched| self.preparation.prepare(fetched);
        in_order(wanted.len(), threads, window, begin, finish, |next| {
            let mut taken = 0;
            consume(&mut |count, done| {
                let indices = &wanted[taken..taken + count];
                taken += count;
                self.rows(indices, next, done)
            })
        })
    }

    fn rows(
        &self,
        indices: &[usize],
        next: &mut dyn FnMut() -> Prepared,
        done: &mut dyn FnMut(),
    ) -> Result<Vec<Row>, DataError> {
        let (mut rows, mut waiting) = (Vec::with_capacity(indices.len()), Waiting::new());
        for &index in indices {
            self.interrupt.check()?;
            let row = self.row(index, next(), rows.len(), &mut waiting)?;
            rows.push(row);
            let full =
                waiting.iter().find(|(_, pictures)| pictures.len() >= self.batch).map(|(shape, _)| *shape);
            if let Some(pictures) = full.and_then(|shape| waiting.remove(&shape)) {
                self.encode_batch(pictures, &mut rows)?;
            }
            done();
        }
        for pictures in waiting.into_values() {
            self.encode_batch(pictures, &mut rows)?;
        }
        Ok(rows)
    }

    /// The row of a sample; a picture's latents are filled in with those of its batch.
    fn row(
        &self,
        index: usize,
        prepared: Prepared,
        place: usize,
        waiting: &mut Waiting,
    ) -> Result<Row, DataError> {
        let sample = &self.list.samples[index];
        let mut record = Record {
            sample: sample.name.clone(),
            bytes: prepared.read.map(|(bytes, _)| bytes),
            digest: prepared.read.map(|(_, digest)| digest),
            caption: Some(self.list.captions[sample.caption].clone()),
            repeats: sample.repeats,
            notes: prepared.notes.into_iter().map(str::to_owned).collect(),
            ..Record::default()
        };
        let (mut latents, mut sizes) = (None, None);
        match prepared.content {
            Err(reason) => record.skipped = Some(reason),
            Ok(content) => {
                sizes = Some(content.sizes);
                match content.data {
                    Data::Picture(picture) => {
                        let pixels = pictures::to_tensor(&picture, self.device)?;
                        waiting.entry(picture.dimensions()).or_default().push((place, pixels));
                    }
                    Data::Latents(cached) => {
                        let channels = self.vae.config().latent_channels();
                        if cached.shape[0] == channels {
                            let unscaled = Tensor::from_vec(cached.latents, &cached.shape, &Device::Cpu)?;
                            latents = Some((unscaled * self.vae.config().scaling_factor())?);
                        } else {
                            let found = cached.shape[0];
                            record.skipped =
                                Some(format!("its latents have {found} channels; {channels} are needed"));
                        }
                    }
                }
            }
        }
        Ok(Row { record, caption: sample.caption, latents, sizes })
    }

    fn encode_batch(&self, pictures: Vec<(usize, Tensor)>, rows: &mut [Row]) -> Result<(), DataError> {
        let (places, pixels): (Vec<usize>, Vec<Tensor>) = pictures.into_iter().unzip();
        let latents = self.vae.encode(&Tensor::stack(&pixels, 0)?)?.to_dtype(DType::F32)?;
        let of = |row: usize| format!("the picture {}", rows[places[row]].record.sample);
        check_result(Part::Vae, &latents, of)?;
        let latents = latents.to_device(&Device::Cpu)?;
        for (row, &place) in places.iter().enumerate() {
            rows[place].latents = Some(latents.get(row)?);
        }
        Ok(())
    }
}
