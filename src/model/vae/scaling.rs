//! How latents are brought to unit variance: by one factor alone.

/// What is unsupported in `shift_factor` and `scaling_factor`, as text.
pub(super) fn check(shift: Option<f64>, factor: f64) -> Result<(), String> {
    match () {
        () if shift.is_some_and(|shift| shift != 0.0) => {
            Err("`shift_factor` is set; only autoencoders without a shift are supported".to_owned())
        }
        () if !(factor.is_finite() && factor > 0.0) => {
            Err(format!("`scaling_factor` is {factor}; it must be above 0"))
        }
        () => Ok(()),
    }
}
