// Sums of two arrays, and rows [rows, of_a + of_b] made of rows [rows, of_a] and [rows, of_b], and the way back.
#include "channels.cuh"

constexpr int ROWS_THREADS = 256;

template <class T>
__device__ __forceinline__ void sum_of_two(const T* a, const T* b, T* y, int elements) {
    constexpr int V = WIDE<T>;
    const int first = (blockIdx.x * ROWS_THREADS + threadIdx.x) * V;
    if (first + V <= elements) {
        float left[V], right[V];
        load<V>(left, a + first), load<V>(right, b + first);
#pragma unroll
        for (int e = 0; e < V; e++) left[e] += right[e];
        store<V>(y + first, left);
    } else {
        for (int i = first; i < elements; i++) narrow(widen(a[i]) + widen(b[i]), y[i]);
    }
}

// A thread moves V neighbouring numbers of a row: from the two to `whole`, or, with `splits`, back to those that there are.
template <class T, int V>
__device__ __forceinline__ void move_rows(T* a, T* b, T* whole, int rows, int of_a, int of_b, int splits) {
    const unsigned width = of_a + of_b, columns = width / V;
    const unsigned i = blockIdx.x * unsigned(ROWS_THREADS) + threadIdx.x, row = i / columns;
    const int column = int(i % columns * V);
    if (row >= unsigned(rows)) return;
    T* part = column < of_a ? a : b;
    if (!part) return;
    T* at = part + (column < of_a ? size_t(row) * of_a + column : size_t(row) * of_b + column - of_a);
    T* in_whole = whole + size_t(row) * width + column;
    auto* from = reinterpret_cast<const Packed<T, V>*>(splits ? in_whole : at);
    *reinterpret_cast<Packed<T, V>*>(splits ? at : in_whole) = *from;
}

KERNEL(sum_bf16, ROWS_THREADS, (const bf16* a, const bf16* b, bf16* y, int elements), sum_of_two(a, b, y, elements))
KERNEL(sum_f16, ROWS_THREADS, (const f16* a, const f16* b, f16* y, int elements), sum_of_two(a, b, y, elements))
KERNEL(sum_f32, ROWS_THREADS, (const float* a, const float* b, float* y, int elements), sum_of_two(a, b, y, elements))

#define PARAMETERS(T) (T * a, T * b, T * whole, int rows, int of_a, int of_b, int splits)
#define CALL(T, V) move_rows<T, V>(a, b, whole, rows, of_a, of_b, splits)
FORWARD_KERNELS(move_rows, ROWS_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL
