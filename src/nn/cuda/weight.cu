// The weight of a convolution as a matrix for products with columns, and its gradient back:
// to [outer, b, a] = from [outer, a, b] transposed, with a conversion. A block takes one of `outer`, whose numbers stay in the
// cache while they are read out of order.
#include "vector.cuh"

constexpr int WEIGHT_THREADS = 256;

template <class S, class T> __device__ __forceinline__ void swap_inner(const S* from, T* to, int a, int b) {
    const size_t at = size_t(blockIdx.x) * a * b;
    for (int i = threadIdx.x; i < a * b; i += WEIGHT_THREADS)
        narrow(widen(from[at + size_t(i % a) * b + i / a]), to[at + i]);
}

KERNEL(swap_inner_f32_f32, WEIGHT_THREADS, (const float* from, float* to, int a, int b), swap_inner(from, to, a, b))
KERNEL(swap_inner_f32_bf16, WEIGHT_THREADS, (const float* from, bf16* to, int a, int b), swap_inner(from, to, a, b))
KERNEL(swap_inner_bf16_bf16, WEIGHT_THREADS, (const bf16* from, bf16* to, int a, int b), swap_inner(from, to, a, b))
KERNEL(swap_inner_f16_f16, WEIGHT_THREADS, (const f16* from, f16* to, int a, int b), swap_inner(from, to, a, b))
KERNEL(swap_inner_bf16_f32, WEIGHT_THREADS, (const bf16* from, float* to, int a, int b), swap_inner(from, to, a, b))
