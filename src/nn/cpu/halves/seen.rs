//! The state of a softmax whose scores come in blocks.

/// What a row of scores has seen so far: the highest score, and the sum of the weights relative to it.
pub(in crate::nn::cpu) struct Seen<'a> {
    pub(in crate::nn::cpu) most: &'a mut [f32],
    pub(in crate::nn::cpu) total: &'a mut [f32],
    /// Weighted sums of the values, [queries, d].
    pub(in crate::nn::cpu) out: &'a mut [f32],
}
