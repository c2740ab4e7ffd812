//! `laptop-diff inspect`: which parts of a model can be used, and units, parameters and MACs of its U-Net. Reads
//! configurations and headers, no weights.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output::{print, print_json, table};
use super::subject::Subject;
use crate::base::{UnitId, units};
use crate::model::network::{Granularity, UnitKind};
use crate::model::{Checkpoint, ModelDirectory, Part};
use crate::survey::{Depth, Row, survey_directory, survey_file};

/// Show which parts of a model can be used, and the removable units of its U-Net
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff inspect examples/nano-sd
  laptop-diff inspect examples/nano-sd --granularity resnet,attn1,attn2,ff
  laptop-diff inspect runs/nano50/student --json")]
pub(super) struct Inspect {
    /// A diffusers model directory, a U-Net's, a single-file checkpoint, or STAGE@latest in the folder of a run that trains
    model: PathBuf,
    /// The smallest units: resnet, block, transformer, attn1, attn2, ff; a module that holds only units is a unit too
    #[arg(long, value_name = "KINDS", default_value_t)]
    granularity: Granularity,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Inspection {
    parameters: u64,
    macs: u64,
    sample_size: (usize, usize),
    dtypes: Vec<String>,
    parts: Vec<Row>,
    notes: Vec<String>,
    removed_units: Vec<UnitId>,
    linear_units: Vec<UnitId>,
    units: Vec<UnitRow>,
}

#[derive(Serialize)]
struct UnitRow {
    id: UnitId,
    kind: UnitKind,
    parameters: u64,
    macs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<UnitId>,
    has_shortcut: bool,
}

impl Inspect {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let subject = Subject::open(&self.model)?;
        let model = subject.path();
        let (config, weights, survey) = if model.is_file() {
            let checkpoint = Checkpoint::open(model)?;
            let survey = survey_file(&checkpoint, None, Depth::Headers)?;
            (checkpoint.unet_config().clone(), checkpoint.unet_weights(), survey)
        } else {
            let (survey, _) = survey_directory(model, None, Depth::Headers)?;
            let survey = survey.or_refusal_of(Part::UNet)?;
            let directory = ModelDirectory::open(model)?;
            (directory.unet_config()?, directory.unet_weights()?, survey)
        };
        let inventory = config.inventory().at(self.granularity);
        let (height, width) = config.sample_size;
        let mut dtypes: Vec<_> = weights
            .names()
            .filter_map(|name| weights.dtype(name).ok())
            .map(|dtype| dtype.as_str().to_owned())
            .collect();
        dtypes.sort();
        dtypes.dedup();
        let inspection = Inspection {
            parameters: inventory.parameters(),
            macs: inventory.macs(height, width),
            sample_size: (height, width),
            dtypes,
            parts: survey.rows(),
            notes: survey.notes,
            removed_units: config.removed_units.iter().cloned().collect(),
            linear_units: config.linear_units.iter().cloned().collect(),
            units: inventory
                .units()
                .iter()
                .map(|unit| UnitRow {
                    id: unit.id.clone(),
                    kind: unit.kind,
                    parameters: unit.parameters,
                    macs: unit.macs,
                    parent: unit.parent.clone(),
                    has_shortcut: unit.has_shortcut,
                })
                .collect(),
        };
        if self.json { print_json(&inspection) } else { print(&shown(&inspection)) }
    }
}

fn shown(inspection: &Inspection) -> String {
    let share = |part: u64, whole: u64| format!("{:.1} %", 100.0 * part as f64 / whole as f64);
    let head = ["unit", "kind", "parameters", "", "MACs", "", "without it"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for unit in &inspection.units {
        rows.push(vec![
            unit.id.to_string(),
            unit.kind.to_string(),
            units::count(unit.parameters),
            share(unit.parameters, inspection.parameters),
            units::count(unit.macs),
            share(unit.macs, inspection.macs),
            if unit.has_shortcut { "its shortcut stays" } else { "the identity" }.to_owned(),
        ]);
    }
    let (height, width) = inspection.sample_size;
    let mut text = table(&rows, &[2, 3, 4, 5]);
    text.push_str(&format!(
        "\n{} units; U-Net {} parameters ({}), {} MACs at {height}x{width}, weights {}\n",
        inspection.units.len(),
        inspection.parameters,
        units::count(inspection.parameters),
        units::count(inspection.macs),
        inspection.dtypes.join(", "),
    ));
    if !inspection.removed_units.is_empty() {
        text.push_str(&format!("{} units have already been removed\n", inspection.removed_units.len()));
    }
    if !inspection.linear_units.is_empty() {
        text.push_str(&format!(
            "{} of them have a linear map in their place\n",
            inspection.linear_units.len()
        ));
    }
    let parts = inspection.parts.iter().map(|row| match &row.reason {
        Some(reason) => vec![row.part.to_owned(), format!("{}: {reason}", row.state)],
        None => vec![row.part.to_owned(), row.state.to_owned()],
    });
    let parts: Vec<_> = [vec!["part".to_owned(), "state".to_owned()]].into_iter().chain(parts).collect();
    text.push_str(&format!("\n{}", table(&parts, &[])));
    inspection.notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    text
}
