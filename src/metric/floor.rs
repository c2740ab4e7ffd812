//! The floor of a metric: what pictures get that have nothing to do with their prompts. Scores of CLIP models lie in a
//! narrow band, so a plain percentage of the teacher's value flatters a model whose pictures are wrecked; a percentage of
//! the distance from the floor does not.

use rand::RngExt;

use crate::backend::Random;

/// An order in which no prompt stays in its place, the same in every evaluation of so many prompts: Sattolo's algorithm
/// (1986), which draws a single cycle through all of them. `None` for fewer than two.
pub(super) fn derangement(count: usize) -> Option<Vec<u32>> {
    let mut order: Vec<u32> = (0..u32::try_from(count).ok()?).collect();
    let mut stream = Random::new(0, "floor").stream("captions", 0);
    for last in (1..order.len()).rev() {
        order.swap(last, stream.random_range(0..last));
    }
    (count > 1).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_caption_stays_with_its_picture() {
        for count in 2..60 {
            let order = derangement(count).expect("there are two");
            assert!(order.iter().enumerate().all(|(place, &prompt)| place != prompt as usize), "{order:?}");
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count as u32).collect::<Vec<_>>());
            assert_eq!(derangement(count), Some(order));
        }
        assert_eq!((derangement(0), derangement(1)), (None, None));
    }
}
