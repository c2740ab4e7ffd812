//! `laptop-diff graph`: the DAG as text or as a picture.

use clap::{Args, ValueEnum};

use super::error::CliError;
use super::options::PipelineArguments;
use super::output::print;
use crate::plan;

/// Draw the stages of a pipeline and what each reads
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff graph pipelines/nano50.yaml
  laptop-diff graph pipelines/nano50.yaml --format dot | dot -Tpng > nano50.png
  laptop-diff graph pipelines/nano50.yaml --format svg > nano50.svg")]
pub(super) struct GraphCommand {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Dot,
    Mermaid,
    Svg,
}

impl GraphCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let graph = self.pipeline.read()?.graph;
        print(&match self.format {
            Format::Text => plan::text(&graph),
            Format::Dot => plan::dot(&graph),
            Format::Mermaid => plan::mermaid(&graph),
            Format::Svg => plan::svg(&graph),
        })
    }
}
