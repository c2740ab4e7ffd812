//! What a model is worth: quality, fidelity, size, speed.
