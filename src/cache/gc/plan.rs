//! Which artefacts and checkpoints may go, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::super::contents::age;
use super::super::{CacheError, Contents, Kept, Store};
use super::freed::Freed;
use super::{Candidate, Collection, Limits, Needed, Reason, Thing};
use crate::base::Digest;

/// Who needs what a running process uses.
const PROCESS: &str = "a running process";

/// Something that could go if nobody needs it.
struct Item {
    thing: Thing,
    stage: String,
    used: SystemTime,
    is_needed: bool,
    is_held: bool,
    /// What reads it at most: [`Reason::Checkpoint`] or [`Reason::TrainingState`].
    only_for: Option<Reason>,
    bytes: u64,
}

impl Store {
    /// Finds out what `limits` remove. Changes nothing.
    pub fn collection(&self, limits: &Limits, needed: &Needed) -> Result<Collection, CacheError> {
        let (contents, held) = (self.contents()?, self.held()?);
        let mut needed = needed.clone();
        held.iter().for_each(|key| needed.add(*key, PROCESS));
        needed.add_parts(&contents);
        let mut items = self.artefacts(&contents, &needed, &held);
        items.extend(self.checkpoints(&contents, &needed, &held)?);
        if let Some(only) = &limits.only {
            items.retain(|item| item.is_among(only));
        }
        items.sort_by_key(|item| item.used);
        let known = contents.entries.iter().map(|kept| (kept.entry.key, (kept.entry.digest, kept.used)));
        let mut collection = Collection {
            candidates: Vec::new(),
            bytes: contents.bytes,
            left: contents.bytes,
            known: known.collect(),
        };
        let (mut freed, mut rest) = (Freed::default(), Vec::new());
        for item in items {
            match item.reason(limits) {
                Some(reason) => collection.add(self, &mut freed, item, reason)?,
                None if item.is_needed || item.is_held => {}
                None => rest.push(item),
            }
        }
        for item in rest {
            if limits.max_bytes.is_some_and(|most| collection.left > most) {
                collection.add(self, &mut freed, item, Reason::Size)?;
            }
        }
        Ok(collection)
    }

    /// The artefacts, each with all of its entries.
    fn artefacts(&self, contents: &Contents, needed: &Needed, held: &BTreeSet<Digest>) -> Vec<Item> {
        let mut groups: BTreeMap<Digest, Vec<&Kept>> = BTreeMap::new();
        contents.entries.iter().for_each(|kept| groups.entry(kept.entry.digest).or_default().push(kept));
        let is_needed = |digest: &Digest| !needed.by(digest).is_empty();
        let entered = groups.into_iter().filter_map(|(digest, group)| {
            let newest = group.iter().max_by_key(|kept| kept.used)?;
            let keys: Vec<Digest> = group.iter().map(|kept| kept.entry.key).collect();
            Some(Item {
                stage: newest.entry.stage().to_owned(),
                used: newest.used,
                is_needed: is_needed(&digest) || keys.iter().any(is_needed),
                is_held: keys.iter().any(|key| held.contains(key)),
                only_for: group
                    .iter()
                    .all(|kept| kept.entry.is_training_state())
                    .then_some(Reason::TrainingState),
                // What its removal frees depends on what else goes.
                bytes: 0,
                thing: Thing::Artefact { digest, keys },
            })
        });
        let loose = contents.loose.iter().map(|loose| Item {
            thing: Thing::Artefact { digest: loose.digest, keys: Vec::new() },
            stage: format!("replaced artefact {}", loose.digest.short()),
            used: loose.used,
            is_needed: is_needed(&loose.digest),
            is_held: false,
            only_for: None,
            bytes: 0,
        });
        entered.chain(loose).collect()
    }

    fn checkpoints(
        &self,
        contents: &Contents,
        needed: &Needed,
        held: &BTreeSet<Digest>,
    ) -> Result<Vec<Item>, CacheError> {
        let item = |work: &super::super::Work| {
            Ok(Item {
                thing: Thing::Checkpoint { key: work.key },
                stage: format!("checkpoint of key {}", work.key.short()),
                used: work.used,
                is_needed: !needed.by(&work.key).is_empty(),
                is_held: held.contains(&work.key) || self.is_at_work(&work.key)?,
                only_for: Some(Reason::Checkpoint),
                bytes: work.bytes,
            })
        };
        contents.work.iter().map(item).collect()
    }
}

impl Item {
    fn is_among(&self, only: &BTreeSet<Digest>) -> bool {
        match &self.thing {
            Thing::Artefact { digest, keys } => {
                only.contains(digest) || keys.iter().any(|key| only.contains(key))
            }
            Thing::Checkpoint { key } => only.contains(key),
        }
    }

    /// Why it goes whatever the size of the cache is.
    fn reason(&self, limits: &Limits) -> Option<Reason> {
        let is_older = |than: Option<std::time::Duration>| than.is_some_and(|than| age(self.used) >= than);
        match self.only_for {
            _ if self.is_held => None,
            Some(reason) if is_older(limits.checkpoints_older_than) => Some(reason),
            _ if self.is_needed => None,
            _ if limits.all => Some(Reason::Unneeded),
            _ => is_older(limits.older_than).then_some(Reason::Unused),
        }
    }
}

impl Collection {
    fn add(
        &mut self,
        store: &Store,
        freed: &mut Freed,
        item: Item,
        reason: Reason,
    ) -> Result<(), CacheError> {
        let bytes = match &item.thing {
            Thing::Artefact { digest, .. } => freed.with(store, digest)?,
            Thing::Checkpoint { .. } => item.bytes,
        };
        self.left = self.left.saturating_sub(bytes);
        let (thing, stage, unused_seconds) = (item.thing, item.stage, age(item.used).as_secs());
        self.candidates.push(Candidate { thing, stage, reason, bytes, unused_seconds });
        Ok(())
    }
}
