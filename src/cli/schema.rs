//! `laptop-diff schema`: JSON schemas, for editors.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::output::print_json;
use crate::config::schema;

/// Print the JSON schema of pipeline files, or of settings files
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff schema > schemas/pipeline.schema.json
  laptop-diff schema settings > schemas/settings.schema.json

An editor with the YAML language server uses it where a file begins with
  # yaml-language-server: $schema=../schemas/pipeline.schema.json")]
pub(super) struct Schema {
    /// Which schema
    #[arg(value_enum, default_value_t)]
    of: Of,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Of {
    #[default]
    Pipeline,
    Settings,
}

impl Schema {
    pub(super) fn execute(self) -> Result<(), CliError> {
        print_json(&match self.of {
            Of::Pipeline => schema::pipeline(),
            Of::Settings => schema::settings(),
        })
    }
}
