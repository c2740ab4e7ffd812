//! The files that one path means: the files of a folder, or those that its last part names: one file, or a pattern such as
//! `{00000..00009}.tar` or `train-*.parquet`.

use std::path::Path;

use crate::base::pattern;
use crate::data::DataError;

/// The most files that braces may mean.
const MOST: usize = 100_000;

/// A path as the user wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards<'a> {
    /// The folder that must exist.
    pub place: &'a Path,
    /// The file or the pattern of the files in it.
    pattern: Option<&'a str>,
    /// What names of the files of a folder end with.
    endings: &'a [&'a str],
}

impl<'a> Shards<'a> {
    /// Splits a path before a file with one of these endings, or before a pattern.
    pub fn new(path: &'a Path, endings: &'a [&'a str]) -> Self {
        let last = path.file_name().and_then(|name| name.to_str());
        let pattern = last.filter(|name| name.contains(['{', '*']) || ends_with(name, endings));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let place = if pattern.is_some() { folder.unwrap_or(Path::new(".")) } else { path };
        Self { place, pattern, endings }
    }

    /// The names of the files in `place`, which is [`Shards::place`] from where the program runs.
    pub fn names(&self, place: &Path) -> Result<Vec<String>, DataError> {
        let bad = |reason: String, help: &str| {
            Err(DataError::Source { path: place.to_owned(), reason, help: help.to_owned() })
        };
        if place.is_file() {
            let reason = format!("its name does not end in {}", self.endings.join(" or "));
            return bad(reason, "rename it if it is such a file");
        }
        let mut there = Vec::new();
        for entry in std::fs::read_dir(place).map_err(DataError::file(place))? {
            let entry = entry.map_err(DataError::file(place))?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
                && entry.path().is_file()
            {
                there.push(name);
            }
        }
        there.sort();
        let Some(pattern) = self.pattern else {
            there.retain(|name| ends_with(name, self.endings));
            return match there.is_empty() {
                true => bad(
                    format!("it contains no {} files", self.endings.join(", ")),
                    "give a folder with such files, one file, or a pattern such as `data/{00000..00009}.tar`",
                ),
                false => Ok(there),
            };
        };
        let Some(wanted) = expand(pattern) else {
            return bad(
                format!("`{pattern}` cannot be read"),
                "braces hold a range of equal width, {00000..00009}, or names, {a,b}",
            );
        };
        let mut names = Vec::new();
        for wanted in &wanted {
            let before = names.len();
            names.extend(there.iter().filter(|name| pattern::matches(wanted, name)).cloned());
            if names.len() == before {
                return bad(format!("it contains no `{wanted}`"), "correct the pattern, or copy the file");
            }
        }
        Ok(names)
    }
}

fn ends_with(name: &str, endings: &[&str]) -> bool {
    endings.iter().any(|ending| name.to_lowercase().ends_with(ending))
}

/// Every text that a pattern with braces stands for; `None` if the braces cannot be read.
fn expand(pattern: &str) -> Option<Vec<String>> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (!pattern.contains('}')).then(|| vec![pattern.to_owned()]);
    };
    let (inside, after) = rest.split_once('}')?;
    let choices: Vec<String> = match inside.split_once("..") {
        None => inside.split(',').map(str::to_owned).collect(),
        Some((first, last)) => {
            let number = |text: &str| {
                text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok())?
            };
            let (from, to) = (number(first)?, number(last)?);
            if from > to || to - from >= MOST {
                return None;
            }
            // bash pads to the width of the longer end if one of them begins with a zero.
            let width =
                if first.starts_with('0') || last.starts_with('0') { first.len().max(last.len()) } else { 0 };
            (from..=to).map(|number| format!("{number:0width$}")).collect()
        }
    };
    let rest = expand(after)?;
    if choices.len().checked_mul(rest.len())? > MOST {
        return None;
    }
    Some(choices.iter().flat_map(|one| rest.iter().map(move |rest| format!("{before}{one}{rest}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_mean_what_they_mean_in_bash() {
        let expand = |text| expand(text).unwrap_or_default();
        assert_eq!(expand("{008..011}.tar"), ["008.tar", "009.tar", "010.tar", "011.tar"]);
        assert_eq!(expand("{8..11}"), ["8", "9", "10", "11"]);
        assert_eq!(expand("{a,b}-{1..2}.x"), ["a-1.x", "a-2.x", "b-1.x", "b-2.x"]);
        assert_eq!(expand("a-*.parquet"), ["a-*.parquet"]);
        for text in ["{1..", "{2..1}", "{a..b}", "{0..999999999}", "a}", "{0..9999}{0..9999}"] {
            assert!(expand(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn a_path_is_a_file_a_folder_or_a_pattern() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        for name in ["1.tar", "2.TAR", "10.tar", "readme.md", ".3.tar"] {
            std::fs::write(folder.path().join(name), "")?;
        }
        let names = |path: &str| {
            let path = folder.path().join(path);
            let shards = Shards::new(&path, &[".tar"]);
            shards.names(shards.place)
        };
        assert_eq!(names("")?, ["1.tar", "10.tar", "2.TAR"]);
        assert_eq!(names("{1,10}.tar")?, ["1.tar", "10.tar"]);
        assert_eq!(names("1*.tar")?, ["1.tar", "10.tar"]);
        assert_eq!((names("1.tar")?, names("2.TAR")?), (vec!["1.tar".to_owned()], vec!["2.TAR".to_owned()]));
        let error = names("{1..3}.tar").expect_err("2.tar is 2.TAR").to_string();
        assert!(error.contains("contains no `2.tar`"), "{error}");
        let error = names("readme.md").expect_err("no archive").to_string();
        assert!(error.ends_with("its name does not end in .tar"), "{error}");
        assert_eq!(Shards::new(Path::new("{1..2}.tar"), &[".tar"]).place, Path::new("."));
        Ok(())
    }
}
