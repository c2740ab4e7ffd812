//! Gradients and weights of several ranks go from GPU to GPU by NCCL, without the host. Sums have the order of the ranks, as
//! through the host: a result does not depend on the way.
//!
//! NCCL waits for ever for a rank that is gone. So all ranks meet through their [`Collective`] before an exchange, which
//! names one that is lost, and while the GPU works the host looks whether a connection was closed.

use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, Var};

use super::TrainError;
use super::collective::{Collective, CollectiveError};
use crate::backend::nccl::{self, Group, GroupName, IsDone, Nccl, Numbers, Stream};
use crate::backend::stream_of;
use crate::nn::{address_of, copies};

/// How long an exchange may take: a hundred times what all gradients of SDXL take through the slowest slot.
const LONGEST: Duration = Duration::from_secs(300);

/// Between two looks at the GPU: short compared with a step.
const PAUSE: Duration = Duration::from_micros(50);

/// The GPUs of all ranks.
pub(super) struct Cards<'a> {
    collective: &'a dyn Collective,
    group: Group,
    work: Work,
}

/// The work of this rank's GPU.
pub(super) struct Work {
    pub(super) stream: Stream,
    /// Whether all of it is done.
    pub(super) is_done: IsDone,
}

/// The GPUs of all ranks if each has one and the library; otherwise why they exchange through the host, if that is worth a
/// word. All ranks come to the same end.
pub(super) fn connect<'a>(
    collective: &'a dyn Collective,
    device: &Device,
) -> Result<(Option<Cards<'a>>, Option<String>), TrainError> {
    let work = stream_of(device).map(|(stream, is_done)| Work { stream, is_done });
    if collective.size() == 1 || collective.any(work.is_none())? {
        return Ok((None, None));
    }
    let joined = match agree(collective, Nccl::open(nccl::LIBRARY))? {
        Ok(nccl) => join(collective, nccl)?,
        Err(reason) => Err(reason),
    };
    Ok(match (joined, work) {
        (Ok(group), Some(work)) => (Some(Cards { collective, group, work }), None),
        (Err(reason), _) => {
            (None, Some(format!("gradients of several GPUs pass through the host: {reason}")))
        }
        (Ok(_), None) => (None, None),
    })
}

/// Joins the group that rank 0 names.
pub(super) fn join(collective: &dyn Collective, nccl: Nccl) -> Result<Result<Group, String>, TrainError> {
    let named = match collective.rank() {
        0 => nccl.name_group(),
        _ => Ok(GroupName([0; 128])),
    };
    let mut name = match agree(collective, named)? {
        Ok(name) => name,
        Err(reason) => return Ok(Err(reason)),
    };
    collective.broadcast(&mut name.0, 0)?;
    agree(collective, nccl.join(name, collective.rank(), collective.size()))
}

/// This rank's value, if every rank has one.
fn agree<T>(collective: &dyn Collective, own: Result<T, String>) -> Result<Result<T, String>, TrainError> {
    Ok(match (collective.any(own.is_err())?, own) {
        (true, Ok(_)) => Err("another rank cannot use NCCL, and says why".to_owned()),
        (_, own) => own,
    })
}

impl<'a> Cards<'a> {
    #[cfg(test)]
    pub(super) fn new(collective: &'a dyn Collective, group: Group, work: Work) -> Self {
        Self { collective, group, work }
    }

    /// Meets all ranks, lets `exchange` put exchanges on the stream, and waits until they are done. It gives what the GPU uses
    /// until then.
    pub(super) fn exchange<T>(
        &self,
        exchange: impl FnOnce() -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        self.wait()?;
        self.collective.any(false)?;
        let used = exchange()?;
        self.wait()?;
        Ok(used)
    }

