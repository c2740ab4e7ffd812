//! Parquet tables with pictures inside: those of the Hugging Face hub (`image: struct<bytes, path>`) and img2dataset's
//! (`jpg`). Captions are read with the list; pictures are read later, row after row. A row of the hub may have a path
//! instead of bytes: a file below the folder of the table.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::captions::{Caption, one_line};
use super::columns::Columns;
use super::walk::inside;
use crate::backend::Random;
use crate::data::DataError;
use crate::data::order::below;
use crate::data::sample::{Candidate, Found, LeftOut, Place};
use crate::data::table::Table;

/// What names of such files end with.
pub const ENDINGS: &[&str] = &[".parquet"];

/// The rows of these files, each with its name. `column` names the captions; of several captions of one row, one is drawn.
pub fn list(files: &[(String, PathBuf)], column: Option<&str>, random: &Random) -> Result<Found, DataError> {
    check_splits(files)?;
    let (mut found, mut empty) = (Found::default(), 0);
    for (name, path) in files {
        let columns = Columns::open(path)?;
        let captions = columns.captions(column)?;
        let rows = columns.rows()?;
        let table = Arc::new(Table::new(path, columns.pictures(), rows.starts));
        for (row, is_filled) in rows.filled.into_iter().enumerate() {
            let place = match (is_filled, rows.paths.get(&row)) {
                (true, _) => Ok(Place::Row { table: Arc::clone(&table), row }),
                (false, Some(written)) => beside(path, written).map(Place::File),
                (false, None) => {
                    empty += 1;
                    continue;
                }
            };
            let choices = captions.get(row).map_or(&[][..], Vec::as_slice);
            let name = format!("{name}:{row}");
            match place.and_then(|place| Ok((place, drawn(choices, row, random)?))) {
                Ok((place, caption)) => {
                    found.candidates.push(Candidate { name, caption, repeats: 1, place });
                }
                Err(reason) => found.left_out.push(LeftOut { name, reason }),
            }
        }
    }
    if empty > 0 {
        found.notes.push(format!("{empty} rows have no picture and are no samples"));
    }
    Ok(found)
}

/// The pictures in files of their own that these tables, each with its name below `folder`, name.
pub fn files_beside(files: &[(String, PathBuf)]) -> Result<Vec<String>, DataError> {
    let mut names = BTreeSet::new();
    for (name, path) in files {
        let rows = Columns::open(path)?.paths_of_empty_rows()?;
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let there = rows.into_values().filter(|written| beside(path, written).is_ok());
        names.extend(there.map(|written| inside(folder, written.trim_start_matches("./"))));
    }
    Ok(names.into_iter().collect())
}

/// The file that a row of the table at `table` names. The error is the reason to skip the row.
fn beside(table: &Path, written: &str) -> Result<PathBuf, String> {
    if written.contains("://") {
        return Err(format!("its picture is a link, {written}: download it first, such as by img2dataset"));
    }
    let is_below = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(written).components().all(is_below) {
        return Err(format!("its picture {written} is not below the folder of the table: move it there"));
    }
    let path = table.with_file_name(written);
    match path.is_file() {
        true => Ok(path),
        false => Err(format!("its picture {written} does not exist beside the table: copy it there")),
    }
}

/// One of the captions of a row.
fn drawn(choices: &[String], row: usize, random: &Random) -> Caption {
    let drawn = match choices.len() {
        0 | 1 => 0,
        count => below(&mut random.stream("caption of several", row as u64), count as u64) as usize,
    };
    let text = choices.get(drawn).map_or("", String::as_str);
    one_line(text).map_err(|reason| format!("its caption {reason}"))
}

/// Refuses `train-00000-of-00010` beside `test-00000-of-00002`.
fn check_splits(files: &[(String, PathBuf)]) -> Result<(), DataError> {
    let split = |name: &String| {
        let (rest, _) = name.rsplit_once("-of-")?;
        Some(rest.rsplit_once('-')?.0.to_owned())
    };
    let splits: BTreeSet<String> = files.iter().filter_map(|(name, _)| split(name)).collect();
    match splits.first().filter(|_| splits.len() > 1) {
        None => Ok(()),
        Some(first) => Err(DataError::Source {
            path: files[0].1.parent().unwrap_or(Path::new(".")).to_owned(),
            reason: format!(
                "it holds several splits: {}",
                splits.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            ),
            help: format!("name the files of one, such as `{first}-*.parquet`"),
        }),
    }
}
