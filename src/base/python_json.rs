//! Reads JSON as Python writes it. Python's `json` module writes `NaN`, `Infinity` and `-Infinity`, which are not JSON:
//! diffusers saves `"lambda_min_clipped": -Infinity` for every DPM-Solver. Here such a number is read as the string of
//! its name, so that a key that nobody uses does no harm, and a key that needs a number says what it found.

use std::borrow::Cow;
use std::io::Write;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The names of Python's numbers that JSON does not have.
const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Precedes a name that [`edit`] has put into quotes, so that it is told from a string of the file.
const MARK: &str = "\\u0000";

/// Parses JSON; each of Python's numbers that JSON lacks becomes the string of its name.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(&quoted(text, ""))
}

/// Changes the keys of an object and returns its text, indented. What is not changed keeps its value, Python's numbers
/// included.
pub fn edit(text: &[u8], change: impl FnOnce(&mut Map<String, Value>)) -> serde_json::Result<Vec<u8>> {
    let mut keys = serde_json::from_slice(&quoted(text, MARK))?;
    change(&mut keys);
    let mut text = serde_json::to_string_pretty(&keys)?;
    if text.contains(MARK) {
        for name in NAMES {
            text = text.replace(&format!("\"{MARK}{name}\""), name);
        }
    }
    text.push('\n');
    Ok(text.into_bytes())
}

/// The text with each of the names outside strings in quotes, after `mark`.
fn quoted<'a>(text: &'a [u8], mark: &str) -> Cow<'a, [u8]> {
    let mut out = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < text.len() {
        match (in_string, text[at]) {
            (_, b'"') => in_string = !in_string,
            (true, b'\\') => at += 1,
            (false, b'-' | b'I' | b'N') => {
                if let Some(name) = NAMES.iter().find(|name| text[at..].starts_with(name.as_bytes())) {
                    out.extend_from_slice(&text[copied..at]);
                    write!(out, "\"{mark}{name}\"").expect("a vector takes any bytes");
                    copied = at + name.len();
                    at = copied;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_of_python_are_read_outside_strings_only() -> serde_json::Result<()> {
        let text =
            br#"{"a": -Infinity, "b": [NaN,Infinity, -1.5], "NaN": "say \"NaN, \\", "c": "-Infinity\\"}"#;
        let read: Value = from_slice(text)?;
        let expected = json!({
            "a": "-Infinity", "b": ["NaN", "Infinity", -1.5], "NaN": "say \"NaN, \\", "c": "-Infinity\\",
        });
        assert_eq!(read, expected);
        assert!(matches!(quoted(br#"{"a": "NaN", "b": -1, "c": null}"#, ""), Cow::Borrowed(_)));
        for broken in ["NaNs", "-", "Inf", "[NaN", "{NaN: 1", "\"NaN", "\"\\"] {
            assert!(from_slice::<Value>(broken.as_bytes()).is_err(), "{broken}");
        }
        Ok(())
    }

    #[test]
    fn a_key_that_needs_a_number_says_what_it_found() {
        let error = from_slice::<Vec<f64>>(b"[1.0, NaN]").expect_err("not a number").to_string();
        assert!(error.starts_with("invalid type: string \"NaN\", expected f64"), "{error}");
    }

    #[test]
    fn an_edited_object_keeps_its_other_values() -> serde_json::Result<()> {
        let text = br#"{"a": -Infinity, "b": "NaN", "c": [NaN, 1.0]}"#;
        let edited = edit(text, |keys| drop(keys.insert("d".to_owned(), json!(2))))?;
        let edited = String::from_utf8(edited).expect("text");
        let compact: String = edited.split_whitespace().collect();
        assert_eq!(compact, r#"{"a":-Infinity,"b":"NaN","c":[NaN,1.0],"d":2}"#);
        Ok(())
    }
}
