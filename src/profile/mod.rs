//! Times each unit on one device, for selections under a latency budget.

mod error;
mod latency;
mod pass;

pub use error::ProfileError;
pub use latency::Latency;
pub(crate) use pass::WARM_UP;
