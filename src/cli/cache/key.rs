//! A key by its first digits, as `cache ls` prints them.

use super::super::error::CliError;
use crate::base::Digest;

/// Fewer digits fit too many keys.
const LEAST_DIGITS: usize = 6;

/// Whether a text can be the beginning of a key.
pub(super) fn is_prefix(text: &str) -> bool {
    (LEAST_DIGITS..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The only one of some keys that begins like this.
pub(super) fn find(text: &str, keys: impl IntoIterator<Item = Digest>) -> Result<Digest, CliError> {
    let wanted = text.to_lowercase();
    let mut found = keys.into_iter().filter(|key| is_prefix(text) && key.to_string().starts_with(&wanted));
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        (Some(_), Some(_)) => Err(CliError::NoKey { given: text.to_owned(), found: "several keys begin" }),
        (None, _) => Err(CliError::NoKey { given: text.to_owned(), found: "no run and no key begins" }),
    }
}
