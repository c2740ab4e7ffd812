// Group norm with channels last, optionally followed by SiLU, and its gradients.
//
// x [batch, rows, channels]: a group is channels / groups neighbouring channels over all rows of a sample. An image
// is cut into slabs of rows, and blockIdx.y is the sample. Forward: each slab's mean and sum of squared deviations
// (two passes over the slab, the second from cache, so that nothing cancels), then every block merges the slabs'
// (Chan et al. 1983) and writes its own. Backward, with n = (x - mean) rstd, y = weight n + bias and
// g = dL/dy times SiLU's derivative: the slabs' sums of g and g n per channel, which added up are the gradients of
// bias and weight; then dx = rstd (w g - mean(w g) - n mean(w g n)), the means over a group.
#include "channels.cuh"

__device__ __forceinline__ float logistic(float x) { return 1.f / (1.f + expf(-x)); }

// The derivative of x logistic(x).
__device__ __forceinline__ float silu_derivative(float x) {
    const float s = logistic(x);
    return s * (1.f + x * (1.f - s));
}

// The sum of the channels' sums, times their weights if there are any, over group `group`.
__device__ __forceinline__ float group_sum(const float* sums, const float* weight, int group, int per_group) {
    float sum = 0.f;
    for (int c = group * per_group; c < (group + 1) * per_group; c++) sum += weight ? weight[c] * sums[c] : sums[c];
    return sum;
}

// partial [batch, slabs, groups, 2]: mean and sum of squared deviations.
template <class T, int V>
__device__ __forceinline__ void group_norm_statistics(const T* x, float* partial, int rows, int channels,
                                                      int groups, int slab_rows) {
    const Slab<V> slab = slab_of_block<V>(rows, channels, slab_rows);
    const int per_group = channels / groups;
    const T* sample = x + size_t(blockIdx.y) * rows * channels;
    float* means = shared_memory<float>(); // [groups], and room for channel_sums
    float* sums = means + groups;
    const float count = float(slab.end - slab.first) * per_group;

    channel_sums<1>(slab, sums, [&](int channel) {
        return [=](int row, float(&sum)[1][V]) {
            float values[V];
            load<V>(values, sample + size_t(row) * channels + channel);
#pragma unroll
            for (int e = 0; e < V; e++) sum[0][e] += values[e];
        };
    });
    for (int group = threadIdx.x; group < groups; group += CHANNEL_THREADS)
        means[group] = group_sum(sums, nullptr, group, per_group) / count;
    __syncthreads();
    channel_sums<1>(slab, sums, [&](int channel) {
        return [=](int row, float(&sum)[1][V]) {
            float values[V];
            load<V>(values, sample + size_t(row) * channels + channel);
#pragma unroll
            for (int e = 0; e < V; e++) {
                const float deviation = values[e] - means[(channel + e) / per_group];
                sum[0][e] += deviation * deviation;
            }
        };
    });
    float* to = partial + (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * groups * 2;
    for (int group = threadIdx.x; group < groups; group += CHANNEL_THREADS) {
        to[2 * group] = means[group];
        to[2 * group + 1] = group_sum(sums, nullptr, group, per_group);
    }
}

// Mean and 1 / sqrt(variance + eps) of a group from those of the slabs.
__device__ __forceinline__ void merge_slabs(const float* partial, float* to, int group, int rows, int per_group,
                                            int groups, int slab_rows, float eps) {
    const float* from = partial + (size_t(blockIdx.y) * gridDim.x * groups + group) * 2;
    float mean = 0.f, deviations = 0.f;
    for (int slab = 0; slab < int(gridDim.x); slab++) {
        const int own = min(slab_rows, rows - slab * slab_rows);
        mean += from[size_t(slab) * groups * 2] * (float(own) / rows);
    }
    for (int slab = 0; slab < int(gridDim.x); slab++) {
        const float own = float(min(slab_rows, rows - slab * slab_rows)) * per_group;
        const float away = from[size_t(slab) * groups * 2] - mean;
        deviations += from[size_t(slab) * groups * 2 + 1] + own * away * away;
    }
    to[0] = mean;
    to[1] = rsqrtf(deviations / (float(rows) * per_group) + eps);
}

// What the columns of a thread need of their groups and channels.
template <int V> struct Channels {
    float mean[V], rstd[V], weight[V], bias[V];
    __device__ __forceinline__ Channels(const float* statistics, const float* w, const float* b, int channel,
                                        int per_group) {
#pragma unroll
        for (int e = 0; e < V; e++) {
            const int group = (channel + e) / per_group;
            mean[e] = statistics[2 * group], rstd[e] = statistics[2 * group + 1];
            weight[e] = w[channel + e], bias[e] = b[channel + e];
        }
    }
    __device__ __forceinline__ float normal(float x, int e) const { return (x - mean[e]) * rstd[e]; }
    // dL/dy times the derivative of SiLU at y, if it follows.
    __device__ __forceinline__ float through_silu(float dy, float normal, int e, int silu) const {
        return silu ? dy * silu_derivative(weight[e] * normal + bias[e]) : dy;
    }
};

// statistics [batch, groups, 2]: mean and 1 / sqrt(variance + eps), for backward.
template <class T, int V>
__device__ __forceinline__ void group_norm_forward(const T* x, const float* weight, const float* bias,
                                                   const float* partial, T* y, float* statistics, int rows,
                                                   int channels, int groups, int slab_rows, float eps, int silu) {
    const Slab<V> slab = slab_of_block<V>(rows, channels, slab_rows);
    const int per_group = channels / groups;
    const size_t sample = size_t(blockIdx.y) * rows * channels;
    float* merged = shared_memory<float>(); // [groups, 2]
    for (int group = threadIdx.x; group < groups; group += CHANNEL_THREADS) {
        merge_slabs(partial, merged + 2 * group, group, rows, per_group, groups, slab_rows, eps);
        if (blockIdx.x == 0)
            for (int i = 0; i < 2; i++)
                statistics[(size_t(blockIdx.y) * groups + group) * 2 + i] = merged[2 * group + i];
    }
    __syncthreads();
    slab.each(
        [&](int channel) {
            const Channels<V> own(merged, weight, bias, channel, per_group);
            return [=](int row) {
                const size_t at = sample + size_t(row) * channels + channel;
                float values[V];
                load<V>(values, x + at);
#pragma unroll
                for (int e = 0; e < V; e++) {
                    const float out = own.weight[e] * own.normal(values[e], e) + own.bias[e];
                    values[e] = silu ? out * logistic(out) : out;
                }
                store<V>(y + at, values);
            };
        },
        [](int, const auto&) {});
}

// partial [batch, slabs, 2, channels]: the sums of g and of g n.
template <class T, int V>
__device__ __forceinline__ void group_norm_sums(const T* x, const T* dy, const float* weight, const float* bias,
                                                const float* statistics, float* partial, int rows, int channels,
                                                int groups, int slab_rows, int silu) {
    const Slab<V> slab = slab_of_block<V>(rows, channels, slab_rows);
    const size_t sample = size_t(blockIdx.y) * rows * channels;
    const float* of_sample = statistics + size_t(blockIdx.y) * groups * 2;
    float* sums = shared_memory<float>();
    channel_sums<2>(slab, sums, [&](int channel) {
        const Channels<V> own(of_sample, weight, bias, channel, channels / groups);
        return [=](int row, float(&sum)[2][V]) {
            const size_t at = sample + size_t(row) * channels + channel;
            float values[V], gradients[V];
            load<V>(values, x + at), load<V>(gradients, dy + at);
#pragma unroll
            for (int e = 0; e < V; e++) {
                const float normal = own.normal(values[e], e);
                const float g = own.through_silu(gradients[e], normal, e, silu);
                sum[0][e] += g, sum[1][e] += g * normal;
            }
        };
    });
    write_channel_sums<2>(slab, sums, partial + (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * 2 * channels);
}

// sums [batch, 2, channels]: those of `group_norm_sums` over all slabs.
template <class T, int V>
__device__ __forceinline__ void group_norm_backward(const T* x, const T* dy, const float* weight,
                                                    const float* bias, const float* statistics, const float* sums,
                                                    T* dx, int rows, int channels, int groups, int slab_rows,
                                                    int silu) {
    const Slab<V> slab = slab_of_block<V>(rows, channels, slab_rows);
    const int per_group = channels / groups;
    const size_t sample = size_t(blockIdx.y) * rows * channels;
    const float* of_sample = sums + size_t(blockIdx.y) * 2 * channels;
    float* means = shared_memory<float>(); // [groups, 2]: of w g and of w g n
    for (int group = threadIdx.x; group < groups; group += CHANNEL_THREADS)
        for (int i = 0; i < 2; i++)
            means[2 * group + i] =
                group_sum(of_sample + i * channels, weight, group, per_group) / (float(rows) * per_group);
    __syncthreads();
    slab.each(
        [&](int channel) {
            const Channels<V> own(statistics + size_t(blockIdx.y) * groups * 2, weight, bias, channel, per_group);
            return [=](int row) {
                const size_t at = sample + size_t(row) * channels + channel;
                float values[V], gradients[V];
                load<V>(values, x + at), load<V>(gradients, dy + at);
#pragma unroll
                for (int e = 0; e < V; e++) {
                    const int group = (channel + e) / per_group;
                    const float normal = own.normal(values[e], e);
                    const float g = own.through_silu(gradients[e], normal, e, silu) * own.weight[e];
                    values[e] = own.rstd[e] * (g - means[2 * group] - normal * means[2 * group + 1]);
                }
                store<V>(dx + at, values);
            };
        },
        [](int, const auto&) {});
}

#define PARAMETERS(T) (const T* x, float* partial, int rows, int channels, int groups, int slab_rows)
#define CALL(T, V) group_norm_statistics<T, V>(x, partial, rows, channels, groups, slab_rows)
FORWARD_KERNELS(group_norm_statistics, CHANNEL_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T)                                                                                          \
    (const T* x, const float* weight, const float* bias, const float* partial, T* y, float* statistics,        \
     int rows, int channels, int groups, int slab_rows, float eps, int silu)
#define CALL(T, V)                                                                                             \
    group_norm_forward<T, V>(x, weight, bias, partial, y, statistics, rows, channels, groups, slab_rows, eps, silu)
FORWARD_KERNELS(group_norm_forward, CHANNEL_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T)                                                                                          \
    (const T* x, const T* dy, const float* weight, const float* bias, const float* statistics, float* partial, \
     int rows, int channels, int groups, int slab_rows, int silu)
#define CALL(T, V)                                                                                             \
    group_norm_sums<T, V>(x, dy, weight, bias, statistics, partial, rows, channels, groups, slab_rows, silu)
CHANNEL_KERNELS(group_norm_sums, CHANNEL_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T)                                                                                          \
    (const T* x, const T* dy, const float* weight, const float* bias, const float* statistics,                 \
     const float* sums, T* dx, int rows, int channels, int groups, int slab_rows, int silu)
#define CALL(T, V)                                                                                             \
    group_norm_backward<T, V>(x, dy, weight, bias, statistics, sums, dx, rows, channels, groups, slab_rows, silu)
CHANNEL_KERNELS(group_norm_backward, CHANNEL_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL
