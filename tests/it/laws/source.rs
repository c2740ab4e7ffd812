//! Reads Rust source for the laws: files, code without comments and literals, and the length of functions. It reads
//! letters and braces, not the language: enough for code that `cargo fmt` has laid out.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file.
pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder, in order.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text with comments and the contents of strings and characters left out. Lines keep their numbers.
pub(super) fn code(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = skipped(&letters, at);
        if end == at {
            code.push(letters[at]);
            at += 1;
        } else {
            code.extend(letters[at..end].iter().filter(|&&letter| letter == '\n'));
            code.push(' ');
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn skipped(letters: &[char], at: usize) -> usize {
    let starts = |text: &str| text.chars().enumerate().all(|(i, c)| letters.get(at + i) == Some(&c));
    let within_word = at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_');
    match letters[at] {
        '/' if starts("//") => at + letters[at..].iter().take_while(|&&c| c != '\n').count(),
        '/' if starts("/*") => block_comment(letters, at),
        '"' => quoted(letters, at, '"'),
        '\'' if letters.get(at + 1) == Some(&'\\') => quoted(letters, at, '\''),
        // Anything else is a lifetime.
        '\'' if letters.get(at + 2) == Some(&'\'') => at + 3,
        'r' if !within_word || letters[at - 1] == 'b' => raw_string(letters, at).unwrap_or(at),
        _ => at,
    }
}

fn quoted(letters: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < letters.len() && letters[at] != quote {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(letters.len())
}

fn block_comment(letters: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < letters.len() {
        match (letters[at], letters.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The end of `r"..."` or `r#"..."#`, with any number of `#`.
fn raw_string(letters: &[char], start: usize) -> Option<usize> {
    let hashes = letters[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if letters.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        letters[at] == '"' && letters[at + 1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
    };
    (open + 1..letters.len()).find(|&at| closes(at)).map(|at| at + 1 + hashes)
}

/// Code without what stands in braces after `#[cfg(test)]`: a test may use what is built on the code that it tests.
pub(super) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        kept += &rest[..start];
        rest = &rest[start + MARK.len()..];
        // `mod tests;` and `use ...;` have no braces of their own before the semicolon.
        let item_end = rest.find(';').unwrap_or(rest.len());
        let end = match rest.find('{') {
            Some(open) if open < item_end => closing(rest, open) + 1,
            _ => (item_end + 1).min(rest.len()),
        };
        kept.extend(rest[..end].chars().filter(|&c| c == '\n'));
        rest = &rest[end..];
    }
    kept + rest
}

/// Where the brace that opens at `open` closes.
fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return open + at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    code.len() - 1
}

/// A function with a body.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub(super) name: String,
    /// The line of its `fn`, counted from 1.
    pub(super) line: usize,
    /// From `fn` to the closing brace, both lines included.
    pub(super) lines: usize,
}

/// The functions of a file, nested ones too. `code` is what [`code`] gives.
pub(super) fn functions(code: &str) -> Vec<Function> {
    let line_of = |at: usize| code[..at].matches('\n').count() + 1;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let name: String = code[start + 3..].chars().take_while(|&c| is_word(c)).collect();
        if name.is_empty() || code[..start].ends_with(is_word) {
            continue;
        }
        if let Some(open) = body(code, start) {
            let (line, last) = (line_of(start), line_of(closing(code, open)));
            found.push(Function { name, line, lines: last - line + 1 });
        }
    }
    found
}

/// The opening brace of the body of the function whose `fn` stands at `start`; none if a `;` ends its signature.
fn body(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(start + at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[test]
fn code_is_what_the_compiler_sees() {
    let text = "let a = \"{ // \\\" }\"; // }\nlet b = '{'; /* { /* } */ */ let c: &'a str = r#\"\n{\"{\"#;\n\
        let d = b\"}\"; let e = '\\''; let for_r = x;\n";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = code(text);
    assert_eq!(words(&code), "let a = ; let b = ; let c: &'a str = ; let d = b ; let e = ; let for_r = x;");
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn tests_are_left_out() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n#[cfg(test)]\nmod inner {\n    fn c() {}\n}\nfn d() {}\n";
    let names: Vec<_> =
        functions(&without_tests(text)).into_iter().map(|found| (found.name, found.line)).collect();
    assert_eq!(names, [("a".to_owned(), 1), ("b".to_owned(), 4), ("d".to_owned(), 9)]);
}

#[test]
fn functions_are_measured_from_fn_to_brace() {
    let text = "trait T {\n    fn none(&self, sizes: [u8; 3]);\n}\npub(crate) fn outer<F>(f: F) -> [u8; 2]\nwhere\n    \
        F: Fn(fn (u8) -> u8),\n{\n    fn inner() {}\n    if true {\n    }\n    [0; 2]\n}\n";
    let function = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
    assert_eq!(functions(&code(text)), [function("outer", 4, 9), function("inner", 8, 1)]);
}
