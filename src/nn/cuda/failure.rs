//! Errors of the driver and of cuBLAS.

use std::error::Error as StdError;

use candle_core::Error;

/// An error with what was tried.
pub(super) fn failed(what: &str, error: impl StdError) -> Error {
    Error::Msg(format!("{what}: {error}"))
}
