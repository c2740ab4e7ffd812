//! `prune`: removes the units of a selection from a model.

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::{Computation, Model};
use super::needs::{Needs, Outlook};
use super::{Context, Input, Stage, StageError, StageInfo};
use crate::base::{ArtefactKind, Manifest, StageId};
use crate::prune;
use crate::select::Selection;

/// `with:` of `use: prune`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Prune {
    /// The stage with the model to prune.
    model: StageId,
    /// The stage with the selection.
    selection: StageId,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "prune",
    // 4: the table for LoRAs lists all removed layers, under both names.
    // 3: the file beside the model is selection.json.
    // 2: that file is of format 2.
    version: 4,
    summary: "removes the selected units: a smaller model directory that diffusers loads",
    output: ArtefactKind::Model,
    seeded: false,
    computes: false,
    schema: |generator| Prune::json_schema(generator),
};

impl Stage for Prune {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, _manifest: &mut Manifest) {}

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![
            Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] },
            Input { name: "selection".to_owned(), stage: &self.selection, kinds: &[ArtefactKind::Selection] },
        ]
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        // The planner gives the model as it will be without the selection's units.
        let model = outlook.models.get("model")?;
        Some(Needs { disk: model.bytes, ..Needs::default() })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let artefact = context.input("model");
        let folder = &context.input("selection").path;
        let selection = Selection::open(folder).map_err(StageError::file(folder))?;
        prune::apply(&Model::open(artefact)?.directory, &selection, context.output)?;
        Computation::open(&artefact.path)?.save(context.output)
    }
}
