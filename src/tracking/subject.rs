//! What becomes a run of its own in a server: a run is one, and of a sweep each branch is one below it, so that the table of
//! runs there compares the branches.

use std::collections::{BTreeMap, BTreeSet};

use super::log::Happened;
use crate::base::Manifest;
use crate::metric::Verdict;
use crate::plan::{Branch, Node};
use crate::run::{ExitCode, RunRecord, StageRecord, StageState};

/// A run of the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    /// Its name.
    pub(super) name: String,
    /// The swept values; none for the run as a whole.
    pub(super) branch: Branch,
    /// The stages that it is about, by index. Those that all branches share are the whole run's.
    pub(super) own: Vec<usize>,
    /// The stages whose parameters it has: a branch has those of the shared stages that it needs, too.
    pub(super) of: BTreeSet<usize>,
}

/// The tags of a failure, which go when the run goes on: the error, and the text at the head of the run's page.
pub(super) const ERRORS: [&str; 2] = ["laptop-diff.error", "mlflow.note.content"];

/// How a run of the server stands, in MLflow's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Finished,
    Failed,
    Killed,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
        }
    }
}

/// The run as a whole, then the branches. A stage that depends on some axes only belongs to every branch with its values.
pub(super) fn subjects(record: &RunRecord) -> Vec<Subject> {
    let branches: BTreeSet<&Branch> = record.stages.iter().map(|stage| &stage.branch).collect();
    let is_within =
        |small: &Branch, large: &Branch| small.iter().all(|(axis, value)| large.get(axis) == Some(value));
    let longest = branches.iter().map(|branch| branch.len()).max().unwrap_or(0);
    let is_part = |branch: &Branch| {
        branch.len() < longest
            && branches.iter().any(|other| other.len() > branch.len() && is_within(branch, other))
    };
    let shared: Vec<usize> =
        (0..record.stages.len()).filter(|&index| record.stages[index].branch.is_empty()).collect();
    let whole = Subject {
        name: record.name.clone(),
        branch: Branch::new(),
        of: shared.iter().copied().collect(),
        own: shared,
    };
    // The stages by branch, so that thousands of branches take no time.
    let mut stages: BTreeMap<&Branch, Vec<usize>> = BTreeMap::new();
    for (index, stage) in record.stages.iter().enumerate() {
        stages.entry(&stage.branch).or_default().push(index);
    }
    let partial: Vec<&Branch> =
        branches.iter().copied().filter(|branch| !branch.is_empty() && is_part(branch)).collect();
    let child = |branch: &Branch| {
        let parts = partial.iter().filter(|part| is_within(part, branch)).copied().chain([branch]);
        let mut own: Vec<usize> = parts.flat_map(|part| stages[part].clone()).collect();
        own.sort_unstable();
        let of = own.iter().flat_map(|&index| record.graph.with_ancestors(index)).collect();
        Subject { name: label(branch), branch: branch.clone(), own, of }
    };
    let whole_branches = branches.iter().filter(|branch| !branch.is_empty() && !partial.contains(*branch));
    std::iter::once(whole).chain(whole_branches.map(|branch| child(branch))).collect()
}

/// `criterion=magnitude, ratio=0.3`.
fn label(branch: &Branch) -> String {
    branch.iter().map(|(axis, value)| format!("{axis}={value}")).collect::<Vec<_>>().join(", ")
}

/// What is known of a subject.
pub(super) struct View<'a> {
    pub(super) subject: &'a Subject,
    pub(super) record: &'a RunRecord,
    pub(super) happened: &'a Happened,
}

