//! Sequences that are the same on every machine and after every resumption.

use rand_core::Rng;

/// The `index`-th element of a sequence that covers 0..1 evenly at any length: multiples of the golden ratio.
pub(super) fn spread(index: usize, offset: f64) -> f64 {
    const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
    (offset + index as f64 * GOLDEN_RATIO).fract()
}

/// A number below `limit`: the high half of a product, so that it does not depend on the method of a library.
pub fn below(stream: &mut impl Rng, limit: u64) -> u64 {
    ((u128::from(stream.next_u64()) * u128::from(limit)) >> 64) as u64
}

/// The numbers below `count` in a random order (Fisher and Yates, from the end).
pub fn shuffled(stream: &mut impl Rng, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(stream, last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Random;

    #[test]
    fn spread_visits_every_tenth_soon() {
        let mut tenths = [0; 10];
        for index in 0..40 {
            tenths[(spread(index, 0.3) * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (3..=5).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn draws_cover_their_range() {
        let mut stream = Random::new(1, "x").stream("y", 0);
        let mut seen = [false; 7];
        (0..200).for_each(|_| seen[below(&mut stream, 7) as usize] = true);
        assert_eq!(seen, [true; 7]);
    }

    #[test]
    fn a_shuffle_holds_every_number_once() {
        let shuffle = |index| shuffled(&mut Random::new(1, "x").stream("y", index), 20);
        assert_ne!(shuffle(0), shuffle(1));
        let mut sorted = shuffle(0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
