//! What can be wrong with a scheduler's config or with what is asked of a sampler.

use std::path::PathBuf;

use miette::Diagnostic;

/// A noise schedule or a sampler that cannot be as asked.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SampleError {
    /// `scheduler_config.json` could not be read.
    #[error("{}: {source}", path.display())]
    #[diagnostic(
        code(sample::config_file),
        help("a diffusers model directory has it as `scheduler/scheduler_config.json`")
    )]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What the system or the JSON parser says.
        source: std::io::Error,
    },
    /// A key of the config has a value of the wrong type.
    #[error("scheduler config: {0}")]
    #[diagnostic(code(sample::config))]
    Config(#[from] serde_json::Error),
    /// A key of the config asks for something this program does not do.
    #[error("scheduler config: `{key}` is {found}; {needed}")]
    #[diagnostic(
        code(sample::unsupported),
        help(
            "the schedules of SD v1.x, v2.x and SDXL are supported; edit `scheduler_config.json` if the key is a leftover"
        )
    )]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would be accepted.
        needed: &'static str,
    },
    /// The number of steps does not fit the schedule.
    #[error(
        "{sampler} was asked for {steps} steps, but from its timesteps of 0 to {last} that many cannot be chosen"
    )]
    #[diagnostic(code(sample::steps), help("20 to 50 steps are usual"))]
    Steps {
        /// The sampler.
        sampler: &'static str,
        /// What was asked.
        steps: usize,
        /// The noisiest timestep the model was trained at.
        last: usize,
    },
    /// A timestep outside of the schedule.
    #[error("timestep {found} lies outside of the schedule's 0 to {last}")]
    #[diagnostic(code(sample::timestep))]
    Timestep {
        /// The timestep.
        found: i64,
        /// The noisiest timestep the model was trained at.
        last: usize,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(sample::tensor))]
    Tensor(#[from] candle_core::Error),
}