impl<'a> View<'a> {
    /// The stages that it is about, as far as the run wants them.
    pub(super) fn stages(&self) -> impl Iterator<Item = &'a StageRecord> {
        self.nodes().map(|(stage, _)| stage)
    }

    /// The same with their nodes in the graph.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&'a StageRecord, &'a Node)> {
        let (record, wanted) = (self.record, &self.happened.wanted);
        let own = self.subject.own.iter().map(|&index| (&record.stages[index], record.graph.stage(index)));
        own.filter(|(stage, _)| wanted.contains(&stage.id))
    }

    pub(super) fn is_whole(&self) -> bool {
        self.subject.branch.is_empty()
    }

    /// How it stands; nothing if nothing of it has begun. `part` is whether others do the rest of the run.
    pub(super) fn status(&self, part: bool) -> Option<Status> {
        let states: Vec<StageState> = self.stages().map(|stage| self.happened.state(&stage.id)).collect();
        let any = |wanted: &[StageState]| states.iter().any(|state| wanted.contains(state));
        let begun = self.is_whole() || states.iter().any(|state| *state != StageState::Waiting);
        let at_work = any(&[StageState::Running, StageState::Done]);
        match self.happened.end {
            _ if !begun || (part && !self.is_whole() && !at_work) => None,
            _ if part => Some(Status::Running),
            Some((code, _)) if self.is_whole() => Some(match ExitCode::of_number(code) {
                Some(ExitCode::Done | ExitCode::Gate) => Status::Finished,
                Some(ExitCode::Interrupted) => Status::Killed,
                _ => Status::Failed,
            }),
            None if self.is_whole() => Some(Status::Running),
            _ if any(&[StageState::Failed, StageState::Skipped]) => Some(Status::Failed),
            _ if states.iter().all(|state| state.has_artefact()) => Some(Status::Finished),
            Some(_) => Some(Status::Killed),
            None => Some(Status::Running),
        }
    }

    /// When it began and ended, in milliseconds since 1970.
    pub(super) fn times(&self) -> (u64, u64) {
        let seen = || self.stages().filter_map(|stage| self.happened.stages.get(&stage.id));
        let (first, last) = (seen().map(|seen| seen.first).min(), seen().map(|seen| seen.last).max());
        let begun = self.happened.begun;
        match self.is_whole() {
            true => (begun, self.happened.end.map_or(begun, |(_, at)| at)),
            false => (first.unwrap_or(begun), last.unwrap_or(begun)),
        }
    }

    /// The resolved parameters by their stages, `selection.ratio`, and the swept values by the names of their axes.
    pub(super) fn parameters(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> =
            BTreeMap::from([("seed".to_owned(), self.record.seed.to_string())]);
        all.extend(self.subject.branch.clone());
        for &index in &self.subject.of {
            let stage = &self.record.stages[index];
            let Some(manifest) = &stage.manifest else { continue };
            let origin = self.record.graph.stage(index).origin();
            all.extend(parameters(manifest).map(|(name, value)| (format!("{origin}.{name}"), value)));
        }
        all
    }

    /// What describes it beside its parameters.
    pub(super) fn tags(&self, error: Option<&str>) -> BTreeMap<String, String> {
        let record = self.record;
        let mut tags = BTreeMap::new();
        let mut tag = |name: &str, value: String| drop(tags.insert(name.to_owned(), value));
        tag("mlflow.source.name", record.file.display().to_string());
        tag("mlflow.source.type", "LOCAL".to_owned());
        let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
        user.into_iter().for_each(|user| tag("mlflow.user", user));
        tag("laptop-diff.run", record.name.clone());
        tag("laptop-diff.version", record.program.clone());
        tag("laptop-diff.device", record.device.class.to_string());
        if let Some(error) = error {
            let [short, note] = ERRORS;
            tag(short, error.to_owned());
            tag(note, format!("```\n{error}\n```"));
        }
        for (stage, node) in self.nodes() {
            let (origin, state) = (node.origin(), self.happened.state(&stage.id));
            if state != StageState::Waiting {
                tag(&format!("stage.{origin}"), state.to_string());
            }
            if let Some(key) = &stage.key {
                tag(&format!("key.{origin}"), key.to_string());
            }
            if let Some(artefact) = &stage.artefact {
                tag(&format!("digest.{origin}"), artefact.digest.to_string());
            }
            if !stage.gates.is_empty() {
                let gates: Vec<String> = stage.gates.iter().map(gate).collect();
                tag(&format!("gates.{origin}"), gates.join("; "));
            }
        }
        tags
    }

    /// Why it failed.
    pub(super) fn error(&self) -> Option<String> {
        let of_whole = || self.record.stages.iter().filter(|_| self.is_whole());
        // The whole run fails by any of its branches.
        let errors = self.stages().chain(of_whole()).filter_map(|stage| self.happened.error(&stage.id));
        let mut seen = BTreeSet::new();
        let errors: Vec<String> = errors.filter(|error| seen.insert(error.clone())).collect();
        (!errors.is_empty()).then(|| errors.join("\n"))
    }
}

fn gate(verdict: &Verdict) -> String {
    format!("{} {}", if verdict.met { "met:" } else { "not met:" }, verdict.gate)
}

/// What a user can choose: not what follows from other stages or from the program.
fn parameters(manifest: &Manifest) -> impl Iterator<Item = (String, String)> {
    let follows = |name: &str| {
        matches!(name, "stage" | "kernels" | "key layout" | "id" | "seed" | "device class")
            || name.starts_with("input ")
    };
    manifest
        .entries()
        .filter(move |(name, _)| !follows(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}
