//! The parts of a diffusers pipeline, each in a folder of its own.

/// A part of a diffusers pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The U-Net.
    UNet,
    /// The autoencoder.
    Vae,
    /// The first text encoder.
    TextEncoder,
    /// SDXL's second text encoder.
    TextEncoder2,
    /// The first tokenizer.
    Tokenizer,
    /// SDXL's second tokenizer.
    Tokenizer2,
    /// The noise schedule.
    Scheduler,
}

impl Part {
    /// All parts, in the order of a pipeline.
    pub const ALL: [Self; 7] = [
        Self::Tokenizer,
        Self::Tokenizer2,
        Self::TextEncoder,
        Self::TextEncoder2,
        Self::UNet,
        Self::Vae,
        Self::Scheduler,
    ];

    /// Its folder in a pipeline.
    pub fn folder(self) -> &'static str {
        match self {
            Self::UNet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::Tokenizer => "tokenizer",
            Self::Tokenizer2 => "tokenizer_2",
            Self::Scheduler => "scheduler",
        }
    }

    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::UNet => "every stage on a model needs",
            Self::Vae => {
                "evaluate and generate need to decode latents, and calibrate and distill to encode pictures"
            }
            Self::TextEncoder | Self::TextEncoder2 | Self::Tokenizer | Self::Tokenizer2 => {
                "calibrate, distill, evaluate and generate need to read prompts"
            }
            Self::Scheduler => {
                "calibrate, score by task loss, distill, evaluate and generate need for their noise schedule"
            }
        }
    }
}
