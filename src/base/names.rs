//! Finds a row of a table by its name, and suggests a name for a mistyped one.

use miette::Diagnostic;

/// A name that no row of a table has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Diagnostic)]
#[error("unknown {what} `{found}`")]
#[diagnostic(code(name::unknown), help("{}", help(found, known)))]
pub struct UnknownName {
    /// What the table holds, such as `criterion`.
    pub what: &'static str,
    /// The name that was given.
    pub found: String,
    /// The names of the rows.
    pub known: Vec<String>,
}

/// The row of `table` whose name is `name`; `what` is what a row is called in the error.
pub fn find<'t, T>(
    what: &'static str,
    table: &'t [T],
    name_of: impl Fn(&T) -> &str,
    name: &str,
) -> Result<&'t T, UnknownName> {
    table.iter().find(|row| name_of(row) == name).ok_or_else(|| UnknownName {
        what,
        found: name.to_owned(),
        known: table.iter().map(|row| name_of(row).to_owned()).collect(),
    })
}

/// The closest of `known` to `found`, if it is close enough to be a typing error: at most one
/// edit in three letters.
fn closest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) =
        known.into_iter().map(|name| (edits(found, name), name)).min_by_key(|(d, _)| *d)?;
    (distance <= found.chars().count().max(3) / 3).then_some(name)
}

/// ``did you mean `ratio`? there are `scores`, `ratio` and `solver` ``.
pub fn help(found: &str, known: &[String]) -> String {
    let there = match known {
        [] => "there are none".to_owned(),
        names => format!("there {} {}", if names.len() == 1 { "is" } else { "are" }, list(names)),
    };
    match closest(found, known.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`? {there}"),
        None => there,
    }
}

/// `` `a`, `b` and `c` ``.
pub fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("`{only}`"),
        [head @ .., last] => format!("`{}` and `{last}`", head.join("`, `")),
    }
}

/// Letters to insert, delete, replace or swap with their neighbour (optimal string alignment),
/// upper and lower case being equal.
fn edits(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|text| text.to_lowercase().chars().collect::<Vec<_>>());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let shifted = 1 + rows[i - 1][j].min(rows[i][j - 1]);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let best = replaced.min(shifted);
                    if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_leaves_the_rest_alone() {
        let known = ["ratio", "scores", "solver"];
        assert_eq!(closest("rato", known), Some("ratio"));
        assert_eq!(closest("sovler", known), Some("solver"));
        assert_eq!(closest("Ratio", known), Some("ratio"));
        assert_eq!(closest("temperature", known), None);
    }

    #[test]
    fn a_row_is_found_by_its_name() {
        let table = [("ddim", 1), ("euler", 2)];
        assert_eq!(find("sampler", &table, |row| row.0, "euler"), Ok(&table[1]));
        let error = find("sampler", &table, |row| row.0, "eular").expect_err("no row has that name");
        assert_eq!(error.to_string(), "unknown sampler `eular`");
        assert_eq!(
            error.help().map(|help| help.to_string()).as_deref(),
            Some("did you mean `euler`? there are `ddim` and `euler`")
        );
    }

    #[test]
    fn lists_read_as_a_sentence() {
        let names = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(list(&names), "`a`, `b` and `c`");
        assert_eq!(help("x", &names[..1]), "did you mean `a`? there is `a`");
        assert_eq!(help("teacher", &[]), "there are none");
    }
}
