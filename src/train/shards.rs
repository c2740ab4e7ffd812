//! Who owns which tensor when several ranks train. The owner sums the gradients of all ranks, keeps moments and average,
//! updates the tensor and gives it to the others: ZeRO stage 1 (Rajbhandari et al. 2020), by whole tensors, so that tensors
//! stay what they are. At most one gradient is copied at a time.

use std::cmp::Reverse;

use candle_core::{DType, Device, Tensor, Var};
use safetensors::View;

use super::TrainError;
use super::cards::{self, Cards};
use super::collective::Collective;
use crate::nn::copies;
use crate::nn::gradients::{Clip, Gradients};

/// The tensors of a training, each with its owner.
pub struct Shards<'a> {
    collective: &'a dyn Collective,
    /// The way from GPU to GPU, where there is one.
    cards: Option<Cards<'a>>,
    owners: Vec<usize>,
}

impl<'a> Shards<'a> {
    /// Divides tensors of these sizes: the largest first, each to the rank that has least so far. All ranks come to the
    /// same division.
    pub fn new(collective: &'a dyn Collective, sizes: &[usize]) -> Self {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|&index| (Reverse(sizes[index]), index));
        let (mut owners, mut loads) = (vec![0; sizes.len()], vec![0usize; collective.size()]);
        for index in order {
            let owner = (0..loads.len()).min_by_key(|&rank| (loads[rank], rank)).unwrap_or(0);
            loads[owner] += sizes[index];
            owners[index] = owner;
        }
        Self { collective, cards: None, owners }
    }

    /// Lets the GPUs of all ranks exchange without the host if they can; otherwise says why they cannot.
    pub fn connect(&mut self, device: &Device) -> Result<Option<String>, TrainError> {
        let (cards, reason) = cards::connect(self.collective, device)?;
        self.cards = cards;
        Ok(reason)
    }

    /// The ranks.
    pub fn collective(&self) -> &'a dyn Collective {
        self.collective
    }

    /// The rank that owns a tensor.
    pub fn owner(&self, index: usize) -> usize {
        self.owners[index]
    }

    /// Whether this rank owns a tensor.
    pub fn owns(&self, index: usize) -> bool {
        self.owners[index] == self.collective.rank()
    }

    /// Replaces each gradient by its sum over all ranks where it is owned, and removes it elsewhere.
    pub fn reduce(&self, gradients: &mut Gradients) -> Result<(), TrainError> {
        if self.collective.size() == 1 {
            return Ok(());
        }
        if let Some(cards) = &self.cards {
            return cards.exchange(|| gradients.replace(|index, own| cards.sum(&own, self.owners[index])));
        }
        gradients.replace(|index, gradient| {
            let mut numbers = numbers(&gradient)?;
            self.collective.reduce(&mut numbers, self.owners[index])?;
            let sum = || Tensor::from_vec(numbers, gradient.shape(), gradient.device());
            Ok(self.owns(index).then(sum).transpose()?)
        })
    }

    /// The L2 norm of all gradients together, after [`Shards::reduce`], and the factor that limits it to `largest`. It stays on
    /// a GPU that trains alone; several ranks wait for each other anyway.
    pub fn clip(&self, gradients: &Gradients, largest: f64) -> Result<Clip, TrainError> {
        if self.collective.size() == 1 {
            return Ok(gradients.clip(largest)?);
        }
        let own = gradients.norm()?;
        let mut square = [own * own];
        self.collective.sum(&mut square)?;
        Ok(Clip::known(square[0].sqrt(), largest))
    }

    /// A tensor, like `like`, that only its owner has: on rank 0, and on its owner.
    pub fn fetch(
        &self,
        index: usize,
        own: Option<&Var>,
        like: &Tensor,
    ) -> Result<Option<Tensor>, TrainError> {
        let (rank, owner) = (self.collective.rank(), self.owners[index]);
        if let Some(own) = own {
            if rank > 0 {
                self.collective.send(&own.as_tensor().data(), 0)?;
            }
            return Ok(Some(own.as_detached_tensor()));
        }
        if rank > 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; like.elem_count() * DType::F32.size_in_bytes()];
        self.collective.receive(&mut bytes, owner)?;
        Ok(Some(Tensor::from_raw_buffer(&bytes, DType::F32, like.dims(), &Device::Cpu)?))
    }

    /// Gives all ranks the tensors of their owners.
    pub fn share<'v>(&self, variables: impl Iterator<Item = &'v Var>) -> Result<(), TrainError> {
        if self.collective.size() == 1 {
            return Ok(());
        }
        if let Some(cards) = &self.cards {
            let share = |(index, variable): (usize, &Var)| cards.share(variable, self.owners[index]);
            return cards.exchange(|| variables.enumerate().try_for_each(share));
        }
        for (index, variable) in variables.enumerate() {
            let mut numbers = numbers(variable)?;
            self.collective.broadcast_numbers(&mut numbers, self.owners[index])?;
            if !self.owns(index) {
                copies::set(variable, &Tensor::from_vec(numbers, variable.shape(), variable.device())?)?;
            }
        }
        Ok(())
    }
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::collective::CollectiveError;

    /// Of several ranks, without the others.
    struct One(usize);

    impl Collective for One {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            self.0
        }

        fn send(&self, _bytes: &[u8], _to: usize) -> Result<(), CollectiveError> {
            Ok(())
        }

        fn receive(&self, _bytes: &mut [u8], _from: usize) -> Result<(), CollectiveError> {
            Ok(())
        }

        fn fail(&self, _reason: &str) {}
    }

    #[test]
    fn every_tensor_has_one_owner_and_the_work_is_even() {
        // As in a U-Net: few large tensors, many small ones.
        let sizes: Vec<usize> = (0..700).map(|index| 1 + 1_000_000 / (1 + index % 97)).collect();
        for ranks in 1..9 {
            let group = One(ranks);
            let shards = Shards::new(&group, &sizes);
            let load = |rank| -> usize {
                sizes
                    .iter()
                    .zip(&shards.owners)
                    .filter(|(_, owner)| **owner == rank)
                    .map(|(size, _)| size)
                    .sum()
            };
            let loads: Vec<usize> = (0..ranks).map(load).collect();
            assert_eq!(loads.iter().sum::<usize>(), sizes.iter().sum::<usize>());
            let (least, most) = (loads.iter().min(), loads.iter().max());
            assert!(most.zip(least).is_some_and(|(most, least)| 100 * (most - least) <= *most), "{loads:?}");
        }
    }
}
