//! How much of a Gram matrix's diagonal can be made linear while the rest stays convex.
//!
//! For a unit that is either removed or kept, `x^2 = x`, so any `d` gives `x' G x = x' (G - diag d) x + d' x`. For the
//! fractional shares of a relaxation, the right side increases with `d`. The best `d` solves a semidefinite program (Billionnet,
//! Elloumi and Plateau 2009, "quadratic convex reformulation"): here, for given worths `w`, the maximum of `w' d` with
//! `G - diag d` positive semidefinite, by Newton's method on the logarithmic barrier.

/// Barrier weights, relative to the mean worth of a unit. The last leaves a gap of a thousandth.
const BARRIERS: [f64; 6] = [1.0, 0.3, 0.1, 0.03, 0.01, 0.001];
/// Newton steps for each.
const STEPS: usize = 3;
/// The smallest worth; a worth of zero would leave the program unbounded.
const LEAST_WORTH: f64 = 1e-4;

/// The `d` for a symmetric matrix given row by row; rows of zeros get zero.
pub(super) fn linear_part(gram: &[f64], worth: &[f64]) -> Vec<f64> {
    let n = worth.len();
    // Correlations, so that units of tiny and of huge effect are treated equally.
    let scale: Vec<_> = (0..n).map(|unit| gram[unit * n + unit].max(0.0).sqrt()).collect();
    let used: Vec<_> = (0..n).filter(|&unit| scale[unit] > 0.0).collect();
    let m = used.len();
    let places = used.iter().flat_map(|&row| used.iter().map(move |&column| (row, column)));
    let correlations: Vec<f64> =
        places.map(|(row, column)| gram[row * n + column] / (scale[row] * scale[column])).collect();
    let worth: Vec<_> = used.iter().map(|&unit| worth[unit] * scale[unit] * scale[unit]).collect();
    let mean = worth.iter().sum::<f64>() / m.max(1) as f64;
    let worth: Vec<_> =
        worth.iter().map(|worth| (worth / mean.max(f64::MIN_POSITIVE)).max(LEAST_WORTH)).collect();
    let part = barrier(&correlations, &worth);
    let mut linear = vec![0.0; n];
    for (&unit, part) in used.iter().zip(part) {
        linear[unit] = part * scale[unit] * scale[unit];
    }
    linear
}

/// Maximises `worth' d + barrier * log det (matrix - diag d)` for falling barriers.
fn barrier(matrix: &[f64], worth: &[f64]) -> Vec<f64> {
    let n = worth.len();
    let rest = |part: &[f64]| {
        let mut rest = matrix.to_vec();
        (0..n).for_each(|unit| rest[unit * n + unit] -= part[unit]);
        Cholesky::of(rest, n)
    };
    // Far enough below zero, the rest is positive definite: Gershgorin.
    let row = |row: usize| matrix[row * n..][..n].iter().map(|value| value.abs()).sum::<f64>();
    let mut part = vec![-(0..n).map(row).fold(0.0, f64::max); n];
    for barrier in BARRIERS {
        for _ in 0..STEPS {
            let Some(factor) = rest(&part) else { return part };
            let inverse = factor.inverse();
            let gradient: Vec<_> =
                (0..n).map(|unit| worth[unit] - barrier * inverse[unit * n + unit]).collect();
            let curvature = inverse.iter().map(|value| barrier * value * value).collect();
            let Some(newton) = Cholesky::of(curvature, n) else { return part };
            let step = newton.solve(gradient);
            let mut length = 1.0;
            let next = loop {
                let next: Vec<_> = part.iter().zip(&step).map(|(part, step)| part + length * step).collect();
                if length < 1e-6 || rest(&next).is_some() {
                    break next;
                }
                length *= 0.5;
            };
            if rest(&next).is_none() {
                return part;
            }
            part = next;
        }
    }
    part
}

/// The lower triangle `L` of a positive definite matrix `L L'`.
struct Cholesky {
    lower: Vec<f64>,
    n: usize,
}

impl Cholesky {
    /// None if the matrix is not positive definite.
    fn of(mut matrix: Vec<f64>, n: usize) -> Option<Self> {
        for column in 0..n {
            for row in column..n {
                let (above, below) = matrix.split_at(row * n);
                let done = if row == column { &below[..column] } else { &above[column * n..][..column] };
                let known: f64 = below[..column].iter().zip(done).map(|(a, b)| a * b).sum();
                let left = below[column] - known;
                matrix[row * n + column] = if row > column {
                    left / matrix[column * n + column]
                } else if left > 1e-13 {
                    left.sqrt()
                } else {
                    return None;
                };
            }
        }
        Some(Self { lower: matrix, n })
    }

    fn solve(&self, mut vector: Vec<f64>) -> Vec<f64> {
        let n = self.n;
        for row in 0..n {
            let known: f64 = self.lower[row * n..][..row].iter().zip(&vector).map(|(a, b)| a * b).sum();
            vector[row] = (vector[row] - known) / self.lower[row * n + row];
        }
        for row in (0..n).rev() {
            vector[row] /= self.lower[row * n + row];
            let value = vector[row];
            for (known, lower) in vector[..row].iter_mut().zip(&self.lower[row * n..]) {
                *known -= lower * value;
            }
        }
        vector
    }

    fn inverse(&self) -> Vec<f64> {
        let unit = |place: usize| (0..self.n).map(|other| f64::from(u8::from(other == place))).collect();
        (0..self.n).flat_map(|place| self.solve(unit(place))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_beside_a_factor_becomes_linear() {
        // v v' + diag(2, 3, 1, 4): with every worth equal, that diagonal is the best.
        let (v, noise) = ([1.0, 2.0, -1.0, 0.5], [2.0, 3.0, 1.0, 4.0]);
        let gram: Vec<f64> = (0..16)
            .map(|at| v[at / 4] * v[at % 4] + if at / 4 == at % 4 { noise[at / 4] } else { 0.0 })
            .collect();
        let part = linear_part(&gram, &[1.0; 4]);
        let (found, best): (f64, f64) = (part.iter().sum(), noise.iter().sum());
        assert!(found <= best * 1.01 + 1e-9 && found > 0.99 * best, "{part:?}");
    }

    #[test]
    fn the_rest_is_convex_for_any_matrix() {
        let gram = [1.0, 3.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        let part = linear_part(&gram, &[1.0, 0.0, 1.0]);
        let rest = [1.0 - part[0], 3.0, 3.0, 1.0 - part[1]];
        assert!(rest[0] > 0.0 && rest[0] * rest[3] >= 9.0 - 1e-6, "{part:?}");
        assert_eq!(part[2], 0.0);
    }
}
