//! A run in an MLflow server, and what it was told, in a file of the run folder. So a run that is resumed, or has all its
//! artefacts in the cache, goes on in the same run of the server and tells what is missing there.
//!
//! What has no natural identity is written down before it is sent, so that the server recognises what is sent again: the run by
//! a tag, numbers by their timestamps, files by their names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::client::{Client, METRICS, Metric, PROXIED, milliseconds};
use super::picture::Picture;
use crate::base::{Digest, files};

/// What a run of the server belongs to. Of another owner nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::tracking) struct Owner {
    /// The server.
    pub(in crate::tracking) server: String,
    /// The digest of the pipeline: after a change, what the server has is another run.
    pub(in crate::tracking) pipeline: Option<Digest>,
    /// The id of the run above it.
    pub(in crate::tracking) parent: Option<String>,
}

/// What is known of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::tracking) struct Run {
    #[serde(skip)]
    file: PathBuf,
    owner: Owner,
    /// The value of a tag that no other run has.
    tag: String,
    /// When it began, in milliseconds since 1970.
    begun: u64,
    id: Option<String>,
    /// Where the server keeps its files.
    artifacts: String,
    parameters: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    status: String,
    /// The keys of the stages whose numbers and files it has, by the names of the stages in the pipeline file.
    stages: BTreeMap<String, Digest>,
    /// The files that it has.
    files: BTreeMap<String, Digest>,
    /// The last step that was sent, by the names of numbers and pictures.
    sent: BTreeMap<String, u64>,
    /// The numbers of a request that may not have arrived.
    sending: Vec<Metric>,
}

impl Run {
    /// A file that cannot be read, or has another owner, is as if there were none.
    pub(in crate::tracking) fn read(file: &Path, owner: &Owner, begun: u64) -> Self {
        let found: Option<Self> = files::read_json(file).ok();
        let found = found.filter(|run| run.owner == *owner);
        found.map_or_else(|| Self::new(file, owner, begun), |run| Self { file: file.to_owned(), ..run })
    }

    /// One that begins anew.
    pub(in crate::tracking) fn new(file: &Path, owner: &Owner, begun: u64) -> Self {
        let text = format!("{} {} {}", file.display(), milliseconds(), std::process::id());
        Self {
            file: file.to_owned(),
            owner: owner.clone(),
            tag: Digest::of(text.as_bytes()).to_string(),
            begun,
            id: None,
            artifacts: String::new(),
            parameters: BTreeMap::new(),
            tags: BTreeMap::new(),
            status: String::new(),
            stages: BTreeMap::new(),
            files: BTreeMap::new(),
            sent: BTreeMap::new(),
            sending: Vec::new(),
        }
    }

    fn write(&self) -> Result<(), String> {
        files::write_json(&self.file, self).map_err(|error| format!("{}: {error}", self.file.display()))
    }

    /// Its id in the server, if it began.
    pub(in crate::tracking) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it has other values of these parameters, which cannot be changed there.
    pub(in crate::tracking) fn contradicts(&self, parameters: &BTreeMap<String, String>) -> bool {
        parameters.iter().any(|(name, value)| self.parameters.get(name).is_some_and(|told| told != value))
    }

    /// Whether it has the numbers and files of this stage.
    pub(in crate::tracking) fn has_stage(&self, stage: &str, key: &Digest) -> bool {
        self.stages.get(stage) == Some(key)
    }

    /// Whether a tag has this value there.
    pub(in crate::tracking) fn has_tag(&self, name: &str, value: &str) -> bool {
        self.tags.get(name).is_some_and(|told| told == value)
    }

    /// Whether a number or picture of this step was sent, or is among what may have arrived.
    pub(in crate::tracking) fn has(&self, key: &str, step: u64) -> bool {
        let is_pending = self.sending.iter().any(|one| one.key == key && one.step == step);
        is_pending || self.sent.get(key).is_some_and(|sent| step <= *sent)
    }

    /// Goes on with the run, or begins it. `sure` is whether it was seen in the server a moment ago.
    pub(in crate::tracking) fn begin(
        &mut self,
        client: &Client,
        (experiment, name): (&str, &str),
        sure: bool,
    ) -> Result<(), String> {
        // One that somebody removed from the server begins again, with everything.
        if let Some(id) = &self.id
            && !sure
            && !client.has(id)?
        {
            *self = Self::new(&self.file, &self.owner, self.begun);
        }
        if self.id.is_none() {
            self.write()?;
            let experiment = client.experiment(experiment)?;
            let parent = self.owner.parent.as_deref();
            let (id, artifacts) = match client.find(experiment, &self.tag)? {
                Some(found) => found,
                None => client.begin(experiment, name, &self.tag, self.begun, parent)?,
            };
            (self.id, self.artifacts) = (Some(id), artifacts);
            "RUNNING".clone_into(&mut self.status);
            self.write()?;
        }
        Ok(())
    }

    fn known(&self) -> &str {
        self.id.as_deref().expect("BUG: a run is told something before it began")
    }

    /// Tells the parameters and tags that it does not have yet, and removes those of `passing` tags that are no longer true.
    pub(in crate::tracking) fn describe(
        &mut self,
        client: &Client,
        parameters: &BTreeMap<String, String>,
        tags: &BTreeMap<String, String>,
        passing: &[&str],
    ) -> Result<(), String> {
        let new = |told: &BTreeMap<String, String>, all: &BTreeMap<String, String>| -> BTreeMap<_, _> {
            let is_new = |(name, value): &(&String, &String)| told.get(*name) != Some(value);
            all.iter().filter(is_new).map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let (parameters, added) = (new(&self.parameters, parameters), new(&self.tags, tags));
        let is_past = |name: &&&str| self.tags.contains_key(**name) && !tags.contains_key(**name);
        let removed: Vec<&str> = passing.iter().filter(is_past).copied().collect();
        if parameters.is_empty() && added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let pairs =
            |all: &BTreeMap<String, String>| -> Vec<(String, String)> { all.clone().into_iter().collect() };
        client.describe(self.known(), &pairs(&parameters), &pairs(&added))?;
        for name in removed {
            client.remove_tag(self.known(), name)?;
            self.tags.remove(name);
        }
        self.parameters.extend(parameters);
        self.tags.extend(added);
        self.write()
    }

    /// Sends the numbers of a training that it does not have yet.
    pub(in crate::tracking) fn curves(
        &mut self,
        client: &Client,
        numbers: impl IntoIterator<Item = (String, u64, f64)>,
    ) -> Result<(), String> {
        self.send(client)?;
        let timestamp = milliseconds();
        let new = numbers.into_iter().filter(|(key, step, value)| value.is_finite() && !self.has(key, *step));
        let metric = |(key, step, value)| Metric { key, value, step, timestamp };
        let new: Vec<Metric> = new.map(metric).collect();
        for part in new.chunks(METRICS) {
            self.sending = part.to_vec();
            // Written first: what is sent again after a crash has the same timestamps, and the server takes it once.
            self.write()?;
            self.send(client)?;
        }
        Ok(())
    }

    /// Sends what may not have arrived.
    fn send(&mut self, client: &Client) -> Result<(), String> {
        if self.sending.is_empty() {
            return Ok(());
        }
        client.log(self.known(), &self.sending)?;
        let arrived = std::mem::take(&mut self.sending);
        self.sent.extend(arrived.into_iter().map(|one| (one.key, one.step)));
        self.write()
    }

    /// Sends the numbers of a stage. Sent again they are the same, because they have the time when the stage was made.
    pub(in crate::tracking) fn stage(
        &mut self,
        client: &Client,
        (stage, key): (&str, Digest),
        numbers: Vec<(String, f64)>,
        timestamp: u64,
    ) -> Result<(), String> {
        let metric = |(key, value)| Metric { key, value, step: 0, timestamp };
        let metrics: Vec<Metric> = numbers.into_iter().map(metric).collect();
        metrics.chunks(METRICS).try_for_each(|part| client.log(self.known(), part))?;
        self.stages.insert(stage.to_owned(), key);
        self.write()
    }

    /// Why the server takes no files of this run, if it does not.
    pub(in crate::tracking) fn no_files(&self) -> Option<String> {
        (!self.artifacts.starts_with(PROXIED)).then(|| {
            let place = match self.artifacts.as_str() {
                "" => "an unknown place",
                place => place,
            };
            format!(
                "it keeps files in {place} and takes none itself, as with `mlflow server --serve-artifacts`"
            )
        })
    }

    /// Sends a file, unless it has the same already.
    pub(in crate::tracking) fn file(
        &mut self,
        client: &Client,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), String> {
        let digest = Digest::of(bytes);
        if self.files.get(name) == Some(&digest) {
            return Ok(());
        }
        client.upload(&self.artifacts, name, bytes)?;
        self.files.insert(name.to_owned(), digest);
        self.write()
    }

    /// Sends a picture, whose name in the server is always the same. One that cannot be read is left out.
    pub(in crate::tracking) fn picture(&mut self, client: &Client, picture: &Picture) -> Result<(), String> {
        for (name, bytes) in picture.files(self.begun).unwrap_or_default() {
            client.upload(&self.artifacts, &name, &bytes)?;
        }
        client.has_pictures(self.known())?;
        self.sent.insert(picture.name.clone(), picture.step);
        self.write()
    }

    /// Says how it stands, if that is new.
    pub(in crate::tracking) fn stands(
        &mut self,
        client: &Client,
        status: &str,
        ended: Option<u64>,
    ) -> Result<(), String> {
        if self.status != status {
            client.update(self.known(), status, ended)?;
            status.clone_into(&mut self.status);
            self.write()?;
        }
        Ok(())
    }
}
