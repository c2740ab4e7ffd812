//! CLIP: the text encoders of Stable Diffusion, and the model that scores pictures against prompts.

mod added;
mod config;
mod encoder;
mod load;
mod model;
mod open_clip;
mod original;
mod pillow;
mod preprocess;
mod scorer;
mod text;
mod tokenizer;
mod vision;

pub use config::{Activation, ClipConfig, TextConfig, VisionConfig};
pub(in crate::model) use encoder::{MOST_LAYERS, check_sizes};
pub use model::ClipModel;
pub use original::{TextLayout, text_names};
pub(in crate::model) use pillow::bicubic;
pub use preprocess::ClipPreprocess;
pub use scorer::{Scorer, ScorerFolders, model_files as scorer_files, processor_files};
pub use text::{ClipTextModel, TextOutput};
pub use tokenizer::{ClipTokenizer, TokenizerError, Tokens, files as tokenizer_files, write_for};
pub use vision::ClipVisionModel;
