//! The exponential and the normal distribution as branch-free code that vectorises.
//!
//! The polynomials are our own minimax fits (Lawson's iteration in double precision); the stated errors are measured by
//! the tests below against `f64`.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// Minus ln 2 in two parts; the first has few enough bits for its product with a small integer to be exact.
pub(super) const LN2_HIGH: f32 = -0.693_359_4;
pub(super) const LN2_LOW: f32 = 2.121_944_4e-4;
/// `(e^r - 1 - r) / r^2` for r up to half of ln 2, the highest power first.
pub(super) const EXP: [f32; 5] = [1.381_459_9e-3, 8.368_717e-3, 4.166_839e-2, 0.166_665_21, 0.499_999_94];

/// `e^x` with a relative error of 1.5e-7 on [-87, 88]; outside, the value at the nearest bound. NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Uses comparisons because f32::max would replace NaN with the bound.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    // Adding 1.5 * 2^23 leaves round(x / ln 2) in the low mantissa bits.
    let shifted = x.mul_add(LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = n.mul_add(LN2_LOW, n.mul_add(LN2_HIGH, x));
    let [first, others @ ..] = EXP;
    let p = others.into_iter().fold(first, |p, coefficient| p.mul_add(r, coefficient));
    let mantissa = p.mul_add(r * r, r) + 1.0;
    // The low bits of `shifted` are n; the exponent field needs n + 127.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    mantissa * scale
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Distribution function and density of the standard normal distribution, both with an absolute error of 2e-7.
///
/// The tail is `erfcx(u) e^(-u^2) / 2` with `u = |x| / sqrt 2` and erfcx as a polynomial in `1 / (1 + u/2)`, relative
/// error 4.2e-8; density and tail share the exponential.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let e = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.5 * FRAC_1_SQRT_2 * x.abs());
    let p = -5.889_073_8e-2f32;
    let p = p.mul_add(t, 0.283_701_8);
    let p = p.mul_add(t, -0.485_383_36);
    let p = p.mul_add(t, 0.275_977_76);
    let p = p.mul_add(t, -2.517_742_7e-2);
    let p = p.mul_add(t, 0.202_069_73);
    let p = p.mul_add(t, 0.243_261_02);
    let p = p.mul_add(t, 0.282_353_5);
    let p = p.mul_add(t, 0.282_087_68);
    let tail = 0.5 * e * t * p;
    (if x < 0.0 { tail } else { 1.0 - tail }, e * 0.398_942_3)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400,000 points from low to high.
    fn points(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (0..400_000).map(move |i| low + (high - low) * (i as f32 / 399_999.0))
    }

    #[test]
    fn exp_meets_its_stated_error() {
        let worst = points(-87.0, 88.0)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 1.5e-7, "{worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY).is_finite() && exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn normal_meets_its_stated_error() {
        // Simpson's rule over the density from zero; with this step its own error is below 1e-14.
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut reference, step) = (0.5, 1e-3);
        for i in 0..9000 {
            let x = f64::from(i) * step;
            for (x, reference) in [(x, reference), (-x, 1.0 - reference)] {
                let (cdf, pdf) = normal(x as f32);
                assert!((f64::from(cdf) - reference).abs() < 2e-7, "cdf({x}) = {cdf}, not {reference}");
                assert!((f64::from(pdf) - density(x)).abs() < 2e-7, "pdf({x}) = {pdf}");
            }
            reference += step / 6.0 * (density(x) + 4.0 * density(x + step / 2.0) + density(x + step));
        }
    }
}
