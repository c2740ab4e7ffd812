//! What all other modules use: ids, digests, manifests, bad values, numbers with bounds, progress, interruption, time,
//! locks, atomic files, files with checksums, text and JSON from outside.

pub mod artefact;
pub mod bad_value;
pub mod bounded;
pub mod child;
pub mod clock;
pub mod copies;
pub mod digest;
pub mod files;
mod heartbeat;
mod holder;
pub mod id;
pub mod interrupt;
pub mod kept;
mod lease;
pub mod lock;
pub mod manifest;
pub mod mapping;
pub mod median;
pub mod names;
pub mod parsed;
pub mod path_text;
pub mod pattern;
pub mod percent;
pub mod progress;
pub mod python_json;
pub mod sealed;
pub mod shown;
mod silence;
pub mod silent_locks;
pub mod unfinished;
pub mod units;
pub mod watch;

pub use artefact::{Artefact, ArtefactKind};
pub use bad_value::BadValue;
pub use bounded::{Real, Whole};
pub use digest::Digest;
pub use files::FileError;
pub use id::{StageId, UnitId};
pub use interrupt::{Interrupt, Interrupted};
pub use manifest::Manifest;
pub use mapping::Mapping;
pub use median::median;
pub use percent::Percent;
pub use progress::Progress;
pub use watch::{Unwatched, Watch};
