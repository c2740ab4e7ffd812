//! The scorers of an evaluation: where each comes from, and which metrics it serves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::sources::scorer_folder;
use super::{BadValue, Context, Excerpt, FileInput, ResolvedFile, StageError};
use crate::metric::{self, Judge, MetricError};
use crate::model::files::hub;
use crate::model::scorers::processor_files;
use crate::model::{Known, ModelError, PictureModel, ScorerFolders};

/// Branch of a repository on the hub, unless another is given.
const MAIN: &str = "main";

/// Where a scorer comes from: a folder or a repository on the hub, as a text or as a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScorerSource(ScorerBlock);

/// A scorer whose files lie in several places, or at a revision of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ScorerBlock {
    /// The weights: a CLIPModel or Dinov2Model directory, the folder of a checkpoint of OpenCLIP with its
    /// `open_clip_config.json`, a folder written by `examples/convert-weights.py`, or the name of a repository on the
    /// Hugging Face hub, such as `yuvalkirstain/PickScore_v1`.
    model: PathBuf,
    /// A folder or a repository with the tokenizer and the preprocessor configuration. Default: those beside the weights.
    processor: Option<PathBuf>,
    /// Branch, tag or commit of `model` on the hub. Default `main`.
    #[serde(default = "main")]
    revision: String,
}

fn main() -> String {
    MAIN.to_owned()
}

impl ScorerSource {
    /// The files that are read. `name` is the parameter, `released` where the weights come from.
    pub(super) fn files<'a>(&'a self, name: &str, released: Option<&'static str>) -> Vec<FileInput<'a>> {
        let ScorerBlock { model, processor, revision } = &self.0;
        let weights = FileInput {
            revision: Some(revision),
            from: Some(released.unwrap_or("a CLIP takes up to 4 GB")),
            ..scorer_folder(name.to_owned(), model)
        };
        let processor = processor.iter().map(|path| {
            let reader = |folder: &Path| Ok(Excerpt::files(processor_files(folder)));
            let from = Some("its tokenizer and configurations take a few MB; the weights are not needed");
            FileInput {
                revision: Some(MAIN),
                from,
                ..FileInput::part(format!("{name}.processor"), path, reader)
            }
        });
        [weights].into_iter().chain(processor).collect()
    }

    pub(super) fn check(&self, name: &str) -> Result<(), BadValue> {
        let ScorerBlock { model, revision, .. } = &self.0;
        let bad = |message| Err(BadValue::new(format!("{name}.revision"), message));
        if !hub::is_revision(revision) {
            return bad(format!("`revision` is `{revision}`, which cannot be a branch, tag or commit"));
        }
        if revision != MAIN && !model.to_str().is_some_and(hub::is_id) {
            let model = model.display();
            return bad(format!(
                "`revision` needs a repository such as owner/name, but `model` is the path {model}"
            ));
        }
        Ok(())
    }

    /// What the scorer is, if its files are on this machine and fit each other.
    fn known(&self, name: &str, files: &BTreeMap<String, ResolvedFile>) -> Result<Option<Known>, StageError> {
        let path = |name: &str| files.get(name).and_then(ResolvedFile::path).map(Path::to_owned);
        let processor = self.0.processor.as_ref().map(|_| path(&format!("{name}.processor")));
        let folders = match (path(name), processor) {
            (Some(model), None) => ScorerFolders { model, processor: None },
            (Some(model), Some(processor @ Some(_))) => ScorerFolders { model, processor },
            _ => return Ok(None),
        };
        Ok(Some(PictureModel::check(&folders)?))
    }

    /// The folders, after a download of what is missing.
    pub(super) fn folders(&self, name: &str, context: &Context<'_>) -> Result<ScorerFolders, StageError> {
        let folder = |name: &str, weights: bool| -> Result<PathBuf, StageError> {
            Ok(match context.source(name) {
                ResolvedFile::Path(path) => path.clone(),
                ResolvedFile::Missing(missing) => panic!("BUG: a stage runs without {}", missing.what),
                ResolvedFile::Repository(pinned) => {
                    hub::download_scorer(pinned, weights, context.progress, context.interrupt)?
                }
            })
        };
        let processor = self.0.processor.as_ref().map(|_| folder(&format!("{name}.processor"), false));
        Ok(ScorerFolders { model: folder(name, true)?, processor: processor.transpose()? })
    }
}

impl<'de> Deserialize<'de> for ScorerSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Source;
        impl<'de> Visitor<'de> for Source {
            type Value = ScorerSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a folder or a repository, or { model: ..., processor: ..., revision: ... }")
            }

            fn visit_str<E>(self, text: &str) -> Result<ScorerSource, E> {
                Ok(ScorerSource(ScorerBlock { model: text.into(), processor: None, revision: main() }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScorerSource, A::Error> {
                ScorerBlock::deserialize(MapAccessDeserializer::new(map)).map(ScorerSource)
            }
        }
        deserializer.deserialize_any(Source)
    }
}

impl JsonSchema for ScorerSource {
    fn schema_name() -> Cow<'static, str> {
        "ScorerSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let block = generator.subschema_for::<ScorerBlock>();
        json_schema!({ "anyOf": [{ "type": "string" }, block] })
    }
}

/// A scorer, with the metrics that use it.
pub(super) struct Used<'a> {
    /// Its parameter.
    pub(super) name: String,
    pub(super) source: &'a ScorerSource,
    pub(super) metrics: Vec<&'static str>,
}

/// A scorer in its folders, and what is known of it.
pub(super) type Opened<'a> = (Used<'a>, ScorerFolders, Known);

impl<'a> Used<'a> {
    /// The names of its files.
    pub(super) fn files(&self) -> Vec<String> {
        self.inputs().into_iter().map(|file| file.name.into_owned()).collect()
    }

    /// Its files.
    pub(super) fn inputs(&self) -> Vec<FileInput<'a>> {
        let metric = self.metrics.first().and_then(|name| metric::find(name).ok());
        self.source.files(&self.name, metric.and_then(|metric| metric.released()))
    }

    /// Checks the files, as far as they are on this machine.
    pub(super) fn check_files(&self, files: &BTreeMap<String, ResolvedFile>) -> Result<(), StageError> {
        match self.source.known(&self.name, files)? {
            Some(known) => self.check_kind(&known),
            None => Ok(()),
        }
    }

    /// Downloads what is missing and checks the files. What was assumed is noted.
    pub(super) fn open(self, context: &Context<'_>) -> Result<Opened<'a>, StageError> {
        let folders = self.source.folders(&self.name, context)?;
        let known = PictureModel::check(&folders)?;
        self.check_kind(&known)?;
        known.assumed.iter().for_each(|note| context.progress.note(note));
        Ok((self, folders, known))
    }

    /// The scorer for an evaluation.
    pub(super) fn judge<'j>(
        &self,
        known: &'j Known,
        load: &'j dyn Fn() -> Result<PictureModel, ModelError>,
    ) -> Judge<'j> {
        Judge { name: &known.name, kind: known.kind, metrics: self.metrics.clone(), load }
    }

    /// Fails if a metric cannot use it.
    fn check_kind(&self, known: &Known) -> Result<(), StageError> {
        for name in &self.metrics {
            let Ok(metric) = metric::find(name) else { continue };
            if !metric.scorers().contains(&known.kind) {
                let (wanted, parameter) = (metric.scorers(), self.name.clone());
                let error = MetricError::ScorerKind { metric: name, wanted, parameter, found: known.kind };
                return Err(StageError::input(error));
            }
        }
        Ok(())
    }
}
