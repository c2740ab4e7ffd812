//! Blocks of layers that several networks share.

mod resnet;
mod transformer;

pub(super) use resnet::{ResnetBlock, shortcut};
pub(super) use transformer::{Attention, Enter, Exit, FeedForward, Reading};
