//! Explains what a run would do with each stage, and why. Reads the cache and changes nothing.
//!
//! Reasons are derived from the manifest whose hash is the key, so the explanation always matches the comparison.

use std::collections::BTreeMap;

use super::forecast::{Forecast, Outcome, Reason};
use super::{PlanError, ResolvedPipeline};
use crate::backend::DeviceClass;
use crate::base::manifest::Change;
use crate::base::{Digest, Manifest};
use crate::cache::{Lookup, Store, Tree};
use crate::stage::{Earlier, ResolvedFile, Stage};

/// How many of the files that changed are named.
const FIRST_FILES: usize = 3;

/// Returns what a run would do with each stage, in the order of [`Graph::order`](super::Graph::order).
pub fn explain(
    pipeline: &ResolvedPipeline,
    device: DeviceClass,
    store: &Store,
) -> Result<Vec<Forecast>, PlanError> {
    let graph = &pipeline.graph;
    let files = graph.order().iter().map(|&index| Ok((index, pipeline.files(index)?)));
    let files = files.collect::<Result<BTreeMap<_, _>, PlanError>>()?;
    pipeline.check_files(&files)?;
    let mut digests: BTreeMap<usize, Digest> = BTreeMap::new();
    let mut forecasts = Vec::new();
    for &index in graph.order() {
        let node = graph.stage(index);
        let (mut known, mut inputs) = (BTreeMap::new(), Vec::new());
        for (name, from) in graph.inputs(index) {
            match digests.get(&from) {
                Some(digest) => drop(known.insert(name.to_owned(), *digest)),
                None => inputs.push((name, graph.stage(from).id.clone())),
            }
        }
        let files = &files[&index];
        let repositories = files.values().filter_map(ResolvedFile::repository).cloned().collect();
        let missing =
            files.values().filter_map(ResolvedFile::missing).map(|file| format!("needs {file}")).collect();
        let new = pipeline.manifest(index, device, &known, files, store)?;
        let last = store.last_manifest(&pipeline.name, &node.id);
        let name_files = |reason: Reason| {
            let folder = |parameter: &str| store.last_folder(&pipeline.name, &node.id, parameter);
            with_files(reason, || pipeline.trees(index, files, store), folder)
        };
        let outcome = if inputs.is_empty() {
            look_up(&new, last.as_ref(), store, |digest| {
                digests.insert(index, digest);
            })?
        } else {
            let unknown: Vec<_> = inputs.iter().map(|(name, _)| format!("input {name}")).collect();
            let reasons = changes(&new, last.as_ref(), &unknown);
            let mut inputs: Vec<_> = inputs.into_iter().map(|(_, id)| id).collect();
            inputs.dedup();
            Outcome::Waits { inputs, reasons }
        };
        let reuse = reuse(pipeline.stages[index].stage.as_ref(), &new, &outcome, store)?;
        let outcome = outcome.map_reasons(name_files);
        let (id, stage) = (node.id.clone(), node.stage.clone());
        forecasts.push(Forecast { id, stage, repositories, missing, reuse, outcome });
    }
    Ok(forecasts)
}

/// What a stage that runs can use of the end state of an earlier run, or why it cannot.
fn reuse(
    stage: &dyn Stage,
    manifest: &Manifest,
    outcome: &Outcome,
    store: &Store,
) -> Result<Option<String>, PlanError> {
    let (Outcome::Runs { reasons, .. }, Some(earlier)) = (outcome, stage.earlier(manifest)) else {
        return Ok(None);
    };
    let Earlier { state, name, wanted, obstacle } = earlier;
    if let Some(obstacle) = obstacle {
        let is_changed = |reason: &Reason| matches!(reason, Reason::Changed(change) if change.name == name);
        return Ok(reasons.iter().any(is_changed).then(|| format!("{obstacle}: starts anew")));
    }
    let states = store.alike(&state, name)?.into_iter();
    let states = states.filter_map(|(value, entry)| Some((value.parse::<u64>().ok()?, entry.key)));
    let mut states: Vec<_> = states.filter(|(value, _)| *value <= wanted).collect();
    states.sort_unstable_by(|one, two| two.cmp(one));
    for (value, key) in states {
        if let Lookup::Whole(_) = store.lookup(&key)? {
            return Ok(Some(format!("goes on from the state of an earlier run at {value} {name}")));
        }
    }
    Ok(None)
}

