//! The numbers by which a shell or a job scheduler learns how a command ended.

use serde::{Deserialize, Serialize};

/// The exit codes of every command. They are part of the interface: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ExitCode {
    /// The command did what it was asked to do.
    Done = 0,
    /// A bug in this program.
    Bug = 1,
    /// Wrong arguments on the command line.
    Arguments = 2,
    /// An error in the pipeline file or the settings.
    Pipeline = 3,
    /// A file is missing, damaged or not writable.
    File = 4,
    /// Memory ran out, of the machine or of the device.
    Memory = 5,
    /// A stage failed.
    Stage = 6,
    /// A quality gate was not met.
    Gate = 7,
    /// Interrupted; the same command resumes the work.
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

    /// The code with this number.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Bug => "a bug in laptop-diff",
            Self::Arguments => "wrong arguments",
            Self::Pipeline => "an error in the pipeline file or the settings",
            Self::File => "a file is missing, damaged or not writable",
            Self::Memory => "out of memory",
            Self::Stage => "a stage failed",
            Self::Gate => "a quality gate was not met",
            Self::Interrupted => "interrupted; run the same command again to resume",
        }
    }

    /// The number.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.number().into()
    }
}
