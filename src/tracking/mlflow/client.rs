//! Requests to an MLflow server: <https://mlflow.org/docs/latest/rest-api.html>.

use std::cell::OnceCell;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::Http;
use crate::base::Server;

/// The most numbers that the server takes in one request, and the most parameters or tags.
pub(in crate::tracking) const METRICS: usize = 1000;
const PARAMETERS: usize = 100;

/// The longest name, and the longest values of a parameter and of a tag, that every server takes.
const NAME: usize = 250;
const VALUE: usize = 250;
const TAG_VALUE: usize = 5000;

/// The tag by which a run is found again.
const TAG: &str = "laptop-diff.id";

/// What the place of a run's files begins with if the server itself takes them.
pub(in crate::tracking) const PROXIED: &str = "mlflow-artifacts:";

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::tracking) struct Metric {
    pub(in crate::tracking) key: String,
    pub(in crate::tracking) value: f64,
    pub(in crate::tracking) step: u64,
    /// Milliseconds since 1970.
    pub(in crate::tracking) timestamp: u64,
}

/// A server that can be asked.
pub(in crate::tracking) struct Client {
    server: Server,
    http: Http,
    experiment: OnceCell<String>,
}

impl Client {
    pub(in crate::tracking) fn new(server: Server) -> Self {
        Self { server, http: Http::new(), experiment: OnceCell::new() }
    }

    /// The server's address.
    pub(in crate::tracking) fn address(&self) -> String {
        self.server.to_string()
    }

    /// Whether it can be reached.
    pub(in crate::tracking) fn answers(&self) -> bool {
        self.get("experiments/get-by-name", ("experiment_name", "Default")).is_ok()
    }

    /// The id of the experiment of this name, which is made if there is none.
    pub(in crate::tracking) fn experiment(&self, name: &str) -> Result<&str, String> {
        if let Some(id) = self.experiment.get() {
            return Ok(id);
        }
        let id = match self.get("experiments/get-by-name", ("experiment_name", name))? {
            Some(found) => text(&found, &["experiment", "experiment_id"])?,
            None => {
                // MLflow 3 has other pages for language models, which it shows first.
                let kind = json!({"key": "mlflow.experimentKind", "value": "custom_model_development"});
                let asked = json!({"name": name, "tags": [kind]});
                text(&self.post("experiments/create", &asked)?, &["experiment_id"])?
            }
        };
        Ok(self.experiment.get_or_init(|| id))
    }

    /// The run with this tag, if the server has it: its id, and where its files are.
    pub(in crate::tracking) fn find(
        &self,
        experiment: &str,
        tag: &str,
    ) -> Result<Option<(String, String)>, String> {
        let asked = json!({
            "experiment_ids": [experiment], "filter": format!("tags.`{TAG}` = '{tag}'"), "max_results": 1,
        });
        let found = self.post("runs/search", &asked)?;
        found.get("runs").and_then(|runs| runs.get(0)).map(known).transpose()
    }

    /// Begins a run with this tag, below another one if it has a parent. Returns its id, and where its files are.
    pub(in crate::tracking) fn begin(
        &self,
        experiment: &str,
        run: &str,
        tag: &str,
        begun: u64,
        parent: Option<&str>,
    ) -> Result<(String, String), String> {
        let mut tags = vec![json!({"key": TAG, "value": tag})];
        tags.extend(parent.map(|parent| json!({"key": "mlflow.parentRunId", "value": parent})));
        let asked = json!({"experiment_id": experiment, "run_name": run, "start_time": begun, "tags": tags});
        let begun = self.post("runs/create", &asked)?;
        known(begun.get("run").unwrap_or(&Value::Null))
    }

    /// Whether a run is still there, and not in the server's bin.
    pub(in crate::tracking) fn has(&self, run: &str) -> Result<bool, String> {
        let found = self.get("runs/get", ("run_id", run))?;
        let stage = |found: Value| text(&found, &["run", "info", "lifecycle_stage"]).ok();
        Ok(found.is_some_and(|found| stage(found).is_none_or(|stage| stage == "active")))
    }

    /// Logs parameters, which cannot be changed later, and tags, which can.
    pub(in crate::tracking) fn describe(
        &self,
        run: &str,
        parameters: &[(String, String)],
        tags: &[(String, String)],
    ) -> Result<(), String> {
        let log = |kind: &str, all: &[(String, String)], longest: usize| {
            all.chunks(PARAMETERS).try_for_each(|part| {
                let one = |(name, value): &(String, String)| json!({"key": key(name), "value": short(value, longest)});
                let part: Vec<Value> = part.iter().map(one).collect();
                self.post("runs/log-batch", &json!({"run_id": run, kind: part})).map(drop)
            })
        };
        log("params", parameters, VALUE)?;
        log("tags", tags, TAG_VALUE)
    }

    /// Removes a tag.
    pub(in crate::tracking) fn remove_tag(&self, run: &str, name: &str) -> Result<(), String> {
        self.post("runs/delete-tag", &json!({"run_id": run, "key": key(name)})).map(drop)
    }

    /// Sends a file to a run whose files are at `artifacts`.
    pub(in crate::tracking) fn upload(
        &self,
        artifacts: &str,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
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
    pub(in crate::tracking) fn has_pictures(&self, run: &str) -> Result<(), String> {
        let tag = json!({"run_id": run, "key": "mlflow.loggedImages", "value": "True"});
        self.post("runs/set-tag", &tag).map(drop)
    }

    /// Logs at most [`METRICS`] numbers.
    pub(in crate::tracking) fn log(&self, run: &str, metrics: &[Metric]) -> Result<(), String> {
        let metrics: Vec<Value> = metrics
            .iter()
            .map(|one| {
                json!({"key": key(&one.key), "value": one.value, "timestamp": one.timestamp, "step": one.step})
            })
            .collect();
        self.post("runs/log-batch", &json!({"run_id": run, "metrics": metrics})).map(drop)
    }

    /// Says how a run stands, and when it ended, if it has.
    pub(in crate::tracking) fn update(
        &self,
        run: &str,
        status: &str,
        ended: Option<u64>,
    ) -> Result<(), String> {
        let mut state = json!({"run_id": run, "status": status});
        if let Some(at) = ended {
            state["end_time"] = json!(at);
        }
        self.post("runs/update", &state).map(drop)
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
    name.chars().take(NAME).map(|letter| if is_plain(letter) { letter } else { '_' }).collect()
}

fn short(value: &str, longest: usize) -> String {
    value.chars().take(longest).collect()
}

/// Milliseconds since 1970.
pub(in crate::tracking) fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
