//! What each stage of a pipeline will take of memory and disk, as far as it is known before any of them runs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ResolvedPipeline;
use crate::backend::DeviceClass;
use crate::base::{ArtefactKind, StageId};
use crate::stage::{KnownModel, KnownRows, Needs, Outlook, ResolvedFile};

/// What one stage takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageNeeds {
    /// The stage's id.
    pub id: StageId,
    /// Its `use:` name.
    pub stage: String,
    /// What it takes; `None` if that is next to nothing, or not known before it runs.
    pub needs: Option<Needs>,
    /// A file that it reads and that is not there.
    pub missing: Option<String>,
    /// Whether it loads a model that is known only once it is downloaded.
    pub downloads: bool,
}

impl ResolvedPipeline {
    /// What each stage takes, in the order in which they run, on a device with so many bytes that may be used.
    pub fn needs(&self, class: DeviceClass, available: u64) -> Vec<StageNeeds> {
        self.needs_of(class, available, KnownModel::without)
    }

    /// The same as upper bounds: as if nothing were pruned, which takes no time for a sweep of many ratios.
    pub fn most_needs(&self, class: DeviceClass, available: u64) -> Vec<StageNeeds> {
        self.needs_of(class, available, |model, _| model.clone())
    }

    fn needs_of(
        &self,
        class: DeviceClass,
        available: u64,
        pruned: fn(&KnownModel, f64) -> KnownModel,
    ) -> Vec<StageNeeds> {
        let mut models: BTreeMap<usize, KnownModel> = BTreeMap::new();
        let mut rows: BTreeMap<usize, KnownRows> = BTreeMap::new();
        let mut all = Vec::new();
        for &index in self.graph.order() {
            let stage = &self.stages[index].stage;
            let inputs = self.graph.inputs(index);
            let read = inputs.iter().find_map(|(_, from)| models.get(from)).cloned();
            let share = inputs.iter().find_map(|(_, from)| self.stages[*from].stage.removes());
            let makes_model = stage.info().output == ArtefactKind::Model;
            let files = self.files(index);
            let loaded = files.as_ref().ok().and_then(|files| stage.model_of_files(files));
            let is_remote =
                |files: &BTreeMap<_, ResolvedFile>| files.values().any(|file| file.path().is_none());
            let downloads = files.as_ref().is_ok_and(is_remote);
            let own = loaded.or_else(|| match (makes_model, read.as_ref(), share) {
                (true, Some(model), Some(share)) => Some(pruned(model, share)),
                // A retrained student has the shape of the one that it began as.
                (true, ..) => inputs.iter().rev().find_map(|(_, from)| models.get(from)).cloned(),
                _ => None,
            });
            let mut of_inputs: BTreeMap<&str, &KnownModel> =
                inputs.iter().filter_map(|(name, from)| Some((*name, models.get(from)?))).collect();
            if let Some(own) = own.as_ref().filter(|_| share.is_some() || inputs.is_empty()) {
                of_inputs.insert("model", own);
            }
            let outlook = Outlook {
                models: of_inputs,
                rows: inputs.iter().filter_map(|(name, from)| Some((*name, *rows.get(from)?))).collect(),
                class,
                available,
            };
            let needs = stage.needs(&outlook);
            rows.extend(read.as_ref().and_then(|model| stage.makes(model)).map(|made| (index, made)));
            models.extend(own.filter(|_| makes_model).map(|own| (index, own)));
            let name = stage.info().name.to_owned();
            let (id, missing) = (self.stages[index].id.clone(), files.err().map(|error| error.to_string()));
            all.push(StageNeeds { id, stage: name, needs, missing, downloads });
        }
        all
    }
}
