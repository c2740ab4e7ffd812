//! Holds the shape of the house: a module imports only modules above it in `src/lib.rs`, and no file
//! grows without end.

use std::fs;
use std::path::{Path, PathBuf};

/// Aim at 250; look twice at 400.
const MOST_LINES: usize = 600;

#[test]
fn imports_go_up_the_list_in_lib_rs() {
    let order = modules(&read(&source().join("lib.rs")));
    assert!(order.len() > 10, "{order:?}");
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    for file in files(&source()) {
        let path = file.strip_prefix(source()).expect("a file of src").to_owned();
        let Some(own) =
            path.components().next().and_then(|first| place(&first.as_os_str().to_string_lossy()))
        else {
            continue;
        };
        for (line, name) in imports(&read(&file)) {
            match place(&name) {
                Some(imported) if imported <= own => {}
                Some(_) => wrong.push(format!(
                    "src/{}:{line}: {} imports {name}, which is below it",
                    path.display(),
                    order[own]
                )),
                None => {
                    wrong.push(format!("src/{}:{line}: crate::{name} is no module of lib.rs", path.display()))
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_one_can_hold_in_mind() {
    for file in files(&source()) {
        let lines = read(&file).lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines; split it below {MOST_LINES}", file.display());
    }
}

#[test]
fn every_file_says_why_it_exists() {
    for file in files(&source()) {
        assert!(read(&file).starts_with("//! "), "{} does not open with `//! `", file.display());
    }
}

#[test]
fn the_reader_of_imports_sees_them_all() {
    let text = "use crate::base::{Digest, files};\nuse crate::{\n    cache::Store,\n    run::{self, Job},\n};\n\
        /// [`crate::doc`]\nlet x = crate::plan::manifest(); // crate::comment\nlet y = \"crate::text\";\n\
        pub(crate) struct A;\n$crate::macros!();\n";
    let names: Vec<_> = imports(text).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["base", "cache", "run", "plan", "macros"]);
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of src") {
        let path = entry.expect("an entry of it").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The `pub mod` lines, in order.
fn modules(lib: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    lib.lines().filter_map(name).collect()
}

/// The first names after `crate::` with their lines, those of a braced list included; comments and
/// literals left out.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code = code(text);
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        let line = code[..start].matches('\n').count() + 1;
        let names = rest.strip_prefix('{').map_or(vec![rest], top_level);
        let name = |text: &str| {
            text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned)
        };
        found.extend(
            names.into_iter().filter_map(name).filter(|name| !name.is_empty()).map(|name| (line, name)),
        );
    }
    found
}

/// The items of a braced list, whose text begins after its `{`.
fn top_level(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            '}' if depth == 0 => {
                items.push(&text[start..at]);
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    items
}

/// The text without line comments and without what stands between quotes on one line.
fn code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let mut quoted = false;
        let mut letters = line.chars().peekable();
        while let Some(c) = letters.next() {
            match c {
                '\\' if quoted => drop(letters.next()),
                // A quote as a character literal opens nothing.
                '"' if !code.ends_with('\'') => quoted = !quoted,
                '/' if !quoted && letters.peek() == Some(&'/') => break,
                _ if !quoted => code.push(c),
                _ => {}
            }
        }
        code.push('\n');
    }
    code
}
