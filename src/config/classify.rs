//! Turns the messages of serde and of the YAML reader into errors that say what to write.

use super::error::{ConfigError, ConfigErrorKind};
use super::limits::DEEPEST;
use super::source_text::SourceText;
use crate::base::shown;

/// How serde's messages about types begin. Before them stands the path of the value, if the reader knows it.
const BEGINNINGS: [&str; 5] =
    ["invalid type: ", "invalid value: ", "unknown field `", "unknown variant `", "missing field `"];

/// An error of serde, which was reading `within` from a text that is YAML.
pub(super) fn types(error: &serde_yaml::Error, source: &SourceText, within: &str) -> ConfigError {
    ConfigError::spanned(of_types(&error.to_string(), within), source, source.span_of(error))
}

/// An error of the YAML reader about a text that may not be YAML.
pub(super) fn syntax(error: &serde_yaml::Error, source: &SourceText) -> ConfigError {
    let kind = of_syntax(&error.to_string());
    // The reader has no line for these.
    let offset = match &kind {
        ConfigErrorKind::Syntax { message } if message.contains("control characters") => {
            let is_bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
            source.text().find(is_bad)
        }
        ConfigErrorKind::Documents => source.text().rfind("\n---").map(|end| end + 1),
        _ => None,
    };
    let span = offset.map_or_else(|| source.span_of(error), |offset| (offset, 1).into());
    ConfigError::spanned(kind, source, span)
}

/// What is wrong with a value that is given alone, as on the command line.
pub(super) fn of_value(error: &serde_yaml::Error) -> String {
    match of_syntax(&error.to_string()) {
        ConfigErrorKind::Syntax { message } => format!("the value is not YAML: {message}"),
        kind => kind.to_string().replace("the file", "the value"),
    }
}

/// Classifies a message: `path: message at line 3 column 4`.
fn of_types(message: &str, within: &str) -> ConfigErrorKind {
    let message = without_position(message);
    let begins =
        |&(at, _): &(usize, char)| BEGINNINGS.iter().any(|beginning| message[at..].starts_with(beginning));
    let start = message.char_indices().find(begins).map(|(at, _)| at);
    let (path, message) = match start.and_then(|at| message[..at].strip_suffix(": ").zip(message.get(at..))) {
        Some(parts) => parts,
        None => match message.split_once(": ") {
            Some((path, rest)) if start.is_none() && !path.contains([' ', '`']) => (path, rest),
            _ => ("", message.as_str()),
        },
    };
    let within = match key(path) {
        Some(key) => format!("`{}` of {within}", shown::brief(key)),
        None => within.to_owned(),
    };
    let names = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let (subject, rest) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let named = |prefix| {
        let name = subject.strip_prefix(prefix)?;
        let name = name.split("`, there are no").next().unwrap_or(name);
        Some(shown::brief(name.strip_suffix('`').unwrap_or(name)).into_owned())
    };
    if let Some(key) = named("unknown field `") {
        return ConfigErrorKind::UnknownKey { key, within, known: names(rest) };
    }
    if let Some(found) = named("unknown variant `") {
        return ConfigErrorKind::UnknownValue { found, within, known: names(rest) };
    }
    if let Some(key) = named("missing field `") {
        return ConfigErrorKind::MissingKey { key, within };
    }
    let (found, is_value) = match subject.strip_prefix("invalid value: ") {
        Some(found) => (found, true),
        None => match subject.strip_prefix("invalid type: ") {
            Some(found) => (found, false),
            None => return ConfigErrorKind::BadValue { message: message.to_owned(), within, help: None },
        },
    };
    let (found, needed) = (shown::brief(&plain(found)).into_owned(), plain(rest));
    let help = type_help(&found, &needed);
    match is_value {
        true => {
            let message = format!("found {found} where {needed} is needed");
            ConfigErrorKind::BadValue { message, within, help }
        }
        false => ConfigErrorKind::WrongType { found, needed, within, help },
    }
}

fn of_syntax(message: &str) -> ConfigErrorKind {
    let says = |words: &str| message.contains(words);
    match of_types(message, "the file") {
        kind if says("invalid value: ") => kind,
        ConfigErrorKind::BadValue { .. } if says("recursion limit") => {
            ConfigErrorKind::TooDeep { deepest: DEEPEST }
        }
        ConfigErrorKind::BadValue { .. } if says("repetition limit") => ConfigErrorKind::Aliases,
        ConfigErrorKind::BadValue { .. } if says("more than one document") => ConfigErrorKind::Documents,
        ConfigErrorKind::BadValue { .. } => {
            ConfigErrorKind::Syntax { message: shown::brief(&without_position(message)).into_owned() }
        }
        kind => kind,
    }
}

