//! Training data: clean latents with their captions as text states, in shards that are mapped and read row by row.
//!
//! `latents.json` lists the files. A shard of latents holds `latents` [n, c, h, w], the index of each row's caption
//! (`caption` `[n]`, i64), how often a row counts if that is not once (`repeats` `[n]`, i64), and for SDXL `time_ids`
//! [n, 6]; shards may differ in height and width. A shard of texts holds `encoder_hidden_states` [m, tokens, d] and for
//! SDXL `text_embeds` [m, p], once per distinct caption. `empty.safetensors` holds the states of the empty prompt, and
//! `samples.jsonl` says what became of each sample.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Tensor};

pub use super::index::FILE;
use super::index::{
    EMPTY, Entry, FORMAT, Index, SHARD_ROWS, empty_path, latents_path, write_index, write_latents,
    write_texts,
};
use super::rows::{Rows, needed};
use super::shard::{Shard, damaged, gather};
use super::texts::{Texts, states};
use super::{Calibration, DataError, fit};
use crate::base::files;
use crate::model::network::Conditioning;
use crate::model::unet::UNetConfig;
use crate::sample::NoiseSchedule;

/// The most often that a row may count.
const MOST_REPEATS: usize = 1000;

/// Clean latents with their text states.
#[derive(Clone, Debug)]
pub struct LatentBatch {
    /// [batch, channels, height, width], f32, scaled as the U-Net sees them.
    pub latents: Tensor,
    /// The text states of the same rows.
    pub conditioning: Conditioning,
}

/// A latents artefact, opened. The training loop chooses the rows, the timesteps and the noise.
pub struct Latents {
    rows: Rows,
    texts: Texts,
    /// The stored row of each row: repeats stand here several times.
    stored: Vec<usize>,
    /// The index of each stored row's caption.
    caption_of: Vec<usize>,
    /// The captions that random conditioning draws from.
    random: Range<usize>,
    empty: Shard,
}

