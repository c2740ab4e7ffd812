//! What a run would do with each stage, and why. Reads the cache and changes nothing.
//!
//! A reason is a type with the old and the new value, taken from the manifest whose hash is the key:
//! what is explained is what is compared.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Graph, PlanError, manifest};
use crate::backend::DeviceClass;
use crate::base::manifest::Change;
use crate::base::{Digest, Manifest, StageId};
use crate::cache::{Lookup, Store};
use crate::config::Pipeline;
use crate::model::files::hub::Pinned;
use crate::stage::{Contents, ResolvedFile};

/// What would become of one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The stage's id.
    pub id: StageId,
    /// Its `use:` name.
    pub stage: String,
    /// The repositories of the hub that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<Pinned>,
    /// Cached, or not.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing: its artefact is there.
    Cached {
        /// The key.
        key: Digest,
        /// How long it took to make.
        seconds: f64,
    },
    /// Run it.
    Runs {
        /// The key.
        key: Digest,
        /// Why.
        reasons: Vec<Reason>,
    },
    /// Run it if what it reads comes out different; that is known once the others have run.
    Waits {
        /// The stages whose artefacts it reads and which are not there yet.
        inputs: Vec<StageId>,
        /// What makes it run in any case.
        reasons: Vec<Reason>,
    },
}

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// This cache has not seen the stage in a pipeline of this name.
    NoEarlierRun,
    /// A value differs from that of the last run.
    Changed(Change),
    /// Nothing changed, but the artefact is not in the cache.
    Gone,
    /// The artefact is there, but with other bytes than it was given.
    Damaged {
        /// Which file, with the digests.
        what: String,
    },
}

/// Says of each stage, in the order of [`Graph::order`], what a run would do.
pub fn explain(
    pipeline: &Pipeline,
    graph: &Graph,
    device: DeviceClass,
    store: &Store,
) -> Result<Vec<Forecast>, PlanError> {
    let mut digests: BTreeMap<usize, Digest> = BTreeMap::new();
    let mut forecasts = Vec::new();
    for &index in graph.order() {
        let entry = &pipeline.stages[index];
        let node = graph.stage(index);
        let (mut known, mut inputs) = (BTreeMap::new(), Vec::new());
        for (name, from) in graph.inputs(index) {
            match digests.get(&from) {
                Some(digest) => drop(known.insert(name.to_owned(), *digest)),
                None => inputs.push((name, graph.stage(from).id.clone())),
            }
        }
        let sources = pipeline.files(index)?;
        let repositories = sources.values().filter_map(ResolvedFile::repository).cloned().collect();
        let files = contents(pipeline, index, sources, store)?;
        let new = manifest(entry, device, &known, &files);
        let last = store.last_manifest(&pipeline.name, &entry.id);
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
        forecasts.push(Forecast { id: node.id.clone(), stage: node.stage.clone(), repositories, outcome });
    }
    Ok(forecasts)
}

/// The outcome of a stage whose key is known; tells the artefact's digest if it is there.
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

/// What differs from the last run, apart from values that are not known yet.
fn changes(new: &Manifest, last: Option<&Manifest>, unknown: &[String]) -> Vec<Reason> {
    let Some(last) = last else { return vec![Reason::NoEarlierRun] };
    let changes = new.changes_since(last).into_iter();
    changes.filter(|change| !unknown.contains(&change.name)).map(Reason::Changed).collect()
}

fn contents(
    pipeline: &Pipeline,
    index: usize,
    sources: BTreeMap<String, ResolvedFile>,
    store: &Store,
) -> Result<BTreeMap<String, Contents>, PlanError> {
    let contents = |(parameter, source): (String, ResolvedFile)| {
        let contents = source.contents(|path| {
            store.digest_of(path).map_err(|source| PlanError::Input {
                stage: pipeline.stages[index].id.clone(),
                parameter: parameter.clone(),
                path: path.to_owned(),
                source,
            })
        })?;
        Ok((parameter, contents))
    };
    sources.into_iter().map(contents).collect()
}

