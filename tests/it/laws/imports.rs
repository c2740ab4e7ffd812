//! Which file uses which: every path in the code (`crate::`, `super::`, `self::`, a child module, an imported module) is
//! followed to the file that defines the item.
//!
//! The rule: a file *uses* another if its code, tests aside, names an item that the other file defines. `mod` lines and
//! re-exports (`pub use`, also with `pub(crate)`) are no uses: they say where an item can be found. A name that a `mod.rs`
//! re-exports counts as a name of the file that defines it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::source::{code, files, read, without_tests};

/// A path in the code, such as `crate::base::files::write_atomic`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) path: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `use path as name;`
    Import { name: String, public: bool },
    /// `use path::*;`
    Glob { public: bool },
    /// A path in an expression or a type.
    Plain,
}

/// All paths of a file with two parts or more, those in braces one by one. `code` is what [`code`] gives.
pub(super) fn paths(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].1.as_str());
        if tokens[at].1 == "use" && before(1) != "+" {
            let public = matches!(before(1), "pub" | ")");
            let leaf =
                Named { line: 0, path: Vec::new(), kind: Kind::Import { name: String::new(), public } };
            at = tree(&tokens, at + 1, &leaf, &mut found);
        } else if is_word(&tokens[at].1)
            && !matches!(before(1), "::" | ".")
            && tokens.get(at + 1).is_some_and(|token| token.1 == "::")
        {
            let leaf = Named { line: 0, path: Vec::new(), kind: Kind::Plain };
            at = tree(&tokens, at, &leaf, &mut found);
        } else {
            at += 1;
        }
    }
    found
}

