//! Spearman's rank correlation: whether two lists of values have the same order, 1 for the same and -1 for the reverse.

/// Spearman's correlation of values in pairs; 0 if one list is constant.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

/// The correlation of `a` and `b` that is left with `fixed` held equal: the partial rank correlation (Kendall 1942), from the three
/// of the pairs. `None` where `fixed` decides the order of one of them.
pub fn partial_spearman(a: &[f64], b: &[f64], fixed: &[f64]) -> Option<f64> {
    let (ab, a_fixed, b_fixed) = (spearman(a, b), spearman(a, fixed), spearman(b, fixed));
    let left = (1.0 - a_fixed * a_fixed) * (1.0 - b_fixed * b_fixed);
    (left > 1e-9).then(|| ((ab - a_fixed * b_fixed) / left.sqrt()).clamp(-1.0, 1.0))
}

/// Pearson's correlation; 0 if one list is constant.
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    if aa > 0.0 && bb > 0.0 { ab / (aa * bb).sqrt() } else { 0.0 }
}

/// Ranks from zero; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let first = order.partition_point(|&other| values[other] < values[run[0]]);
        for &place in run {
            ranks[place] = first as f64 + (run.len() - 1) as f64 / 2.0;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
    }

    #[test]
    fn values_are_those_of_scipy_and_pingouin() {
        // scipy 1.17.1, stats.spearmanr; pingouin 0.7.0, partial_corr(method="spearman").
        let (a, b) = ([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0], [2.0, 7.0, 1.0, 8.0, 2.0, 8.0, 1.0, 8.0]);
        let size = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];
        assert!((spearman(&a, &b) - 0.198_853_681_209_924_67).abs() < 1e-12);
        assert!((spearman(&a, &size) - 0.515_424_728_357_506_7).abs() < 1e-12);
        let partial = partial_spearman(&a, &b, &size).expect("size decides neither");
        assert!((partial - 0.201_854).abs() < 1e-6);
        // Within each size, the orders are opposite.
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0]);
        let partial = partial_spearman(&a, &b, &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]).expect("as above");
        assert!((spearman(&a, &b) - 0.828_571_428_571_428_7).abs() < 1e-12 && (partial + 1.0).abs() < 1e-9);
        assert_eq!(partial_spearman(&a, &b, &a), None);
        assert_eq!(spearman(&a, &[7.0; 6]), 0.0);
    }
}