/// The key that a path of the reader leads to: `ratio` of `stages[1].with.ratio`, `training.betas[0]` inside a block, `seed`
/// of `seed`. The message names a stage, and the block of a stage, by the stage.
fn key(path: &str) -> Option<&str> {
    match path.split_once("].with.") {
        Some((_, parameter)) => Some(parameter),
        None if path.ends_with("].with") => None,
        None => Some(path.rsplit_once("].").map_or(path, |(_, key)| key))
            .filter(|key| !key.is_empty() && !key.ends_with(']')),
    }
}

/// What to write, where that is clear from what was found.
fn type_help(found: &str, needed: &str) -> Option<String> {
    let text = found.strip_prefix('"')?.strip_suffix('"')?;
    match needed {
        "a list" => Some(format!("write a list: `[{text}]`")),
        _ if needed.contains("number") && text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
            Some(format!("write it without quotes: `{}`", text.trim()))
        }
        _ => None,
    }
}

/// serde's names of types in the words of YAML.
fn plain(name: &str) -> String {
    match name {
        "f64" | "f32" => "a number".to_owned(),
        "u64" | "u32" | "usize" | "u8" | "u16" => "a whole number, 0 or above".to_owned(),
        "a nonzero usize" | "a nonzero u64" | "a nonzero u32" => "a whole number above 0".to_owned(),
        "i64" | "i32" | "isize" => "a whole number".to_owned(),
        "string" | "a string" | "path string" => "text".to_owned(),
        "boolean" | "a boolean" => "true or false".to_owned(),
        "sequence" | "a sequence" => "a list".to_owned(),
        "map" | "a map" => "a mapping".to_owned(),
        "unit value" => "nothing".to_owned(),
        "enum" => "a tag (`!name`)".to_owned(),
        "any YAML value" => "a number of at most 64 bits".to_owned(),
        _ if name.starts_with("struct ") => "a mapping".to_owned(),
        _ => {
            let name =
                name.strip_suffix(" as u128").or_else(|| name.strip_suffix(" as i128")).unwrap_or(name);
            let kinds = ["string ", "integer ", "floating point ", "boolean "];
            let found = kinds.iter().find_map(|kind| name.strip_prefix(kind));
            found.unwrap_or(name).to_owned()
        }
    }
}

/// The message without ` at line 3 column 4`, which the snippet shows better, and without the reader's ` at position 17`.
fn without_position(message: &str) -> String {
    let mut text = message.to_owned();
    for (mark, words) in [(" at line ", " column"), (" at position ", "")] {
        while let Some(start) = text.find(mark) {
            let tail = &text[start + mark.len()..];
            let end = tail.find(|c: char| !c.is_ascii_digit() && !words.contains(c)).unwrap_or(tail.len());
            text.replace_range(start..start + mark.len() + end, "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_key() {
        let says = |message: &str| of_types(message, "stage `p`").to_string();
        assert_eq!(
            type_help("\"2\"", "a whole number, 0 or above").as_deref(),
            Some("write it without quotes: `2`")
        );
        assert_eq!(type_help("\"a\"", "a list").as_deref(), Some("write a list: `[a]`"));
        assert_eq!((type_help("\"a\"", "a number"), type_help("`2`", "a list")), (None, None));
        assert_eq!(
            says("stages[1].with.ratio: invalid type: string \"half\", expected f64 at line 3 column 4"),
            "`ratio` of stage `p`: found \"half\" where a number is needed"
        );
        assert_eq!(
            says("stages[1].with.training.betas[0]: invalid value: integer `-1`, expected a number"),
            "`training.betas[0]` of stage `p`: found `-1` where a number is needed"
        );
        assert_eq!(
            says("seed: invalid value: integer `-1`, expected u64"),
            "`seed` of stage `p`: found `-1` where a whole number, 0 or above is needed"
        );
        assert_eq!(
            says("memory: `8` is not an amount of memory; give a number and a unit: 8 GB"),
            "`memory` of stage `p`: `8` is not an amount of memory; give a number and a unit: 8 GB"
        );
        assert_eq!(says("`8: 9` is not an amount: 8 GB"), "stage `p`: `8: 9` is not an amount: 8 GB");
        assert_eq!(
            says("stages[0].with: unknown field `a, expected `b`, expected `c` or `d`"),
            "unknown key `a, expected `b` in stage `p`"
        );
        assert_eq!(
            says("invalid type: integer `18446744073709551616` as u128, expected u64"),
            "stage `p`: found `18446744073709551616` where a whole number, 0 or above is needed"
        );
    }
}
