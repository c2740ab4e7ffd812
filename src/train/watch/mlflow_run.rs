//! A training's run in an MLflow server, and what of it is known after a crash. Everything is written down before it is sent, so
//! that what is sent again is recognised as the same: the run by a tag, numbers by their timestamps, pictures by their
//! names.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::client::{Client, Metric, PROXIED, milliseconds};
use super::mlflow_picture::Picture;
use crate::base::{Digest, files};

/// The file beside the checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Run {
    server: String,
    /// The value of a tag that no other run has.
    tag: String,
    /// When it began, in milliseconds since 1970.
    begun: u64,
    id: Option<String>,
    /// Where the server keeps its files.
    artifacts: String,
    /// The last step that was sent, by key.
    sent: BTreeMap<String, u64>,
    /// The numbers of a request that may not have arrived.
    sending: Vec<Metric>,
}

impl Run {
    /// A file that cannot be read, or is of another server, is as if there were none.
    pub(super) fn read(file: &Path, server: String) -> Self {
        let found: Option<Self> = files::read_json(file).ok();
        found.filter(|run| run.server == server).unwrap_or_else(|| Self::new(server, file))
    }

    fn new(server: String, file: &Path) -> Self {
        let begun = milliseconds();
        let text = format!("{} {begun} {}", file.display(), std::process::id());
        Self { server, tag: Digest::of(text.as_bytes()).to_string(), begun, ..Self::default() }
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), String> {
        files::write_json(file, self).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// The id of the run that began.
    pub(super) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// Goes on with the run, or begins it. The same parameters may be logged twice.
    pub(super) fn begin(
        &mut self,
        client: &Client,
        file: &Path,
        (experiment, name): (&str, &str),
        parameters: &[(String, String)],
    ) -> Result<(), String> {
        // A run that somebody removed from the server begins again, with all that is not sent yet.
        let known = self.id.as_ref().map_or(Ok(false), |id| client.resume(id))?;
        if !known {
            if self.id.is_some() {
                *self = Self::new(self.server.clone(), file);
            }
            self.write(file)?;
            let experiment = client.experiment(experiment)?;
            let (id, artifacts) = match client.find(&experiment, &self.tag)? {
                Some(found) => found,
                None => client.begin(&experiment, name, &self.tag, self.begun)?,
            };
            (self.id, self.artifacts) = (Some(id), artifacts);
            self.write(file)?;
        }
        client.describe(self.id(), parameters)
    }

    /// What may not have arrived.
    pub(super) fn pending(&self) -> Vec<Metric> {
        self.sending.clone()
    }

    /// Whether this step was sent, or is among what is pending.
    pub(super) fn has(&self, key: &str, step: u64) -> bool {
        let is_pending = self.sending.iter().any(|one| one.key == key && one.step == step);
        is_pending || self.sent.get(key).is_some_and(|sent| step <= *sent)
    }

    /// The numbers before have arrived, and these are sent next.
    pub(super) fn sending(&mut self, next: &[Metric], file: &Path) -> Result<(), String> {
        let arrived = std::mem::replace(&mut self.sending, next.to_vec());
        // After a failure the same numbers are sent again.
        if arrived.first() != next.first() || next.is_empty() {
            self.sent.extend(arrived.into_iter().map(|one| (one.key, one.step)));
        }
        self.write(file)
    }

    /// Why the server takes no pictures of this run, if it does not.
    pub(super) fn no_pictures(&self) -> Option<String> {
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

    /// Sends a picture, whose name in the server is always the same. One that cannot be read is left out.
    pub(super) fn picture(&mut self, client: &Client, picture: &Picture) -> Result<(), String> {
        for (name, bytes) in picture.files(self.begun).unwrap_or_default() {
            client.upload(&self.artifacts, &name, &bytes)?;
        }
        client.has_pictures(self.id())?;
        self.sent.insert(picture.name.clone(), picture.step);
        Ok(())
    }
}
