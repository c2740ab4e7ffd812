//! A YAML text with its name, and the spans of places in it that errors underline.

use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::yaml;
use crate::base::shown;

/// A text as read, or after `--set`.
#[derive(Clone, Debug)]
pub struct SourceText {
    name: String,
    text: Arc<str>,
    /// The text as snippets show it: of the same length, without what controls a terminal.
    shown: Arc<str>,
}

/// The longest line of a snippet that is shown whole, in bytes. Of a longer one, only the part around the error is.
const LONGEST_LINE: usize = 300;

/// How much of a long line is shown before and after the place of an error.
const AROUND: usize = 60;

/// The longest part of a line that is underlined, in bytes.
const LONGEST_MARK: usize = 80;

/// A key or a value in a YAML document, by the keys and list indices that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(super) path: Vec<String>,
    pub(super) at_key: bool,
}

impl Place {
    /// The value at `path`.
    pub fn value<T: ToString>(path: impl IntoIterator<Item = T>) -> Self {
        Self { path: path.into_iter().map(|step| step.to_string()).collect(), at_key: false }
    }

    /// The value of a parameter of the stage with this index; `parameter` may be dotted: `models.pruned`.
    pub fn parameter(stage: usize, parameter: &str) -> Self {
        let mut place = Self::value(["stages", &stage.to_string(), "with"]);
        place.path.extend(parameter.split('.').map(str::to_owned));
        place
    }

    /// The key instead of its value.
    pub fn key(mut self) -> Self {
        self.at_key = true;
        self
    }
}

impl SourceText {
    /// A text called `name` in messages.
    pub fn new(name: impl Into<String>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        Self { name: name.into(), shown: shown::masked(&text).into(), text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds no value: only comments, empty lines and marks of documents.
    pub(super) fn is_blank(&self) -> bool {
        let is_blank = |line: &str| line.is_empty() || line.starts_with('#') || matches!(line, "---" | "...");
        self.text.lines().all(|line| is_blank(line.trim()))
    }

    /// What messages call it: a path, or a path and the overrides.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The span of `place`, or of the innermost place around it that exists.
    pub(super) fn span(&self, place: &Place) -> SourceSpan {
        let found = yaml::locate(&self.text, &place.path, place.at_key);
        let around =
            || (0..place.path.len()).rev().find_map(|n| yaml::locate(&self.text, &place.path[..n], false));
        let (line, column) = found.or_else(around).unwrap_or((1, 1));
        self.span_at(line, column)
    }

    /// The span of what an error of the reader is about.
    pub(super) fn span_of(&self, error: &serde_yaml::Error) -> SourceSpan {
        let (line, column) = yaml::position(error).unwrap_or((1, 1));
        self.span_at(line, column)
    }

    /// The span of the token at a line and a column, both from 1, the column in characters.
    pub(super) fn span_at(&self, line: usize, column: usize) -> SourceSpan {
        let start: usize = self.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let rest = &self.text[start..];
        let offset: usize =
            rest.chars().take(column - 1).take_while(|c| *c != '\n').map(char::len_utf8).sum();
        let token = &rest[offset..];
        (start + offset, floor(token, token_length(token).min(LONGEST_MARK))).into()
    }

    /// Line and column of `place`, both from 1.
    pub(super) fn position(&self, place: &Place) -> (usize, usize) {
        self.line_column(self.span(place).offset())
    }

    /// Line and column of a byte offset, both from 1.
    pub(super) fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..offset.min(self.text.len())];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl SourceCode for SourceText {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let found = self.shown.read_span(span, before, after)?;
        let name = shown::line(&shown::message(&self.name)).into_owned();
        if found.data().split(|&byte| byte == b'\n').all(|line| line.len() <= LONGEST_LINE) {
            let (data, span) = (found.data(), *found.span());
            let (line, column, count) = (found.line(), found.column(), found.line_count());
            return Ok(Box::new(MietteSpanContents::new_named(name, data, span, line, column, count)));
        }
        let (start, end) = self.part_of_line(span);
        let (line, column) = self.line_column(start);
        let (data, span) = (self.shown[start..end].as_bytes(), (start, end - start).into());
        Ok(Box::new(MietteSpanContents::new_named(name, data, span, line - 1, column - 1, 1)))
    }
}

impl SourceText {
    /// The part of a long line around a span that lies in it, as byte offsets.
    fn part_of_line(&self, span: &SourceSpan) -> (usize, usize) {
        let text = &self.shown;
        let at = floor(text, span.offset());
        let line_start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let line_end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        let start = floor(text, at.saturating_sub(AROUND)).max(line_start);
        let end = floor(text, (at + span.len() + AROUND).min(line_end));
        (start, end)
    }
}

/// The end of the last character that ends at `offset` or before it.
fn floor(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Length in bytes of the scalar or bracket that `text` begins with; at least one where there is any text.
fn token_length(text: &str) -> usize {
    let line = text.lines().next().unwrap_or_default();
    let Some(first) = line.chars().next() else { return 0 };
    let length = match first {
        '"' | '\'' => line[1..].find(first).map_or(line.len(), |end| end + 2),
        '[' | '{' | '-' if line.len() == 1 || !line[1..].starts_with(|c: char| c.is_alphanumeric()) => 1,
        _ => [": ", " #", ",", "]", "}"].iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len()),
    };
    line[..length].trim_end().trim_end_matches(':').len().max(first.len_utf8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_the_place() -> Result<(), MietteError> {
        let source = SourceText::new(
            "t\u{1b}",
            format!("a: 1\nb: [{}ü, 'here', {}]\n", "x, ".repeat(1000), "y, ".repeat(1000)),
        );
        let span = source.span(&Place::value(["b", "1001"]));
        let snippet = source.read_span(&span, 1, 1)?;
        let text = String::from_utf8_lossy(snippet.data()).into_owned();
        assert!(text.contains("ü, 'here', y") && text.len() < 200, "{text}");
        assert_eq!((snippet.line(), snippet.name()), (1, Some("t\\u{1b}")));
        assert_eq!(snippet.span().offset() + text.find("'here'").unwrap_or_default(), span.offset());
        Ok(())
    }

    #[test]
    fn a_snippet_shows_no_control_characters() -> Result<(), MietteError> {
        let source = SourceText::new("t", "a: \u{1b}[31m\u{9b}0m\u{202e}, b\r\nc: 1\n");
        let snippet = source.read_span(&source.span(&Place::value(["c"])), 1, 1)?;
        assert_eq!(String::from_utf8_lossy(snippet.data()), "a: ?[31m¿0m\u{fffd}, b\r\nc: 1\n");
        Ok(())
    }

    #[test]
    fn a_place_becomes_the_span_of_its_token() {
        let source = SourceText::new("t", "a: 1\nü: [x, { deep: \"two words\", b: -3 }]\nlast: end # said\n");
        let text = |place: Place| {
            let span = source.span(&place);
            source.text()[span.offset()..span.offset() + span.len()].to_owned()
        };
        assert_eq!(text(Place::value(["ü", "1", "deep"])), "\"two words\"");
        assert_eq!(text(Place::value(["ü", "1", "deep"]).key()), "deep");
        assert_eq!(text(Place::value(["ü", "1", "b"])), "-3");
        assert_eq!(text(Place::value(["last"])), "end");
        assert_eq!(text(Place::value(["ü"]).key()), "ü");
        let nearest = source.span(&Place::value(["ü", "1", "absent", "deeper"]));
        assert_eq!(source.line_column(nearest.offset()), (2, 8));
    }
}
