//! `metadata.jsonl` and `metadata.csv` of Hugging Face's image folders: one row for each file, with `file_name`.

use serde_json::Value;

use super::captions::{Caption, one_line, usual};
use super::walk::{Entry, inside};
use crate::base::python_json;
use crate::data::DataError;

/// The column that names the file of a row.
const FILE_NAME: &str = "file_name";

/// The rows of every metadata file: the name of a file below the root, and its caption.
pub(super) fn read(entries: &[Entry], column: Option<&str>) -> Result<Vec<(String, Caption)>, DataError> {
    let mut captions = Vec::new();
    for entry in entries.iter().filter(|entry| entry.stem == "metadata") {
        let rows = match entry.extension.as_str() {
            "jsonl" => json_rows(entry, column)?,
            "csv" => csv_rows(entry, column)?,
            _ => continue,
        };
        // A row names a file below the folder of the metadata file.
        captions.extend(rows.into_iter().map(|(name, caption)| {
            let caption =
                one_line(&caption).map_err(|error| format!("its caption in {} {error}", entry.name));
            (inside(&entry.folder, name.trim_start_matches("./")), caption)
        }));
    }
    Ok(captions)
}

fn bad(entry: &Entry, reason: String) -> DataError {
    DataError::Source {
        path: entry.path.clone(),
        reason,
        help: format!("each row needs `{FILE_NAME}` and a caption, such as `text`; or remove the file"),
    }
}

fn json_rows(entry: &Entry, column: Option<&str>) -> Result<Vec<(String, String)>, DataError> {
    let bytes = std::fs::read(&entry.path).map_err(DataError::file(&entry.path))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let read = |(number, line): (usize, &[u8])| {
        let row: Value = python_json::from_slice(line)
            .map_err(|error| bad(entry, format!("line {} is not JSON: {error}", number + 1)))?;
        let Some(name) = row[FILE_NAME].as_str() else {
            return Err(bad(entry, format!("line {} has no `{FILE_NAME}`", number + 1)));
        };
        Ok((name.to_owned(), caption_in(&row, column)))
    };
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(read).collect()
}

/// The caption in an object; empty if it has none, or null.
pub(super) fn caption_in(row: &Value, column: Option<&str>) -> String {
    let names: Vec<&str> =
        row.as_object().map(|row| row.keys().map(String::as_str).collect()).unwrap_or_default();
    usual(&names, column).and_then(|name| row[name].as_str()).unwrap_or_default().to_owned()
}

fn csv_rows(entry: &Entry, column: Option<&str>) -> Result<Vec<(String, String)>, DataError> {
    let failed = |error: csv::Error| bad(entry, error.to_string());
    let mut reader = csv::ReaderBuilder::new().from_path(&entry.path).map_err(failed)?;
    let headers: Vec<String> = reader
        .headers()
        .map_err(failed)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_owned())
        .collect();
    let place = |wanted: &str| headers.iter().position(|name| name == wanted);
    let file = place(FILE_NAME).ok_or_else(|| bad(entry, format!("it has no column `{FILE_NAME}`")))?;
    let names: Vec<&str> = headers.iter().map(String::as_str).collect();
    let caption = usual(&names, column).and_then(place);
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.map_err(failed)?;
        let value = |place: usize| record.get(place).unwrap_or_default().to_owned();
        Ok((value(file), caption.map(value).unwrap_or_default()))
    };
    reader.records().map(row).collect()
}
