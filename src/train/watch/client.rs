//! Requests to an MLflow server: <https://mlflow.org/docs/latest/rest-api.html>.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{End, Server};

/// The most numbers and the most parameters that the server takes in one request.
pub(super) const METRICS: usize = 1000;
const PARAMETERS: usize = 100;

/// The longest value of a parameter that every server takes.
const VALUE: usize = 250;

/// The tag by which a run is found again.
const TAG: &str = "laptop-diff.training";

/// What the place of a run's files begins with if the server itself takes them.
pub(super) const PROXIED: &str = "mlflow-artifacts:";

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Metric {
    pub(super) key: String,
    pub(super) value: f64,
    pub(super) step: u64,
    /// Milliseconds since 1970.
    pub(super) timestamp: u64,
}

/// A server that can be asked.
pub(super) struct Client {
    server: Server,
    http: Http,
}

impl Client {
    pub(super) fn new(server: Server) -> Self {
        Self { server, http: Http::new() }
    }

    /// The server's address.
    pub(super) fn address(&self) -> String {
        self.server.to_string()
    }

    /// The id of the experiment of this name, which is made if there is none.
    pub(super) fn experiment(&self, name: &str) -> Result<String, String> {
        match self.get("experiments/get-by-name", ("experiment_name", name))? {
            Some(found) => text(&found, &["experiment", "experiment_id"]),
            None => text(&self.post("experiments/create", &json!({"name": name}))?, &["experiment_id"]),
        }
    }

    /// The run with this tag, if the server has it: its id, and where its files are.
    pub(super) fn find(&self, experiment: &str, tag: &str) -> Result<Option<(String, String)>, String> {
        let asked = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`{TAG}` = '{tag}'"), "max_results": 1,
        });
        let found = self.post("runs/search", &asked)?;
        found.get("runs").and_then(|runs| runs.get(0)).map(known).transpose()
    }

    /// Begins a run with this tag. Returns its id, and where its files are.
    pub(super) fn begin(
        &self,
        experiment: &str,
        run: &str,
        tag: &str,
        begun: u64,
    ) -> Result<(String, String), String> {
        let tags = json!([{"key": "mlflow.source.name", "value": "laptop-diff"}, {"key": TAG, "value": tag}]);
        let asked = json!({"experiment_id": experiment, "run_name": run, "start_time": begun, "tags": tags});
        let begun = self.post("runs/create", &asked)?;
        known(begun.get("run").unwrap_or(&Value::Null))
    }

    /// Logs what a training depends on.
    pub(super) fn describe(&self, run: &str, parameters: &[(String, String)]) -> Result<(), String> {
        parameters.chunks(PARAMETERS).try_for_each(|part| {
            let params: Vec<Value> =
                part.iter().map(|(name, value)| json!({"key": key(name), "value": short(value)})).collect();
            self.post("runs/log-batch", &json!({"run_id": run, "params": params})).map(drop)
        })
    }

    /// Sends a file to a run whose files are at `artifacts`.
    pub(super) fn upload(&self, artifacts: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = artifacts.trim_start_matches(PROXIED);
        // A host may stand before the path; it is the same server.
        let path = match path.strip_prefix("//") {
            Some(with_host) => with_host.split_once('/').map_or("", |(_, path)| path),
            None => path,
        };
        let path = path.trim_matches('/');
        let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}/{name}", self.server);
        checked(self.http.put(&url, bytes)?).map(drop)
    }

    /// Says that a run has pictures, so that MLflow's pages look for them.
    pub(super) fn has_pictures(&self, run: &str) -> Result<(), String> {
        let tag = json!({"run_id": run, "key": "mlflow.loggedImages", "value": "True"});
        self.post("runs/set-tag", &tag).map(drop)
    }

    /// Goes on with a run that was interrupted. Returns false if somebody removed it from the server.
    pub(super) fn resume(&self, run: &str) -> Result<bool, String> {
        let resumed = json!({"run_id": run, "status": "RUNNING"});
        match self.http.post(&self.url("runs/update"), &resumed)? {
            // One that is in the server's bin is 400.
            (400 | 404, _) => Ok(false),
            answer => checked(answer).map(|_| true),
        }
    }

    /// Logs at most [`METRICS`] numbers.
    pub(super) fn log(&self, run: &str, metrics: &[Metric]) -> Result<(), String> {
        let metrics: Vec<Value> = metrics
            .iter()
            .map(|one| {
                json!({"key": key(&one.key), "value": one.value, "timestamp": one.timestamp, "step": one.step})
            })
            .collect();
        self.post("runs/log-batch", &json!({"run_id": run, "metrics": metrics})).map(drop)
    }

    /// Ends a run.
    pub(super) fn end(&self, run: &str, end: End) -> Result<(), String> {
        let status = match end {
            End::Done => "FINISHED",
            End::Interrupted => "KILLED",
            End::Failed => "FAILED",
        };
        let ended = json!({"run_id": run, "status": status, "end_time": milliseconds()});
        self.post("runs/update", &ended).map(drop)
    }

    fn url(&self, call: &str) -> String {
        format!("{}/api/2.0/mlflow/{call}", self.server)
    }

    /// `None` if there is no such thing.
    fn get(&self, call: &str, query: (&str, &str)) -> Result<Option<Value>, String> {
        match self.http.get(&self.url(call), query)? {
            (404, _) => Ok(None),
            answer => checked(answer).map(Some),
        }
    }

    fn post(&self, call: &str, body: &Value) -> Result<Value, String> {
        checked(self.http.post(&self.url(call), body)?)
    }
}

