//! Several processes that train one model: rank, size, and the few exchanges between them.
//!
//! [`Collective`] has two operations of its own, `send` and `receive`; sums and broadcasts are made of them in one fixed
//! order, the order of the ranks, so that a result does not depend on which message arrives first. [`Alone`] is one rank
//! and costs nothing; [`TcpGroup`] connects processes on any machines. A transport of the devices (NCCL) would be a third
//! implementation and may replace the provided methods by its own.

mod addresses;
mod error;
mod gather;
mod handshake;
mod link;
mod message;
mod place;
mod tcp;
#[cfg(test)]
mod tests;
mod timing;

pub use error::CollectiveError;
pub use gather::gather;
pub use message::{hear, tell};
pub use place::Place;
pub use tcp::TcpGroup;
pub use timing::Timing;

/// How many bytes are summed at once: a sum needs this much memory besides the numbers themselves.
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
            return numbers.chunks(PART / 4).try_for_each(|part| self.send(&bytes_of(part), owner));
        }
        let mut received = vec![0u8; PART.min(4 * numbers.len())];
        for part in numbers.chunks_mut(PART / 4) {
            let own = part.to_vec();
            for rank in 0..self.size() {
                let add =
                    |(sum, number): (&mut f32, f32)| *sum = if rank == 0 { number } else { *sum + number };
                if rank == owner {
                    part.iter_mut().zip(own.iter().copied()).for_each(add);
                } else {
                    let bytes = &mut received[..4 * part.len()];
                    self.receive(bytes, rank)?;
                    part.iter_mut().zip(numbers_of(bytes)).for_each(add);
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
        if self.size() == 1 {
            return Ok(());
        }
        let mut bytes = bytes_of(numbers);
        self.broadcast(&mut bytes, owner)?;
        numbers.iter_mut().zip(numbers_of(&bytes)).for_each(|(number, sent)| *number = sent);
        Ok(())
    }

    /// Replaces each number by its sum over all ranks, in their order.
    fn sum(&self, numbers: &mut [f64]) -> Result<(), CollectiveError> {
        if self.size() == 1 {
            return Ok(());
        }
        let own: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.others().try_for_each(|rank| self.send(&own, rank))?;
        let mut bytes = vec![0; own.len()];
        for rank in 0..self.size() {
            if rank == self.rank() {
                bytes.copy_from_slice(&own);
            } else {
                self.receive(&mut bytes, rank)?;
            }
            let sent = bytes.as_chunks().0.iter().map(|number| f64::from_le_bytes(*number));
            let add = |(sum, number): (&mut f64, f64)| *sum = if rank == 0 { number } else { *sum + number };
            numbers.iter_mut().zip(sent).for_each(add);
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

/// Little-endian, as on every machine that candle runs on and in the files that it writes.
fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn numbers_of(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number))
}
