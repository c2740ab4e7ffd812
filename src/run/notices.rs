//! Emits the notices of the cache about an artefact as events of its stage.

use std::path::{Path, PathBuf};

use super::{Event, Sink};
use crate::base::{Digest, StageId};
use crate::cache::Notice;

/// Emits a notice about the artefact with this key. `name` says how the user knows a file of it.
pub(super) fn tell(
    sink: &dyn Sink,
    stage: &StageId,
    key: Digest,
    notice: Notice<'_>,
    name: &dyn Fn(&Path) -> PathBuf,
) {
    let stage = stage.clone();
    sink.event(&match notice {
        Notice::Damaged(damage) => Event::DamageFound {
            stage,
            path: name(&damage.path),
            expected: damage.expected,
            found: damage.found,
        },
        Notice::Waiting { holder } => Event::StageWaiting { stage, key, holder: holder.to_owned() },
        Notice::Remote { text } => Event::StageRemote { stage, text: text.to_owned() },
    });
}
