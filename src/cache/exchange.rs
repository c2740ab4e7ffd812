//! How a cache shares its artefacts with those of other machines, by its remote.
//!
//! A run asks for what it lacks before it makes it, and sends what it has made. It never fails because of a remote: what is
//! wrong is told, and the artefact is made here, as without one.

use std::io;
use std::path::Path;
use std::time::Instant;

use super::begin::Begun;
use super::remote::{
    Record, Remote, RemoteError, Sent, Shared, Trouble, Unfetched, Way, entries, fetch_files, fetch_record,
    key_of, patiently, send,
};
use super::{CacheError, Entry, Lookup, PendingArtefact, Store, Tree};
use crate::base::{ArtefactKind, Digest, Interrupt, Interrupted, units};

/// What became of a key that was to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The remote has it now.
    New {
        /// The size of the files that it did not have.
        bytes: u64,
    },
    /// The remote had it already.
    There,
    /// This cache does not have it, or not undamaged.
    Absent,
}

/// What became of a key that was to be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// This cache has it now.
    New {
        /// The size of its files.
        bytes: u64,
    },
    /// This cache had it already.
    Here,
    /// The remote does not have it.
    Absent,
    /// What the remote has was refused; the text says what is wrong with it.
    Refused(String),
}

/// What a remote gave for an artefact that is to be made.
pub(super) enum Fetched<'a> {
    /// All of it, and it is entered.
    Whole(Entry),
    /// This process was suspended for so long that another one has taken over.
    Lost,
    /// Nothing that can be used. `is_refused` says that it has something else, which is to be replaced.
    Nothing { pending: PendingArtefact<'a>, is_refused: bool },
}

