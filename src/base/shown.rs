//! Text from outside (files, names, captions) as messages show it. Characters that control a terminal or turn the
//! direction of text are escaped, and a long text is cut, so that a message says what it says and stays readable.

use std::borrow::Cow;
use std::error::Error;

/// The longest value that a message repeats, in characters; a line of a terminal has about as many.
const LONGEST_VALUE: usize = 80;

/// The longest message, in characters. Lists of names are the longest that a reader wants whole.
const LONGEST_MESSAGE: usize = 2000;

/// How many of them are the end of a message, which often says what is needed.
const END: usize = 300;

/// Whether a character changes how the text around it is shown: controls of a terminal (C0, DEL, C1), ends of lines, and
/// the controls of bidirectional text.
fn controls(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in one line, controls written as `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// The text with its own line ends, other controls written as `\u{1b}`.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n')
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_bad = |c: char| controls(c) && !keep(c);
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| match c {
        c if is_bad(c) => c.escape_debug().to_string(),
        c => c.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// JSON text in which no raw character controls a terminal; as data it is the same. serde_json escapes C0 itself, and
/// the others can only stand inside strings.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| controls(c) && !c.is_ascii_control();
    if !text.contains(|c| is_bad(c) || c == '\u{7f}') {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| match c {
        c if is_bad(c) || c == '\u{7f}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}

/// The text with each control but line ends and tabs replaced by a sign of as many bytes, so that positions in it stay.
pub fn masked(text: &str) -> String {
    let mut rest = text.chars().peekable();
    let mut masked = String::with_capacity(text.len());
    while let Some(c) = rest.next() {
        let is_end = c == '\r' && rest.peek() == Some(&'\n');
        masked.push(match c.len_utf8() {
            _ if !controls(c) || is_end || matches!(c, '\n' | '\t') => c,
            1 => '?',
            2 => '¿',
            _ => char::REPLACEMENT_CHARACTER,
        });
    }
    masked
}

/// A value that a message repeats, or its first 80 characters and its length if it is longer.
pub fn brief(text: &str) -> Cow<'_, str> {
    cut(text, LONGEST_VALUE, 0)
}

/// The text of a message: escaped, and without its middle if it has more than 2000 characters.
pub fn message(text: &str) -> String {
    lines(&cut(text, LONGEST_MESSAGE - END, END)).into_owned()
}

/// The first and the last characters of a text that has more than both together.
fn cut(text: &str, first: usize, last: usize) -> Cow<'_, str> {
    // Few texts are long, so bytes are compared before characters are counted.
    if text.len() <= first + last || text.chars().nth(first + last).is_none() {
        return Cow::Borrowed(text);
    }
    let start: String = text.chars().take(first).collect();
    let end = text.char_indices().rev().nth(last.wrapping_sub(1)).map_or("", |(at, _)| &text[at..]);
    Cow::Owned(format!("{start}... ({} characters){end}", text.chars().count()))
}

/// An error and its causes in one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A cause that the error's own text ends with is not repeated.
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A title for the terminal, a clear screen in one C1 character, and text turned around.
    const HOSTILE: &str = "a\u{1b}]0;owned\u{7}b\u{9b}2Jc\u{202e}d\r\n\u{7f}";

    #[test]
    fn controls_are_escaped_and_other_text_is_left_alone() {
        assert_eq!(line(HOSTILE), "a\\u{1b}]0;owned\\u{7}b\\u{9b}2Jc\\u{202e}d\\r\\n\\u{7f}");
        assert_eq!(lines("one\ntwo\u{1b}"), "one\ntwo\\u{1b}");
        for plain in ["ein Löwe, 獅子, \u{1f981}", ""] {
            assert!(matches!(line(plain), Cow::Borrowed(same) if same == plain));
        }
    }

    #[test]
    fn json_stays_the_same_data() -> serde_json::Result<()> {
        let text = serde_json::to_string(HOSTILE)?;
        let shown = json(&text);
        assert!(!shown.contains(controls), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown)?, HOSTILE);
        Ok(())
    }

    #[test]
    fn a_mask_keeps_positions() {
        let masked = masked(HOSTILE);
        assert_eq!((masked.len(), masked.find('d')), (HOSTILE.len(), HOSTILE.find('d')));
        assert!(!masked.trim_end_matches("\r\n?").contains(controls), "{masked:?}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "ü".repeat(LONGEST_VALUE + 1);
        assert_eq!(brief(&long[2..]), &long[2..]);
        assert_eq!(brief(&long), format!("{}... (81 characters)", &long[2..]));
        let text = format!("`{}` is not a number", "7".repeat(3_000_000));
        let told = message(&text);
        assert!(told.len() < LONGEST_MESSAGE + 40, "{}", told.len());
        assert!(told.starts_with("`777") && told.contains("(3000018 characters)"), "{told}");
        assert!(told.ends_with("777` is not a number"), "{told}");
    }
}