    /// Waits until the GPU has done all its work.
    fn wait(&self) -> Result<(), TrainError> {
        let until = Instant::now() + LONGEST;
        let failed = |reason: String| TrainError::from(CollectiveError::Cards { reason });
        while !(self.work.is_done)().map_err(failed)? {
            self.collective.lost()?;
            if let Some(reason) = self.group.failure() {
                return Err(failed(reason));
            }
            if Instant::now() >= until {
                return Err(failed(format!("an exchange takes more than {} seconds", LONGEST.as_secs())));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The sum of a tensor over all ranks, at its owner. Within [`Cards::exchange`].
    pub(super) fn sum(&self, own: &Tensor, owner: usize) -> Result<Option<Tensor>, TrainError> {
        let own = own.to_dtype(DType::F32)?.contiguous()?;
        if self.collective.rank() != owner {
            let numbers = numbers(&own)?;
            // SAFETY: the tensor is on the stream of its device, where it is also freed.
            unsafe { self.group.send(numbers, owner, self.work.stream) }.map_err(failed)?;
            return Ok(None);
        }
        let mut sum: Option<Tensor> = None;
        for rank in 0..self.collective.size() {
            let addend = if rank == owner { own.clone() } else { self.received(&own, rank)? };
            sum = Some(match sum {
                None => addend,
                Some(sum) => (sum + addend)?,
            });
        }
        Ok(sum)
    }

    /// A tensor of the shape of `like`, from another rank.
    fn received(&self, like: &Tensor, from: usize) -> Result<Tensor, TrainError> {
        let fresh = like.zeros_like()?;
        // SAFETY: nobody else knows the tensor yet.
        unsafe { self.group.receive(numbers(&fresh)?, from, self.work.stream) }.map_err(failed)?;
        Ok(fresh)
    }

    /// Gives a variable the numbers that its owner has. Within [`Cards::exchange`].
    pub(super) fn share(&self, variable: &Var, owner: usize) -> Result<(), TrainError> {
        // SAFETY: what read the variable before is earlier on the stream, and what reads it next is later.
        unsafe { self.group.broadcast(numbers(variable)?, owner, self.work.stream) }.map_err(failed)?;
        match self.collective.rank() == owner {
            true => Ok(()),
            false => Ok(copies::renew(variable)?),
        }
    }
}

fn failed(reason: String) -> TrainError {
    CollectiveError::Cards { reason }.into()
}

fn numbers(tensor: &Tensor) -> candle_core::Result<Numbers> {
    Ok(Numbers { address: address_of(tensor)?, count: tensor.elem_count() })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::super::collective::tests::{numbers, ranks};
    use super::*;

    /// The library that stands in for NCCL: ranks are threads, and the memory of a GPU is the host's.
    const FAKE: &str = include_str!("../../tests/fake_nccl/nccl.c");

    fn fake(folder: &std::path::Path) -> Nccl {
        let (source, library) = (folder.join("fake.c"), folder.join("libfake.so"));
        std::fs::write(&source, FAKE).expect("writable");
        // Rust's linker needs the same compiler.
        let compiled = std::process::Command::new("cc")
            .args(["-shared", "-fPIC", "-pthread", "-o"])
            .args([&library, &source])
            .status();
        assert!(compiled.expect("there is a compiler").success());
        Nccl::open(library.to_str().expect("plain text")).expect("it has all calls")
    }

    /// A card whose work is done when it is asked for; with `false`, one that never ends.
    fn work(is_done: bool) -> Work {
        Work { stream: Stream(std::ptr::dangling_mut()), is_done: Box::new(move || Ok(is_done)) }
    }

    #[test]
    fn exchanges_between_cards_give_the_bytes_of_those_through_the_host() {
        let folder = tempfile::tempdir().expect("a folder");
        let nccl = fake(folder.path());
        const SHAPES: [(usize, usize); 4] = [(1, 1), (3, 5), (128, 33), (7, 1)];
        let tensor = |rank: usize, index: usize| {
            let (rows, columns) = SHAPES[index];
            Tensor::from_vec(numbers(rank, index, rows * columns), (rows, columns), &Device::Cpu)
                .expect("its size")
        };
        let results = ranks(3, |collective| {
            let group = join(&collective, nccl).expect("all ranks live").expect("all have joined");
            let cards = Cards::new(&collective, group, work(true));
            let sums = cards.exchange(|| {
                (0..4)
                    .map(|index| cards.sum(&tensor(collective.rank(), index), index % 3))
                    .collect::<Result<Vec<_>, _>>()
            });
            let sums = sums.expect("all ranks live");
            let variables: Vec<_> = (0..4)
                .map(|index| Var::from_tensor(&tensor(collective.rank(), index)).expect("memory"))
                .collect();
            cards
                .exchange(|| {
                    variables
                        .iter()
                        .enumerate()
                        .try_for_each(|(index, variable)| cards.share(variable, index % 3))
                })
                .expect("all ranks live");
            let bits = |tensor: &Tensor| -> Vec<u32> {
                let flat = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("on the CPU");
                flat.into_iter().map(f32::to_bits).collect()
            };
            let mut through_host = Vec::new();
            for index in 0..4 {
                let mut own = numbers(collective.rank(), index, tensor(0, index).elem_count());
                collective.reduce(&mut own, index % 3).expect("all ranks live");
                through_host.push(
                    (collective.rank() == index % 3)
                        .then(|| own.into_iter().map(f32::to_bits).collect::<Vec<_>>()),
                );
            }
            let sums: Vec<_> = sums.iter().map(|sum| sum.as_ref().map(&bits)).collect();
            assert_eq!(sums, through_host);
            variables.iter().map(|variable| bits(variable)).collect::<Vec<_>>()
        });
        for shared in &results {
            for (index, variable) in shared.iter().enumerate() {
                let owner = numbers(index % 3, index, variable.len());
                assert_eq!(
                    *variable,
                    owner.into_iter().map(f32::to_bits).collect::<Vec<_>>(),
                    "tensor {index}"
                );
            }
        }
    }

    #[test]
    fn a_rank_that_is_lost_in_the_middle_of_an_exchange_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let nccl = fake(folder.path());
        let errors = ranks(2, |collective| {
            let group = join(&collective, nccl).expect("all ranks live").expect("all have joined");
            if collective.rank() == 1 {
                return None;
            }
            // Its card waits for the other one, which sends nothing any more.
            Cards::new(&collective, group, work(false)).wait().err().map(|error| error.to_string())
        });
        let error = errors[0].as_deref().expect("nobody answers");
        assert!(
            error.starts_with("rank 1 on ") && error.ends_with("is gone: its connection was closed"),
            "{error}"
        );
    }

    #[test]
    fn all_ranks_agree_where_one_cannot() {
        let answers = ranks(2, |collective| {
            let own = if collective.rank() == 1 { Err("libnccl.so.2 not found".to_owned()) } else { Ok(()) };
            let agreed = agree(&collective, own).expect("all ranks live");
            (agreed, connect(&collective, &Device::Cpu).expect("all ranks live").1)
        });
        let [(Err(other), None), (Err(own), None)] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(
            (other.as_str(), own.as_str()),
            ("another rank cannot use NCCL, and says why", "libnccl.so.2 not found")
        );
    }
}