impl Store {
    /// Fetches an artefact that this process would otherwise make. `tell` hears what came of it.
    pub(super) fn fetch<'a>(
        &'a self,
        pending: PendingArtefact<'a>,
        kind: ArtefactKind,
        stop: &Interrupt,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Fetched<'a>, CacheError> {
        let nothing = |pending, is_refused| Ok(Fetched::Nothing { pending, is_refused });
        let Some(shared) = self.remote.as_ref().filter(|shared| !shared.rests(Way::Pull)) else {
            return nothing(pending, false);
        };
        let (begun, address) = (Instant::now(), shared.address());
        let fetched = shared
            .open()
            .map_err(Unfetched::Trouble)
            .and_then(|remote| self.receive(remote, &pending, Some(kind), stop));
        if !pending.is_ours() {
            return Ok(Fetched::Lost);
        }
        match fetched {
            Ok(record) => {
                let (bytes, took) = (units::bytes(record.bytes()), begun.elapsed().as_secs_f64());
                let made = units::seconds(record.entry.made.seconds);
                tell(&format!("fetched {bytes} from {address} in {}; made in {made}", units::seconds(took)));
                return Ok(Fetched::Whole(pending.enter(record.entry)?));
            }
            Err(Unfetched::Absent) => return nothing(pending, false),
            Err(Unfetched::Trouble(trouble)) if trouble.is_interruption() => return Err(Interrupted.into()),
            Err(Unfetched::Trouble(trouble)) => {
                shared.rest(Way::Pull);
                let text = trouble.text();
                tell(&format!(
                    "{address} {text}; going on with the local cache, and asking again in 5 minutes"
                ));
            }
            Err(Unfetched::Refused(reason)) => {
                pending.clear()?;
                tell(&format!("{address} has it, but {reason}: refused, and made anew"));
                return nothing(pending, true);
            }
        }
        pending.clear()?;
        nothing(pending, false)
    }

    /// Fills a pending artefact with what the remote has of its key, every file checked.
    fn receive(
        &self,
        remote: &dyn Remote,
        pending: &PendingArtefact<'_>,
        kind: Option<ArtefactKind>,
        stop: &Interrupt,
    ) -> Result<Record, Unfetched> {
        let here = |error: CacheError| {
            let error = match error {
                CacheError::Interrupted(_) => io::ErrorKind::Interrupted.into(),
                other => io::Error::other(other),
            };
            Unfetched::Trouble(Trouble::Here(error))
        };
        let record = fetch_record(remote, pending.key(), stop)?;
        if kind.is_some_and(|kind| kind != record.entry.made.kind) {
            return Err(Unfetched::Refused("its entry is of another kind of artefact".to_owned()));
        }
        // Two keys may have equal bytes: a seed that changes nothing, or a stage with a new version.
        if self.damage(&record.entry).map_err(here)?.is_none() {
            return Ok(record);
        }
        fetch_files(remote, &record, &pending.output(), stop)?;
        match pending.settles_as(&record.entry).map_err(here)? {
            true => Ok(record),
            false => {
                Err(Unfetched::Refused("its files were changed while they were written here".to_owned()))
            }
        }
    }

    /// Sends an artefact that was just made. With `anew`, what the remote has of its key is replaced.
    pub(super) fn share(&self, entry: &Entry, anew: bool, stop: &Interrupt, tell: &mut dyn FnMut(&str)) {
        let Some(shared) = self.remote.as_ref().filter(|shared| !shared.rests(Way::Push)) else { return };
        // It is large, and found by what is in this cache alone.
        if entry.is_training_state() {
            return;
        }
        let (begun, address) = (Instant::now(), shared.address());
        match shared.open().and_then(|remote| self.give(remote, entry, anew, stop)) {
            Ok(Sent::New { bytes }) => {
                let (bytes, took) = (units::bytes(bytes), units::seconds(begun.elapsed().as_secs_f64()));
                tell(&format!("sent {bytes} to {address} in {took}"));
            }
            Ok(Sent::There) => tell(&format!("{address} has an artefact of this key, which stays")),
            // The artefact is safe here, and the run itself notices the request.
            Err(trouble) if trouble.is_interruption() => {}
            Err(trouble) => {
                shared.rest(Way::Push);
                let text = trouble.text();
                tell(&format!(
                    "{address} {text}; not sent: `laptop-diff cache push` sends later what is missing there"
                ));
            }
        }
    }

    fn give(
        &self,
        remote: &dyn Remote,
        entry: &Entry,
        anew: bool,
        stop: &Interrupt,
    ) -> Result<Sent, Trouble> {
        let folder = self.artefact_folder(&entry.digest);
        let hidden = Tree::of(&folder, &entry.hidden, &mut |_, place: &Path, _| Digest::of_file(place));
        let record = Record::new(entry.clone(), hidden.map_err(Trouble::Here)?);
        send(remote, &record, &folder, anew, stop)
    }

    /// The remote that this cache shares its artefacts with.
    pub fn shared(&self) -> Result<&Shared, RemoteError> {
        self.remote.as_ref().ok_or(RemoteError::None)
    }

    /// Sends the artefact of a key to the remote, unless it is there.
    pub fn push(&self, key: &Digest, stop: &Interrupt) -> Result<Pushed, RemoteError> {
        let shared = self.shared()?;
        self.hold(key);
        let Lookup::Whole(entry) = self.lookup(key)? else { return Ok(Pushed::Absent) };
        let given = shared.open().and_then(|remote| self.give(remote, &entry, false, stop));
        match given.map_err(|trouble| failed(shared, &trouble))? {
            Sent::New { bytes } => Ok(Pushed::New { bytes }),
            Sent::There => Ok(Pushed::There),
        }
    }

    /// Fetches the artefact of a key from the remote, unless it is here. `waiting` hears who is making it at this moment.
    pub fn pull(
        &self,
        key: &Digest,
        stop: &Interrupt,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<Pulled, RemoteError> {
        let shared = self.shared()?;
        if let Lookup::Whole(_) = self.find(key)? {
            return Ok(Pulled::Here);
        }
        let Begun::Pending(pending) = self.begin(key, false, stop, waiting)? else {
            return Ok(Pulled::Here);
        };
        match shared
            .open()
            .map_err(Unfetched::Trouble)
            .and_then(|remote| self.receive(remote, &pending, None, stop))
        {
            Ok(record) => {
                let bytes = record.bytes();
                pending.enter(record.entry)?;
                Ok(Pulled::New { bytes })
            }
            Err(Unfetched::Absent) => Ok(Pulled::Absent),
            Err(Unfetched::Refused(reason)) => Ok(Pulled::Refused(reason)),
            Err(Unfetched::Trouble(trouble)) => Err(failed(shared, &trouble)),
        }
    }

    /// The keys that the remote has.
    pub fn remote_keys(&self, stop: &Interrupt) -> Result<Vec<Digest>, RemoteError> {
        let shared = self.shared()?;
        let names = shared.open().and_then(|remote| patiently(stop, || remote.list(entries(), stop)));
        let names = names.map_err(|trouble| failed(shared, &trouble))?;
        let mut keys: Vec<Digest> = names.iter().filter_map(|name| key_of(name)).collect();
        keys.sort_unstable();
        Ok(keys)
    }
}

fn failed(shared: &Shared, trouble: &Trouble) -> RemoteError {
    match trouble.is_interruption() {
        true => Interrupted.into(),
        false => RemoteError::Trouble { address: shared.address().to_string(), text: trouble.text() },
    }
}
