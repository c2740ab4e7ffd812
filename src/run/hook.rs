//! The user's command that is called when a run ends: a notification, a copy of the report.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::ExitCode;
use crate::base::child;

/// How long a command may take: long enough for a mail or an upload of a report.
const LIMIT: Duration = Duration::from_secs(60);

/// How a run ended.
pub struct Ending<'a> {
    /// The pipeline's name.
    pub name: &'a str,
    /// The exit code.
    pub code: ExitCode,
    /// The run folder.
    pub folder: &'a Path,
    /// The report.
    pub report: &'a Path,
}

impl Ending<'_> {
    /// Calls the command by the shell, with the run in its environment. What went wrong with it ends nothing: it is given
    /// back in words.
    pub fn call(&self, command: &str) -> Result<(), String> {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // stdout belongs to the data of this program.
        let output = || io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(output());
        shell
            .env("RUN_NAME", self.name)
            .env("RUN_STATE", self.state())
            .env("RUN_EXIT_CODE", self.code.number().to_string())
            .env("RUN_FOLDER", absolute(self.folder))
            .env("RUN_REPORT", absolute(self.report));
        let ended = shell.spawn().and_then(|mut shell| child::end(&mut shell, Instant::now() + LIMIT));
        match ended {
            Err(error) => Err(format!("could not be started: {error}")),
            Ok(None) => Err(format!("was ended after {} s", LIMIT.as_secs())),
            Ok(Some(status)) if !status.success() => Err(format!("failed: {status}")),
            Ok(Some(_)) => Ok(()),
        }
    }

    fn state(&self) -> &'static str {
        match self.code {
            ExitCode::Done => "done",
            ExitCode::Gate => "gates-not-met",
            ExitCode::Interrupted => "interrupted",
            _ => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_knows_the_run_and_its_failure_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (run, report) = (folder.path().join("a b"), folder.path().join("a b/report.html"));
        let ending = Ending { name: "nano", code: ExitCode::Gate, folder: &run, report: &report };
        let told = folder.path().join("told");
        let script = format!(
            r#"echo "$RUN_NAME $RUN_STATE $RUN_EXIT_CODE $RUN_FOLDER $RUN_REPORT" > '{}'"#,
            told.display()
        );
        ending.call(&script).expect("it works");
        let expected = format!("nano gates-not-met 7 {} {}\n", run.display(), report.display());
        assert_eq!(std::fs::read_to_string(&told).expect("written"), expected);
        assert!(ending.call("exit 3").is_err_and(|text| text.contains("exit status: 3")));
    }
}
