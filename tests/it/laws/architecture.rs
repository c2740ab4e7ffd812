//! The shape of the source: a module imports only modules above it in `src/lib.rs`, no files use each other in a circle,
//! and no file or function is too long.

use std::path::Path;

use super::imports::{Modules, circles, paths};
use super::source::{code, files, functions, read, root};

/// Aim at 80 to 250 lines.
const MOST_LINES: usize = 400;

/// A function fits on a screen.
const MOST_LINES_OF_A_FUNCTION: usize = 60;

#[test]
fn imports_go_up_the_list_in_lib_rs() {
    let source = root().join("src");
    let order = modules(&read(&source.join("lib.rs")));
    assert!(order.len() > 10, "{order:?}");
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut wrong = Vec::new();
    for file in files(&source) {
        let path = file.strip_prefix(&source).expect("a file of src");
        let Some(own) = room(path).and_then(|room| place(&room)) else { continue };
        for named in paths(&code(&read(&file))) {
            let [first, name, ..] = &named.path[..] else { continue };
            if first == "crate" && place(name).is_none_or(|imported| imported > own) {
                let (file, line) = (path.display(), named.line);
                wrong.push(format!(
                    "src/{file}:{line}: `crate::{name}` is not above `{}` in lib.rs",
                    order[own]
                ));
            }
        }
    }
    none(&wrong);
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    none(&circles(&Modules::read(&root().join("src")).uses()));
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for file in files(&root().join("src")) {
        let lines = read(&file).lines().count();
        if lines > MOST_LINES {
            long.push(format!("{}: {lines} lines, more than {MOST_LINES}", shown(&file)));
        }
    }
    none(&long);
}

#[test]
fn no_function_is_too_long() {
    let mut long = Vec::new();
    for file in files(&root().join("src")) {
        for function in functions(&code(&read(&file))) {
            if function.lines > MOST_LINES_OF_A_FUNCTION {
                let (name, line, lines) = (&function.name, function.line, function.lines);
                let place = shown(&file);
                long.push(format!(
                    "{place}:{line}: `{name}` has {lines} lines, more than {MOST_LINES_OF_A_FUNCTION}"
                ));
            }
        }
    }
    none(&long);
}

#[test]
fn every_file_says_why_it_exists() {
    let silent = files(&root().join("src")).into_iter().filter(|file| !read(file).starts_with("//! "));
    let silent: Vec<_> = silent.map(|file| format!("{} does not open with `//! `", shown(&file))).collect();
    none(&silent);
}

/// Fails with a list of what is wrong unless it is empty.
#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// The module of `lib.rs` that a file of src belongs to.
fn room(path: &Path) -> Option<String> {
    Some(path.iter().next()?.to_string_lossy().into_owned())
}

/// The `pub mod` lines, in order.
fn modules(lib: &str) -> Vec<String> {
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    lib.lines().filter_map(name).collect()
}
