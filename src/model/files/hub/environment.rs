//! The hub's address and cache folder, from the variables that `huggingface_hub` reads.

use std::env;

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder};

use super::{Access, HubError};
use crate::base::path_text;

/// What this process knows of the hub without asking it.
pub fn access() -> Access {
    let Environment { cache, endpoint, offline, who, .. } = match Environment::read("") {
        Ok(environment) => environment,
        Err(error) => return Access { problem: Some(error.to_string()), ..Access::default() },
    };
    Access {
        endpoint: Some(endpoint),
        cache: Some(path_text::of(cache.path())),
        has_token: who == WITH_TOKEN,
        problem: offline,
    }
}

/// The identity of a client with a token.
const WITH_TOKEN: &str = "this token";

/// How this process may use the hub.
pub(super) struct Environment {
    pub(super) api: Api,
    pub(super) cache: Cache,
    pub(super) endpoint: String,
    /// Why the hub must not be asked.
    pub(super) offline: Option<String>,
    /// The identity that the hub sees.
    pub(super) who: &'static str,
}

impl Environment {
    pub(super) fn read(id: &str) -> Result<Self, HubError> {
        let text =
            |name| env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let cache = Cache::from_env();
        let token = text("HF_TOKEN").or_else(|| cache.token());
        let who = if token.is_some() { WITH_TOKEN } else { "a client without a token" };
        // The crate's retries can append bytes that already exist; ours resume a file from its length.
        let builder = ApiBuilder::from_cache(cache.clone()).with_endpoint(endpoint.clone()).with_retries(0);
        let api = builder.with_token(token).with_user_agent("laptop-diff", env!("CARGO_PKG_VERSION")).build();
        let api = api.map_err(|error| HubError::Download {
            id: id.to_owned(),
            what: "anything".to_owned(),
            reason: error.to_string(),
        })?;
        let said = |text: String| ["1", "on", "yes", "true"].contains(&text.to_lowercase().as_str());
        let offline = text("HF_HUB_OFFLINE").is_some_and(said).then(|| "HF_HUB_OFFLINE is set".to_owned());
        Ok(Self { api, cache, endpoint, offline, who })
    }
}
