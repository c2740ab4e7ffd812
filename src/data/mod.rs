//! Prompts, pictures and calibration points.

pub mod calibration;
mod captioned;
mod error;
pub mod pictures;
pub mod prompts;
pub mod text;
mod trajectories;

pub use calibration::{Calibration, Points};
pub use captioned::Captioned;
pub use error::DataError;
pub use text::Encoder;
pub use trajectories::Trajectories;

/// The `index`-th of a sequence that covers 0..1 evenly however long it becomes: multiples of the golden ratio.
fn spread(index: usize, offset: f64) -> f64 {
    const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
    (offset + index as f64 * GOLDEN_RATIO).fract()
}

#[cfg(test)]
mod tests {
    #[test]
    fn spread_visits_every_tenth_soon() {
        let mut tenths = [0; 10];
        for index in 0..40 {
            tenths[(super::spread(index, 0.3) * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (3..=5).contains(&count)), "{tenths:?}");
    }
}
