// What follows a matrix product, y [rows, channels]: bias and residual; and the gradient of the bias.
#include "channels.cuh"

constexpr int EPILOGUE_THREADS = 256;

// y += bias + residual, both of which may be missing. Each `rows_each` rows have a bias of their own. A thread takes V
// neighbouring channels of a row.
template <class T, int V>
__device__ __forceinline__ void add_bias(T* y, const float* bias, const T* residual, int rows, int channels,
                                         int rows_each) {
    const unsigned columns = channels / V, i = blockIdx.x * unsigned(EPILOGUE_THREADS) + threadIdx.x;
    const unsigned row = i / columns, channel = i % columns * V;
    if (row >= unsigned(rows)) return;
    const size_t at = size_t(row) * channels + channel;
    float values[V];
    load<V>(values, y + at);
    if (bias) {
        const float* own = bias + size_t(row / rows_each) * channels + channel;
#pragma unroll
        for (int e = 0; e < V; e++) values[e] += own[e];
    }
    if (residual) {
        float others[V];
        load<V>(others, residual + at);
#pragma unroll
        for (int e = 0; e < V; e++) values[e] += others[e];
    }
    store<V>(y + at, values);
}

// partial [batch, slabs, channels]: the sums over the rows of a slab of x [batch, rows, channels].
template <class T, int V>
__device__ __forceinline__ void row_sums(const T* x, float* partial, int rows, int channels, int slab_rows) {
    const Slab<V> slab = slab_of_block<V>(rows, channels, slab_rows);
    const T* sample = x + size_t(blockIdx.y) * rows * channels;
    float* sums = shared_memory<float>();
    channel_sums<1>(slab, sums, [&](int channel) {
        return [=](int row, float(&sum)[1][V]) {
            float values[V];
            load<V>(values, sample + size_t(row) * channels + channel);
#pragma unroll
            for (int e = 0; e < V; e++) sum[0][e] += values[e];
        };
    });
    write_channel_sums<1>(slab, sums, partial + (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * channels);
}

#define PARAMETERS(T) (T * y, const float* bias, const T* residual, int rows, int channels, int rows_each)
#define CALL(T, V) add_bias<T, V>(y, bias, residual, rows, channels, rows_each)
FORWARD_KERNELS(add_bias, EPILOGUE_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T) (const T* x, float* partial, int rows, int channels, int slab_rows)
#define CALL(T, V) row_sums<T, V>(x, partial, rows, channels, slab_rows)
CHANNEL_KERNELS(row_sums, CHANNEL_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL
