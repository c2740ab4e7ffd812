//! Reads the files of an evaluation, for reports.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::MetricError;
use super::record::{FORMAT, Metrics, TIMINGS_FILE, Values};
use crate::base::files;

impl Metrics {
    /// Reads `metrics.json` from an artefact's folder.
    pub fn open(folder: &Path) -> Result<Self, MetricError> {
        let metrics: Self = read(&folder.join("metrics.json"))?;
        check(&folder.join("metrics.json"), metrics.format)?;
        Ok(metrics)
    }

    /// Reads `.timings.json`, if it exists.
    pub fn open_timings(folder: &Path) -> Result<Option<Self>, MetricError> {
        let path = folder.join(TIMINGS_FILE);
        if path.is_file() { read(&path).map(Some) } else { Ok(None) }
    }
}

impl Values {
    /// Reads `values.json` from an artefact's folder.
    pub fn open(folder: &Path) -> Result<Self, MetricError> {
        let values: Self = read(&folder.join("values.json"))?;
        check(&folder.join("values.json"), values.format)?;
        Ok(values)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, MetricError> {
    files::read_json(path).map_err(|source| MetricError::File { path: path.to_owned(), source })
}

fn check(path: &Path, format: u32) -> Result<(), MetricError> {
    if format == FORMAT {
        return Ok(());
    }
    let text = format!("the file has format {format}, but this version reads format {FORMAT}");
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, text);
    Err(MetricError::File { path: path.to_owned(), source })
}
