//! The files of two artefacts that differ, and by how much: numbers of JSON and tensors by their values, others only by
//! their bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::size::{FileDifference, Number, Size};
use super::tensors;
use crate::base::Digest;

/// The visible files that differ between two folders, in order.
pub(super) fn differences(old: &Path, new: &Path) -> Vec<FileDifference> {
    let (before, after) = (list(old), list(new));
    let mut all = Vec::new();
    for (name, path) in &before {
        let size = match after.get(name) {
            None => Some(Size::Missing),
            Some(now) if Digest::of_file(path).ok() == Digest::of_file(now).ok() => None,
            Some(now) => Some(size(name, path, now)),
        };
        all.extend(size.map(|size| FileDifference { path: name.clone(), size }));
    }
    let added = after.keys().filter(|name| !before.contains_key(*name));
    all.extend(added.map(|name| FileDifference { path: name.clone(), size: Size::New }));
    all
}

fn size(name: &str, old: &Path, new: &Path) -> Size {
    let numbers = match name.rsplit_once('.') {
        Some((_, "json")) => of_json(old, new),
        Some((_, "safetensors")) => tensors::compare(old, new),
        _ => None,
    };
    numbers.unwrap_or(Size::Bytes)
}

/// The numbers of two JSON files of the same shape.
fn of_json(old: &Path, new: &Path) -> Option<Size> {
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten(String::new(), &read(old)?, &mut before);
    flatten(String::new(), &read(new)?, &mut after);
    let (mut differ, mut of, mut others, mut most) = (0, 0, 0, None::<Number>);
    for (place, old) in &before {
        let new = after.get(place);
        match (old.as_f64(), new.and_then(Value::as_f64)) {
            (Some(old), Some(new)) => {
                of += 1;
                if let Some(number) = Number::of(|| place.clone(), old, new) {
                    differ += 1;
                    if most.as_ref().is_none_or(|most| number.exceeds(most)) {
                        most = Some(number);
                    }
                }
            }
            _ => others += usize::from(Some(old) != new),
        }
    }
    others += after.keys().filter(|place| !before.contains_key(*place)).count();
    Some(Size::Numbers { differ, of, most: most?, others })
}

/// The leaves of a JSON value by their places.
fn flatten(place: String, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    let inner = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flatten(inner(name), value, leaves));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| flatten(inner(&at.to_string()), item, leaves));
        }
        leaf => drop(leaves.insert(place, leaf.clone())),
    }
}

/// The visible files below a folder by their paths; none if it is gone.
fn list(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        match path.is_dir() {
            _ if name.starts_with('.') => {}
            true => {
                found.extend(list(&path).into_iter().map(|(inner, path)| (format!("{name}/{inner}"), path)))
            }
            false => drop(found.insert(name, path)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value_and_the_rest_by_bytes() {
        let [old, new] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let write = |folder: &tempfile::TempDir, name: &str, text: &str| {
            fs::create_dir_all(folder.path().join("inner")).expect("writable");
            fs::write(folder.path().join(name), text).expect("writable");
        };
        for (name, before, after) in [
            ("equal.json", "[1]", "[1]"),
            (
                "inner/metrics.json",
                r#"{"a": [1, 2.0], "b": 4, "c": "x"}"#,
                r#"{"a": [1, 2.5], "b": 4.04, "c": "y"}"#,
            ),
            ("text.txt", "one", "two"),
        ] {
            write(&old, name, before);
            write(&new, name, after);
        }
        write(&old, "gone", "");
        write(&new, "added", "");
        write(&new, ".timings.json", "{}");
        let told: Vec<_> =
            differences(old.path(), new.path()).iter().map(FileDifference::to_string).collect();
        assert_eq!(
            told,
            [
                "gone: missing",
                "inner/metrics.json: 2 of 4 numbers differ, most of all a.1: 2 -> 2.5 (by 2.00e-1); so do 1 other \
                 values",
                "text.txt: other bytes",
                "added: new",
            ]
        );
        let not_a_number = Number::of(String::new, 1.0, f64::NAN).expect("it differs");
        let other = Number::of(String::new, 1.0, 2.0).expect("it differs");
        assert!(not_a_number.exceeds(&other) && !other.exceeds(&not_a_number));
        assert_eq!(Number::of(String::new, 0.0, -0.0), None);
    }
}
