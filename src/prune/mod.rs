//! Applies a plan: a smaller model directory.