/// The reason itself, or if it is a change of a folder whose files are known, the first of the files that changed.
fn with_files(
    reason: Reason,
    now: impl FnOnce() -> BTreeMap<String, Tree>,
    last: impl FnOnce(&str) -> Option<Tree>,
) -> Reason {
    let Reason::Changed(Change { name, .. }) = &reason else { return reason };
    let changes = name.strip_prefix("file ").and_then(|parameter| {
        let last = last(parameter)?;
        Some(now().get(parameter)?.changes_since(&last))
    });
    match changes.unwrap_or_default() {
        changes if changes.is_empty() => reason,
        mut first => {
            let count = first.len();
            first.truncate(FIRST_FILES);
            Reason::Files { name: name.clone(), first, count }
        }
    }
}

/// The outcome of a stage whose key is known; `tell` receives the digest of a cached artefact.
fn look_up(
    new: &Manifest,
    last: Option<&Manifest>,
    store: &Store,
    tell: impl FnOnce(Digest),
) -> Result<Outcome, PlanError> {
    let key = new.key();
    Ok(match store.lookup(&key)? {
        Lookup::Whole(entry) => {
            tell(entry.digest);
            Outcome::Cached { key, seconds: entry.made.seconds }
        }
        Lookup::Damaged(damage) => {
            Outcome::Runs { key, reasons: vec![Reason::Damaged { what: damage.to_string() }] }
        }
        Lookup::Absent => {
            let mut reasons = changes(new, last, &[]);
            if reasons.is_empty() {
                reasons.push(Reason::Gone);
            }
            Outcome::Runs { key, reasons }
        }
    })
}

