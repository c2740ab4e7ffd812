//! Latents on disk: memory-mapped safetensors, one file or many, so that a data set need not fit into memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::error::DistillError;
use super::latents::{LatentBatch, LatentSource};
use super::tensors;
use crate::model::network::Conditioning;
use crate::sample::NoiseSchedule;

/// Rows in memory-mapped safetensors files: one file, or a folder of shards in the order of their names.
///
/// A file holds `latents` [N, c, h, w] and `encoder_hidden_states` [N, tokens, d], for SDXL also `text_embeds`
/// [N, p] and `time_ids` [N, 6]; the first file may hold `unconditional_hidden_states` [tokens, d] and
/// `unconditional_text_embeds` `[p]`. Instead of `latents`, a calibration file's `sample`, `noise` and `timestep` will
/// do: the noise is taken out again.
pub struct LatentFiles {
    shards: Vec<Shard>,
    columns: BTreeMap<String, Column>,
    schedule: NoiseSchedule,
    unconditional: Option<Conditioning>,
}

struct Shard {
    bytes: Mmap,
    rows: usize,
    /// Where each column begins in `bytes`.
    starts: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Column {
    dtype: DType,
    /// Shape of one row.
    shape: Vec<usize>,
    row_bytes: usize,
}

/// Columns and their rank, the rows' dimension included.
const COLUMNS: [(&str, usize); 7] = [
    ("latents", 4),
    ("sample", 4),
    ("noise", 4),
    ("timestep", 1),
    ("encoder_hidden_states", 3),
    ("text_embeds", 2),
    ("time_ids", 2),
];

impl LatentFiles {
    /// Opens a file or a folder; `schedule` is the teacher's, for files whose latents are noisy.
    pub fn open(path: &Path, schedule: &NoiseSchedule) -> Result<Self, DistillError> {
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let entries = entries.map_err(DistillError::file(path))?;
            files = entries.into_iter().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
            files.sort();
        }
        let mut all: Option<Self> = None;
        for file in &files {
            let Opened { shard, columns, unconditional } = open_shard(file)?;
            match &mut all {
                None => {
                    let schedule = schedule.clone();
                    all = Some(Self { shards: vec![shard], columns, schedule, unconditional });
                }
                Some(all) if all.columns == columns => all.shards.push(shard),
                Some(_) => {
                    return Err(bad(
                        file,
                        format!("its columns differ from those of {}", files[0].display()),
                    ));
                }
            }
        }
        all.ok_or_else(|| bad(path, "it holds no `.safetensors` file".to_owned()))
    }

    /// Writes one such file, whole or not at all. `unconditional` is a batch of one.
    pub fn write(
        path: &Path,
        batch: &LatentBatch,
        unconditional: Option<&Conditioning>,
    ) -> Result<(), DistillError> {
        let mut columns = vec![("latents".to_owned(), batch.latents.clone())];
        let mut add = |name: &str, tensor: &Tensor| columns.push((name.to_owned(), tensor.clone()));
        add("encoder_hidden_states", &batch.conditioning.encoder_hidden_states);
        if let Some(embeds) = &batch.conditioning.text_embeds {
            add("text_embeds", embeds);
        }
        if let Some(ids) = &batch.conditioning.time_ids {
            add("time_ids", ids);
        }
        if let Some(empty) = unconditional {
            add("unconditional_hidden_states", &empty.encoder_hidden_states.squeeze(0)?);
            if let Some(embeds) = &empty.text_embeds {
                add("unconditional_text_embeds", &embeds.squeeze(0)?);
            }
        }
        tensors::save(path, columns, None).map_err(DistillError::file(path))
    }

