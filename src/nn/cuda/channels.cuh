// Passes over a slab of rows with channels last, [rows, channels]: pixels of an image or tokens.
//
// A thread takes V neighbouring channels and every so many rows: a block of 256 threads covers `across` columns of V
// channels and `down` rows at a time, or, where a row has more columns, one row in several turns. Memory is read in
// order, and a thread's channels stay the same over its rows.
#pragma once
#include "vector.cuh"

constexpr int CHANNEL_THREADS = 256;

template <int V> struct Slab {
    int first, end, channels; // rows first..end
    __device__ __forceinline__ int columns() const { return channels / V; }
    __device__ __forceinline__ int across() const { return min(columns(), CHANNEL_THREADS); }
    __device__ __forceinline__ int down() const { return CHANNEL_THREADS / across(); }

    // For each of the thread's columns: `enter(channel)` gives what is done with each row, `leave(channel, it)` ends it.
    template <class Enter, class Leave> __device__ __forceinline__ void each(Enter enter, Leave leave) const {
        const int step = down(), row = threadIdx.x / across();
        if (row >= step) return; // threads that are left over
        for (int column = threadIdx.x % across(); column < columns(); column += across()) {
            auto work = enter(column * V);
            for (int r = first + row; r < end; r += step) work(r);
            leave(column * V, work);
        }
    }
};

// The slab of this block: blockIdx.x counts slabs of `size` rows, of `rows` in all.
template <int V> __device__ __forceinline__ Slab<V> slab_of_block(int rows, int channels, int size) {
    const int first = blockIdx.x * size;
    return {first, min(rows, first + size), channels};
}

// A thread's sums of K terms over its rows of V channels.
template <int K, int V, class Terms> struct Sums {
    Terms terms;
    float sums[K][V] = {};
    __device__ __forceinline__ explicit Sums(Terms terms) : terms(terms) {}
    __device__ __forceinline__ void operator()(int row) { terms(row, sums); }
};

// shared[k][channel] = the sum over the slab's rows of the K terms that `terms(channel)(row, sums)` adds to `sums`.
// `shared` has room for K * down * channels numbers.
template <int K, int V, class Terms>
__device__ __forceinline__ void channel_sums(const Slab<V>& slab, float* shared, Terms terms) {
    const int down = slab.down(), channels = slab.channels;
    slab.each(
        [&](int channel) {
            auto of_rows = terms(channel);
            return Sums<K, V, decltype(of_rows)>(of_rows);
        },
        [&](int channel, const auto& own) {
            const int row = threadIdx.x / slab.across();
#pragma unroll
            for (int k = 0; k < K; k++)
#pragma unroll
                for (int e = 0; e < V; e++) shared[(k * down + row) * channels + channel + e] = own.sums[k][e];
        });
    __syncthreads();
    // Each thread adds the rows of its own channels, so the results take the place of row 0 without a barrier.
    for (int channel = threadIdx.x; channel < channels; channel += CHANNEL_THREADS)
        for (int k = 0; k < K; k++) {
            float sum = 0.f;
            for (int row = 0; row < down; row++) sum += shared[(k * down + row) * channels + channel];
            shared[k * down * channels + channel] = sum;
        }
    __syncthreads();
}

// Writes the K sums of each channel, which `channel_sums` has left in shared memory, to `to` [K, channels].
template <int K, int V>
__device__ __forceinline__ void write_channel_sums(const Slab<V>& slab, const float* shared, float* to) {
    for (int channel = threadIdx.x; channel < slab.channels; channel += CHANNEL_THREADS)
        for (int k = 0; k < K; k++)
            to[size_t(k) * slab.channels + channel] = shared[k * slab.down() * slab.channels + channel];
}

// The kernel's C name with its type, in two variants: 16 bytes at a time, and one number at a time for rows whose
// length is no multiple of that. `CALL` uses T and V.
#define CHANNEL_KERNELS(name, threads, PARAMETERS, CALL)                                                       \
    CHANNEL_KERNEL(name##_bf16_wide, threads, bf16, WIDE<bf16>, PARAMETERS, CALL)                              \
    CHANNEL_KERNEL(name##_bf16_single, threads, bf16, 1, PARAMETERS, CALL)                                     \
    CHANNEL_KERNEL(name##_f32_wide, threads, float, WIDE<float>, PARAMETERS, CALL)                             \
    CHANNEL_KERNEL(name##_f32_single, threads, float, 1, PARAMETERS, CALL)
// The same, and in f16: nothing is trained in it, so what gradients need has no such kernels.
#define FORWARD_KERNELS(name, threads, PARAMETERS, CALL)                                                       \
    CHANNEL_KERNELS(name, threads, PARAMETERS, CALL)                                                           \
    CHANNEL_KERNEL(name##_f16_wide, threads, f16, WIDE<f16>, PARAMETERS, CALL)                                 \
    CHANNEL_KERNEL(name##_f16_single, threads, f16, 1, PARAMETERS, CALL)
#define CHANNEL_KERNEL(name, threads, T, V, PARAMETERS, CALL)                                                  \
    KERNEL(name, threads, PARAMETERS(T), CALL(T, (V)))
