//! The kinds of files and folders that a U-Net is written as.

/// What a U-Net is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A diffusers directory for the stock classes.
    Directory,
    /// A diffusers directory with its own class for the U-Net.
    Code,
    /// One file in the original layout.
    SingleFile,
}