/// The body of an answer that is no error. That to a file is empty.
fn checked((status, body): (u16, String)) -> Result<Value, String> {
    if !(200..300).contains(&status) {
        let brief: String = body.trim().chars().take(200).collect();
        return Err(format!("the server answers {status}: {brief}"));
    }
    if body.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&body).map_err(|error| format!("its answer is not JSON: {error}"))
}

/// The id of a run, and where its files are.
fn known(run: &Value) -> Result<(String, String), String> {
    let artifacts = text(run, &["info", "artifact_uri"]).unwrap_or_default();
    Ok((text(run, &["info", "run_id"])?, artifacts))
}

fn text(value: &Value, path: &[&str]) -> Result<String, String> {
    let found = path.iter().try_fold(value, |value, name| value.get(name)).and_then(Value::as_str);
    found.map(ToOwned::to_owned).ok_or_else(|| format!("its answer has no {}", path.join(".")))
}

/// A name with the characters that MLflow takes.
fn key(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-. /".contains(letter);
    name.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
}

fn short(value: &str) -> String {
    value.chars().take(VALUE).collect()
}

/// Milliseconds since 1970.
pub(super) fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(feature = "hub")]
struct Http {
    agent: ureq::Agent,
    authorisation: Option<String>,
}

#[cfg(feature = "hub")]
impl Http {
    /// The longest that one request may take.
    const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

    /// Takes the name and password, or the token, that MLflow's own clients take from the environment.
    fn new() -> Self {
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
        let agent = config.timeout_global(Some(Self::TIMEOUT)).build().new_agent();
        Self { agent, authorisation: basic().or(token) }
    }

    fn get(&self, url: &str, (name, value): (&str, &str)) -> Result<(u16, String), String> {
        Self::answer(self.authorised(self.agent.get(url).query(name, value)).call())
    }

    fn post(&self, url: &str, body: &Value) -> Result<(u16, String), String> {
        let request = self.agent.post(url).header("Content-Type", "application/json");
        Self::answer(self.authorised(request).send(body.to_string()))
    }

    fn put(&self, url: &str, body: &[u8]) -> Result<(u16, String), String> {
        let request = self.agent.put(url).header("Content-Type", "application/octet-stream");
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
struct Http;

#[cfg(not(feature = "hub"))]
impl Http {
    const NONE: &str = "this program was built without the feature `hub`, which contains the HTTP client";

    fn new() -> Self {
        Self
    }

    fn get(&self, _url: &str, _query: (&str, &str)) -> Result<(u16, String), String> {
        Err(Self::NONE.to_owned())
    }

    fn post(&self, _url: &str, _body: &Value) -> Result<(u16, String), String> {
        Err(Self::NONE.to_owned())
    }

    fn put(&self, _url: &str, _body: &[u8]) -> Result<(u16, String), String> {
        Err(Self::NONE.to_owned())
    }
}
