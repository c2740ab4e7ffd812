//! A column of pictures in a Parquet file, read row after row: one page is in memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// A file with pictures in one column.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    /// The column of pictures, among the columns without structure.
    pictures: usize,
    /// The first row of each group of rows, and the number of all rows.
    starts: Vec<usize>,
}

/// The rest of the pictures of one group of rows.
pub struct Column {
    reader: ColumnReaderImpl<ByteArrayType>,
    /// The definition level of a value that is not null.
    defined: i16,
    next: usize,
    end: usize,
}

impl Table {
    /// `pictures` is the column, and `starts` has the first row of each group and the number of all rows.
    pub(super) fn new(path: &Path, pictures: usize, starts: Vec<usize>) -> Self {
        Self { path: path.to_owned(), pictures, starts }
    }

    /// The pictures from `row` to the end of its group.
    pub(super) fn column(&self, row: usize) -> Result<Column, String> {
        let group = self.starts.partition_point(|start| *start <= row) - 1;
        let open = || -> Result<Column, ParquetError> {
            let reader = SerializedFileReader::new(File::open(&self.path)?)?;
            let defined =
                reader.metadata().file_metadata().schema_descr().column(self.pictures).max_def_level();
            let column = open(&reader, group, self.pictures)?;
            Ok(Column { reader: column, defined, next: self.starts[group], end: self.starts[group + 1] })
        };
        open().map_err(|error| error.to_string())
    }
}

impl Column {
    /// Whether a row is still to come.
    pub(super) fn reaches(&self, row: usize) -> bool {
        (self.next..self.end).contains(&row)
    }

    /// The bytes of a row that is still to come.
    pub(super) fn read(&mut self, row: usize) -> Result<Vec<u8>, String> {
        let (mut definitions, mut values) = (Vec::new(), Vec::<ByteArray>::new());
        let skipped = self.reader.skip_records(row - self.next).and_then(|_| {
            self.next = row + 1;
            self.reader.read_records(1, Some(&mut definitions), None, &mut values)
        });
        skipped.map_err(|error| error.to_string())?;
        match values.pop() {
            Some(value) if definitions.last().is_none_or(|definition| *definition == self.defined) => {
                Ok(value.data().to_vec())
            }
            _ => Err("the row has no picture".to_owned()),
        }
    }
}

/// A column of bytes of one group of rows.
pub(super) fn open(
    reader: &SerializedFileReader<File>,
    group: usize,
    leaf: usize,
) -> Result<ColumnReaderImpl<ByteArrayType>, ParquetError> {
    match reader.get_row_group(group)?.get_column_reader(leaf)? {
        ColumnReader::ByteArrayColumnReader(column) => Ok(column),
        _ => Err(ParquetError::General("a column changed its type".to_owned())),
    }
}
