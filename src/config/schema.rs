//! JSON schemas of pipelines and settings, generated from the types that read them, so that an
//! editor completes and checks what the program accepts.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::pipeline::FORMAT;
use super::settings::Layer;
use crate::stage::{STAGES, StageInfo};

/// The schema of pipeline files.
pub fn pipeline() -> Schema {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let stages: Vec<_> = STAGES.iter().map(|info| stage(info, &mut generator)).collect();
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$" });
    let described = |text: &str, mut schema: Value| {
        schema["description"] = text.into();
        schema
    };
    let mut schema = json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "laptop-diff pipeline",
        "type": "object",
        "additionalProperties": false,
        "required": ["format", "name", "stages"],
        "properties": {
            "format": described("The version of the pipeline format.", json!({ "const": FORMAT })),
            "name": described("The name of the run folder.", name.clone()),
            "seed": described(
                "The seed of all random numbers.",
                json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX, "default": 0 }),
            ),
            "stages": described(
                "The stages. A stage reads the artefacts of others by their ids.",
                json!({ "type": "array", "minItems": 1, "items": { "oneOf": stages } }),
            ),
            "gates": described(
                "Conditions on the results, as in `gates` of `evaluate`. With several evaluations, each begins with the id of one: \
                 `result.retrained.pick-score.retained >= 0.96`.",
                json!({ "type": "array", "items": { "type": "string" } }),
            ),
            "sweep": described(
                "Values to try for parameters, each named `ID.PARAMETER`, or `seed`. Stages that do not depend on them run once.",
                json!({
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": { "pattern": "^(seed|[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\\.[^.]+)+)$" },
                    "additionalProperties": { "type": "array", "minItems": 1, "uniqueItems": true },
                }),
            ),
        },
    });
    schema.insert("$defs".to_owned(), generator.take_definitions(true).into());
    schema
}

/// The schema of settings files.
pub fn settings() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Layer>();
    schema.insert("title".to_owned(), "laptop-diff settings".into());
    schema
}

fn stage(info: &StageInfo, generator: &mut SchemaGenerator) -> Value {
    json!({
        "type": "object",
        "title": info.name,
        "description": info.summary,
        "additionalProperties": false,
        "required": ["id", "use"],
        "properties": {
            "id": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
                "description": "The name by which other stages refer to it.",
            },
            "use": { "const": info.name, "description": info.summary },
            "with": (info.schema)(generator),
        },
    })
}
