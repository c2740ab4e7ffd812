//! Where the prompts of an evaluation come from: a text file, a column of a table, or a published set by its name.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{BadValue, Excerpt, FileInput, StageError};
use crate::base::Manifest;
use crate::data::prompt_sets::{self, PromptSet};
use crate::data::{DataError, prompts};
use crate::metric::PromptsRecord;

/// A text file or table, as a text; or a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PromptSource {
    block: PromptBlock,
    /// The file that stands for all of them.
    place: PathBuf,
}

/// Prompts in a table, or a published set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PromptBlock {
    /// A text file with one prompt per line, or a `.tsv`, `.csv`, `.json`, `.jsonl` or `.parquet` file.
    file: Option<PathBuf>,
    /// The column of the prompts. Default `text`, `caption` or `prompt`.
    column: Option<String>,
    /// Instead of `file`, a published set: `partiprompts`, `hpsv2`, `pick-a-pic` or `coco-30k`. If fewer are drawn, they are
    /// taken evenly from the whole set, which is sorted by kind.
    set: Option<String>,
    /// The folder with the files of `set`. Default `prompts` beside the pipeline file.
    folder: Option<PathBuf>,
    /// The digest that all prompts of the file or set must have; an error says which they have. Default: that of the set, where
    /// it is known.
    digest: Option<String>,
}

/// A line for each prompt, and its place in a set of several files: the file without its ending, and the number in it.
type Metadata = (Vec<String>, Vec<(String, usize)>);

impl PromptSource {
    pub(super) fn check(&self, name: &str) -> Result<(), BadValue> {
        let PromptBlock { file, column, set, folder, .. } = &self.block;
        let bad = |message: &str| Err(BadValue::new(name, message.to_owned()));
        match (file, set) {
            (None, None) | (Some(_), Some(_)) => bad("one of `file` and `set` must be given"),
            (Some(_), None) if folder.is_some() => bad("`folder` is for `set`"),
            (None, Some(_)) if column.is_some() => bad("`column` is for `file`"),
            (None, Some(set)) => {
                prompt_sets::find(set).map(drop).map_err(|error| BadValue::unknown(name, &error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn describe(&self, manifest: &mut Manifest) {
        let PromptBlock { column, set, digest, .. } = &self.block;
        for (name, value) in [("column", column), ("set", set), ("digest", digest)] {
            if let Some(value) = value {
                manifest.field(&format!("prompts.{name}"), value);
            }
        }
    }

    /// What of it enters the key: the prompts that are drawn, and the digest of a set, which the results name.
    pub(super) fn input(&self, name: &'static str, count: usize) -> FileInput<'_> {
        let reader = move |path: &Path| {
            // As JSON text, in which no two lists look alike.
            let all = self.all(path)?;
            let set = self.set().map(|_| prompt_sets::digest_of(&all)).unwrap_or_default();
            let drawn = serde_json::Value::from(self.drawn(all, count));
            Ok(Excerpt::text(format!("{set}{drawn}")))
        };
        let from = self.set().map(|set| set.from);
        FileInput { from, ..FileInput::part(name, &self.place, reader) }
    }

    /// The first prompts of a file, or prompts spread over a set. `path` is that of the input.
    pub(super) fn read(&self, path: &Path, count: usize) -> Result<Vec<String>, StageError> {
        Ok(self.drawn(self.all(path)?, count))
    }

    /// Where the prompts are from, for the results. `drawn` are those of [`PromptSource::read`].
    pub(super) fn record(&self, path: &Path, drawn: &[String]) -> Result<PromptsRecord, StageError> {
        let PromptBlock { digest: given, .. } = &self.block;
        let set = self.set();
        let digest = match (given, set) {
            (Some(digest), _) => digest.clone(),
            (None, Some(_)) => prompt_sets::digest_of(&self.all(path)?),
            (None, None) => prompt_sets::digest_of(drawn),
        };
        let pinned = given.is_some() || set.is_some_and(|set| set.digest.is_some());
        Ok(PromptsRecord { set: set.map(|set| set.name.to_owned()), digest, pinned })
    }

    /// All prompts, with the digest that they must have.
    fn all(&self, path: &Path) -> Result<Vec<String>, StageError> {
        let all = match self.set() {
            Some(set) => set.read(path.parent().unwrap_or(path))?,
            None => prompts::read_column(path, self.block.column.as_deref())?,
        };
        if let Some(digest) = &self.block.digest {
            let found = prompt_sets::digest_of(&all);
            if *digest != found {
                let reason = format!("its prompts have the digest {found}, not {digest}");
                let help = "use the file that the digest was computed of, or change the digest".to_owned();
                return Err(DataError::Source { path: path.to_owned(), reason, help }.into());
            }
        }
        Ok(all)
    }

    /// The prompts of all that are drawn.
    fn drawn(&self, all: Vec<String>, count: usize) -> Vec<String> {
        let (total, count) = (all.len(), count.min(all.len()));
        match self.set() {
            Some(_) => (0..count).map(|index| all[index * total / count].clone()).collect(),
            None => all.into_iter().take(count).collect(),
        }
    }

    /// The lines of metadata for a judge outside, and the places of the prompts in a set of several files. A file of JSON
    /// lines gives its own lines.
    pub(super) fn metadata(&self, path: &Path, prompts: &[String]) -> Result<Metadata, StageError> {
        let is_lines = path.extension().is_some_and(|ending| ending == "jsonl");
        let own: Vec<String> = match is_lines {
            true => prompts::lines(path)?.into_iter().take(prompts.len()).collect(),
            false => Vec::new(),
        };
        let made =
            || prompts.iter().map(|prompt| serde_json::json!({ "prompt": prompt }).to_string()).collect();
        let lines = if own.len() == prompts.len() { own } else { made() };
        let places = self.set().filter(|set| set.files.len() > 1).map(PromptSet::places).unwrap_or_default();
        let (total, count) = (places.len(), prompts.len());
        let places = (0..count.min(total)).map(|index| places[index * total / count].clone()).collect();
        Ok((lines, places))
    }

    fn set(&self) -> Option<&'static PromptSet> {
        prompt_sets::find(self.block.set.as_deref()?).ok()
    }
}

impl From<PromptBlock> for PromptSource {
    fn from(block: PromptBlock) -> Self {
        let of_set = || {
            let folder = block.folder.clone().unwrap_or_else(|| PathBuf::from("prompts"));
            let set = prompt_sets::find(block.set.as_deref().unwrap_or_default());
            folder.join(set.map_or("", |set| set.files[0]))
        };
        let place = block.file.clone().unwrap_or_else(of_set);
        Self { block, place }
    }
}

impl<'de> Deserialize<'de> for PromptSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Source;
        impl<'de> Visitor<'de> for Source {
            type Value = PromptSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a file of prompts, or { file: ..., column: ... }, or { set: ... }")
            }

            fn visit_str<E>(self, text: &str) -> Result<PromptSource, E> {
                Ok(PromptBlock { file: Some(text.into()), ..PromptBlock::default() }.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PromptSource, A::Error> {
                PromptBlock::deserialize(MapAccessDeserializer::new(map)).map(PromptSource::from)
            }
        }
        deserializer.deserialize_any(Source)
    }
}

impl JsonSchema for PromptSource {
    fn schema_name() -> Cow<'static, str> {
        "PromptSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let block = generator.subschema_for::<PromptBlock>();
        json_schema!({ "anyOf": [{ "type": "string" }, block] })
    }
}
