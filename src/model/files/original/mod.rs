//! Tensors in the original layout (CompVis/latent-diffusion for SD 1.x and 2.x, Stability-AI/generative-models for
//! SDXL). Each [`Pair`] of names serves both reading and writing.

mod draft;
mod form;
mod pair;

pub use draft::Draft;
pub use form::Form;
pub use pair::Pair;
pub(in crate::model) use pair::read;
