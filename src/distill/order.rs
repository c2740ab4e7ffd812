//! Which row a sample of a batch is. It follows from the index of the sample alone.

use std::collections::BTreeMap;

use crate::backend::Random;
use crate::data::order::shuffled;

/// The order of the rows: every row once per epoch, in a new order each epoch. If the rows have several shapes, each batch is
/// of one shape, and the last batch of a shape takes some rows of the epoch a second time.
pub(super) struct Order {
    /// The rows of each shape.
    shapes: Vec<Vec<usize>>,
    batch: usize,
    /// Samples of an epoch.
    length: usize,
    epoch: Option<u64>,
    shuffled: Vec<usize>,
}

impl Order {
    /// `rows` are those that are trained on; `shape_of` has the place of every row's shape among all shapes.
    pub(super) fn new(rows: &[usize], shape_of: &[usize], batch: usize) -> Self {
        let mut shapes: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        rows.iter().for_each(|&row| shapes.entry(shape_of[row]).or_default().push(row));
        let shapes: Vec<Vec<usize>> = shapes.into_values().collect();
        let length = match shapes.as_slice() {
            [only] => only.len(),
            several => several.iter().map(|rows| rows.len().next_multiple_of(batch)).sum(),
        };
        Self { shapes, batch, length, epoch: None, shuffled: Vec::new() }
    }

    pub(super) fn row(&mut self, sample: u64, random: &Random) -> usize {
        let epoch = sample / self.length as u64;
        if self.epoch != Some(epoch) {
            self.shuffled = self.epoch_rows(epoch, random);
            self.epoch = Some(epoch);
        }
        self.shuffled[(sample % self.length as u64) as usize]
    }

    fn epoch_rows(&self, epoch: u64, random: &Random) -> Vec<usize> {
        let mut stream = random.stream("distill epoch", epoch);
        if let [only] = self.shapes.as_slice() {
            return shuffled(&mut stream, only.len()).into_iter().map(|place| only[place]).collect();
        }
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for rows in &self.shapes {
            let order = shuffled(&mut stream, rows.len());
            let length = rows.len().next_multiple_of(self.batch);
            let drawn: Vec<usize> = (0..length).map(|place| rows[order[place % rows.len()]]).collect();
            batches.extend(drawn.chunks(self.batch).map(<[usize]>::to_vec));
        }
        let order = shuffled(&mut stream, batches.len());
        order.into_iter().flat_map(|batch| batches[batch].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_row_once() {
        let random = Random::new(7, "retrained");
        let mut order = Order::new(&(0..10).collect::<Vec<_>>(), &[0; 10], 4);
        let mut epoch =
            |number: u64| (0..10).map(|i| order.row(number * 10 + i, &random)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_eq!(first, epoch(0), "an epoch can be taken up again");
        for mut rows in [first, second] {
            rows.sort();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_has_one_shape() {
        let (random, shapes) = (Random::new(7, "retrained"), [0, 1, 2, 1, 0, 1, 1, 1, 0, 0]);
        let mut order = Order::new(&(0..10).collect::<Vec<_>>(), &shapes, 2);
        // Four, five and one rows.
        let epoch: Vec<usize> = (0..12).map(|sample| order.row(sample, &random)).collect();
        for batch in epoch.chunks(2) {
            assert_eq!(shapes[batch[0]], shapes[batch[1]], "{epoch:?}");
        }
        let mut rows = epoch.clone();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows, (0..10).collect::<Vec<_>>(), "every row is there");
        let next: Vec<usize> = (12..24).map(|sample| order.row(sample, &random)).collect();
        assert_ne!(epoch, next);
        assert_eq!(order.row(5, &random), epoch[5], "an epoch can be taken up again");
    }
}
