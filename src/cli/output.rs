//! Data on stdout and notes on stderr. A reader that stops reading (`| head`) is not an error. Text can come from files,
//! so characters that control a terminal are escaped.

use std::io::{self, Write};
use std::path::Path;

use supports_hyperlinks::Stream;

use super::error::CliError;
use crate::base::{FileError, shown};
use crate::ui::linked;

/// Writes `text` to stdout.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    write(&shown::lines(text))
}

/// Writes text to stdout that this program has made of nothing else, as it is.
pub(super) fn print_own(text: &[u8]) -> Result<(), CliError> {
    write(&String::from_utf8_lossy(text))
}

/// Writes the name of a file to stdout, as a link where the terminal shows links.
pub(super) fn print_link(file: &Path) -> Result<(), CliError> {
    let name = shown::lines(&file.display().to_string()).into_owned();
    write(&format!("{}\n", linked(&name, file, Stream::Stdout)))
}

/// Writes a note to stderr. If nobody reads it, the work goes on.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "note: {}", shown::message(text));
}

/// Why a command waits for a process of another machine.
pub(super) fn silent(holder: &str) -> String {
    format!("{holder} shows no sign of life; waiting until it has been silent for 30 seconds")
}

fn write(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(FileError { path: "stdout".into(), source: error }.into())
        }
        _ => Ok(()),
    }
}

/// Writes `value` to stdout as indented JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value).expect("BUG: a command's data is not JSON");
    write(&format!("{}\n", shown::json(&text)))
}

/// Columns aligned with spaces; those whose index is in `right` are right-aligned.
pub(super) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let escaped = |row: &Vec<String>| row.iter().map(|cell| shown::line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(escaped).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().enumerate().map(|(column, cell)| match right.contains(&column) {
            true => format!("{cell:>width$}", width = widths[column]),
            false => format!("{cell:<width$}", width = widths[column]),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
