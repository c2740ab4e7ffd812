// Gated GELU, x [rows, 2 half] -> y [rows, half] = value gelu(gate), and its gradient. A block takes a row.
//
// gelu(z) = z Phi(z) and gelu'(z) = Phi(z) + z phi(z), with the normal distribution Phi and its density phi. Backward
// computes them again from x, so that nothing is kept.
#include "channels.cuh"

constexpr int GEGLU_THREADS = 256;

// Phi(z) as erfc, which keeps its digits where z is very negative.
__device__ __forceinline__ float normal_distribution(float z) { return 0.5f * erfcf(z * -0.70710678f); }
__device__ __forceinline__ float normal_density(float z) { return 0.39894228f * expf(-0.5f * z * z); }

template <class T, int V> __device__ __forceinline__ void geglu_forward(const T* x, T* y, int half) {
    const T* from = x + size_t(blockIdx.x) * 2 * half;
    for (int i = threadIdx.x * V; i < half; i += GEGLU_THREADS * V) {
        float value[V], gate[V];
        load<V>(value, from + i), load<V>(gate, from + half + i);
#pragma unroll
        for (int e = 0; e < V; e++) value[e] *= gate[e] * normal_distribution(gate[e]);
        store<V>(y + size_t(blockIdx.x) * half + i, value);
    }
}

template <class T, int V> __device__ __forceinline__ void geglu_backward(const T* x, const T* dy, T* dx, int half) {
    const size_t at = size_t(blockIdx.x) * 2 * half;
    for (int i = threadIdx.x * V; i < half; i += GEGLU_THREADS * V) {
        float value[V], gate[V], gradient[V];
        load<V>(value, x + at + i), load<V>(gate, x + at + half + i);
        load<V>(gradient, dy + size_t(blockIdx.x) * half + i);
#pragma unroll
        for (int e = 0; e < V; e++) {
            const float phi = normal_distribution(gate[e]), z = gate[e];
            gate[e] = gradient[e] * value[e] * (phi + z * normal_density(z));
            value[e] = gradient[e] * z * phi;
        }
        store<V>(dx + at + i, value), store<V>(dx + at + half + i, gate);
    }
}

#define PARAMETERS(T) (const T* x, T* y, int half)
#define CALL(T, V) geglu_forward<T, V>(x, y, half)
FORWARD_KERNELS(geglu_forward, GEGLU_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T) (const T* x, const T* dy, T* dx, int half)
#define CALL(T, V) geglu_backward<T, V>(x, dy, dx, half)
CHANNEL_KERNELS(geglu_backward, GEGLU_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL
