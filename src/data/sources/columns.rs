//! The columns of a Parquet table that matter: its pictures, their paths, and their captions.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::{LogicalType, Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::captions::usual;
use crate::data::DataError;
use crate::data::table::open;

/// Columns of img2dataset and others that hold pictures as they are.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "image"];

/// A table whose columns were found.
pub(super) struct Columns {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// The column of pictures, among the columns without structure.
    pictures: usize,
}

/// Where the pictures of a table are.
pub(super) struct Rows {
    /// The first row of each group of rows, and the number of all rows.
    pub(super) starts: Vec<usize>,
    /// Whether each row has a picture.
    pub(super) filled: Vec<bool>,
    /// The paths of rows without picture, as far as they have one.
    pub(super) paths: BTreeMap<usize, String>,
}

impl Columns {
    /// Opens a table and finds its pictures.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::file(path))?;
        let reader = SerializedFileReader::new(file).map_err(unreadable(path))?;
        let pictures = pictures_column(&reader, path)?;
        Ok(Self { path: path.to_owned(), reader, pictures })
    }

    /// The column of pictures.
    pub(super) fn pictures(&self) -> usize {
        self.pictures
    }

    fn schema(&self) -> &SchemaDescriptor {
        self.reader.metadata().file_metadata().schema_descr()
    }

    /// Where each picture is.
    pub(super) fn rows(&self) -> Result<Rows, DataError> {
        let (mut starts, mut filled) = (vec![0], Vec::new());
        for group in 0..self.reader.num_row_groups() {
            let rows = filled_rows(&self.reader, group, self.pictures);
            filled.extend(rows.map_err(unreadable(&self.path))?);
            starts.push(filled.len());
        }
        let mut paths = BTreeMap::new();
        if let Some(leaf) = self.paths_column().filter(|_| filled.contains(&false)) {
            let texts = self.texts(leaf)?.into_iter().enumerate();
            let empty = texts.filter(|(row, _)| filled.get(*row) == Some(&false));
            paths.extend(empty.filter_map(|(row, texts)| Some((row, texts.into_iter().next()?))));
        }
        Ok(Rows { starts, filled, paths })
    }

    /// The paths of rows without picture. A table that cannot have such rows is not read.
    pub(super) fn paths_of_empty_rows(&self) -> Result<BTreeMap<usize, String>, DataError> {
        match self.paths_column() {
            Some(_) => Ok(self.rows()?.paths),
            None => Ok(BTreeMap::new()),
        }
    }

    /// The column `path` beside the column `bytes`.
    fn paths_column(&self) -> Option<usize> {
        let schema = self.schema();
        let pictures = schema.column(self.pictures).path().parts().to_vec();
        let is_it = |leaf: &usize| {
            let column = schema.column(*leaf);
            let parts = column.path().parts();
            column.physical_type() == Type::BYTE_ARRAY
                && parts.len() == 2
                && pictures.len() == 2
                && (&parts[0], parts[1].as_str()) == (&pictures[0], "path")
        };
        (0..schema.num_columns()).find(is_it)
    }

    /// The captions of every row, several where the column is a list; nothing without such a column.
    pub(super) fn captions(&self, column: Option<&str>) -> Result<Vec<Vec<String>>, DataError> {
        let schema = self.schema();
        let root = |leaf: usize| schema.columns()[leaf].path().parts()[0].as_str();
        let is_text = |leaf: &usize| {
            let leaf = schema.column(*leaf);
            leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() <= 1
        };
        let leaves: Vec<usize> = (0..schema.num_columns()).filter(is_text).collect();
        let names: Vec<&str> = leaves.iter().map(|&leaf| root(leaf)).collect();
        let Some(name) = usual(&names, column) else {
            return match column {
                None => Ok(Vec::new()),
                Some(column) => Err(DataError::Source {
                    path: self.path.clone(),
                    reason: format!("it has no column of text `{column}`, only {}", names.join(", ")),
                    help: "correct `caption-column`".to_owned(),
                }),
            };
        };
        let leaf = leaves.into_iter().find(|&leaf| root(leaf) == name).expect("the name is that of a leaf");
        self.texts(leaf)
    }

    /// The texts of each row of a column.
    fn texts(&self, leaf: usize) -> Result<Vec<Vec<String>>, DataError> {
        let mut rows = Vec::new();
        for group in 0..self.reader.num_row_groups() {
            rows.extend(texts(&self.reader, group, leaf).map_err(unreadable(&self.path))?);
        }
        Ok(rows)
    }
}

fn unreadable(path: &Path) -> impl Fn(ParquetError) -> DataError {
    |error| DataError::Source {
        path: path.to_owned(),
        reason: error.to_string(),
        help: "copy or download the file again".to_owned(),
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