impl Outcome {
    /// Whether a run would have nothing to do here.
    pub fn is_cached(&self) -> bool {
        matches!(self, Self::Cached { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEarlierRun => f.write_str("no earlier run"),
            Self::Gone => f.write_str("its artefact is not in the cache"),
            Self::Damaged { what } => f.write_str(what),
            Self::Changed(Change { name, old, new }) => match (old, new) {
                (Some(old), Some(new)) => write!(f, "{name}: {} -> {}", shown(old), shown(new)),
                (None, Some(new)) => write!(f, "{name}: new, {}", shown(new)),
                (Some(old), None) => write!(f, "{name}: gone, was {}", shown(old)),
                (None, None) => f.write_str(name),
            },
        }
    }
}

/// A value of a manifest; of a digest, as much as people compare.
fn shown(value: &str) -> String {
    value.parse::<Digest>().map_or_else(|_| value.to_owned(), |digest| digest.short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ArtefactKind;
    use crate::base::Interrupt;
    use crate::cache::{Begun, Made};
    use crate::config::testing::parse_with;

    /// A model file, a cache, and a pipeline over them.
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

        fn pipeline(&self, overrides: &[&str]) -> (Pipeline, Graph) {
            let model = self.0.path().join("model");
            let text = format!(
                "format: 1\nname: t\nseed: 1\nstages:\n\
                 - {{ id: m, use: load, with: {{ model: {} }} }}\n\
                 - {{ id: p, use: select, with: {{ model: m }} }}\n\
                 - {{ id: e, use: evaluate, with: {{ models: {{ one: m }} }} }}\n",
                model.display()
            );
            let pipeline = parse_with(&text, overrides).expect("the pipeline is right");
            let graph = Graph::new(&pipeline).expect("and its references");
            (pipeline, graph)
        }

        fn outcomes(&self, overrides: &[&str]) -> Vec<Outcome> {
            let (pipeline, graph) = self.pipeline(overrides);
            let forecasts =
                explain(&pipeline, &graph, DeviceClass::Cpu, &self.store()).expect("an explanation");
            forecasts.into_iter().map(|forecast| forecast.outcome).collect()
        }

        /// Puts artefacts into the cache as a run would.
        fn run(&self) {
            let ((pipeline, graph), store) = (self.pipeline(&[]), self.store());
            let mut digests = BTreeMap::new();
            for &index in graph.order() {
                let entry = &pipeline.stages[index];
                let sources = pipeline.files(index).expect("the model is there");
                let files = contents(&pipeline, index, sources, &store).expect("it can be read");
                let inputs =
                    graph.inputs(index).into_iter().map(|(name, from)| (name.to_owned(), digests[&from]));
                let manifest = manifest(entry, DeviceClass::Cpu, &inputs.collect(), &files);
                let begun = store.begin(&manifest.key(), false, &Interrupt::default(), &mut |_| {});
                let Begun::Pending(work) = begun.expect("a cache that can be written") else {
                    panic!("cached")
                };
                std::fs::write(work.output().join("bytes"), entry.id.as_str()).expect("an output folder");
                let made = Made {
                    kind: ArtefactKind::Model,
                    seconds: 2.0,
                    peak_bytes: None,
                    finished: String::new(),
                    program: String::new(),
                };
                digests.insert(index, work.commit(&manifest, made).expect("a whole artefact").digest);
                store.remember(&pipeline.name, &entry.id, &manifest);
            }
        }
    }

    #[test]
    fn an_empty_cache_runs_everything() {
        let outcomes = Sandbox::new().outcomes(&[]);
        assert!(matches!(&outcomes[0], Outcome::Runs { reasons, .. } if reasons == &[Reason::NoEarlierRun]));
        assert!(matches!(&outcomes[1], Outcome::Waits { inputs, .. } if inputs == &["m".into()]));
    }

    #[test]
    fn a_finished_run_is_cached_and_a_change_says_what_it_was() {
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
    fn another_file_makes_its_readers_wait() {
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