    /// Fills `folder` with `rows` rows in shards of `shard_rows`, skipping those that are there: what was made
    /// before a crash is not made again. `make` is given the rows to make and must draw by their index. `note` is
    /// told the rows done after each shard and may stop the work by an error.
    pub fn fill<E: From<DistillError>>(
        folder: &Path,
        rows: usize,
        shard_rows: usize,
        unconditional: Option<&Conditioning>,
        mut make: impl FnMut(Range<usize>) -> Result<LatentBatch, E>,
        mut note: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        for start in (0..rows).step_by(shard_rows) {
            let end = rows.min(start + shard_rows);
            // Padded, so that the order of names is the order of rows.
            let path = folder.join(format!("latents-{start:09}.safetensors"));
            if !path.exists() {
                Self::write(&path, &make(start..end)?, unconditional)?;
            }
            note(end)?;
        }
        Ok(())
    }

    /// One column's rows as a tensor [rows, ..], f32 unless they are integers.
    fn gather(&self, name: &str, rows: &[usize], device: &Device) -> Result<Option<Tensor>, DistillError> {
        let Some(column) = self.columns.get(name) else { return Ok(None) };
        let mut bytes = Vec::with_capacity(rows.len() * column.row_bytes);
        for &row in rows {
            let mut row = row;
            let shard = self.shards.iter().find(|shard| {
                let inside = row < shard.rows;
                row -= if inside { 0 } else { shard.rows };
                inside
            });
            let shard = shard.unwrap_or_else(|| panic!("BUG: a row beyond the {} there are", self.rows()));
            let start = shard.starts[name] + row * column.row_bytes;
            bytes.extend_from_slice(&shard.bytes[start..start + column.row_bytes]);
        }
        let shape = [&[rows.len()], column.shape.as_slice()].concat();
        let tensor = Tensor::from_raw_buffer(&bytes, column.dtype, &shape, device)?;
        Ok(Some(if column.dtype.is_int() { tensor } else { tensor.to_dtype(DType::F32)? }))
    }

    fn needed(&self, name: &str, rows: &[usize], device: &Device) -> Result<Tensor, DistillError> {
        Ok(self
            .gather(name, rows, device)?
            .unwrap_or_else(|| panic!("BUG: `{name}` was there when the file was opened")))
    }

    /// x0 out of x = alpha x0 + sigma noise.
    fn without_noise(&self, rows: &[usize], device: &Device) -> Result<Tensor, DistillError> {
        let sample = self.needed("sample", rows, device)?;
        let noise = self.needed("noise", rows, device)?;
        Ok(self.schedule.latents_in(&sample, &noise, &self.needed("timestep", rows, device)?)?)
    }
}

impl LatentSource for LatentFiles {
    fn rows(&self) -> usize {
        self.shards.iter().map(|shard| shard.rows).sum()
    }

    fn fetch(&self, rows: &[usize], device: &Device) -> Result<LatentBatch, DistillError> {
        let latents = match self.gather("latents", rows, device)? {
            Some(latents) => latents,
            None => self.without_noise(rows, device)?,
        };
        let conditioning = Conditioning {
            encoder_hidden_states: self.needed("encoder_hidden_states", rows, device)?,
            text_embeds: self.gather("text_embeds", rows, device)?,
            time_ids: self.gather("time_ids", rows, device)?,
        };
        Ok(LatentBatch { latents, conditioning })
    }

    fn unconditional(&self, device: &Device) -> Result<Option<Conditioning>, DistillError> {
        let Some(empty) = &self.unconditional else { return Ok(None) };
        let moved =
            |tensor: &Option<Tensor>| tensor.as_ref().map(|tensor| tensor.to_device(device)).transpose();
        Ok(Some(Conditioning {
            encoder_hidden_states: empty.encoder_hidden_states.to_device(device)?,
            text_embeds: moved(&empty.text_embeds)?,
            time_ids: None,
        }))
    }
}

/// What one file holds.
struct Opened {
    shard: Shard,
    columns: BTreeMap<String, Column>,
    unconditional: Option<Conditioning>,
}

