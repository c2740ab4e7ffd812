//! The remote of a cache: opened when it is first needed, and left alone for a while when it is in trouble.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::contract::{Remote, Trouble};
use super::{Address, RemoteError};
use crate::base::Interrupt;

/// How long a remote that was in trouble is not asked. A run of many stages would otherwise wait for each of them, and a long
/// one would never use it again.
const REST: Duration = Duration::from_secs(300);

/// A remote that a cache shares its artefacts with.
pub struct Shared {
    address: Address,
    endpoint: Option<String>,
    remote: OnceLock<Result<Box<dyn Remote>, String>>,
    rests: Mutex<[Option<Instant>; 2]>,
}

/// What is done with a remote. One that may only be read is in trouble for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cache) enum Way {
    Pull = 0,
    Push = 1,
}

impl Shared {
    /// The remote at an address; `endpoint` is the server to ask if it is not the usual one of its kind. Nothing is asked
    /// yet.
    pub fn new(address: Address, endpoint: Option<String>) -> Result<Self, RemoteError> {
        if address.kind().open.is_none() {
            return Err(RemoteError::NotBuilt { address: address.to_string() });
        }
        Ok(Self { address, endpoint, remote: OnceLock::new(), rests: Mutex::default() })
    }

    /// One that a test has made.
    #[cfg(test)]
    pub(in crate::cache) fn of(remote: Box<dyn Remote>) -> Self {
        let address = "a remote of a test".parse().expect("the name of a folder");
        Self { address, endpoint: None, remote: OnceLock::from(Ok(remote)), rests: Mutex::default() }
    }

    /// Its address, which holds no credentials.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The remote itself.
    pub(in crate::cache) fn open(&self) -> Result<&dyn Remote, Trouble> {
        let open = || {
            let open = self.address.kind().open.expect("`new` has looked");
            open(self.address.place(), self.endpoint.as_deref()).map_err(|trouble| trouble.text())
        };
        let remote = self.remote.get_or_init(open).as_ref();
        remote.map(|remote| &**remote).map_err(|text| Trouble::Lasting(text.clone()))
    }

    /// Why it cannot be read at this moment; `None` if it answers.
    pub fn problem(&self, stop: &Interrupt) -> Option<String> {
        let asked = self.open().and_then(|remote| remote.get("v1/version", &mut io::sink(), stop));
        match asked {
            Ok(()) | Err(Trouble::Absent) => None,
            Err(trouble) => Some(trouble.text()),
        }
    }

    /// Whether it is not to be asked now.
    pub(in crate::cache) fn rests(&self, way: Way) -> bool {
        self.times()[way as usize].is_some_and(|since| since.elapsed() < REST)
    }

    /// It was in trouble: it is not asked for a while.
    pub(in crate::cache) fn rest(&self, way: Way) {
        self.times()[way as usize] = Some(Instant::now());
    }

    fn times(&self) -> MutexGuard<'_, [Option<Instant>; 2]> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
