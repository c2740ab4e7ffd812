//! An error of a worker, as it crosses from one process to the other: its texts, and its exit code.

use std::error::Error;
use std::fmt;

use miette::Diagnostic;
use serde::{Deserialize, Serialize};

use super::ExitCode;
use super::places::{Places, Told};

/// How a stage failed in another process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failure {
    told: Told,
    code: ExitCode,
}

impl Failure {
    pub(super) fn of(error: &dyn Diagnostic, code: ExitCode) -> Self {
        Self { told: Told::of_diagnostic(error, &Places::default()).0, code }
    }

    /// The exit code of the error.
    pub fn exit_code(&self) -> ExitCode {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told.fmt(f)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.told.source()
    }
}

impl Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.told.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.told.help()
    }

    fn diagnostic_source(&self) -> Option<&dyn Diagnostic> {
        self.told.diagnostic_source()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunError;
    use super::*;
    use crate::base::shown::one_line;
    use crate::stage::StageError;

    #[test]
    fn an_error_is_told_by_another_process_as_by_this_one() -> serde_json::Result<()> {
        let source =
            StageError::file(std::path::Path::new("unet/config.json"))(std::io::ErrorKind::NotFound.into());
        let error = RunError::Stage { stage: "student".into(), code: ExitCode::File, source };
        let text = serde_json::to_string(&Failure::of(&error, error.exit_code()))?;
        let there = RunError::Elsewhere(serde_json::from_str(&text)?);
        assert_eq!(one_line(&there), one_line(&error));
        assert_eq!(there.exit_code(), ExitCode::File);
        let codes = |error: &RunError| {
            let inner = error
                .diagnostic_source()
                .and_then(|cause| Some((cause.code()?.to_string(), cause.help()?.to_string())));
            (error.code().map(|code| code.to_string()), inner)
        };
        assert_eq!(codes(&there), codes(&error));
        // The system's error below has neither code nor help.
        let system = there.diagnostic_source().expect("the error of a file");
        assert!(system.diagnostic_source().is_none() && system.source().is_some());
        Ok(())
    }
}
