//! The networks that look at pictures: CLIP, DINOv2, Inception v3 and ImageReward, each from the folder in which its weights
//! are released or converted.

mod dinov2;
mod files;
mod inception;
mod open;
mod resample;
mod reward;
mod vit;

pub use dinov2::DinoV2;
pub use files::{processor_files, scorer_files};
pub use inception::Inception;
pub use open::{Known, PictureModel, ScorerKind};
pub use reward::{BertTokenizer, ImageReward};
