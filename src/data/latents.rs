//! Training data: clean latents with their captions as text states, in shards that are mapped and read row by row.
//!
//! `latents.json` lists the files. A shard of latents holds `latents` [n, c, h, w], the index of each row's caption
//! (`caption` `[n]`, i64), and for SDXL `time_ids` [n, 6]. A shard of texts holds `encoder_hidden_states`
//! [m, tokens, d] and for SDXL `text_embeds` [m, p], once per distinct caption. `empty.safetensors` holds the states of
//! the empty prompt.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::shard::{Shard, damaged, gather};
use super::{Calibration, DataError, finite, fit};
use crate::base::files;
use crate::model::files::weights;
use crate::model::network::Conditioning;
use crate::model::unet::UNetConfig;
use crate::sample::NoiseSchedule;

/// The index of a latents artefact.
pub const FILE: &str = "latents.json";
const EMPTY: &str = "empty.safetensors";
const FORMAT: u32 = 1;

/// Rows of a shard of latents: 64 MB of SDXL's.
pub(super) const SHARD_ROWS: usize = 128;
/// Captions of a shard of texts: 80 MB of SDXL's states.
pub(super) const SHARD_TEXTS: usize = 128;

/// `latents.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    /// The shards of latents, in the order of their rows.
    latents: Vec<Entry>,
    /// The shards of texts, in the order of the captions.
    texts: Vec<Entry>,
    /// The distinct captions.
    captions: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    file: String,
    rows: usize,
}

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
    /// The index of each row's caption.
    caption_of: Vec<usize>,
    captions: Vec<String>,
    empty: Shard,
}

/// The text states of distinct captions.
pub(super) struct Texts(Rows);

/// Several shards as one list of rows.
struct Rows {
    shards: Vec<Shard>,
    /// The number of rows up to the end of each shard.
    ends: Vec<usize>,
}

