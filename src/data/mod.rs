//! Prompts, pictures and calibration points.
