//! Metadata files of kohya's scripts for fine-tuning, such as `meta_cap.json` and `meta_lat.json`: the caption and the tags
//! of each picture. Its key is the picture's path on the machine where the scripts ran, or its name without folder and
//! extension (`merge_captions_to_metadata.py` with and without `--full_path`).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::captions::{Caption, one_line};
use super::walk::{Entry, is_picture, last_part, without_extension};
use crate::base::python_json;
use crate::data::DataError;

/// What the scripts write for a picture. A file without any of them is of another program.
const FIELDS: [&str; 3] = ["caption", "tags", "train_resolution"];

/// The rows of such files.
#[derive(Default)]
pub(super) struct Keys {
    /// The keys without extension, with `/`, and their captions, by the last part of the key.
    rows: HashMap<String, Vec<(String, Caption)>>,
}

impl Keys {
    /// Reads the files among these. Their names sort in the order in which the scripts write them, each from the one
    /// before, so that the last one counts. `column` names one field, instead of caption and tags.
    pub(super) fn read(entries: &[Entry], column: Option<&str>) -> Result<Self, DataError> {
        let mut keys = Self::default();
        let is_named_so = |entry: &&Entry| entry.extension == "json" && entry.stem.starts_with("meta");
        for entry in entries.iter().filter(is_named_so) {
            let bytes = std::fs::read(&entry.path).map_err(DataError::file(&entry.path))?;
            let metadata: Value = python_json::from_slice(&bytes).map_err(|error| DataError::Source {
                path: entry.path.clone(),
                reason: format!("it is not JSON: {error}"),
                help: "write the file again, or remove it".to_owned(),
            })?;
            for (key, row) in rows(&metadata) {
                let caption = caption(row, column)
                    .and_then(|text| one_line(&text))
                    .map_err(|error| format!("its caption in {} {error}", entry.name));
                keys.insert(key, caption);
            }
        }
        Ok(keys)
    }

    fn insert(&mut self, key: &str, caption: Caption) {
        let key = key.replace('\\', "/");
        let key = match without_extension(&key) {
            (path, extension) if is_picture(&extension.to_lowercase()) => path.to_owned(),
            _ => key,
        };
        let same_name = self.rows.entry(last_part(&key).to_owned()).or_default();
        same_name.retain(|(other, _)| *other != key);
        same_name.push((key, caption));
    }

    /// The caption of the picture at this path below the root, without extension.
    pub(super) fn find(&self, path: &str) -> Option<&Caption> {
        let is_its = |key: &str| match key.strip_suffix(path) {
            Some(before) => before.is_empty() || before.ends_with('/'),
            None => key == last_part(path),
        };
        let same_name = self.rows.get(last_part(path))?;
        // `a.png` is `data/a.png` rather than `data/other/a.png`.
        let its = same_name.iter().filter(|(key, _)| is_its(key)).min_by_key(|(key, _)| key.len());
        its.map(|(_, caption)| caption)
    }

    /// The keys for which no file exists.
    pub(super) fn lost<'k>(&'k self, entries: &[Entry]) -> impl Iterator<Item = &'k str> {
        let stems: HashSet<String> = entries.iter().map(|entry| entry.stem.clone()).collect();
        let lost = self.rows.iter().filter(move |(name, _)| !stems.contains(*name));
        lost.flat_map(|(_, rows)| rows.iter().map(|(key, _)| key.as_str()))
    }
}

/// The rows of a file; none if it is of another program.
fn rows(metadata: &Value) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
    let rows: Option<Vec<_>> = metadata
        .as_object()
        .and_then(|rows| rows.iter().map(|(key, row)| Some((key.as_str(), row.as_object()?))).collect());
    let is_kohyas =
        |(_, row): &(&str, &Map<String, Value>)| FIELDS.iter().any(|field| row.contains_key(*field));
    rows.filter(|rows| rows.iter().all(is_kohyas)).unwrap_or_default().into_iter()
}

/// Caption and tags, as the scripts join them.
fn caption(row: &Map<String, Value>, column: Option<&str>) -> Caption {
    let text = |name: &str| match row.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.trim().is_empty())),
        Some(_) => Err(format!("has `{name}` that is no text")),
    };
    if let Some(column) = column {
        return Ok(text(column)?.unwrap_or_default().to_owned());
    }
    let texts: Vec<&str> = [text("caption")?, text("tags")?].into_iter().flatten().collect();
    Ok(texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(rows: &[(&str, &str)]) -> Keys {
        let mut keys = Keys::default();
        rows.iter().for_each(|(key, caption)| keys.insert(key, Ok((*caption).to_owned())));
        keys
    }

    #[test]
    fn a_picture_is_found_by_each_way_to_name_it() {
        let keys = keys(&[
            ("/home/me/data/10_cats/a.png", "a full path"),
            ("C:\\data\\b.webp", "a path of Windows"),
            ("c.d", "a name"),
            ("/home/me/data/e.png", "of the root"),
            ("/home/me/data/other/e.png", "of a folder"),
        ]);
        let find = |path| keys.find(path).and_then(|caption| caption.as_deref().ok());
        assert_eq!(find("10_cats/a"), Some("a full path"));
        assert_eq!(find("b"), Some("a path of Windows"));
        assert_eq!(find("10_cats/c.d"), Some("a name"));
        assert_eq!((find("e"), find("other/e")), (Some("of the root"), Some("of a folder")));
        for path in ["8_cats/a", "aa", "third/e", "f"] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn files_of_other_programs_have_no_rows() {
        let count = |text: &str| rows(&serde_json::from_str(text).expect("it is JSON")).count();
        assert_eq!(count(r#"{ "a": { "caption": "x" }, "b": { "train_resolution": [64, 64] } }"#), 2);
        for text in ["[]", "{}", r#"{ "a": { "caption": "x" }, "version": 1 }"#, r#"{ "a": { "x": 1 } }"#] {
            assert_eq!(count(text), 0, "{text}");
        }
    }

    #[test]
    fn caption_and_tags_are_joined() {
        let caption = |text: &str, column| {
            let row: Value = serde_json::from_str(text).expect("it is JSON");
            caption(row.as_object().expect("an object"), column)
        };
        let both = r#"{ "caption": "a cat", "tags": "cat, fur" }"#;
        assert_eq!(caption(both, None), Ok("a cat, cat, fur".to_owned()));
        assert_eq!(caption(both, Some("tags")), Ok("cat, fur".to_owned()));
        assert_eq!(caption(r#"{ "caption": null, "tags": "cat" }"#, None), Ok("cat".to_owned()));
        assert_eq!(caption(r#"{ "train_resolution": [64, 64] }"#, None), Ok(String::new()));
        assert!(
            caption(r#"{ "caption": ["a", "b"] }"#, None).is_err_and(|reason| reason.contains("`caption`"))
        );
    }
}
