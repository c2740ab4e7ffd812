//! Errors in a scheduler's config or in the settings of a sampler.

use std::path::PathBuf;

use miette::Diagnostic;

/// An invalid noise schedule or sampler setting.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum SampleError {
    /// `scheduler_config.json` could not be read.
    #[error("{}: {source}", path.display())]
    #[diagnostic(
        code(sample::config_file),
        help("in a diffusers model directory the file is `scheduler/scheduler_config.json`")
    )]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// The message of the system or the JSON parser.
        source: std::io::Error,
    },
    /// A key of the config has a value of the wrong type.
    #[error("scheduler config: {0}")]
    #[diagnostic(code(sample::config))]
    Config(#[from] serde_json::Error),
    /// A key of the config has an unsupported value.
    #[error("scheduler config: `{key}` is {found}; {needed}")]
    #[diagnostic(
        code(sample::unsupported),
        help(
            "the schedules of SD v1.x, v2.x and SDXL are supported; edit `scheduler_config.json` if the key is left \
             over from another scheduler"
        )
    )]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What is supported.
        needed: &'static str,
    },
    /// The number of steps does not fit the schedule.
    #[error("{sampler} cannot choose timesteps between 0 and {last} for {steps} steps")]
    #[diagnostic(code(sample::steps), help("20 to 50 steps are usual"))]
    Steps {
        /// The sampler.
        sampler: &'static str,
        /// The requested number of steps.
        steps: usize,
        /// The noisiest timestep in training.
        last: usize,
    },
    /// A timestep outside the schedule.
    #[error("timestep {found} is outside the schedule, which has timesteps 0 to {last}")]
    #[diagnostic(code(sample::timestep))]
    Timestep {
        /// The timestep.
        found: i64,
        /// The noisiest timestep in training.
        last: usize,
    },
    /// Noisy latents without signal, where clean latents or a velocity are needed.
    #[error(
        "point {point} is at timestep {timestep}, where this noise schedule leaves nothing of the clean latents"
    )]
    #[diagnostic(
        code(sample::no_signal),
        help(
            "add the tensor `latents` with the clean latents to the calibration file, or leave out such points"
        )
    )]
    NoSignal {
        /// The index of the sample.
        point: usize,
        /// Its timestep.
        timestep: i64,
    },
    /// A U-Net that needs more than latents, where only latents are there.
    #[error("the U-Net has {inputs} input channels, but only {outputs} of them are latents")]
    #[diagnostic(
        code(sample::input_channels),
        help(
            "models for inpainting and for editing pictures cannot be drawn with or retrained; with points from a `file:` \
             that has all input channels in `sample`, `calibrate`, `score`, `select`, `prune` and `export` work"
        )
    )]
    InputChannels {
        /// The input channels.
        inputs: usize,
        /// The channels of the prediction.
        outputs: usize,
    },
    /// The U-Net gave a NaN or an infinity.
    #[error(
        "the U-Net gives {found} at step {step} of {steps} (timestep {timestep}) for the prompt `{prompt}`"
    )]
    #[diagnostic(
        code(sample::not_finite),
        help(
            "it overflows, or its weights are broken: load the model with `dtype: f32` or `bf16`, or lower the guidance scale"
        )
    )]
    NotFinite {
        /// The first such number.
        found: f32,
        /// The sampler's step, from 1.
        step: usize,
        /// The number of steps.
        steps: usize,
        /// The timestep given to the U-Net.
        timestep: f64,
        /// The prompt of the sample.
        prompt: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    #[diagnostic(code(sample::tensor))]
    Tensor(#[from] candle_core::Error),
}
