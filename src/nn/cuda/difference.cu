// mean((a - b)^2) and its gradient, in two stages in a fixed order: a sum per block, then one block over those.
#include "vector.cuh"

constexpr int DIFFERENCE_THREADS = 256, DIFFERENCE_CHUNK = 1 << 14;

// A thread adds up to 64 squares in f32; everything above that is f64.
template <class T>
__device__ __forceinline__ void difference_sums(const T* a, const T* b, double* partial, int elements) {
    constexpr int V = WIDE<T>;
    const int start = blockIdx.x * DIFFERENCE_CHUNK, end = min(elements - start, DIFFERENCE_CHUNK) + start;
    float sum = 0.f;
    for (int i = start + threadIdx.x * V; i < end; i += DIFFERENCE_THREADS * V) {
        if (i + V <= end) {
            float left[V], right[V];
            load<V>(left, a + i), load<V>(right, b + i);
#pragma unroll
            for (int e = 0; e < V; e++) sum += (left[e] - right[e]) * (left[e] - right[e]);
        } else {
            for (int rest = i; rest < end; rest++) {
                const float difference = widen(a[rest]) - widen(b[rest]);
                sum += difference * difference;
            }
        }
    }
    const double total = block_sum(double(sum), shared_memory<double>());
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__device__ __forceinline__ void mean_of_parts(const double* partial, float* mean, int blocks, int elements) {
    double sum = 0.;
    for (int i = threadIdx.x; i < blocks; i += DIFFERENCE_THREADS) sum += partial[i];
    sum = block_sum(sum, shared_memory<double>());
    if (threadIdx.x == 0) mean[0] = float(sum / elements);
}

// da = factor g (a - b), with the gradient g of the mean.
template <class T>
__device__ __forceinline__ void difference_gradient(const T* a, const T* b, const float* g, T* da, int elements,
                                                    float factor) {
    constexpr int V = WIDE<T>;
    const float scale = factor * g[0];
    const int first = (blockIdx.x * DIFFERENCE_THREADS + threadIdx.x) * V;
    if (first + V <= elements) {
        float left[V], right[V];
        load<V>(left, a + first), load<V>(right, b + first);
#pragma unroll
        for (int e = 0; e < V; e++) left[e] = scale * (left[e] - right[e]);
        store<V>(da + first, left);
    } else {
        for (int i = first; i < elements; i++) narrow(scale * (widen(a[i]) - widen(b[i])), da[i]);
    }
}

#define DIFFERENCE_SUMS(name, T)                                                                               \
    KERNEL(difference_sums_##name, DIFFERENCE_THREADS, (const T* a, const T* b, double* partial, int elements), \
           difference_sums(a, b, partial, elements))
#define DIFFERENCE(name, T)                                                                                    \
    DIFFERENCE_SUMS(name, T)                                                                                   \
    KERNEL(difference_gradient_##name, DIFFERENCE_THREADS,                                                     \
           (const T* a, const T* b, const float* g, T* da, int elements, float factor),                        \
           difference_gradient(a, b, g, da, elements, factor))
DIFFERENCE_SUMS(f16, f16)
DIFFERENCE(bf16, bf16)
DIFFERENCE(f32, float)
KERNEL(difference_mean, DIFFERENCE_THREADS, (const double* partial, float* mean, int blocks, int elements),
       mean_of_parts(partial, mean, blocks, elements))
