// Layer norm of rows, [rows, channels], and its gradients. A warp takes a row; three passes over it, of which the
// first comes from memory and the others from cache.
//
// Backward, with n = (x - mean) rstd and g = weight dy: dx = rstd (g - mean(g) - n mean(g n)). The gradients of
// weight and bias are sums over rows of dy n and dy, by slabs.
#include "channels.cuh"

constexpr int LAYER_NORM_THREADS = 128;

// The sum over a row of what `term(channel)` gives for V channels together; all lanes have it.
template <int V, class Term> __device__ __forceinline__ float row_total(int channels, Term term) {
    float sum = 0.f;
    for (int channel = threadIdx.x % 32 * V; channel < channels; channel += 32 * V) sum += term(channel);
    return warp_sum(sum);
}

__device__ __forceinline__ int row_of_warp() { return blockIdx.x * (LAYER_NORM_THREADS / 32) + threadIdx.x / 32; }

// statistics [rows, 2]: mean and 1 / sqrt(variance + eps), for backward.
template <class T, int V>
__device__ __forceinline__ void layer_norm_forward(const T* x, const float* weight, const float* bias, T* y,
                                                   float* statistics, int rows, int channels, float eps) {
    const int row = row_of_warp();
    if (row >= rows) return;
    const T* from = x + size_t(row) * channels;
    const float mean = row_total<V>(channels, [&](int channel) {
                           float values[V], sum = 0.f;
                           load<V>(values, from + channel);
#pragma unroll
                           for (int e = 0; e < V; e++) sum += values[e];
                           return sum;
                       }) / channels;
    const float variance = row_total<V>(channels, [&](int channel) {
                               float values[V], sum = 0.f;
                               load<V>(values, from + channel);
#pragma unroll
                               for (int e = 0; e < V; e++) sum += (values[e] - mean) * (values[e] - mean);
                               return sum;
                           }) / channels;
    const float rstd = rsqrtf(variance + eps);
    if (threadIdx.x % 32 == 0) statistics[2 * size_t(row)] = mean, statistics[2 * size_t(row) + 1] = rstd;
    for (int channel = threadIdx.x % 32 * V; channel < channels; channel += 32 * V) {
        float values[V];
        load<V>(values, from + channel);
#pragma unroll
        for (int e = 0; e < V; e++)
            values[e] = weight[channel + e] * ((values[e] - mean) * rstd) + bias[channel + e];
        store<V>(y + size_t(row) * channels + channel, values);
    }
}

template <class T, int V>
__device__ __forceinline__ void layer_norm_backward(const T* x, const T* dy, const float* weight,
                                                    const float* statistics, T* dx, int rows, int channels) {
    const int row = row_of_warp();
    if (row >= rows) return;
    const size_t at = size_t(row) * channels;
    const float mean = statistics[2 * size_t(row)], rstd = statistics[2 * size_t(row) + 1];
    // Both sums in one pass over the row.
    float sum = 0.f, along = 0.f;
    for (int channel = threadIdx.x % 32 * V; channel < channels; channel += 32 * V) {
        float values[V], gradients[V];
        load<V>(values, x + at + channel), load<V>(gradients, dy + at + channel);
#pragma unroll
        for (int e = 0; e < V; e++) {
            const float g = weight[channel + e] * gradients[e];
            sum += g, along += g * ((values[e] - mean) * rstd);
        }
    }
    sum = warp_sum(sum) / channels, along = warp_sum(along) / channels;
    for (int channel = threadIdx.x % 32 * V; channel < channels; channel += 32 * V) {
        float values[V], gradients[V];
        load<V>(values, x + at + channel), load<V>(gradients, dy + at + channel);
#pragma unroll
        for (int e = 0; e < V; e++)
            values[e] = rstd * (weight[channel + e] * gradients[e] - sum - (values[e] - mean) * rstd * along);
        store<V>(dx + at + channel, values);
    }
}

// partial [slabs, 2, channels]: the sums of dy and of dy n.
template <class T, int V>
__device__ __forceinline__ void layer_norm_sums(const T* x, const T* dy, const float* statistics, float* partial,
                                                int rows, int channels, int slab_rows) {
    const Slab<V> slab = slab_of_block<V>(rows, channels, slab_rows);
    float* sums = shared_memory<float>();
    channel_sums<2>(slab, sums, [&](int channel) {
        return [=](int row, float(&sum)[2][V]) {
            const float mean = statistics[2 * size_t(row)], rstd = statistics[2 * size_t(row) + 1];
            const size_t at = size_t(row) * channels + channel;
            float values[V], gradients[V];
            load<V>(values, x + at), load<V>(gradients, dy + at);
#pragma unroll
            for (int e = 0; e < V; e++)
                sum[0][e] += gradients[e], sum[1][e] += gradients[e] * ((values[e] - mean) * rstd);
        };
    });
    write_channel_sums<2>(slab, sums, partial + size_t(blockIdx.x) * 2 * channels);
}

#define PARAMETERS(T)                                                                                          \
    (const T* x, const float* weight, const float* bias, T* y, float* statistics, int rows, int channels, float eps)
#define CALL(T, V) layer_norm_forward<T, V>(x, weight, bias, y, statistics, rows, channels, eps)
FORWARD_KERNELS(layer_norm_forward, LAYER_NORM_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T)                                                                                          \
    (const T* x, const T* dy, const float* weight, const float* statistics, T* dx, int rows, int channels)
#define CALL(T, V) layer_norm_backward<T, V>(x, dy, weight, statistics, dx, rows, channels)
CHANNEL_KERNELS(layer_norm_backward, LAYER_NORM_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T)                                                                                          \
    (const T* x, const T* dy, const float* statistics, float* partial, int rows, int channels, int slab_rows)
#define CALL(T, V) layer_norm_sums<T, V>(x, dy, statistics, partial, rows, channels, slab_rows)
CHANNEL_KERNELS(layer_norm_sums, CHANNEL_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL
