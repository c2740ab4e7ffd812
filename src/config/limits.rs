//! Limits of YAML files, checked before the YAML reader sees a text: it takes time that grows with the square of the
//! depth of brackets, and messages about such a text would help nobody.

use super::error::{ConfigError, ConfigErrorKind};
use super::source_text::SourceText;

/// The largest file in bytes: a pipeline of ten thousand stages, or a sweep of a hundred thousand values.
pub(super) const LARGEST_FILE: u64 = 1 << 20;

/// The deepest nesting of lists and mappings. The YAML reader has the same limit for what it builds.
pub(super) const DEEPEST: usize = 128;

/// The most combinations of a sweep. Each has a run folder entry for every stage that it reaches.
pub(super) const MOST_COMBINATIONS: usize = 10_000;

/// Fails at the first bracket that is nested too deeply.
pub(super) fn refuse_depth(source: &SourceText) -> Result<(), ConfigError> {
    match too_deep(source.text()) {
        None => Ok(()),
        Some(offset) => {
            let (line, column) = source.line_column(offset);
            let kind = ConfigErrorKind::TooDeep { deepest: DEEPEST };
            Err(ConfigError::spanned(kind, source, source.span_at(line, column)))
        }
    }
}

/// The offset of the first `[` or `{` with [`DEEPEST`] open ones around it. Brackets count where YAML lets a list or a
/// mapping begin: not inside quotes, comments and words.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut is_comment, mut may_begin) = (0_usize, None, false, true);
    let mut before = '\n';
    for (offset, c) in text.char_indices() {
        let last = std::mem::replace(&mut before, c);
        match c {
            '\n' => (is_comment, may_begin) = (false, quote.is_none()),
            _ if is_comment => {}
            _ if quote.is_some() => {
                // An escaped `"` closes nothing; in single quotes `''` closes and opens again, which is the same here.
                let escaped = quote == Some('"') && last == '\\';
                if escaped {
                    before = ' ';
                } else if quote == Some(c) {
                    quote = None;
                }
            }
            '#' if last.is_whitespace() => is_comment = true,
            '"' | '\'' if may_begin => (quote, may_begin) = (Some(c), false),
            '[' | '{' if may_begin => {
                if depth == DEEPEST {
                    return Some(offset);
                }
                depth += 1;
            }
            ']' | '}' if depth > 0 => (depth, may_begin) = (depth - 1, false),
            ',' if depth > 0 => may_begin = true,
            // After these a value begins; inside a word, as in `a:b`, it does not.
            ' ' if matches!(last, ':' | '-' | '?') => may_begin = true,
            ' ' | '\t' => {}
            ':' if depth > 0 && matches!(last, '"' | '\'') => may_begin = true,
            _ => may_begin = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_where_they_open_a_list() {
        let [open, close] = ["[", "]"].map(|bracket| bracket.repeat(DEEPEST));
        for fits in [
            format!("a: {open}{close}"),
            format!("a: {open}{close}\nb: {open}{close}"),
            format!("a: '{open}['"),
            format!("a: \"{open}\\\"[\""),
            format!("# {open}["),
            format!("a: b # {open}["),
            format!("a: word{open}["),
            "- [x, ']', {a: b}]\n".repeat(DEEPEST + 1),
            "- ':['\n- a:[\n".repeat(DEEPEST + 1),
        ] {
            assert_eq!(too_deep(&fits), None, "{fits}");
        }
        for (deep, at) in [
            (format!("a: {open}["), 3 + DEEPEST),
            ("[".repeat(100_000), DEEPEST),
            ("{a: ".repeat(100_000), 4 * DEEPEST),
            (format!("a: [ ']', \"'\", {open}"), 15 + DEEPEST - 1),
            (format!("- - {open}\n ["), 4 + DEEPEST + 2),
        ] {
            assert_eq!(too_deep(&deep), Some(at), "{deep:.200}");
        }
    }
}
