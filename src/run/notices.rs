//! Emits the notices of the cache about an artefact as events of its stage.

use super::{Event, Sink};
use crate::base::{Digest, StageId};
use crate::cache::Notice;

/// Emits a notice about the artefact with this key.
pub(super) fn tell(sink: &dyn Sink, stage: &StageId, key: Digest, notice: Notice<'_>) {
    let stage = stage.clone();
    sink.event(&match notice {
        Notice::Damaged(damage) => Event::DamageFound {
            stage,
            path: damage.path.clone(),
            expected: damage.expected,
            found: damage.found,
        },
        Notice::Waiting { holder } => Event::StageWaiting { stage, key, holder: holder.to_owned() },
    });
}
