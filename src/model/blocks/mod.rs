//! Blocks of layers that several networks are made of.

mod resnet;
mod transformer;

pub(super) use resnet::{ResnetBlock, shortcut};
pub(super) use transformer::{Attention, Enter, Exit, FeedForward, Reading};