impl Latents {
    /// Opens an artefact and checks its files against the index.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(FILE);
        let index = files::read_json_of(&path, FORMAT, |index: &Index| index.format)
            .map_err(DataError::file(&path))?;
        let rows = Rows::open(folder, &index.latents, &[("latents", 3), ("caption", 0)])?;
        let texts = Rows::open(folder, &index.texts, &[("encoder_hidden_states", 2)])?;
        if texts.len() != index.captions.len() {
            let (captions, texts) = (index.captions.len(), texts.len());
            return Err(damaged(&path, format!("it lists {captions} captions, but the shards hold {texts}")));
        }
        let mut caption_of = Vec::with_capacity(rows.len());
        for shard in &rows.shards {
            for caption in shard.integers("caption")? {
                let caption = usize::try_from(caption).ok().filter(|caption| *caption < texts.len());
                let caption = caption
                    .ok_or_else(|| damaged(&path, "a row refers to a caption that is not listed".into()))?;
                caption_of.push(caption);
            }
        }
        let empty = Shard::open(&folder.join(EMPTY))?;
        empty.check(1, &[("encoder_hidden_states", 2)])?;
        Ok(Self { rows, texts: Texts(texts), caption_of, captions: index.captions, empty })
    }

    /// Number of rows, at least 1.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The caption of a row.
    pub fn caption(&self, row: usize) -> &str {
        &self.captions[self.caption_of[row]]
    }

    /// Checks that a U-Net takes these latents and text states; `place` is named in errors.
    pub fn check_fit(&self, unet: &UNetConfig, place: &Path) -> Result<(), DataError> {
        // All rows of a shard are alike, and the shards of one artefact come from one model.
        let LatentBatch { latents, conditioning } = self.fetch(&[0], &Device::Cpu)?;
        fit::check(place, &[("latents", &latents, unet.out_channels)], &conditioning, unet)?;
        // The states of the empty prompt are used with the sizes of the rows.
        let empty = Conditioning { time_ids: conditioning.time_ids, ..self.unconditional(&Device::Cpu)? };
        fit::check(&place.join(EMPTY), &[], &empty, unet)
    }

    /// The number of distinct captions.
    pub fn captions(&self) -> usize {
        self.captions.len()
    }

    /// The caption of a row, by its index among the distinct ones.
    pub fn caption_index(&self, row: usize) -> usize {
        self.caption_of[row]
    }

    /// The given rows, each below [`Latents::rows`], on `device`.
    pub fn fetch(&self, rows: &[usize], device: &Device) -> Result<LatentBatch, DataError> {
        let captions: Vec<usize> = rows.iter().map(|&row| self.caption_of[row]).collect();
        self.fetch_with(rows, &captions, device)
    }

    /// The given rows with the given captions, one for each row, by their indices.
    pub fn fetch_with(
        &self,
        rows: &[usize],
        captions: &[usize],
        device: &Device,
    ) -> Result<LatentBatch, DataError> {
        let picks = self.rows.find(rows);
        let conditioning = self.texts.fetch(captions, device)?;
        Ok(LatentBatch {
            latents: needed(&picks, "latents", device)?,
            conditioning: Conditioning { time_ids: gather(&picks, "time_ids", device)?, ..conditioning },
        })
    }

    /// The text states of the empty prompt, a batch of one, without `time_ids`.
    pub fn unconditional(&self, device: &Device) -> Result<Conditioning, DataError> {
        text_states(&[(&self.empty, 0)], device)
    }

    /// Writes a batch in memory as an artefact; each row has its own caption.
    pub fn save(
        folder: &Path,
        batch: &LatentBatch,
        captions: &[String],
        empty: &Conditioning,
    ) -> Result<(), DataError> {
        let rows = batch.latents.dim(0)?;
        for start in (0..rows).step_by(SHARD_ROWS) {
            let count = SHARD_ROWS.min(rows - start);
            let texts = batch.conditioning.narrow(start, count)?;
            write_texts(&texts_path(folder, start), &texts)?;
            let caption_of: Vec<usize> = (start..start + count).collect();
            let latents = batch.latents.narrow(0, start, count)?;
            write_latents(&latents_path(folder, start), &latents, &caption_of, texts.time_ids.as_ref())?;
        }
        write_texts(&folder.join(EMPTY), empty)?;
        write_index(folder, rows, captions)
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

impl Texts {
    /// Opens the first `captions` captions of a folder that has no index yet.
    pub(super) fn open(folder: &Path, captions: usize) -> Result<Self, DataError> {
        let entries = entries(captions, SHARD_TEXTS, texts_path);
        Ok(Self(Rows::open(folder, &entries, &[("encoder_hidden_states", 2)])?))
    }

    /// The states of these captions, without `time_ids`.
    pub(super) fn fetch(&self, captions: &[usize], device: &Device) -> Result<Conditioning, DataError> {
        text_states(&self.0.find(captions), device)
    }
}

impl Rows {
    fn open(folder: &Path, entries: &[Entry], needed: &[(&str, usize)]) -> Result<Self, DataError> {
        let (mut shards, mut ends) = (Vec::new(), Vec::new());
        for entry in entries {
            if !files::is_plain_name(&entry.file) {
                let reason = format!("it names the file `{}`, which is not in the same folder", entry.file);
                return Err(damaged(&folder.join(FILE), reason));
            }
            let shard = Shard::open(&folder.join(&entry.file))?;
            shard.check(entry.rows, needed)?;
            ends.push(ends.last().unwrap_or(&0) + entry.rows);
            shards.push(shard);
        }
        match shards.is_empty() {
            true => Err(damaged(&folder.join(FILE), "it lists no rows".to_owned())),
            false => Ok(Self { shards, ends }),
        }
    }

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn find(&self, rows: &[usize]) -> Vec<(&Shard, usize)> {
        let find = |row: &usize| {
            let shard = self.ends.partition_point(|end| end <= row);
            assert!(shard < self.shards.len(), "BUG: row {row} of {}", self.len());
            let shard_start = self.ends[shard] - self.shards[shard].rows();
            (&self.shards[shard], row - shard_start)
        };
        rows.iter().map(find).collect()
    }
}

fn text_states(rows: &[(&Shard, usize)], device: &Device) -> Result<Conditioning, DataError> {
    Ok(Conditioning {
        encoder_hidden_states: needed(rows, "encoder_hidden_states", device)?,
        text_embeds: gather(rows, "text_embeds", device)?,
        time_ids: None,
    })
}

fn needed(rows: &[(&Shard, usize)], column: &str, device: &Device) -> Result<Tensor, DataError> {
    Ok(gather(rows, column, device)?.unwrap_or_else(|| panic!("BUG: `{column}` was not checked")))
}

/// The path of the shard of latents that begins with row `start`. Padded, so that names sort as rows do.
pub(super) fn latents_path(folder: &Path, start: usize) -> PathBuf {
    folder.join(format!("latents-{start:09}.safetensors"))
}

/// The path of the shard of texts that begins with caption `start`.
pub(super) fn texts_path(folder: &Path, start: usize) -> PathBuf {
    folder.join(format!("texts-{start:09}.safetensors"))
}

/// The path of the states of the empty prompt.
pub(super) fn empty_path(folder: &Path) -> PathBuf {
    folder.join(EMPTY)
}

/// Writes a shard of texts, or the states of the empty prompt.
pub(super) fn write_texts(path: &Path, texts: &Conditioning) -> Result<(), DataError> {
    let mut tensors = vec![("encoder_hidden_states", &texts.encoder_hidden_states)];
    tensors.extend(texts.text_embeds.as_ref().map(|embeds| ("text_embeds", embeds)));
    write(path, tensors)
}

/// Writes a shard of latents.
pub(super) fn write_latents(
    path: &Path,
    latents: &Tensor,
    caption_of: &[usize],
    time_ids: Option<&Tensor>,
) -> Result<(), DataError> {
    let captions: Vec<i64> = caption_of.iter().map(|&caption| caption as i64).collect();
    let captions = Tensor::new(captions, &Device::Cpu)?;
    let mut tensors = vec![("latents", latents), ("caption", &captions)];
    tensors.extend(time_ids.map(|ids| ("time_ids", ids)));
    write(path, tensors)
}

/// Writes the index. Call it once all shards exist.
pub(super) fn write_index(folder: &Path, rows: usize, captions: &[String]) -> Result<(), DataError> {
    let index = Index {
        format: FORMAT,
        latents: entries(rows, SHARD_ROWS, latents_path),
        texts: entries(captions.len(), SHARD_TEXTS, texts_path),
        captions: captions.to_vec(),
    };
    let path = folder.join(FILE);
    files::write_json(&path, &index).map_err(DataError::file(&path))
}

fn entries(rows: usize, step: usize, path: fn(&Path, usize) -> PathBuf) -> Vec<Entry> {
    let entry = |start: usize| Entry {
        file: path(Path::new(""), start).to_string_lossy().into_owned(),
        rows: step.min(rows - start),
    };
    (0..rows).step_by(step).map(entry).collect()
}

/// Writes tensors of one row per sample; a number that is not finite is an error.
fn write(path: &Path, tensors: Vec<(&'static str, &Tensor)>) -> Result<(), DataError> {
    let mut on_host = Vec::new();
    for (name, tensor) in tensors {
        let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
        if tensor.dtype().is_float() {
            finite::check(path, name, &tensor)?;
        }
        on_host.push((name, tensor));
    }
    weights::write(path, on_host).map_err(DataError::file(path))
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