/// Reads one path from `at`, or a list of them in braces, after what `so_far` holds; gives where it ends.
fn tree(tokens: &[(usize, String)], mut at: usize, so_far: &Named, found: &mut Vec<Named>) -> usize {
    let mut leaf = so_far.clone();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    while let Some((line, word)) = tokens.get(at) {
        leaf.line = *line;
        at += 1;
        match word.as_str() {
            "{" => {
                while text(at) != "}" && at < tokens.len() {
                    at = tree(tokens, at, &leaf, found);
                    at += usize::from(text(at) == ",");
                }
                return at + 1;
            }
            "*" => {
                if let Kind::Import { public, .. } = leaf.kind {
                    leaf.kind = Kind::Glob { public };
                }
                break;
            }
            "self" if !leaf.path.is_empty() => break,
            word if is_word(word) => leaf.path.push(word.to_owned()),
            // A turbofish, or `::` at the front of a path from outside.
            _ => break,
        }
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    let alias = (text(at) == "as").then(|| text(at + 1).to_owned());
    at += 2 * usize::from(alias.is_some());
    if let Kind::Import { name, .. } = &mut leaf.kind {
        *name = alias.or_else(|| leaf.path.last().cloned()).unwrap_or_default();
    }
    found.push(leaf);
    at
}

/// Words, `::` and single signs, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            tokens.push((index + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The modules of a crate that have files of their own, by path below the root.
pub(super) struct Modules {
    modules: BTreeMap<Vec<String>, Module>,
}

struct Module {
    file: PathBuf,
    /// What the file defines: the words after `fn`, `struct` and so on.
    defines: BTreeSet<String>,
    paths: Vec<Named>,
}

impl Modules {
    /// Reads all modules below a folder with a `lib.rs`.
    pub(super) fn read(source: &Path) -> Self {
        let texts = files(source).into_iter().map(|file| {
            let text = read(&file);
            (file.strip_prefix(source).expect("it lies below").to_owned(), text)
        });
        Self::of(texts)
    }

    fn of(texts: impl Iterator<Item = (PathBuf, String)>) -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in texts {
            let mut path: Vec<String> =
                file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
            match path.last().map(String::as_str) {
                // The program is a crate of its own.
                Some("main") if path.len() == 1 => continue,
                Some("lib") if path.len() == 1 => path.clear(),
                Some("mod") => drop(path.pop()),
                _ => {}
            }
            let code = without_tests(&code(&text));
            modules.insert(path, Module { file, defines: defines(&code), paths: paths(&code) });
        }
        Self { modules }
    }

    /// For each file the files that it uses, each with the line of the first use.
    pub(super) fn uses(&self) -> BTreeMap<&Path, BTreeMap<&Path, usize>> {
        let mut uses = BTreeMap::new();
        for (own, module) in &self.modules {
            let of_file: &mut BTreeMap<_, _> = uses.entry(module.file.as_path()).or_default();
            for named in &module.paths {
                if matches!(named.kind, Kind::Import { public: true, .. } | Kind::Glob { public: true }) {
                    continue;
                }
                if let Some(file) = self.file_of(own, named).filter(|&file| file != module.file) {
                    of_file.entry(file).or_insert(named.line);
                }
            }
        }
        uses
    }

    /// The file that defines what a path names; none for a path into another crate, and for the import of a whole module,
    /// whose uses are followed one by one.
    fn file_of(&self, own: &[String], named: &Named) -> Option<&Path> {
        let (module, rest) = self.walk(own, &named.path, &mut BTreeSet::new())?;
        match rest {
            [item, ..] => self.definer(&module, item, &mut BTreeSet::new()),
            [] if matches!(named.kind, Kind::Glob { .. }) => {
                self.modules.get(&module).map(|m| m.file.as_path())
            }
            [] => None,
        }
    }

    /// Follows a path as far as it names modules; gives the last module and what is left.
    fn walk<'a>(
        &self,
        own: &[String],
        path: &'a [String],
        seen: &mut BTreeSet<Vec<String>>,
    ) -> Option<(Vec<String>, &'a [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => Vec::new(),
            "self" => own.to_vec(),
            "super" => own.split_last()?.1.to_vec(),
            name => self.module_called(own, name, seen)?,
        };
        while let Some((next, after)) = rest.split_first() {
            module = match next.as_str() {
                "super" => module.split_last()?.1.to_vec(),
                name => match self.module_called(&module, name, seen) {
                    Some(found) => found,
                    None => break,
                },
            };
            rest = after;
        }
        Some((module, rest))
    }

    /// The module that a name means inside another: a child, or one that it imports.
    fn module_called(
        &self,
        own: &[String],
        name: &str,
        seen: &mut BTreeSet<Vec<String>>,
    ) -> Option<Vec<String>> {
        let child = [own, &[name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            return Some(child);
        }
        if !seen.insert(child) {
            return None;
        }
        let import = self.import(own, name)?;
        let (module, rest) = self.walk(own, &import.path, seen)?;
        rest.is_empty().then_some(module)
    }

    fn import(&self, own: &[String], wanted: &str) -> Option<&Named> {
        let is_it = |named: &&Named| matches!(&named.kind, Kind::Import { name, .. } if name == wanted);
        self.modules.get(own)?.paths.iter().find(is_it)
    }

    /// The file in which an item of a module is defined, through re-exports.
    fn definer(&self, own: &[String], item: &str, seen: &mut BTreeSet<Vec<String>>) -> Option<&Path> {
        let module = self.modules.get(own)?;
        if module.defines.contains(item) || !seen.insert([own, &[item.to_owned()]].concat()) {
            return Some(&module.file);
        }
        if let Some(import) = self.import(own, item) {
            let (module, rest) = self.walk(own, &import.path, &mut BTreeSet::new())?;
            return rest.first().and_then(|item| self.definer(&module, item, seen));
        }
        let globs = module.paths.iter().filter(|named| matches!(named.kind, Kind::Glob { .. }));
        for glob in globs {
            let Some((from, [])) = self.walk(own, &glob.path, &mut BTreeSet::new()) else { continue };
            let found = self.definer(&from, item, seen);
            if found.is_some_and(|file| self.defining(file, item)) {
                return found;
            }
        }
        Some(&module.file)
    }

    fn defining(&self, file: &Path, item: &str) -> bool {
        self.modules.values().any(|module| module.file == file && module.defines.contains(item))
    }
}

/// The words after `fn`, `struct`, `enum`, `union`, `trait`, `type`, `const`, `static`, and of macros.
fn defines(code: &str) -> BTreeSet<String> {
    let tokens = tokens(code);
    let text = |at: usize| tokens.get(at).map_or("", |token| token.1.as_str());
    let name = |at: usize| match text(at) {
        "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static" => Some(text(at + 1)),
        "macro_rules" => Some(text(at + 2)),
        _ => None,
    };
    (0..tokens.len()).filter_map(name).filter(|name| is_word(name)).map(str::to_owned).collect()
}

