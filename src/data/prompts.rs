//! Prompt files: one prompt per line of a text, or one per row of a table, which its ending tells: `.tsv`, `.csv`, `.json`,
//! `.jsonl` or `.parquet`.

use std::path::Path;

use super::DataError;
use super::prompt_table;
use super::text_file::read_text;

/// The prompts of a file; of a table those of the column `text`, `caption` or `prompt`. Blank ones are skipped; a file
/// without a prompt is an error.
pub fn read(path: &Path) -> Result<Vec<String>, DataError> {
    read_column(path, None)
}

/// The prompts of a file; of a table those of a column.
pub fn read_column(path: &Path, column: Option<&str>) -> Result<Vec<String>, DataError> {
    let texts = match prompt_table::of(path) {
        Some(table) => table.read(path, column)?,
        None => read_text(path)?.lines().map(str::to_owned).collect(),
    };
    let texts = texts.iter().map(|text| text.trim());
    let prompts: Vec<String> = texts.filter(|text| !text.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(DataError::NoPrompts { path: path.to_owned() });
    }
    Ok(prompts)
}

/// The lines of a file that are not blank.
pub fn lines(path: &Path) -> Result<Vec<String>, DataError> {
    let text = read_text(path)?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Vec<String>, DataError> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("prompts.txt");
        fs::write(&path, bytes).expect("the folder is ours");
        read(&path)
    }

    #[test]
    fn one_prompt_per_line() -> Result<(), DataError> {
        let prompts = read_bytes("\u{feff}a red circle\r\n\n  # 7, a café \n".as_bytes())?;
        assert_eq!(prompts, ["a red circle", "# 7, a café"]);
        Ok(())
    }

    #[test]
    fn hostile_files_are_errors() {
        assert!(matches!(read_bytes(b" \n\n"), Err(DataError::NoPrompts { .. })));
        assert!(matches!(read_bytes(b"fine\nbad \xff\n"), Err(DataError::NotText { line: 2, .. })));
        assert!(matches!(read(Path::new("no/such/file")), Err(DataError::File(_))));
    }
}
