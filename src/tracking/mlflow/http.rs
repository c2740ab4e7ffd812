//! Requests over HTTP, in builds with the feature `hub`, which contains the client.

#[cfg(feature = "hub")]
use std::time::Duration;

use serde_json::Value;

/// The longest that one request may take.
#[cfg(feature = "hub")]
const TIMEOUT: Duration = Duration::from_secs(10);

/// The slowest line that a large file is sent over, in bytes per second.
#[cfg(feature = "hub")]
const SLOWEST: u64 = 200_000;

#[cfg(feature = "hub")]
pub(super) struct Http {
    agent: ureq::Agent,
    authorisation: Option<String>,
}

#[cfg(feature = "hub")]
impl Http {
    /// Takes the name and password, or the token, that MLflow's own clients take from the environment.
    pub(super) fn new() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let basic = || {
            use base64::Engine;
            let pair = format!(
                "{}:{}",
                set("MLFLOW_TRACKING_USERNAME")?,
                set("MLFLOW_TRACKING_PASSWORD").unwrap_or_default()
            );
            Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        };
        let token = set("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}"));
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(TIMEOUT)).build().new_agent();
        Self { agent, authorisation: basic().or(token) }
    }

    pub(super) fn get(&self, url: &str, (name, value): (&str, &str)) -> Result<(u16, String), String> {
        Self::answer(self.authorised(self.agent.get(url).query(name, value)).call())
    }

    pub(super) fn post(&self, url: &str, body: &Value) -> Result<(u16, String), String> {
        let request = self.agent.post(url).header("Content-Type", "application/json");
        Self::answer(self.authorised(request).send(body.to_string()))
    }

    pub(super) fn put(&self, url: &str, body: &[u8]) -> Result<(u16, String), String> {
        let patience = TIMEOUT + Duration::from_secs(body.len() as u64 / SLOWEST);
        let request = self.agent.put(url).config().timeout_global(Some(patience)).build();
        let request = request.header("Content-Type", "application/octet-stream");
        Self::answer(self.authorised(request).send(body))
    }

    fn authorised<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorisation {
            Some(authorisation) => request.header("Authorization", authorisation),
            None => request,
        }
    }

    fn answer(
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(u16, String), String> {
        let mut answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().read_to_string().map_err(|error| error.to_string())?))
    }
}

#[cfg(not(feature = "hub"))]
pub(super) struct Http;

#[cfg(not(feature = "hub"))]
impl Http {
    const NONE: &str = "this program was built without the feature `hub`, which contains the HTTP client";

    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn get(&self, _url: &str, _query: (&str, &str)) -> Result<(u16, String), String> {
        Err(Self::NONE.to_owned())
    }

    pub(super) fn post(&self, _url: &str, _body: &Value) -> Result<(u16, String), String> {
        Err(Self::NONE.to_owned())
    }

    pub(super) fn put(&self, _url: &str, _body: &[u8]) -> Result<(u16, String), String> {
        Err(Self::NONE.to_owned())
    }
}