/// The differences from the last run, except for values that are not known yet.
fn changes(new: &Manifest, last: Option<&Manifest>, unknown: &[String]) -> Vec<Reason> {
    let Some(last) = last else { return vec![Reason::NoEarlierRun] };
    let changes = new.changes_since(last).into_iter();
    changes.filter(|change| !unknown.contains(&change.name)).map(Reason::Changed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ArtefactKind, Interrupt};
    use crate::cache::{CacheError, Maker, Obtained, PendingArtefact, Request};
    use crate::plan::testing::resolve_with;

    /// A model file, a cache, and a pipeline that uses them.
    struct Sandbox(tempfile::TempDir);

    impl Sandbox {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(folder.path().join("model"), "weights").expect("it can be written to");
            Self(folder)
        }

        fn store(&self) -> Store {
            Store::open(&self.0.path().join("cache")).expect("a cache")
        }

        fn pipeline(&self, overrides: &[&str]) -> ResolvedPipeline {
            let model = self.0.path().join("model");
            let text = format!(
                "format: 1\nname: t\nseed: 1\nstages:\n\
                 - {{ id: m, use: load, with: {{ model: {} }} }}\n\
                 - {{ id: p, use: select, with: {{ model: m }} }}\n\
                 - {{ id: e, use: evaluate, with: {{ models: {{ one: m }} }} }}\n",
                model.display()
            );
            resolve_with(&text, overrides).expect("the pipeline is right")
        }

        fn outcomes(&self, overrides: &[&str]) -> Vec<Outcome> {
            let pipeline = self.pipeline(overrides);
            let forecasts = explain(&pipeline, DeviceClass::Cpu, &self.store()).expect("an explanation");
            forecasts.into_iter().map(|forecast| forecast.outcome).collect()
        }

        /// Puts artefacts into the cache as a run would.
        fn run(&self) {
            let (pipeline, store) = (self.pipeline(&[]), self.store());
            let mut digests = BTreeMap::new();
            for &index in pipeline.graph.order() {
                let entry = &pipeline.stages[index];
                let files = pipeline.files(index).expect("the model is there");
                let inputs = pipeline.graph.inputs(index).into_iter();
                let inputs = inputs.map(|(name, from)| (name.to_owned(), digests[&from])).collect();
                let manifest = pipeline.manifest(index, DeviceClass::Cpu, &inputs, &files, &store);
                let manifest = manifest.expect("the model can be read");
                let request = Request {
                    manifest: &manifest,
                    kind: ArtefactKind::Model,
                    force: false,
                    interrupt: &Interrupt::default(),
                };
                let obtained = store.obtain(&request, &mut Writer(entry.id.as_str()));
                let Obtained::Made(made) = obtained.expect("a cache that can be written") else {
                    panic!("cached")
                };
                digests.insert(index, made.digest);
                store
                    .remember(&pipeline.name, &entry.id, &manifest, || pipeline.trees(index, &files, &store));
            }
        }
    }

    /// Writes its text as the artefact.
    struct Writer<'a>(&'a str);

    impl Maker for Writer<'_> {
        type Error = CacheError;

        fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), CacheError> {
            std::fs::write(pending.output().join("bytes"), self.0).expect("an output folder");
            Ok(())
        }
    }

    #[test]
    fn an_empty_cache_runs_everything() {
        let outcomes = Sandbox::new().outcomes(&[]);
        assert!(matches!(&outcomes[0], Outcome::Runs { reasons, .. } if reasons == &[Reason::NoEarlierRun]));
        assert!(matches!(&outcomes[1], Outcome::Waits { inputs, .. } if inputs == &["m".into()]));
    }

    #[test]
    fn a_finished_run_is_cached_and_a_change_is_explained() {
        let sandbox = Sandbox::new();
        sandbox.run();
        assert!(sandbox.outcomes(&[]).iter().all(Outcome::is_cached));

        let outcomes = sandbox.outcomes(&["p.ratio=0.25"]);
        let cached: Vec<_> = outcomes.iter().map(Outcome::is_cached).collect();
        assert_eq!(cached, [true, false, true]);
        let Outcome::Runs { reasons, .. } = &outcomes[1] else { panic!("{:?}", outcomes[1]) };
        assert_eq!(reasons.iter().map(Reason::to_string).collect::<Vec<_>>(), ["ratio: 0.5 -> 0.25"]);
    }

    #[test]
    fn a_changed_file_makes_its_readers_wait() {
        let sandbox = Sandbox::new();
        sandbox.run();
        std::fs::write(sandbox.0.path().join("model"), "other").expect("the model can be written");
        let outcomes = sandbox.outcomes(&[]);
        let Outcome::Runs { reasons, .. } = &outcomes[0] else { panic!("{:?}", outcomes[0]) };
        assert!(reasons[0].to_string().starts_with("file model: "), "{}", reasons[0]);
        assert!(matches!(&outcomes[1], Outcome::Waits { reasons, .. } if reasons.is_empty()));
    }

    #[test]
    fn damage_is_a_reason() {
        let sandbox = Sandbox::new();
        sandbox.run();
        let artefacts = sandbox.0.path().join("cache/v1/artefacts");
        for folder in std::fs::read_dir(artefacts).expect("artefacts").flatten() {
            std::fs::remove_file(folder.path().join("bytes")).expect("a file of an artefact");
        }
        let outcomes = sandbox.outcomes(&[]);
        let Outcome::Runs { reasons, .. } = &outcomes[0] else { panic!("{:?}", outcomes[0]) };
        assert!(matches!(&reasons[..], [Reason::Damaged { .. }]), "{reasons:?}");
    }
}