fn open_shard(path: &Path) -> Result<Opened, DistillError> {
    let file = File::open(path).map_err(DistillError::file(path))?;
    // SAFETY: a data file that somebody changes while it is read gives wrong rows under any way of reading it.
    let bytes = unsafe { Mmap::map(&file) }.map_err(DistillError::file(path))?;
    let contents = SafeTensors::deserialize(&bytes).map_err(|error| bad(path, error.to_string()))?;
    let (mut columns, mut starts, mut rows) = (BTreeMap::new(), BTreeMap::new(), None);
    for (name, rank) in COLUMNS {
        let Ok(view) = contents.tensor(name) else { continue };
        if view.shape().len() != rank || view.shape().contains(&0) {
            return Err(bad(
                path,
                format!("`{name}` is {:?}; it needs {rank} dimensions, none of them 0", view.shape()),
            ));
        }
        let count = view.shape()[0];
        if *rows.get_or_insert(count) != count {
            return Err(bad(path, format!("`{name}` has {count} rows, others have {}", rows.unwrap_or(0))));
        }
        let column = Column {
            dtype: dtype(view.dtype()).ok_or_else(|| bad(path, format!("`{name}` is {:?}", view.dtype())))?,
            shape: view.shape()[1..].to_vec(),
            row_bytes: view.data().len() / count,
        };
        columns.insert(name.to_owned(), column);
        starts.insert(name.to_owned(), view.data().as_ptr() as usize - bytes.as_ptr() as usize);
    }
    let has = |names: &[&str]| names.iter().all(|name| columns.contains_key(*name));
    if !has(&["encoder_hidden_states"]) || !(has(&["latents"]) || has(&["sample", "noise", "timestep"])) {
        let found = columns.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(bad(path, format!("of the columns needed it holds only: {found}")));
    }
    let empty = |name: &str| -> Result<Option<Tensor>, DistillError> {
        let Ok(view) = contents.tensor(name) else { return Ok(None) };
        let dtype =
            dtype(view.dtype()).ok_or_else(|| bad(path, format!("`{name}` is {:?}", view.dtype())))?;
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        Ok(Some(tensor.to_dtype(DType::F32)?.unsqueeze(0)?))
    };
    let unconditional = match empty("unconditional_hidden_states")? {
        None => None,
        Some(encoder_hidden_states) => {
            let text_embeds = empty("unconditional_text_embeds")?;
            Some(Conditioning { encoder_hidden_states, text_embeds, time_ids: None })
        }
    };
    let rows = rows.expect("at least two columns are there");
    drop(contents);
    Ok(Opened { shard: Shard { bytes, rows, starts }, columns, unconditional })
}

fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::F64 => Some(DType::F64),
        Dtype::I64 => Some(DType::I64),
        _ => None,
    }
}

