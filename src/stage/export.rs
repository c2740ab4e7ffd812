//! `export`: writes a model in a form that another program loads.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::Model;
use super::needs::{Needs, Outlook};
use super::{BadValue, Context, FileInput, Input, Stage, StageError, StageInfo};
use crate::backend::Dtype;
use crate::base::{ArtefactKind, Manifest, StageId};
use crate::prune::{Container, ExportRequest, Format, Lora};

/// `with:` of `use: export`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Export {
    /// The stage with the model.
    model: StageId,
    /// The target format (`laptop-diff list exports`). The artefact contains `model.safetensors` or the folder `model`, and `export.json`.
    to: String,
    /// The type of the weights. Default: unchanged.
    dtype: Option<Dtype>,
    /// A LoRA of the model before pruning. It is written as `lora.safetensors` under the names that the export's layers have;
    /// `export.json` lists the layers that were pruned.
    lora: Option<PathBuf>,
    /// Whether to write the file even if the target program does not support these widths. Default false.
    #[serde(default)]
    allow_unrecognised: bool,
}

pub(super) const INFO: StageInfo = StageInfo {
    name: "export",
    // 4: export.json has the `loras`, and the table for LoRAs always has the original names.
    // 3: export.json names the `format`, and why its program does not recognise the U-Net is `unrecognised`.
    // 2: checked on other random numbers.
    version: 4,
    summary: "writes a model for diffusers, ComfyUI or stable-diffusion.cpp, and checks the result",
    output: ArtefactKind::Export,
    seeded: false,
    // export.json contains the relative error of the written model's prediction.
    computes: true,
    schema: |generator| Export::json_schema(generator),
};

impl Stage for Export {
    fn info(&self) -> &'static StageInfo {
        &INFO
    }

    fn describe(&self, manifest: &mut Manifest) {
        // Whether an unrecognised file may be written does not change its bytes.
        manifest.field("to", &self.to);
        if let Some(dtype) = self.dtype {
            manifest.field("dtype", dtype);
        }
    }

    fn inputs(&self) -> Vec<Input<'_>> {
        vec![Input { name: "model".to_owned(), stage: &self.model, kinds: &[ArtefactKind::Model] }]
    }

    fn files(&self) -> Vec<FileInput<'_>> {
        self.lora.iter().map(|path| FileInput::path("lora", path)).collect()
    }

    fn check(&self) -> Result<(), BadValue> {
        Format::find(&self.to).map(drop).map_err(|error| BadValue::unknown("to", &error))
    }

    fn needs(&self, outlook: &Outlook<'_>) -> Option<Needs> {
        let model = outlook.models.get("model")?;
        Some(Needs { disk: model.bytes, ..Needs::default() })
    }

    fn run(&self, context: &Context<'_>) -> Result<(), StageError> {
        let model = Model::open(context.input("model"))?.directory;
        let format = Format::find(&self.to).expect("`check` found it");
        let name = match format.container {
            Container::SingleFile => "model.safetensors",
            _ => "model",
        };
        let lora = self
            .lora
            .as_ref()
            .map(|_| Lora { from: context.file("lora"), name: "lora.safetensors".to_owned() });
        let request = ExportRequest {
            model: &model,
            format,
            dtype: self.dtype.map(Into::into),
            allow_unrecognised: self.allow_unrecognised,
            loras: lora.as_slice(),
        };
        let mut export = request.write(&context.output.join(name))?;
        // The path during the run is temporary: the artefact must not contain it.
        export.path = name.into();
        export.loras.iter_mut().for_each(|lora| lora.path = "lora.safetensors".into());
        export.remap = export.remap.and_then(|path| Some(path.strip_prefix(context.output).ok()?.to_owned()));
        export.save(context.output).map_err(StageError::file(context.output))
    }
}
