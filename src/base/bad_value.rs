//! A parameter whose value is of the right type but cannot be used.

use super::names::{self, UnknownName};

/// A parameter with a bad value.
#[derive(Clone, Debug)]
pub struct BadValue {
    /// The parameter; dots separate the levels of a mapping, as in `budgets.macs`.
    pub name: String,
    /// What was found and what was needed: "`ratio` is 1.5; it must lie above 0 and below 1".
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl BadValue {
    /// A bad value of the parameter `name`.
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), message: message.into(), help: None }
    }

    /// A name that is not in its table.
    pub fn unknown(name: impl Into<String>, error: &UnknownName) -> Self {
        Self::new(name, error.to_string()).help(names::help(&error.found, &error.known))
    }

    /// The same with a help text.
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}
