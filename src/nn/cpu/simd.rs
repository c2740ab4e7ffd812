//! Compiles a loop for the widest vector unit of the machine it runs on.
//!
//! The program is built for any x86-64; without this every loop would run four lanes wide, and `mul_add` would be a
//! call.

use pulp::Arch;

/// Runs `work` with the widest vectors. Pass an `#[inline(always)]` closure whose callees inline too.
#[inline(always)]
pub(super) fn widest<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}
