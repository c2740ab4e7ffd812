//! Models as they lie on disk and as lists of steps: U-Nets, text encoders, autoencoders.
