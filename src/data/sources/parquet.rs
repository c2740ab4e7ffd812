//! Parquet tables with pictures inside: those of the Hugging Face hub (`image: struct<bytes, path>`) and img2dataset's
//! (`jpg`). Captions are read with the list; pictures are read later, row after row.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{LogicalType, Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::captions::{one_line, usual};
use crate::backend::Random;
use crate::data::DataError;
use crate::data::order::below;
use crate::data::sample::{Candidate, Found, LeftOut, Place};
use crate::data::table::{Table, open};

/// What names of such files end with.
pub const ENDINGS: &[&str] = &[".parquet"];

/// Columns of img2dataset and others that hold pictures as they are.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "image"];

/// The rows of these files, each with its name. `column` names the captions; of several captions of one row, one is drawn.
pub fn list(files: &[(String, PathBuf)], column: Option<&str>, random: &Random) -> Result<Found, DataError> {
    check_splits(files)?;
    let (mut found, mut empty) = (Found::default(), 0);
    for (name, path) in files {
        let bad = |error: ParquetError| unreadable(path, error.to_string());
        let reader =
            SerializedFileReader::new(File::open(path).map_err(DataError::file(path))?).map_err(bad)?;
        let pictures = pictures_column(&reader, path)?;
        let captions = captions(&reader, path, column)?;
        let (mut starts, mut filled) = (vec![0], Vec::new());
        for group in 0..reader.num_row_groups() {
            filled.extend(filled_rows(&reader, group, pictures).map_err(bad)?);
            starts.push(filled.len());
        }
        let table = Arc::new(Table::new(path, pictures, starts));
        for (row, _) in filled.iter().enumerate().filter(|(_, filled)| **filled) {
            let choices =
                captions.as_ref().and_then(|captions| captions.get(row)).map_or(&[][..], Vec::as_slice);
            let drawn = match choices.len() {
                0 | 1 => 0,
                count => below(&mut random.stream("caption of several", row as u64), count as u64) as usize,
            };
            let name = format!("{name}:{row}");
            match choices.get(drawn).map_or(Ok(String::new()), |text| one_line(text)) {
                Ok(caption) => found.candidates.push(Candidate {
                    name,
                    caption,
                    repeats: 1,
                    place: Place::Row { table: Arc::clone(&table), row },
                }),
                Err(reason) => {
                    found.left_out.push(LeftOut { name, reason: format!("its caption {reason}") });
                }
            }
        }
        empty += filled.iter().filter(|filled| !**filled).count();
    }
    if empty > 0 {
        found.notes.push(format!("{empty} rows have no picture and are no samples"));
    }
    Ok(found)
}

fn unreadable(path: &Path, reason: String) -> DataError {
    let help = "copy or download the file again".to_owned();
    DataError::Source { path: path.to_owned(), reason, help }
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

/// The column without structure that holds the pictures.
fn pictures_column(reader: &SerializedFileReader<File>, path: &Path) -> Result<usize, DataError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let is_binary = |column: usize| {
        let column = schema.column(column);
        column.physical_type() == Type::BYTE_ARRAY
            && column.max_rep_level() == 0
            && !matches!(column.logical_type_ref(), Some(LogicalType::String))
    };
    let named = |column: usize| {
        let parts = schema.column(column).path().parts().to_vec();
        match parts.as_slice() {
            [name] => PICTURES.contains(&name.as_str()),
            [_, inner] => inner == "bytes",
            _ => false,
        }
    };
    (0..schema.num_columns()).find(|&column| is_binary(column) && named(column)).ok_or_else(|| {
        let names: BTreeSet<&str> = (0..schema.num_columns())
            .filter_map(|column| schema.columns()[column].path().parts().first().map(String::as_str))
            .collect();
        DataError::Source {
            path: path.to_owned(),
            reason: format!(
                "it has no column of pictures, only {}",
                names.into_iter().collect::<Vec<_>>().join(", ")
            ),
            help: "a column `image` with `bytes` or a column `jpg` is needed; links must be downloaded first, such as \
                   by img2dataset"
                .to_owned(),
        }
    })
}

/// The captions of every row; `None` without such a column.
fn captions(
    reader: &SerializedFileReader<File>,
    path: &Path,
    column: Option<&str>,
) -> Result<Option<Vec<Vec<String>>>, DataError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let root = |leaf: usize| schema.columns()[leaf].path().parts()[0].as_str();
    let is_text = |leaf: &usize| {
        let leaf = schema.column(*leaf);
        leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() <= 1
    };
    let leaves: Vec<usize> = (0..schema.num_columns()).filter(is_text).collect();
    let names: Vec<&str> = leaves.iter().map(|&leaf| root(leaf)).collect();
    let Some(name) = usual(&names, column) else {
        return match column {
            None => Ok(None),
            Some(column) => Err(DataError::Source {
                path: path.to_owned(),
                reason: format!("it has no column of text `{column}`, only {}", names.join(", ")),
                help: "correct `caption-column`".to_owned(),
            }),
        };
    };
    let leaf = leaves.into_iter().find(|&leaf| root(leaf) == name).expect("the name is that of a leaf");
    let mut rows = Vec::new();
    for group in 0..reader.num_row_groups() {
        let texts = texts(reader, group, leaf).map_err(|error| unreadable(path, error.to_string()))?;
        rows.extend(texts);
    }
    Ok(Some(rows))
}

/// The texts of each row of a group; several where the column is a list.
fn texts(
    reader: &SerializedFileReader<File>,
    group: usize,
    leaf: usize,
) -> Result<Vec<Vec<String>>, ParquetError> {
    let defined = reader.metadata().file_metadata().schema_descr().column(leaf).max_def_level();
    let mut column = open(reader, group, leaf)?;
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (_, _, levels) =
        column.read_records(usize::MAX, Some(&mut definitions), Some(&mut repetitions), &mut values)?;
    let mut values = values.into_iter();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for level in 0..levels {
        if repetitions.get(level).is_none_or(|repetition| *repetition == 0) {
            rows.push(Vec::new());
        }
        if definitions.get(level).is_none_or(|definition| *definition == defined)
            && let (Some(value), Some(row)) = (values.next(), rows.last_mut())
        {
            row.push(String::from_utf8_lossy(value.data()).into_owned());
        }
    }
    Ok(rows)
}

/// Whether each row of a group has a picture. The file mostly says how many have none; otherwise it is read once.
fn filled_rows(
    reader: &SerializedFileReader<File>,
    group: usize,
    leaf: usize,
) -> Result<Vec<bool>, ParquetError> {
    let meta = reader.metadata().row_group(group);
    let rows = usize::try_from(meta.num_rows()).unwrap_or(0);
    let nulls = meta.column(leaf).statistics().and_then(|statistics| statistics.null_count_opt());
    let defined = reader.metadata().file_metadata().schema_descr().column(leaf).max_def_level();
    if nulls == Some(0) || defined == 0 {
        return Ok(vec![true; rows]);
    }
    let mut column = open(reader, group, leaf)?;
    let (mut filled, mut values) = (Vec::with_capacity(rows), Vec::new());
    while filled.len() < rows {
        let mut definitions = Vec::new();
        let (records, _, _) = column.read_records(1, Some(&mut definitions), None, &mut values)?;
        if records == 0 {
            break;
        }
        values.clear();
        filled.extend(definitions.iter().map(|definition| *definition == defined));
    }
    Ok(filled)
}
