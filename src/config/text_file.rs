//! Reads a YAML file as text. What is no text is refused with its place and the encoding it is likely to have.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{ConfigError, ConfigErrorKind};
use super::limits::LARGEST_FILE;
use super::source_text::SourceText;

/// Why a file gives no text.
pub(super) enum Unread {
    /// The system says why.
    Io(io::Error),
    /// It is not a file of text.
    Text(ConfigError),
}

/// The text of a file, without a byte order mark.
pub(super) fn read(path: &Path) -> Result<SourceText, Unread> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(Unread::Io)?;
    decode(path, bytes).map_err(Unread::Text)
}

fn decode(path: &Path, mut bytes: Vec<u8>) -> Result<SourceText, ConfigError> {
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(ConfigErrorKind::TooLarge { path: path.to_owned(), limit: LARGEST_FILE }.into());
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return Err(ConfigErrorKind::NotText { path: path.to_owned() }.into());
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(.."\u{feff}".len());
    }
    let name = path.display().to_string();
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceText::new(name, text)),
        Err(error) => {
            // Up to the bad byte the text shown is the text of the file.
            let (offset, byte) =
                (error.utf8_error().valid_up_to(), error.as_bytes()[error.utf8_error().valid_up_to()]);
            let source = SourceText::new(name, String::from_utf8_lossy(error.as_bytes()).into_owned());
            let (line, column) = source.line_column(offset);
            let span = (offset, char::REPLACEMENT_CHARACTER.len_utf8()).into();
            Err(ConfigError::spanned(ConfigErrorKind::NotUtf8 { byte, line, column }, &source, span))
        }
    }
}

#[cfg(test)]
mod tests {
    use miette::Diagnostic;

    use super::*;

    fn error(bytes: &[u8]) -> (String, Option<(usize, usize)>, String) {
        let error = decode(Path::new("small.yaml"), bytes.to_vec()).expect_err("it is no text");
        let [code, help] = [error.code(), error.help()].map(|text| text.map(|text| text.to_string()));
        let words = format!("{error}; {}", help.unwrap_or_default());
        (code.unwrap_or_default(), error.position(), words)
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let source = decode(Path::new("small.yaml"), b"\xef\xbb\xbfseed: 1".to_vec());
        assert!(source.is_ok_and(|source| source.text() == "seed: 1"));
    }

    #[test]
    fn what_is_not_utf8_is_refused_at_its_first_byte() {
        let (code, place, words) = error(b"name: ok\nfile: \xc3\xbc caf\xe9 \xe9\n");
        assert_eq!((code.as_str(), place), ("yaml::not_utf8", Some((2, 12))));
        for word in ["0xe9", "line 2, column 12", "Latin-1", "`é`", "UTF-8"] {
            assert!(words.contains(word), "{word:?} is not in {words}");
        }
        let utf16: Vec<u8> = "seed: 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [utf16.clone(), [b"\xff\xfe".as_slice(), &utf16].concat(), b"a: \0".to_vec()] {
            let (code, place, words) = error(&bytes);
            assert_eq!((code.as_str(), place), ("yaml::not_text", None));
            assert!(words.contains("small.yaml") && words.contains("UTF-16"), "{words}");
        }
    }

    #[test]
    fn a_file_has_a_limit() {
        let (code, _, words) = error(&vec![b'#'; LARGEST_FILE as usize + 1]);
        assert_eq!(code, "yaml::too_large");
        assert!(words.contains("small.yaml") && words.contains("1.0 MB"), "{words}");
    }
}
