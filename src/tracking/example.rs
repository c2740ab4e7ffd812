//! The run folder of a sweep as the runner writes it, step by step, for tests.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::teller::{Role, Source, Teller};
use super::testing::Mlflow;
use crate::base::{Digest, clock};
use crate::distill::history::HISTORY_FILE;
use crate::run::{EVENTS, Event, RunRecord};

pub(super) type Tested = Result<(), Box<dyn std::error::Error>>;

/// A sweep of a training over two ratios, whose artefacts are in a folder beside its run folder.
pub(super) struct Sweep {
    place: tempfile::TempDir,
    /// The name of the event log.
    pub(super) events: String,
    pub(super) role: Role,
    pub(super) record: RunRecord,
}

const STAGES: [(&str, &str, &str, &str); 5] = [
    ("teacher", "load", "model", ""),
    ("student@ratio=0.3", "prune", "model", "0.3"),
    ("student@ratio=0.5", "prune", "model", "0.5"),
    ("retrained@ratio=0.3", "distill", "model", "0.3"),
    ("retrained@ratio=0.5", "distill", "model", "0.5"),
];

pub(super) fn key(id: &str) -> Digest {
    Digest::of(id.as_bytes())
}

impl Sweep {
    pub(super) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let place = tempfile::tempdir()?;
        fs::create_dir_all(place.path().join("runs/nano"))?;
        let node = |&(id, stage, output, _): &(&str, &str, &str, &str)| {
            let origin = id.split_once('@').map(|(origin, _)| origin);
            json!({"id": id, "stage": stage, "output": output, "origin": origin})
        };
        let stage = |&(id, stage, _, ratio): &(&str, &str, &str, &str)| {
            let branch = if ratio.is_empty() { json!({}) } else { json!({"ratio": ratio}) };
            let manifest = json!({"entries": [["stage", "x@1"], ["ratio", ratio], ["input teacher", "12"]]});
            json!({"id": id, "branch": branch, "stage": stage, "version": 1, "state": "waiting", "key": key(id),
                   "manifest": manifest, "artefact": null, "error": null})
        };
        let edges = [(0, 1), (0, 2), (1, 3), (2, 4)];
        let edges = edges.map(|(from, to)| json!({"from": from, "to": to, "input": "model"}));
        let record = json!({
            "format": 2, "name": "nano", "program": "1.0", "file": "nano.yaml", "pipeline": "format: 1", "seed": 7,
            "graph": {"stages": STAGES.iter().map(node).collect::<Vec<_>>(), "edges": edges},
            "device": {"asked": "cpu", "class": "cpu"}, "started": clock::now(),
            "finished": null, "seconds": null, "exit_code": null,
            "stages": STAGES.iter().map(stage).collect::<Vec<_>>(),
        });
        let (events, role) = (EVENTS.to_owned(), Role::Whole);
        Ok(Self { place, events, role, record: serde_json::from_value(record)? })
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.place.path().join("runs/nano")
    }

    pub(super) fn source(&self) -> Source {
        Source { folder: self.folder(), log: self.folder().join(&self.events), role: self.role }
    }

    pub(super) fn teller(&self, server: &Mlflow) -> Teller {
        Teller::new(server.address.parse().expect("an address"), self.source())
    }

    pub(super) fn log(&self, event: &Event) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder().join(&self.events));
        std::io::Write::write_all(&mut log.expect("a log"), format!("{}\n", event.line()).as_bytes())
            .expect("written");
    }

    pub(super) fn starts(&mut self) {
        self.starts_with(&STAGES.map(|(id, ..)| id));
    }

    pub(super) fn starts_with(&mut self, stages: &[&str]) {
        self.record.started = clock::now();
        let stages = stages.iter().map(|&id| id.into()).collect();
        self.log(&Event::RunStarted { format: 2, name: "nano".into(), program: "1.0".into(), stages });
    }

    /// A stage has its artefact, with these files.
    pub(super) fn done(&mut self, id: &str, cached: bool, files: &[(&str, &[u8])]) -> Tested {
        let folder = self.place.path().join("artefacts").join(id);
        for (name, bytes) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            fs::write(path, bytes)?;
        }
        let artefact = json!({
            "digest": key(id), "path": folder, "bytes": 5, "seconds": 2.0, "peak_bytes": null,
            "finished": "2026-08-01T12:00:00Z", "program": "1.0",
        });
        let stage = self.record.stages.iter_mut().find(|stage| stage.id.as_str() == id).expect("a stage");
        stage.artefact = Some(serde_json::from_value(artefact)?);
        let (stage, key, digest, seconds) = (id.into(), key(id), key(id), 2.0);
        self.log(&match cached {
            true => Event::StageCached { stage, key, digest, seconds },
            false => Event::StageDone { stage, key, digest, seconds, bytes: 5, peak_bytes: None },
        });
        Ok(self.record.write(&self.folder())?)
    }

    pub(super) fn ends(&self, code: u8) {
        let folder = self.folder();
        self.log(&Event::RunDone { code, seconds: 1.0, ran: 3, cached: 1, failed: 1, skipped: 1, folder });
    }

    /// All stages come from the cache.
    pub(super) fn cached(&mut self, losses: &[u8]) -> Tested {
        self.starts();
        for (id, stage, ..) in STAGES {
            let files = [(HISTORY_FILE, losses)];
            self.done(id, true, if stage == "distill" { &files } else { &[] })?;
        }
        self.ends(0);
        Ok(())
    }
}

/// The history of a training.
pub(super) fn losses(steps: std::ops::Range<u64>) -> Vec<u8> {
    let kinds = json!({"task": 0.5, "output": 0.25, "features": 0.25});
    let line = |step| {
        json!({"step": step, "task": 0.5, "output": 0.5, "features": {}, "weighted": kinds, "total": 1.0,
               "gradient_norm": 1.0, "learning_rate": 0.1})
    };
    steps.map(|step| format!("{}\n", line(step))).collect::<String>().into_bytes()
}
