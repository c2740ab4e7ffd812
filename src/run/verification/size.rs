//! By how much a file differs, as data and in words.

use std::fmt;

use serde::Serialize;

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileDifference {
    /// Its path in the artefact.
    pub path: String,
    /// By how much.
    #[serde(flatten)]
    pub size: Size,
}

/// By how much a file differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Size {
    /// Only the old artefact has it.
    Missing,
    /// Only the new artefact has it.
    New,
    /// In its bytes.
    Bytes,
    /// In numbers.
    Numbers {
        /// How many differ.
        differ: usize,
        /// Of how many.
        of: usize,
        /// The one that differs most, relative to its size.
        most: Number,
        /// How many values that are no numbers differ.
        others: usize,
    },
    /// In the numbers of tensors.
    Tensors {
        /// How many differ.
        differ: usize,
        /// Of how many.
        of: usize,
        /// The tensor that differs most.
        tensor: String,
        /// The norm of its difference relative to its own norm.
        relative: f64,
    },
}

/// A number that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Number {
    /// Where it is.
    pub place: String,
    /// Its old value.
    pub old: f64,
    /// Its new value.
    pub new: f64,
    /// The difference relative to the larger of both.
    pub relative: f64,
}

impl Number {
    /// A pair of values at a place; equal ones are none.
    pub(super) fn of(place: impl FnOnce() -> String, old: f64, new: f64) -> Option<Self> {
        if old == new || (old.is_nan() && new.is_nan()) {
            return None;
        }
        let relative = (new - old).abs() / old.abs().max(new.abs());
        Some(Self { place: place(), old, new, relative })
    }

    /// Whether it differs more than another one. What is no number differs most.
    pub(super) fn exceeds(&self, other: &Self) -> bool {
        self.relative.is_nan() || self.relative > other.relative
    }
}

impl fmt::Display for FileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        match &self.size {
            Size::Missing => f.write_str("missing"),
            Size::New => f.write_str("new"),
            Size::Bytes => f.write_str("other bytes"),
            Size::Numbers { differ, of, most, others } => {
                write!(f, "{differ} of {of} numbers differ, most of all {most}")?;
                match others {
                    0 => Ok(()),
                    others => write!(f, "; so do {others} other values"),
                }
            }
            Size::Tensors { differ, of, tensor, relative } => {
                write!(
                    f,
                    "{differ} of {of} numbers differ, most of all in {tensor} (by {relative:.2e} of its norm)"
                )
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, old, new, relative } = self;
        write!(f, "{place}: {old} -> {new} (by {relative:.2e})")
    }
}
