//! The one way to an artefact: look up its key, wait for another process that makes it, else make and commit it.

use std::sync::PoisonError;
use std::time::Instant;

use super::begin::Begun;
use super::exchange::Fetched;
use super::{CacheError, Damage, Entry, Lookup, Made, PendingArtefact, Store};
use crate::backend::memory;
use crate::base::{ArtefactKind, Digest, Interrupt, Manifest, clock};

/// Which artefact to obtain.
pub struct Request<'a> {
    /// What its bytes depend on; its hash is the key.
    pub manifest: &'a Manifest,
    /// The kind of artefact.
    pub kind: ArtefactKind,
    /// Make it again from scratch, even if the artefact or a checkpoint is there.
    pub force: bool,
    /// Stops the wait for another process.
    pub interrupt: &'a Interrupt,
}

/// Makes an artefact that is not in the cache.
pub trait Maker {
    /// How it fails.
    type Error: From<CacheError>;

    /// Receives the events before [`Maker::make`] is called, and what a remote does after it.
    fn notice(&mut self, _notice: Notice<'_>) {}

    /// Fills [`PendingArtefact::output`].
    fn make(&mut self, pending: &PendingArtefact<'_>) -> Result<(), Self::Error>;
}

/// An event that a [`Maker`] receives.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// The artefact is in the cache, but damaged; it is made again.
    Damaged(&'a Damage),
    /// Another process is making it.
    Waiting {
        /// The process: `process 12 on host`.
        holder: &'a str,
    },
    /// What the remote gave or took, or why it did not.
    Remote {
        /// In words.
        text: &'a str,
    },
}

/// How an artefact was obtained.
#[derive(Clone, Debug)]
pub enum Obtained {
    /// It was in the cache or in its remote, or another process made it.
    Cached(Entry),
    /// The maker made it.
    Made(Entry),
}

impl Obtained {
    /// The cache's record of the artefact.
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Cached(entry) | Self::Made(entry) => entry,
        }
    }
}

impl Store {
    /// Looks a key up that this process needs: its artefact stays as long as the process lives.
    pub fn find(&self, key: &Digest) -> Result<Lookup, CacheError> {
        self.hold(key);
        let found = self.lookup(key)?;
        if let Lookup::Whole(_) = found {
            self.touch(key);
        }
        Ok(found)
    }

    /// Obtains an artefact: from the cache, from another process that is making it, from the remote, or from `maker`.
    pub fn obtain<M: Maker>(&self, request: &Request<'_>, maker: &mut M) -> Result<Obtained, M::Error> {
        let key = request.manifest.key();
        match self.find(&key)? {
            Lookup::Whole(entry) if !request.force => return Ok(Obtained::Cached(entry)),
            Lookup::Damaged(damage) => maker.notice(Notice::Damaged(&damage)),
            _ => {}
        }
        let mut waiting = |holder: &str| maker.notice(Notice::Waiting { holder });
        let pending = match self.begin(&key, request.force, request.interrupt, &mut waiting)? {
            Begun::Cached(entry) => return Ok(Obtained::Cached(entry)),
            Begun::Pending(pending) => pending,
        };
        let mut tell = |text: &str| maker.notice(Notice::Remote { text });
        let (pending, is_refused) = match request.force {
            true => (pending, false),
            false => match self.fetch(pending, request.kind, request.interrupt, &mut tell)? {
                Fetched::Whole(entry) => return Ok(Obtained::Cached(entry)),
                Fetched::Lost => return self.obtain(request, maker),
                Fetched::Nothing { pending, is_refused } => (pending, is_refused),
            },
        };
        let begun = Instant::now();
        self.start_peak();
        let result = maker.make(&pending);
        let peak_bytes = self.end_peak();
        result?;
        if !pending.is_ours() {
            // It was suspended for so long that another process has taken over.
            drop(pending);
            return self.obtain(request, maker);
        }
        let made = Made {
            kind: request.kind,
            seconds: begun.elapsed().as_secs_f64(),
            peak_bytes,
            finished: clock::now(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let entry = pending.commit(request.manifest, made)?;
        let mut tell = |text: &str| maker.notice(Notice::Remote { text });
        self.share(&entry, is_refused, request.interrupt, &mut tell);
        Ok(Obtained::Made(entry))
    }

    /// Begins to measure peak memory. The system has one counter, so the peak of the enclosing artefact so far is
    /// saved.
    fn start_peak(&self) {
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outer) = peaks.last_mut() {
            *outer = (*outer).max(memory::peak_bytes());
        }
        peaks.push(None);
        memory::reset_peak();
    }

    /// Peak memory since the matching [`Store::start_peak`], if the system reports it.
    fn end_peak(&self) -> Option<u64> {
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let peak = peaks.pop().flatten().max(memory::peak_bytes());
        if let Some(outer) = peaks.last_mut() {
            *outer = (*outer).max(peak);
        }
        peak
    }
}
