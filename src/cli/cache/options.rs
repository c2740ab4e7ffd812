//! Flags that all commands of the cache share.

use std::path::PathBuf;

use clap::Args;

use super::super::error::CliError;
use super::super::output::note;
use crate::cache::Store;
use crate::config::Settings;
use crate::config::settings::Layer;

/// Which cache, and how to print.
#[derive(Args)]
pub(super) struct CacheArguments {
    /// Folder of the artefact cache
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Folder of run folders, which need artefacts; the cache also knows those of other projects
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl CacheArguments {
    pub(super) fn open(&self) -> Result<(Store, Settings), CliError> {
        let layer = Layer { cache: self.cache.clone(), runs: self.runs.clone(), ..Layer::default() };
        let settings = Settings::load(layer, &mut |text| note(text))?;
        Ok((Store::open(&settings.cache)?, settings))
    }
}
