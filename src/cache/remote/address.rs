//! The address of a remote, as the setting `remote` gives it. It never holds credentials, so that it can be shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kinds::{FOLDER, KINDS, Kind, kind};
use crate::base::parsed;

/// The path of a folder, `file:///FOLDER`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    scheme: &'static str,
    /// The path of the folder; or the bucket and the prefix.
    place: String,
}

impl Address {
    pub(super) fn kind(&self) -> &'static Kind {
        kind(self.scheme).expect("an address is parsed with the table")
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

impl FromStr for Address {
    type Err = String;

    /// Errors never repeat the text, which may hold a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (scheme, place) = match text.split_once("://") {
            Some((FOLDER, place)) if !place.starts_with('/') => return Err(needed()),
            Some((scheme, place)) => (scheme, place),
            None => (FOLDER, text.strip_prefix("file:").unwrap_or(text)),
        };
        let place = match place.trim_end_matches('/') {
            "" if place.starts_with('/') => "/",
            place => place,
        };
        let scheme = kind(scheme).map(|kind| kind.scheme).filter(|_| !place.is_empty()).ok_or_else(needed)?;
        if scheme != FOLDER {
            check_bucket(place)?;
        }
        Ok(Self { scheme, place: place.to_owned() })
    }
}

fn check_bucket(place: &str) -> Result<(), String> {
    if place.contains(['@', '?', '#']) {
        return Err(
            "a remote's address is a bucket and a prefix; credentials come from the environment, such as \
                    AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS or AZURE_STORAGE_ACCOUNT_NAME"
                .to_owned(),
        );
    }
    let is_plain =
        |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+=~ ".contains(c)) && part != "..";
    match place.split('/').all(|part| !part.is_empty() && is_plain(part)) {
        true => Ok(()),
        false => Err(needed()),
    }
}

/// What an address must be.
fn needed() -> String {
    let examples: Vec<&str> = KINDS.iter().map(|kind| kind.example).collect();
    format!("a remote is a folder or a bucket with a prefix, written as one of {}", examples.join(", "))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme {
            FOLDER => f.write_str(&self.place),
            scheme => write!(f, "{scheme}://{}", self.place),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "a folder or an address such as s3://BUCKET/PREFIX")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_each_kind_of_bucket_is_read_and_shown() {
        for (text, shown) in [
            ("/mnt/team", "/mnt/team"),
            ("shared/cache/", "shared/cache"),
            ("file:///mnt/team/", "/mnt/team"),
            ("file:/mnt/team", "/mnt/team"),
            ("s3://lab", "s3://lab"),
            (" s3://lab/models/sd/ ", "s3://lab/models/sd"),
            ("gs://lab/models", "gs://lab/models"),
            ("az://models/sd", "az://models/sd"),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.to_string().parse(), Ok(address), "{text} is read as it is shown");
        }
    }

    #[test]
    fn an_error_says_what_is_needed_and_repeats_no_password() {
        for text in [
            "",
            "s3://",
            "ftp://lab/PASSWORD",
            "https://PASSWORD@lab",
            "file://host/PASSWORD",
            "s3://lab//PASSWORD",
            "s3://key:PASSWORD@lab/models",
            "az://lab?sig=PASSWORD",
            "gs://lab/../PASSWORD",
            "s3://lab:PASSWORD",
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(!error.contains("PASSWORD"), "{error}");
            assert!(error.contains("s3://BUCKET") || error.contains("AWS_ACCESS_KEY_ID"), "{error}");
        }
    }
}
