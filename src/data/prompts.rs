//! Prompt files: one prompt per line.

use std::fs;
use std::path::Path;

use super::DataError;

/// The prompts of a file. Blank lines are skipped; a file without a prompt is an error.
pub fn read(path: &Path) -> Result<Vec<String>, DataError> {
    let prompts: Vec<String> =
        read_text(path)?.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(DataError::NoPrompts { path: path.to_owned() });
    }
    Ok(prompts)
}

/// A file as text, without the byte order mark that some editors write.
pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(DataError::file(path))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        DataError::NotText { path: path.to_owned(), line }
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
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