impl Latents {
    /// Opens an artefact and checks its files against the index.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE);
        let index = files::read_json_of(&path, FORMAT, |index: &Index| index.format)
            .map_err(DataError::file(&path))?;
        let rows = Rows::open(&path, &index.latents, &[("latents", 3), ("caption", 0)])?;
        let texts = Texts::of_index(&path, &index.texts, index.captions)?;
        let (mut caption_of, mut stored) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for shard in &rows.shards {
            let repeats = match shard.shape("repeats") {
                Some(_) => shard.integers("repeats")?,
                None => vec![1; shard.rows()],
            };
            for (row, repeats) in (caption_of.len()..).zip(repeats) {
                let repeats =
                    usize::try_from(repeats).ok().filter(|repeats| (1..=MOST_REPEATS).contains(repeats));
                let repeats = repeats.ok_or_else(|| {
                    damaged(&path, format!("a row counts other than 1 to {MOST_REPEATS} times"))
                })?;
                stored.extend(std::iter::repeat_n(row, repeats));
            }
            for caption in shard.integers("caption")? {
                let caption = usize::try_from(caption).ok().filter(|caption| *caption < texts.count());
                let caption = caption
                    .ok_or_else(|| damaged(&path, "a row refers to a caption that is not listed".into()))?;
                caption_of.push(caption);
            }
        }
        let empty = Shard::open(&folder.join(EMPTY))?;
        empty.check(1, &[("encoder_hidden_states", 2)])?;
        let random = 0..texts.count();
        Ok(Self { rows, texts, stored, caption_of, random, empty })
    }

    /// Number of rows, at least 1. A sample that is repeated has several.
    pub fn rows(&self) -> usize {
        self.stored.len()
    }

    /// The shape of each row's latents, by its place among the shapes that there are.
    pub fn shapes(&self) -> Vec<usize> {
        let shape = |shard: &Shard| shard.shape("latents").map(<[usize]>::to_vec).unwrap_or_default();
        let shapes: BTreeSet<Vec<usize>> = self.rows.shards.iter().map(shape).collect();
        let place = |shard: &Shard| shapes.iter().position(|known| *known == shape(shard)).unwrap_or(0);
        let places: Vec<usize> = self.rows.shards.iter().map(place).collect();
        let shard_of = |row: &usize| self.rows.ends.partition_point(|end| end <= row);
        self.stored.iter().map(|row| places[shard_of(row)]).collect()
    }

    /// Height and width of the largest latents.
    pub fn largest_size(&self) -> (usize, usize) {
        let size = |shard: &Shard| match shard.shape("latents") {
            Some(&[_, height, width]) => (height, width),
            _ => (0, 0),
        };
        let sizes = self.rows.shards.iter().map(size);
        sizes.max_by_key(|(height, width)| height * width).unwrap_or_default()
    }

    /// The caption of a row.
    pub fn caption(&self, row: usize) -> &str {
        self.texts.caption(self.caption_index(row))
    }

    /// Checks that a U-Net takes these latents and text states; `place` is named in errors.
    pub fn check_fit(&self, unet: &UNetConfig, place: &Path) -> Result<(), DataError> {
        // All rows of a shard are alike, and the texts of one artefact come from one model.
        let LatentBatch { latents, conditioning } = self.fetch(&[0], &Device::Cpu)?;
        fit::check(place, &[("latents", &latents, unet.out_channels)], &conditioning, unet)?;
        // The states of the empty prompt are used with the sizes of the rows.
        let empty = Conditioning { time_ids: conditioning.time_ids, ..self.unconditional(&Device::Cpu)? };
        fit::check(&place.join(EMPTY), &[], &empty, unet)
    }

    /// Lets random conditioning draw from the texts of another artefact, instead of the captions of the rows.
    pub fn with_texts(mut self, folder: &Path, unet: &UNetConfig) -> Result<Self, DataError> {
        let texts = Texts::open(folder)?;
        let sizes = self.fetch(&[0], &Device::Cpu)?.conditioning.time_ids;
        fit::check(folder, &[], &Conditioning { time_ids: sizes, ..texts.fetch(&[0], &Device::Cpu)? }, unet)?;
        let first = self.texts.count();
        self.texts.append(texts)?;
        self.random = first..self.texts.count();
        Ok(self)
    }

    /// The captions that random conditioning draws from, by their indices: those of all rows, or of other texts.
    pub fn random_captions(&self) -> Range<usize> {
        self.random.clone()
    }

    /// The caption of a row, by its index among the distinct ones.
    pub fn caption_index(&self, row: usize) -> usize {
        self.caption_of[self.stored[row]]
    }

    /// The given rows, each below [`Latents::rows`] and all of one shape, on `device`.
    pub fn fetch(&self, rows: &[usize], device: &Device) -> Result<LatentBatch, DataError> {
        let captions: Vec<usize> = rows.iter().map(|&row| self.caption_index(row)).collect();
        self.fetch_with(rows, &captions, device)
    }

    /// The given rows with the given captions, one for each row, by their indices.
    pub fn fetch_with(
        &self,
        rows: &[usize],
        captions: &[usize],
        device: &Device,
    ) -> Result<LatentBatch, DataError> {
        let stored: Vec<usize> = rows.iter().map(|&row| self.stored[row]).collect();
        let picks = self.rows.find(&stored);
        let conditioning = self.texts.fetch(captions, device)?;
        Ok(LatentBatch {
            latents: needed(&picks, "latents", device)?,
            conditioning: Conditioning { time_ids: gather(&picks, "time_ids", device)?, ..conditioning },
        })
    }

    /// The text states of the empty prompt, a batch of one, without `time_ids`.
    pub fn unconditional(&self, device: &Device) -> Result<Conditioning, DataError> {
        states(&[(&self.empty, 0)], device)
    }

    /// Writes a batch in memory as an artefact; each row has its own caption.
    pub fn save(
        folder: &Path,
        batch: &LatentBatch,
        captions: &[String],
        empty: &Conditioning,
    ) -> Result<(), DataError> {
        let rows = batch.latents.dim(0)?;
        Texts::write(folder, &batch.conditioning)?;
        let mut entries = Vec::new();
        for start in (0..rows).step_by(SHARD_ROWS) {
            let count = SHARD_ROWS.min(rows - start);
            let sizes = batch.conditioning.narrow(start, count)?.time_ids;
            let caption_of: Vec<(usize, u32)> = (start..start + count).map(|caption| (caption, 1)).collect();
            let latents = batch.latents.narrow(0, start, count)?;
            let path = latents_path(folder, start, 0);
            write_latents(&path, &latents, &caption_of, sizes.as_ref())?;
            entries.push(Entry::new(&path, count));
        }
        write_texts(&empty_path(folder), empty)?;
        write_index(folder, entries, captions)
    }

    /// Writes the clean latents of calibration points as an artefact: x0 is computed from x_t and its noise. This is
    /// less exact than `encode`, especially at late timesteps, where little of x0 is left in x_t.
    pub fn save_points(
        folder: &Path,
        points: &Calibration,
        schedule: &NoiseSchedule,
        empty: &Conditioning,
    ) -> Result<(), DataError> {
        let batch = LatentBatch { latents: points.clean(schedule)?, conditioning: points.conditioning() };
        let captions: Vec<String> = (0..points.len()).map(|point| format!("point {point}")).collect();
        Self::save(folder, &batch, &captions, empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Random;

    fn batch(rows: usize) -> candle_core::Result<LatentBatch> {
        let random = Random::new(5, "batch");
        let draw = |purpose, shape: &[usize]| random.normal(purpose, 0, shape, &Device::Cpu);
        let conditioning = Conditioning {
            encoder_hidden_states: draw("text", &[rows, 5, 12])?,
            text_embeds: Some(draw("embeds", &[rows, 3])?),
            time_ids: Some(draw("ids", &[rows, 6])?),
        };
        Ok(LatentBatch { latents: draw("latents", &[rows, 4, 2, 2])?, conditioning })
    }

    fn captions(rows: usize) -> Vec<String> {
        (0..rows).map(|row| format!("caption {row}")).collect()
    }

    #[test]
    fn rows_come_back_from_their_shards() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let rows = SHARD_ROWS + 3;
        let saved = batch(rows)?;
        let empty = Conditioning { time_ids: None, ..batch(1)?.conditioning };
        Latents::save(folder.path(), &saved, &captions(rows), &empty)?;
        let latents = Latents::open(folder.path())?;
        assert_eq!((latents.rows(), latents.caption(130)), (rows, "caption 130"));
        let chosen = [129, 0, 128, 127];
        let fetched = latents.fetch(&chosen, &Device::Cpu)?;
        let places = Tensor::new(chosen.map(|row| row as u32).as_slice(), &Device::Cpu)?;
        let same = |ours: &Tensor, theirs: &Tensor| -> candle_core::Result<bool> {
            let theirs = theirs.index_select(&places, 0)?.flatten_all()?.to_vec1::<f32>()?;
            Ok(ours.flatten_all()?.to_vec1::<f32>()? == theirs)
        };
        assert!(same(&fetched.latents, &saved.latents)?);
        let (found, expected) = (&fetched.conditioning, &saved.conditioning);
        assert!(same(&found.encoder_hidden_states, &expected.encoder_hidden_states)?);
        for (found, expected) in
            [(&found.text_embeds, &expected.text_embeds), (&found.time_ids, &expected.time_ids)]
        {
            let (found, expected) = (found.as_ref().expect("SDXL's"), expected.as_ref().expect("SDXL's"));
            assert!(same(found, expected)?);
        }
        assert_eq!(latents.unconditional(&Device::Cpu)?.encoder_hidden_states.dims(), [1, 5, 12]);
        Ok(())
    }

    #[test]
    fn damage_and_bad_numbers_are_named() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let empty = batch(1)?.conditioning;
        let mut bad = batch(3)?;
        bad.latents = (bad.latents * f64::NAN)?;
        let error = Latents::save(folder.path(), &bad, &captions(3), &empty).expect_err("NaN is refused");
        assert!(error.to_string().contains("`latents` holds NaN at point 0"), "{error}");

        Latents::save(folder.path(), &batch(3)?, &captions(3), &empty)?;
        let open = || Latents::open(folder.path()).err().map(|error| error.to_string());
        assert_eq!(open(), None);
        let index = folder.path().join(FILE);
        let text = std::fs::read_to_string(&index)?;
        for (old, new, words) in [
            ("\"format\": 1", "\"format\": 9", "format 9"),
            ("\"rows\": 3", "\"rows\": 4", "3 rows; the index says 4"),
            ("\"caption 2\"", "\"caption 2\", \"another\"", "4 captions, but the shards hold 3"),
            ("texts-000000000", "latents-000000000", "no tensor `encoder_hidden_states`"),
        ] {
            std::fs::write(&index, text.replacen(old, new, 1))?;
            let error = open().unwrap_or_default();
            assert!(error.contains(words), "{words:?} is not in {error:?}");
        }
        Ok(())
    }
}
