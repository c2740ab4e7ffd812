//! A folder of pictures: captions in text files beside them or in metadata files, with sub-folders, and with the repeats
//! that kohya's scripts read from the names of folders (`10_name`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;

use super::folder_captions::FolderCaptions;
use super::walk::{Entry, walk};
use crate::data::DataError;
use crate::data::sample::{Candidate, Found, LeftOut, Place};

/// Files that hold Python objects. Opening one can run any code.
const PICKLES: [&str; 3] = ["pt", "pth", "ckpt"];

/// More than this is a year or a serial number, and no number of repeats.
const MOST_REPEATS: u32 = 1000;

/// The pictures below a folder. `column` names the caption in metadata files.
pub fn list(root: &Path, column: Option<&str>) -> Result<Found, DataError> {
    let (entries, left_out) = walk(root)?;
    let captions = FolderCaptions::read(&entries, column)?;
    let mut found = Found { left_out, ..Found::default() };
    let mut repeated = BTreeMap::new();
    let pictures: Vec<_> = entries.iter().filter(|entry| entry.is_picture()).collect();
    // Most captions are files of their own.
    let find = |entry: &&Entry| captions.find(&entry.folder, &entry.stem, Some(&entry.extension));
    let of_pictures: Vec<_> = pictures.par_iter().map(find).collect();
    for (entry, caption) in pictures.into_iter().zip(of_pictures) {
        let (folder, repeats) = repeats(&entry.folder);
        if repeats > 1 {
            repeated.insert(folder, repeats);
        }
        match caption {
            Ok(caption) => found.candidates.push(Candidate {
                name: entry.name.clone(),
                caption,
                repeats,
                place: Place::File(entry.path.clone()),
            }),
            Err(reason) => found.left_out.push(LeftOut { name: entry.name.clone(), reason }),
        }
    }
    found.notes = notes(&entries, &captions.lost(&entries), &repeated);
    Ok(found)
}

/// The innermost folder whose name begins with a number and `_`, and that number; once without one.
pub(super) fn repeats(folder: &str) -> (&str, u32) {
    let steps = folder.rsplit('/').filter_map(|step| {
        let (number, _) = step.split_once('_')?;
        let number = number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)?.parse().ok()?;
        (1..=MOST_REPEATS).contains(&number).then_some((step, number))
    });
    { steps }.next().unwrap_or(("", 1))
}

fn notes(entries: &[Entry], lost: &BTreeSet<String>, repeated: &BTreeMap<&str, u32>) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(first) = lost.first() {
        notes.push(format!("metadata names {} files that do not exist, such as {first}", lost.len()));
    }
    if !repeated.is_empty() {
        let folders: Vec<String> =
            repeated.iter().map(|(folder, repeats)| format!("{folder} {repeats} times")).collect();
        notes.push(format!("in each epoch, by the names of the folders: {}", folders.join(", ")));
    }
    let mut pickles = entries.iter().filter(|entry| PICKLES.contains(&entry.extension.as_str()));
    if let Some(first) = pickles.next() {
        notes.push(format!(
            "{} pickles such as {} are not read, because opening one can run any code; latents are read from .npz \
             files (`cached-latents`)",
            1 + pickles.count(),
            first.name
        ));
    }
    notes
}
