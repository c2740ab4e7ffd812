//! The address of an HTTP server, as a setting gives it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{parsed, shown};

/// `http://HOST:PORT` or `https://...`, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Server(String);

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "`{}` is not the address of a server; write it as http://127.0.0.1:5000",
                shown::brief(text)
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed::text(deserializer, "the address of a server such as http://127.0.0.1:5000")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
