//! The numbers by which a shell or a job scheduler learns how it went.

use std::error::Error;
use std::io;

use crate::base::files::is_full;
use crate::cache::CacheError;
use crate::stage::StageError;

/// The exit codes of every command. They are part of the interface: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All is done.
    Done = 0,
    /// A bug of this program.
    Bug = 1,
    /// Wrong arguments on the command line.
    Arguments = 2,
    /// Something is wrong with the pipeline file or the settings.
    Pipeline = 3,
    /// A file is missing or wrong, or cannot be written.
    File = 4,
    /// Memory ran out, of the machine or of the device.
    Memory = 5,
    /// A stage failed.
    Stage = 6,
    /// A quality gate was not met.
    Gate = 7,
    /// Interrupted; the same command goes on from there.
    Interrupted = 130,
}

impl ExitCode {
    /// All of them, for the documentation.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Bug,
        Self::Arguments,
        Self::Pipeline,
        Self::File,
        Self::Memory,
        Self::Stage,
        Self::Gate,
        Self::Interrupted,
    ];

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "all is done",
            Self::Bug => "a bug of this program",
            Self::Arguments => "wrong arguments",
            Self::Pipeline => "the pipeline file or the settings are wrong",
            Self::File => "a file is missing or wrong, or cannot be written",
            Self::Memory => "out of memory",
            Self::Stage => "a stage failed",
            Self::Gate => "a quality gate was not met",
            Self::Interrupted => "interrupted; the same command goes on from there",
        }
    }

    /// The number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// That of a stage's error. `is_input` knows the files that the pipeline gave the stage.
    pub fn of_stage(error: &StageError, is_input: impl FnOnce(&std::path::Path) -> bool) -> Self {
        match error {
            StageError::Pipeline(_) => Self::Pipeline,
            StageError::Input(_) => Self::File,
            StageError::Interrupted(_) => Self::Interrupted,
            _ if chain(error).any(is_out_of_memory) => Self::Memory,
            _ if chain(error).any(|e| e.downcast_ref().is_some_and(is_full)) => Self::File,
            StageError::File { path, .. } if is_input(path) => Self::File,
            StageError::File { .. } | StageError::Tensor(_) | StageError::Work(_) => Self::Stage,
        }
    }
}

impl From<&CacheError> for ExitCode {
    fn from(error: &CacheError) -> Self {
        match error {
            CacheError::NewerFormat { .. } | CacheError::Full { .. } | CacheError::File { .. } => Self::File,
            CacheError::Interrupted(_) => Self::Interrupted,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// candle hands on the driver's error as text (`DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")`).
fn is_out_of_memory(error: &(dyn Error + 'static)) -> bool {
    let of_system = |error: &io::Error| error.kind() == io::ErrorKind::OutOfMemory;
    error.downcast_ref().is_some_and(of_system) || error.to_string().to_lowercase().contains("out of memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Interrupted;
    use std::path::Path;

    fn file(kind: io::ErrorKind) -> StageError {
        StageError::File { path: "/data/prompts.txt".into(), source: kind.into() }
    }

    #[test]
    fn a_stage_error_has_the_code_that_its_cause_asks_for() {
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
