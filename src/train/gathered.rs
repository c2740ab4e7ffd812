//! Tensors that several ranks own, written into one file by rank 0: each is fetched when its bytes are written, so that
//! rank 0 never holds all of them.

use std::borrow::Cow;
use std::cell::RefCell;

use candle_core::{DType, Var};
use safetensors::{Dtype, View};

use super::TrainError;
use super::collective::{Collective, CollectiveError};

/// A tensor of the state of a training, as every rank knows it.
#[derive(Clone)]
pub struct Held {
    /// Its name in a checkpoint.
    pub name: String,
    /// The type of its numbers.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The rank that has it for certain.
    pub owner: usize,
    /// The tensor itself, where this rank has it.
    pub variable: Option<Var>,
}

/// The number that ends the fetching.
const DONE: u64 = u64::MAX;

/// Calls `write`, on rank 0, with tensors that fetch themselves. All other ranks [`serve`] meanwhile, with an equal list.
pub fn gather<E: From<TrainError>>(
    collective: &dyn Collective,
    all: &[Held],
    write: impl FnOnce(Vec<(&str, Fetched<'_>)>) -> Result<(), E>,
) -> Result<(), E> {
    let failed = RefCell::new(None);
    let fetched = all
        .iter()
        .enumerate()
        .map(|(index, held)| (held.name.as_str(), Fetched { collective, index, held, failed: &failed }));
    let written = write(fetched.collect());
    if let Some(error) = failed.take() {
        return Err(TrainError::from(error).into());
    }
    written?;
    Ok(release(collective)?)
}

/// Tells those that [`serve`] that nothing more is fetched.
pub fn release(collective: &dyn Collective) -> Result<(), TrainError> {
    Ok(collective.others().try_for_each(|rank| collective.send(&DONE.to_le_bytes(), rank))?)
}

/// Sends rank 0 what it asks for.
pub fn serve(collective: &dyn Collective, all: &[Held]) -> Result<(), TrainError> {
    loop {
        let mut asked = [0; 8];
        collective.receive(&mut asked, 0)?;
        let asked = u64::from_le_bytes(asked);
        if asked == DONE {
            return Ok(());
        }
        let held = all.get(asked as usize).and_then(|held| held.variable.as_ref());
        let variable =
            held.unwrap_or_else(|| panic!("BUG: rank 0 asks for tensor {asked}, which is not here"));
        collective.send(&variable.as_tensor().data(), 0)?;
    }
}

/// A tensor whose bytes come from its owner.
pub struct Fetched<'a> {
    collective: &'a dyn Collective,
    index: usize,
    held: &'a Held,
    failed: &'a RefCell<Option<CollectiveError>>,
}

impl View for Fetched<'_> {
    fn dtype(&self) -> Dtype {
        self.held.dtype.into()
    }

    fn shape(&self) -> &[usize] {
        &self.held.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if let Some(variable) = &self.held.variable {
            return variable.as_tensor().data();
        }
        let mut bytes = vec![0; self.data_len()];
        // The file is not used after a failure.
        if self.failed.borrow().is_none() {
            let asked = self.collective.send(&(self.index as u64).to_le_bytes(), self.held.owner);
            let received = asked.and_then(|()| self.collective.receive(&mut bytes, self.held.owner));
            *self.failed.borrow_mut() = received.err();
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.held.shape.iter().product::<usize>() * self.held.dtype.size_in_bytes()
    }
}
