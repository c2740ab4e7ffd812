//! Compiles a loop for the widest vector unit of the machine that it runs on.
//!
//! The program is built for any x86-64; without this, every loop would use four lanes, and `mul_add` would be a
//! function call.

use pulp::Arch;

/// Runs `work` with the widest vectors. Pass an `#[inline(always)]` closure; the functions that it calls must be
/// inlined too.
#[inline(always)]
pub(super) fn widest<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}
