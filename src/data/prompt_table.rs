//! Prompts in a column of a table, as the published prompt sets are.

use std::fs::File;
use std::path::Path;

use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use super::DataError;
use super::sources::usual;
use super::text_file::read_text;

/// A kind of table, by the ending of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Values between tabs or commas, below a line of names.
    Separated(u8),
    /// A list of texts, or of objects.
    Json,
    /// An object or a text per line.
    JsonLines,
    Parquet,
}

/// The kind of a file; `None` if it is not a table.
pub(super) fn of(path: &Path) -> Option<Table> {
    let ending = path.extension()?.to_str()?.to_lowercase();
    Some(match ending.as_str() {
        "tsv" => Table::Separated(b'\t'),
        "csv" => Table::Separated(b','),
        "json" => Table::Json,
        "jsonl" => Table::JsonLines,
        "parquet" => Table::Parquet,
        _ => return None,
    })
}

impl Table {
    /// The texts of a column, by default of the first with a usual name.
    pub(super) fn read(self, path: &Path, column: Option<&str>) -> Result<Vec<String>, DataError> {
        let found = match self {
            Self::Separated(separator) => separated(&read_text(path)?, separator, column),
            Self::Json => serde_json::from_str(&read_text(path)?)
                .map_err(|error| error.to_string())
                .and_then(|whole: Value| values(whole.as_array().ok_or("it is no list")?, column)),
            Self::JsonLines => {
                let text = read_text(path)?;
                let lines = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
                let lines: Result<Vec<Value>, _> = lines.collect();
                lines.map_err(|error| error.to_string()).and_then(|lines| values(&lines, column))
            }
            Self::Parquet => parquet(path, column),
        };
        let help = "name the column of the prompts: `{ file: ..., column: ... }`".to_owned();
        found.map_err(|reason| DataError::Source { path: path.to_owned(), reason, help })
    }
}

fn separated(text: &str, separator: u8, column: Option<&str>) -> Result<Vec<String>, String> {
    // Quotes are part of the texts in tab-separated files.
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .quoting(separator != b'\t')
        .from_reader(text.as_bytes());
    let names: Vec<String> =
        reader.headers().map_err(|error| error.to_string())?.iter().map(str::to_owned).collect();
    let wanted = chosen(&names, column)?;
    let place = names.iter().position(|name| *name == wanted).unwrap_or_default();
    let text = |row: csv::Result<csv::StringRecord>| {
        row.map(|row| row.get(place).unwrap_or_default().to_owned()).map_err(|error| error.to_string())
    };
    reader.records().map(text).collect()
}

fn values(rows: &[Value], column: Option<&str>) -> Result<Vec<String>, String> {
    let text = |(index, row): (usize, &Value)| {
        let text = match row {
            Value::String(text) => Some(text.clone()),
            Value::Object(row) => {
                let names: Vec<String> = row.keys().cloned().collect();
                row[&chosen(&names, column)?].as_str().map(str::to_owned)
            }
            _ => None,
        };
        text.ok_or_else(|| format!("row {} has no text", index + 1))
    };
    rows.iter().enumerate().map(text).collect()
}

fn parquet(path: &Path, column: Option<&str>) -> Result<Vec<String>, String> {
    let text = |error: ParquetError| error.to_string();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(text)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let wanted = chosen(&names, column)?;
    let place = names.iter().position(|name| *name == wanted).unwrap_or_default();
    let mut texts = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(text)?;
        let rows = usize::try_from(group.metadata().num_rows()).map_err(|error| error.to_string())?;
        let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(place).map_err(text)?
        else {
            return Err(format!("the column `{wanted}` holds no texts"));
        };
        let (mut definitions, mut values): (Vec<i16>, Vec<ByteArray>) = (Vec::new(), Vec::new());
        column.read_records(rows, Some(&mut definitions), None, &mut values).map_err(text)?;
        for value in values {
            texts.push(value.as_utf8().map_err(text)?.to_owned());
        }
    }
    Ok(texts)
}

fn chosen(names: &[String], column: Option<&str>) -> Result<String, String> {
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let missing = || match column {
        Some(column) => format!("it has no column `{column}`; it has {}", known.join(", ")),
        None => format!("none of its columns is named text, caption or prompt; it has {}", known.join(", ")),
    };
    usual(&known, column).map(str::to_owned).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use parquet::errors::ParquetError;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use crate::data::prompts::read_column;

    fn read(name: &str, bytes: impl AsRef<[u8]>, column: Option<&str>) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("ours");
        read_column(&path, column).map_err(|error| error.to_string())
    }

    /// A table with a number and a text that may be missing, two rows in each group.
    fn table(texts: &[Option<&str>]) -> Result<Vec<u8>, ParquetError> {
        let schema = parse_message_type("message rows { required int32 id; optional binary words (UTF8); }")?;
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::default())?;
        for rows in texts.chunks(2) {
            let mut group = writer.next_row_group()?;
            let mut ids = group.next_column()?.expect("the first");
            ids.typed::<Int32Type>().write_batch(&[7, 8][..rows.len()], None, None)?;
            ids.close()?;
            let values: Vec<ByteArray> = rows.iter().flatten().map(|text| ByteArray::from(*text)).collect();
            let levels: Vec<i16> = rows.iter().map(|text| i16::from(text.is_some())).collect();
            let mut words = group.next_column()?.expect("the second");
            words.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
            words.close()?;
            group.close()?;
        }
        writer.close()?;
        Ok(bytes)
    }

    #[test]
    fn a_column_of_parquet_is_read_through_all_its_groups() -> Result<(), ParquetError> {
        let bytes =
            table(&[Some("a \"red\" cat, left"), None, Some(" caf\u{e9} "), Some("a dog"), Some("")])?;
        let expected = ["a \"red\" cat, left", "caf\u{e9}", "a dog"].map(str::to_owned).to_vec();
        assert_eq!(read("a.parquet", &bytes, Some("words")), Ok(expected));
        let error = |bytes: &[u8], column| read("a.PARQUET", bytes, column).expect_err("it cannot be read");
        assert!(error(&bytes, Some("id")).contains("the column `id` holds no texts"));
        assert!(error(&bytes, None).contains("it has id, words"));
        assert!(error(&bytes[..bytes.len() / 2], Some("words")).contains("arquet"));
        Ok(())
    }

    #[test]
    fn a_column_is_read_from_every_kind_of_table() {
        let expected = Ok(vec!["a \"red\" cat, left".to_owned(), "a dog".to_owned()]);
        for (name, text, column) in [
            ("a.tsv", "Prompt\tKind\na \"red\" cat, left\tx\na dog\ty\n", None),
            ("a.csv", "id,caption\n1,\"a \"\"red\"\" cat, left\"\n2,a dog\n", None),
            ("a.json", r#"["a \"red\" cat, left", "a dog"]"#, None),
            ("a.json", r#"[{"q": "a \"red\" cat, left"}, {"q": "a dog"}]"#, Some("q")),
            ("a.jsonl", "{\"prompt\": \"a \\\"red\\\" cat, left\"}\n\n{\"prompt\": \"a dog\"}\n", None),
        ] {
            assert_eq!(read(name, text, column), expected, "{name}");
        }
        let error = read("a.tsv", "Wort\tKind\na\tx\n", None).expect_err("no column is usual");
        assert!(error.contains("it has Wort, Kind"), "{error}");
        let error = read("a.csv", "text\na\n", Some("words")).expect_err("there is no such column");
        assert!(error.contains("no column `words`; it has text"), "{error}");
        assert!(read("a.json", "[1]", None).expect_err("a number").contains("row 1 has no text"));
    }
}
