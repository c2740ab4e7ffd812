//! THE table of which error has which exit code. Errors that belong to one command alone have theirs in `cli/error.rs`.

use std::error::Error;
use std::io;
use std::path::Path;

use super::{ExitCode, RunError};
use crate::base::files::is_full;
use crate::cache::CacheError;
use crate::config::{ConfigError, ConfigErrorKind};
use crate::plan::PlanError;
use crate::stage::StageError;

impl From<&ConfigError> for ExitCode {
    fn from(error: &ConfigError) -> Self {
        match error.kind() {
            ConfigErrorKind::MissingFile { .. } | ConfigErrorKind::Hub(_) => Self::File,
            ConfigErrorKind::Override { .. } => Self::Arguments,
            _ => Self::Pipeline,
        }
    }
}

impl From<&CacheError> for ExitCode {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::NewerFormat { .. }
            | CacheError::NoVersion { .. }
            | CacheError::Full { .. }
            | CacheError::ReadOnly { .. }
            | CacheError::BrokenRoot { .. }
            | CacheError::File(_) => Self::File,
            CacheError::Interrupted(_) => Self::Interrupted,
        }
    }
}

impl From<&PlanError> for ExitCode {
    fn from(error: &PlanError) -> Self {
        match error {
            PlanError::Config(error) => error.into(),
            PlanError::Cache(error) => error.into(),
            PlanError::Input { .. } | PlanError::Missing { .. } => Self::File,
            // All paths are those of the pipeline's files.
            PlanError::Unfit(unfit) => Self::of_stage(&unfit.source, |_| true),
            PlanError::Interrupted(_) => Self::Interrupted,
        }
    }
}

impl From<&RunError> for ExitCode {
    fn from(error: &RunError) -> Self {
        match error {
            RunError::UnknownStage { .. } => Self::Arguments,
            RunError::Plan(error) => error.into(),
            RunError::Device { .. } => Self::Pipeline,
            RunError::Folder(_) => Self::File,
            RunError::Cache(error) => error.into(),
            RunError::Stage { code, .. } | RunError::Rank { code, .. } => *code,
            RunError::Elsewhere(failure) => failure.exit_code(),
            RunError::Gone { code, .. } | RunError::Job { code, .. } => *code,
            RunError::Worker { .. } => Self::Stage,
            RunError::Changed { .. } | RunError::NotMade { .. } => Self::File,
            RunError::Bug { .. } => Self::Bug,
            RunError::Gates { .. } => Self::Gate,
            RunError::Interrupted(_) => Self::Interrupted,
            RunError::Several { errors } => errors.first().map_or(Self::Bug, Self::from),
        }
    }
}

impl RunError {
    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        self.into()
    }
}

impl ExitCode {
    /// The code of a stage's error. `is_input` tells whether a path is one of the files that the pipeline names.
    pub fn of_stage(error: &StageError, is_input: impl FnOnce(&Path) -> bool) -> Self {
        match error {
            StageError::Pipeline(_) => Self::Pipeline,
            StageError::Input(_) => Self::File,
            StageError::Interrupted(_) => Self::Interrupted,
            StageError::Memory(_) => Self::Memory,
            _ if chain(error).any(is_out_of_memory) => Self::Memory,
            _ if chain(error).any(|e| e.downcast_ref().is_some_and(is_full)) => Self::File,
            StageError::File(file) if is_input(&file.path) => Self::File,
            StageError::File(_) | StageError::Tensor(_) | StageError::Work(_) => Self::Stage,
        }
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// candle passes the driver's error on as text (`DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")`).
fn is_out_of_memory(error: &(dyn Error + 'static)) -> bool {
    let of_system = |error: &io::Error| error.kind() == io::ErrorKind::OutOfMemory;
    error.downcast_ref().is_some_and(of_system) || error.to_string().to_lowercase().contains("out of memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Interrupted;

    fn file(kind: io::ErrorKind) -> StageError {
        StageError::file(Path::new("/data/prompts.txt"))(kind.into())
    }

    #[test]
    fn a_stage_error_has_the_code_of_its_cause() {
        let code = |error: &StageError| ExitCode::of_stage(error, |path| path.starts_with("/data"));
        assert_eq!(code(&Interrupted.into()), ExitCode::Interrupted);
        assert_eq!(code(&file(io::ErrorKind::NotFound)), ExitCode::File);
        assert_eq!(code(&file(io::ErrorKind::OutOfMemory)), ExitCode::Memory);
        assert_eq!(ExitCode::of_stage(&file(io::ErrorKind::NotFound), |_| false), ExitCode::Stage);
        assert_eq!(ExitCode::of_stage(&file(io::ErrorKind::StorageFull), |_| false), ExitCode::File);
        let driver = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        assert_eq!(code(&candle_core::Error::Msg(driver.into()).into()), ExitCode::Memory);
        assert_eq!(code(&candle_core::Error::Msg("shapes differ".into()).into()), ExitCode::Stage);
    }

    #[test]
    fn a_newer_cache_has_the_code_of_a_wrong_file() {
        let error = CacheError::NewerFormat { root: Path::new("/c").into(), found: "2".into(), known: 1 };
        assert_eq!(ExitCode::from(&error).number(), 4);
    }
}
