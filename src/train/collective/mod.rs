//! Several processes that train one model: rank, size, and the few exchanges between them.
//!
//! [`Collective`] has two operations of its own, `send` and `receive`; sums and broadcasts are made of them in one fixed
//! order, the order of the ranks, so that a result does not depend on which message arrives first. [`Alone`] is one rank
//! and costs nothing; [`TcpGroup`] connects processes on any machines. What several
//! GPUs exchange may take a shorter way (`train::cards`).

mod addresses;
mod error;
mod gather;
mod handshake;
mod link;
mod message;
mod place;
mod tcp;
#[cfg(test)]
pub(super) mod tests;
mod timing;

pub use error::CollectiveError;
pub use gather::gather;
pub use message::{hear, tell};
pub use place::Place;
pub use tcp::TcpGroup;
pub use timing::Timing;

/// How many bytes are summed or sent at once: a sum needs this much memory besides the numbers themselves. Numbers travel as
/// they lie in memory, since candle supports little-endian machines only.
const PART: usize = 1 << 20;

/// Processes that train together. Every rank calls the same operations in the same order.
pub trait Collective: Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// Sends bytes to another rank. Returns before they arrive.
    fn send(&self, bytes: &[u8], to: usize) -> Result<(), CollectiveError>;

    /// Receives the next bytes of another rank.
    fn receive(&self, bytes: &mut [u8], from: usize) -> Result<(), CollectiveError>;

    /// Fails if a rank is known to be gone. Does not wait for anybody.
    fn lost(&self) -> Result<(), CollectiveError> {
        Ok(())
    }

    /// Tells all others that this rank failed in the middle of an exchange, so that they can say why they stop too. Nothing
    /// can be exchanged afterwards.
    fn fail(&self, reason: &str);

    /// Leaves `numbers[i]` of rank 0, plus that of rank 1, and so on, in the numbers of `owner`; those of the other ranks
    /// keep their values.
    fn reduce(&self, numbers: &mut [f32], owner: usize) -> Result<(), CollectiveError> {
        if self.size() == 1 {
            return Ok(());
        }
        if self.rank() != owner {
            return self.send(bytemuck::cast_slice(numbers), owner);
        }
        let mut received = vec![0f32; (PART / 4).min(numbers.len())];
        for part in numbers.chunks_mut(PART / 4) {
            let own = part.to_vec();
            for rank in 0..self.size() {
                let addends = match rank == owner {
                    true => &own,
                    false => {
                        let received = &mut received[..part.len()];
                        self.receive(bytemuck::cast_slice_mut(received), rank)?;
                        &*received
                    }
                };
                match rank {
                    0 => part.copy_from_slice(addends),
                    _ => part.iter_mut().zip(addends).for_each(|(sum, number)| *sum += number),
                }
            }
        }
        Ok(())
    }

    /// Copies the bytes of `owner` to all ranks.
    fn broadcast(&self, bytes: &mut [u8], owner: usize) -> Result<(), CollectiveError> {
        if self.rank() != owner {
            return self.receive(bytes, owner);
        }
        self.others().try_for_each(|rank| self.send(bytes, rank))
    }

    /// Copies the numbers of `owner` to all ranks.
    fn broadcast_numbers(&self, numbers: &mut [f32], owner: usize) -> Result<(), CollectiveError> {
        self.broadcast(bytemuck::cast_slice_mut(numbers), owner)
    }

    /// Replaces each number by its sum over all ranks, in their order.
    fn sum(&self, numbers: &mut [f64]) -> Result<(), CollectiveError> {
        if self.size() == 1 {
            return Ok(());
        }
        let own = numbers.to_vec();
        self.others().try_for_each(|rank| self.send(bytemuck::cast_slice(&own), rank))?;
        let mut received = own.clone();
        for rank in 0..self.size() {
            match rank == self.rank() {
                true => received.copy_from_slice(&own),
                false => self.receive(bytemuck::cast_slice_mut(&mut received), rank)?,
            }
            match rank {
                0 => numbers.copy_from_slice(&received),
                _ => numbers.iter_mut().zip(&received).for_each(|(sum, number)| *sum += number),
            }
        }
        Ok(())
    }

    /// Whether any rank says so.
    fn any(&self, flag: bool) -> Result<bool, CollectiveError> {
        let mut count = [f64::from(u8::from(flag))];
        self.sum(&mut count)?;
        Ok(count[0] > 0.0)
    }

    /// The ranks except this one.
    fn others(&self) -> Box<dyn Iterator<Item = usize>> {
        let own = self.rank();
        Box::new((0..self.size()).filter(move |rank| *rank != own))
    }
}

/// One process, which exchanges nothing.
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, _bytes: &[u8], to: usize) -> Result<(), CollectiveError> {
        panic!("BUG: a process that trains alone sends to rank {to}")
    }

    fn receive(&self, _bytes: &mut [u8], from: usize) -> Result<(), CollectiveError> {
        panic!("BUG: a process that trains alone receives from rank {from}")
    }

    fn fail(&self, _reason: &str) {}
}
