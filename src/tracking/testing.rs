//! A server that answers as MLflow does, for tests: it keeps runs in memory, takes the same number twice as one, and refuses another
//! value of a parameter.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

/// A run of the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) status: String,
    pub(crate) ended: Option<u64>,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
    /// Key, timestamp, step, and the number in its text.
    pub(crate) numbers: Vec<(String, u64, u64, String)>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) deleted: bool,
}

/// The server, which answers until the process ends.
#[derive(Clone)]
pub(crate) struct Mlflow {
    pub(crate) address: String,
    runs: Arc<Mutex<Vec<Kept>>>,
    /// How many requests it still serves before all its answers are errors.
    pub(crate) left: Arc<AtomicUsize>,
    /// How many requests were answered.
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Kept {
    /// The steps of a number, in the order in which they arrived.
    pub(crate) fn steps(&self, key: &str) -> Vec<u64> {
        self.numbers.iter().filter(|(name, ..)| name == key).map(|(_, _, step, _)| *step).collect()
    }
}

impl Mlflow {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let server = Self { address, runs: Arc::default(), left, requests: Arc::default() };
        let ours = server.clone();
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(ours.answer(stream))));
        Ok(server)
    }

    /// Its runs, in the order in which they began.
    pub(crate) fn runs(&self) -> Vec<Kept> {
        self.held().clone()
    }

    /// Changes its runs.
    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.runs.lock().expect("nobody panicked")
    }

    /// The run of this name that began last and is still there.
    pub(crate) fn run(&self, name: &str) -> Kept {
        let runs = self.runs();
        let found = runs.iter().rev().find(|run| run.name == name && !run.deleted).cloned();
        found.unwrap_or_else(|| panic!("no run `{name}` among {:?}", names(&runs)))
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let (mut reader, mut head, mut length) = (BufReader::new(stream.try_clone()?), String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let call = head.split_whitespace().nth(1).unwrap_or_default();
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let (status, text) = match left {
            Ok(_) => self.act(call, &body),
            Err(_) => (500, json!({"error_code": "INTERNAL_ERROR"}).to_string()),
        };
        self.requests.fetch_add(1, Ordering::SeqCst);
        let length = text.len();
        write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}")
    }

    fn act(&self, call: &str, body: &[u8]) -> (u16, String) {
        let mut runs = self.held();
        if let Some(path) = call.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/3/") {
            let (id, name) = path.split_once("/artifacts/").expect("the place of a run's files");
            let file = (name.to_owned(), body.to_vec());
            runs[index(id)].files.extend([file]);
            // The real server says nothing to a file.
            return (200, String::new());
        }
        let (call, query) = call.split_once('?').unwrap_or((call, ""));
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let asked = body["run_id"].as_str().or(query.strip_prefix("run_id="));
        let missing = (404, json!({"error_code": "RESOURCE_DOES_NOT_EXIST"}));
        let (status, answer) = match call.trim_start_matches("/api/2.0/mlflow/") {
            "experiments/get-by-name" => missing,
            "experiments/create" => (200, json!({"experiment_id": "3"})),
            "runs/create" => {
                let mut run =
                    Kept { name: text(&body["run_name"]), status: "RUNNING".into(), ..Kept::default() };
                run.tags.extend(pairs(&body["tags"]));
                runs.push(run);
                (200, json!({"run": info(runs.len() - 1, false)}))
            }
            "runs/search" => {
                let filter = text(&body["filter"]);
                let has = |run: &Kept| run.tags.values().any(|value| filter.ends_with(&format!("'{value}'")));
                let found = runs.iter().position(has).map(|index| info(index, false));
                (200, json!({"runs": found.into_iter().collect::<Vec<_>>()}))
            }
            call => match asked.and_then(|id| runs.get_mut(index(id)).map(|run| (id, run))) {
                Some((id, run)) => change(call, (index(id), run), &body),
                None => missing,
            },
        };
        (status, answer.to_string())
    }
}

/// Changes a run, or tells of it.
fn change(call: &str, (index, run): (usize, &mut Kept), body: &Value) -> (u16, Value) {
    match call {
        "runs/get" => return (200, json!({"run": info(index, run.deleted)})),
        "runs/update" => {
            (run.status, run.ended) = (text(&body["status"]), body["end_time"].as_u64());
        }
        "runs/set-tag" => run.tags.extend([(text(&body["key"]), text(&body["value"]))]),
        "runs/delete-tag" => drop(run.tags.remove(&text(&body["key"]))),
        "runs/log-batch" => {
            let changes =
                |(key, value): &(String, String)| run.parameters.get(key).is_some_and(|old| old != value);
            if pairs(&body["params"]).iter().any(changes) {
                return (400, json!({"error_code": "INVALID_PARAMETER_VALUE"}));
            }
            let all = ["params", "tags", "metrics"].map(|kind| body[kind].as_array().map_or(0, Vec::len));
            assert!(all[0] <= 100 && all[1] <= 100 && all.iter().sum::<usize>() <= 1000, "{all:?}");
            run.parameters.extend(pairs(&body["params"]));
            run.tags.extend(pairs(&body["tags"]));
            for one in body["metrics"].as_array().into_iter().flatten() {
                let number = |name: &str| one[name].as_u64().expect("a whole number");
                let metric =
                    (text(&one["key"]), number("timestamp"), number("step"), one["value"].to_string());
                if !run.numbers.contains(&metric) {
                    run.numbers.push(metric);
                }
            }
        }
        _ => return (404, json!({"error_code": "ENDPOINT_NOT_FOUND"})),
    }
    (200, json!({}))
}

fn names(runs: &[Kept]) -> Vec<&str> {
    runs.iter().map(|run| run.name.as_str()).collect()
}

fn info(index: usize, deleted: bool) -> Value {
    let (id, stage) = (format!("run{index}"), if deleted { "deleted" } else { "active" });
    let artifacts = format!("mlflow-artifacts:/3/{id}/artifacts");
    json!({"info": {"run_id": id, "artifact_uri": artifacts, "lifecycle_stage": stage}})
}

fn index(id: &str) -> usize {
    id.strip_prefix("run").and_then(|number| number.parse().ok()).expect("an id of this server")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn pairs(list: &Value) -> Vec<(String, String)> {
    let all = list.as_array().into_iter().flatten();
    all.map(|one| (text(&one["key"]), text(&one["value"]))).collect()
}