/// The shortest circle through each file that is in one, each circle once: `a -> b -> a`, with lines.
pub(super) fn circles(uses: &BTreeMap<&Path, BTreeMap<&Path, usize>>) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for &start in uses.keys() {
        let Some(circle) = shortest_circle(uses, start) else { continue };
        let mut files = circle.clone();
        files.sort();
        if told.insert(files) {
            let steps = circle.iter().zip(circle.iter().cycle().skip(1));
            let step = |(from, to): (&&Path, &&Path)| format!("{}:{}", from.display(), uses[*from][*to]);
            let steps: Vec<_> = steps.map(step).collect();
            circles.push(format!("{} -> {}", steps.join(" -> "), start.display()));
        }
    }
    circles
}

/// Searches by breadth from `start` back to it.
fn shortest_circle<'a>(
    uses: &BTreeMap<&'a Path, BTreeMap<&'a Path, usize>>,
    start: &'a Path,
) -> Option<Vec<&'a Path>> {
    let mut came_from: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for &next in uses.get(file)?.keys() {
            if next == start {
                let back = std::iter::successors(Some(file), |file| came_from.get(file).copied());
                let mut circle: Vec<_> = back.collect();
                circle.reverse();
                return Some(circle);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, file);
                queue.push_back(next);
            }
        }
    }
    None
}

#[test]
fn paths_are_read_with_their_braces() {
    let text = "use crate::base::{Digest, files as f};\npub(crate) use super::{\n    cache::{self, Store},\n    run::*,\n};\n\
        let x = crate::plan::manifest::<u8>(); // crate::comment\nlet y = \"crate::text\" + self::z(Kind::A);\n";
    let read: Vec<_> =
        paths(&code(text)).into_iter().map(|named| (named.line, named.path.join("::"))).collect();
    let expected = [
        (1, "crate::base::Digest"),
        (1, "crate::base::files"),
        (3, "super::cache"),
        (3, "super::cache::Store"),
        (4, "super::run"),
        (6, "crate::plan::manifest"),
        (7, "self::z"),
        (7, "Kind::A"),
    ];
    assert_eq!(read, expected.map(|(line, path)| (line, path.to_owned())));
}

/// The uses among files that are given as (path, text), as `a.rs:1 b.rs`.
#[cfg(test)]
fn uses_of(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let modules = Modules::of(files.iter().map(|&(file, text)| (PathBuf::from(file), text.to_owned())));
    let uses = modules.uses();
    let each = uses.iter().flat_map(|(file, of_file)| {
        of_file.iter().map(move |(used, line)| format!("{}:{line} {}", file.display(), used.display()))
    });
    (each.collect(), circles(&uses))
}

#[test]
fn a_use_is_followed_to_the_file_that_defines_the_item() {
    let (uses, circles) = uses_of(&[
        ("lib.rs", "pub mod room;\npub mod hall;"),
        ("room/mod.rs", "mod chair;\nmod desk;\npub use chair::Chair;\npub use self::desk::*;"),
        ("room/chair.rs", "use std::fmt::Debug;\npub struct Chair;"),
        ("room/desk.rs", "use super::Chair;\npub struct Desk(Chair);"),
        ("hall.rs", "use crate::room::{self, Chair};\nfn sit(on: Chair, at: room::Desk) {}"),
    ]);
    assert_eq!(uses, ["hall.rs:1 room/chair.rs", "hall.rs:2 room/desk.rs", "room/desk.rs:1 room/chair.rs"]);
    assert!(circles.is_empty());
}

#[test]
fn circles_are_found_through_a_parent_and_told_once() {
    let (_, circles) = uses_of(&[
        ("lib.rs", "pub mod room;"),
        ("room/mod.rs", "mod chair;\nmod desk;\npub struct Size;\nfn new() -> chair::Chair { todo() }"),
        ("room/chair.rs", "use super::Size;\npub struct Chair(Size, super::desk::Desk);"),
        (
            "room/desk.rs",
            "pub struct Desk;\n#[cfg(test)]\nmod tests {\n    use super::super::chair::Chair;\n}",
        ),
    ]);
    assert_eq!(circles, ["room/chair.rs:1 -> room/mod.rs:4 -> room/chair.rs"]);
}
