//! A YAML text with its name, and the spans of places in it that errors underline.

use std::sync::Arc;

use miette::{MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::yaml;

/// A text as read, or after `--set`.
#[derive(Clone, Debug)]
pub struct SourceText {
    name: String,
    text: Arc<str>,
}

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
        Self { name: name.into(), text: text.into() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
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

    /// The span of the token at a line and a column, both from 1, the column in characters.
    pub(super) fn span_at(&self, line: usize, column: usize) -> SourceSpan {
        let start: usize = self.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let rest = &self.text[start..];
        let offset: usize =
            rest.chars().take(column - 1).take_while(|c| *c != '\n').map(char::len_utf8).sum();
        (start + offset, token_length(&rest[offset..])).into()
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
        let found = self.text.read_span(span, before, after)?;
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            found.data(),
            *found.span(),
            found.line(),
            found.column(),
            found.line_count(),
        )))
    }
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
