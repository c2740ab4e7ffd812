//! The sizes that pictures are cropped to: one, or one for each aspect ratio, as SDXL was trained (Podell et al. 2023,
//! section 2.3 and appendix I).
//!
//! The sides are multiples of a step, and the area is between 90 and 100 % of the model's. At 1024x1024 with a step of
//! 64 pixels these are the 40 sizes of the paper and 1344x704, which its table has only in the other direction.

/// The most that one side is longer than the other.
const MOST_RATIO: usize = 4;

/// The sides are at least a sixteenth of the model's apart, 64 pixels of SDXL's 1024.
const STEPS: usize = 16;

/// The sizes, each height and width in pixels; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Vec<(usize, usize)>);

impl Buckets {
    /// A single size.
    pub fn one(size: (usize, usize)) -> Self {
        Self(vec![size])
    }

    /// Sizes of about the area of `size`. The network takes sides that are multiples of `multiple` pixels.
    pub fn around(size: (usize, usize), multiple: usize) -> Self {
        let area = size.0 * size.1;
        let side = area.isqrt();
        let step = (side / STEPS / multiple).max(1) * multiple;
        let sides = || (step..=MOST_RATIO * side).step_by(step);
        let fits = |&(height, width): &(usize, usize)| {
            let found = height * width;
            found <= area && 10 * found >= 9 * area && height.max(width) <= MOST_RATIO * height.min(width)
        };
        let mut sizes: Vec<_> =
            sides().flat_map(|height| sides().map(move |width| (height, width))).filter(fits).collect();
        if !sizes.contains(&size) {
            sizes.push(size);
        }
        Self(sizes)
    }

    /// The sizes.
    pub fn sizes(&self) -> &[(usize, usize)] {
        &self.0
    }

    /// The size whose aspect ratio is nearest to that of a picture of `width` x `height` pixels.
    pub fn nearest(&self, (width, height): (u32, u32)) -> (usize, usize) {
        let ratio = f64::from(width) / f64::from(height);
        let far = |&(height, width): &(usize, usize)| (width as f64 / height as f64 / ratio).ln().abs();
        let nearest = self.0.iter().min_by(|one, two| far(one).total_cmp(&far(two)));
        *nearest.expect("there is at least one size")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdxl_has_the_sizes_of_its_paper() {
        let buckets = Buckets::around((1024, 1024), 32);
        let paper = [
            (512, 2048),
            (512, 1984),
            (512, 1920),
            (512, 1856),
            (576, 1792),
            (576, 1728),
            (576, 1664),
            (640, 1600),
            (640, 1536),
            (704, 1472),
            (704, 1408),
            (704, 1344),
            (768, 1344),
            (768, 1280),
            (832, 1216),
            (832, 1152),
            (896, 1152),
            (896, 1088),
            (960, 1088),
            (960, 1024),
        ];
        let mut expected: Vec<_> = paper.into_iter().chain(paper.map(|(one, two)| (two, one))).collect();
        expected.push((1024, 1024));
        expected.sort_unstable();
        assert_eq!(buckets.sizes(), expected);
        assert_eq!(buckets.nearest((3000, 2000)), (832, 1216));
        assert_eq!(buckets.nearest((30_000, 1)), (512, 2048));
        assert_eq!(buckets.nearest((7, 7)), (1024, 1024));
    }

    #[test]
    fn a_small_model_has_few() {
        assert_eq!(
            Buckets::around((64, 64), 16).sizes(),
            [(32, 128), (48, 80), (64, 64), (80, 48), (128, 32)]
        );
        assert_eq!(Buckets::around((24, 40), 16).sizes().last(), Some(&(24, 40)));
    }
}
