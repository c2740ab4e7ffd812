//! What an output depends on, written once and read twice: hashed into the key, and compared to explain
//! why a stage would run again. This keeps the two consistent.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The name of the value that only the state at the end of a training has, which is kept for longer trainings.
pub const TRAINING_STATE: &str = "state";

/// An ordered list of named values.
///
/// Floats must be given by [`Manifest::float`], which keeps their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    entries: Vec<(String, String)>,
}

/// One value that differs between two manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Name of the value, such as `ratio` or `input scores`.
    pub name: String,
    /// The old value, if there was one.
    pub old: Option<String>,
    /// The new value, if there is one.
    pub new: Option<String>,
}

impl Manifest {
    /// Adds a value by its text. Names are unique, so that a change can be described by its name.
    pub fn field(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.entries.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a float in its shortest exact decimal form, which identifies its bits.
    pub fn float(&mut self, name: &str, value: f64) -> &mut Self {
        self.field(name, format_args!("{value:?}"))
    }

    /// Adds a list as JSON text: quotes and commas keep apart what joined words would run together, such as
    /// `["large", "red circle"]` and `["large red", "circle"]`.
    pub fn list(&mut self, name: &str, items: impl IntoIterator<Item = impl fmt::Display>) -> &mut Self {
        let quoted = |item: &dyn fmt::Display| serde_json::Value::from(item.to_string()).to_string();
        let items: Vec<String> = items.into_iter().map(|item| quoted(&item)).collect();
        self.field(name, format_args!("[{}]", items.join(", ")))
    }

    /// Adds the digest of an input artefact or file.
    pub fn input(&mut self, name: &str, digest: &Digest) -> &mut Self {
        self.field(&format!("input {name}"), digest)
    }

    /// The entries whose names `keep` accepts: what a part of the output depends on.
    pub fn part(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self { entries: self.entries.iter().filter(|(name, _)| keep(name)).cloned().collect() }
    }

    /// The key: blake3 over the entries, lengths before bytes.
    pub fn key(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for (name, value) in &self.entries {
            for text in [name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hasher.finalize().into()
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What changed from `old` to `self`, in the order of `self`, removed values last.
    pub fn changes_since(&self, old: &Manifest) -> Vec<Change> {
        let find = |manifest: &Manifest, name: &str| {
            manifest.entries.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        };
        let mut changes = Vec::new();
        for (name, value) in &self.entries {
            let before = find(old, name);
            if before.as_ref() != Some(value) {
                changes.push(Change { name: name.clone(), old: before, new: Some(value.clone()) });
            }
        }
        for (name, value) in &old.entries {
            if find(self, name).is_none() {
                changes.push(Change { name: name.clone(), old: Some(value.clone()), new: None });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_between_name_and_value_matters() {
        let mut one = Manifest::default();
        one.field("ab", "c");
        let mut two = Manifest::default();
        two.field("a", "bc");
        assert_ne!(one.key(), two.key());
    }

    #[test]
    fn a_list_is_not_its_joined_words() {
        let text = |items: &[&str]| {
            let mut manifest = Manifest::default();
            manifest.list("words", items);
            manifest.entries[0].1.clone()
        };
        assert_eq!(text(&["large", "red circle"]), r#"["large", "red circle"]"#);
        let lists: [&[&str]; 7] = [&[], &[""], &["", ""], &["a b"], &["a", "b"], &["a\",\"b"], &["a\\", "b"]];
        let distinct: std::collections::BTreeSet<String> = lists.into_iter().map(text).collect();
        assert_eq!(distinct.len(), lists.len());
    }

    #[test]
    fn changes_name_old_and_new() {
        let mut old = Manifest::default();
        old.float("ratio", 0.5).field("solver", "greedy");
        let mut new = Manifest::default();
        new.float("ratio", 0.3).field("seed", 1);
        let changes = new.changes_since(&old);
        assert_eq!(changes[0].old.as_deref(), Some("0.5"));
        assert_eq!(changes[0].new.as_deref(), Some("0.3"));
        assert_eq!(changes.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["ratio", "seed", "solver"]);
    }
}