fn bad(path: &Path, reason: String) -> DistillError {
    DistillError::Latents {
        path: PathBuf::from(path),
        reason,
        help: "give `latents` [N, c, h, w] and `encoder_hidden_states` [N, tokens, d] as f32, f16 or bf16, \
               or a calibration file with `sample`, `noise` and `timestep`",
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::backend::Random;
    use crate::base::Interrupted;

    const CPU: Device = Device::Cpu;

    fn schedule() -> Result<NoiseSchedule, Box<dyn Error>> {
        Ok(NoiseSchedule::from_config(&serde_json::json!({
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        }))?)
    }

    fn batch(rows: Range<usize>) -> candle_core::Result<LatentBatch> {
        let random = Random::new(5, "batch");
        let draw = |purpose, shape: &[usize]| {
            let rows: candle_core::Result<Vec<Tensor>> =
                rows.clone().map(|row| random.normal(purpose, row as u64, shape, &CPU)).collect();
            Tensor::stack(&rows?, 0)
        };
        let conditioning = Conditioning {
            encoder_hidden_states: draw("text", &[5, 12])?,
            text_embeds: Some(draw("embeds", &[3])?),
            time_ids: None,
        };
        Ok(LatentBatch { latents: draw("latents", &[4, 8, 8])?, conditioning })
    }

    fn furthest(a: &Tensor, b: &Tensor) -> candle_core::Result<f32> {
        (a - b)?.abs()?.max_all()?.to_scalar()
    }

    #[test]
    fn rows_are_found_across_shards_and_made_once() -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let mut made = Vec::new();
        let mut fill = |stop_at: usize| {
            let make = |rows: Range<usize>| {
                made.push(rows.clone());
                Ok::<_, DistillError>(batch(rows)?)
            };
            let stop = |done| if done == stop_at { Err(Interrupted.into()) } else { Ok(()) };
            LatentFiles::fill(folder.path(), 10, 4, Some(&batch(0..1)?.conditioning), make, stop)
        };
        assert!(fill(4).is_err());
        fill(usize::MAX)?;
        fill(usize::MAX)?;
        assert_eq!(made, [0..4, 4..8, 8..10]);

        let files = LatentFiles::open(folder.path(), &schedule()?)?;
        assert_eq!(files.rows(), 10);
        let (found, expected) = (files.fetch(&[9, 0, 4], &CPU)?, batch(0..10)?);
        let pick = |tensor: &Tensor| tensor.index_select(&Tensor::new(&[9u32, 0, 4], &CPU)?, 0);
        assert_eq!(furthest(&found.latents, &pick(&expected.latents)?)?, 0.0);
        let (found, expected) = (found.conditioning, expected.conditioning);
        assert_eq!(furthest(&found.encoder_hidden_states, &pick(&expected.encoder_hidden_states)?)?, 0.0);
        assert_eq!(found.text_embeds.map(|embeds| embeds.dims().to_vec()), Some(vec![3, 3]));
        let empty = files.unconditional(&CPU)?.ok_or("it was written")?;
        assert_eq!(empty.encoder_hidden_states.dims(), [1, 5, 12]);
        assert_eq!(empty.text_embeds.map(|embeds| embeds.dims().to_vec()), Some(vec![1, 3]));
        Ok(())
    }

    #[test]
    fn clean_latents_come_out_of_calibration_points() -> Result<(), Box<dyn Error>> {
        let schedule = schedule()?;
        let clean = batch(0..4)?;
        let noise = Random::new(5, "points").normal("noise", 0, &[4, 4, 8, 8], &CPU)?;
        let timestep = Tensor::new(&[0i64, 300, 700, 999], &CPU)?;
        let columns = BTreeMap::from([
            ("sample", schedule.add_noise(&clean.latents, &noise, &timestep)?),
            ("noise", noise),
            ("timestep", timestep),
            ("encoder_hidden_states", clean.conditioning.encoder_hidden_states),
        ]);
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("calibration.safetensors");
        candle_core::safetensors::save(&columns.into_iter().collect(), &path)?;
        let found = LatentFiles::open(&path, &schedule)?.fetch(&[0, 1, 2, 3], &CPU)?.latents;
        // At timestep 999 the rounding of f32 is divided by alpha = 0.07.
        let far = furthest(&found, &clean.latents)?;
        assert!(far < 2e-5, "{far}");
        Ok(())
    }

    #[test]
    fn wrong_files_are_refused_by_name() -> Result<(), Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let schedule = schedule()?;
        let refusal = |columns: Vec<(&str, Tensor)>| -> Result<String, Box<dyn Error>> {
            let path = folder.path().join("wrong.safetensors");
            candle_core::safetensors::save(&columns.into_iter().collect(), &path)?;
            Ok(LatentFiles::open(&path, &schedule).err().ok_or("it is wrong")?.to_string())
        };
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &CPU);
        let error = refusal(vec![
            ("latents", zeros(&[3, 4, 8, 8])?),
            ("encoder_hidden_states", zeros(&[2, 5, 12])?),
        ])?;
        assert!(error.contains("2 rows") && error.contains('3'), "{error}");
        let error = refusal(vec![("latents", zeros(&[3, 4, 8])?)])?;
        assert!(error.contains("latents") && error.contains("[3, 4, 8]"), "{error}");
        let error = refusal(vec![("latents", zeros(&[3, 4, 8, 8])?)])?;
        assert!(error.contains("holds only: latents"), "{error}");
        assert!(LatentFiles::open(tempfile::tempdir()?.path(), &schedule).is_err());
        Ok(())
    }
}
