// The gradients of attention. With P = exp(scale q k^T - lse), dP = dO v^T and delta = sum over a row of dO O:
//     dS = P (dP - delta),  dQ = scale dS k,  dK = scale dS^T q,  dV = P^T dO.
//
// Three launches: delta; dQ with a block per tile of queries; dK and dV with a block per tile of keys, which
// computes the transposed S and dP, so that its own rows are keys. Each result is written once, by one block.
#include "attention.cuh"

// delta [batch, heads, n] in f32: a warp per row of a head.
template <int D>
__device__ __forceinline__ void attention_delta(const bf16* out, const bf16* d_out, float* delta, int n, int heads) {
    const int row = blockIdx.x * WARPS + threadIdx.x / 32, stride = heads * D;
    if (row >= n) return;
    const size_t at = head_offset(n, stride, D) + size_t(row) * stride;
    float sum = 0.f;
    for (int d = threadIdx.x % 32; d < D; d += 32) sum += widen(out[at + d]) * widen(d_out[at + d]);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[statistics_offset(n, heads) + row] = sum;
}

// P in base 2 from scores and the row's lse, which is infinite for rows that do not exist.
__device__ __forceinline__ float probability(float s, float scale, float lse) {
    return exp2f((s * scale - lse) * LOG2_E);
}

template <int D, class T>
__device__ __forceinline__ void attention_dq(const bf16* q, const bf16* k, const bf16* v, const bf16* d_out,
                                             const float* lse, const float* delta, bf16* dq, int n, int m,
                                             int heads, float scale, int causal) {
    constexpr int TILE = T::PASSING * T::ROW;
    const int stride = heads * D, first = blockIdx.x * OWN, own = threadIdx.x / 32 * 16;
    const size_t at_q = head_offset(n, stride, D), at_k = head_offset(m, stride, D);
    const Head keys{k + at_k, m, stride}, values{v + at_k, m, stride};
    bf16* shared_q = shared_memory<bf16>();
    bf16* shared_do = shared_q + OWN * T::ROW;
    bf16* shared_k = shared_do + OWN * T::ROW; // two tiles
    bf16* shared_v = shared_k + 2 * TILE;      // two tiles

    copy_tile<D, T, OWN>(shared_q, {q + at_q, n, stride}, first);
    copy_tile<D, T, OWN>(shared_do, {d_out + at_q, n, stride}, first);
    copy_passing<D, T>(shared_k, keys, shared_v, values, 0, 0);
    copy_commit();

    float row_lse[2], row_delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + own + fragment_row(2 * half);
        const size_t at = statistics_offset(n, heads) + row;
        row_lse[half] = row < n ? lse[at] : INFINITY;
        row_delta[half] = row < n ? delta[at] : 0.f;
    }
    float sums[T::BLOCKS][4] = {};
    const int visible = causal ? min(m, first + OWN) : m;
    const int tiles = (visible + T::PASSING - 1) / T::PASSING;
    for (int tile = 0; tile < tiles; tile++) {
        const int here = tile % 2 * TILE;
        if (tile + 1 < tiles) copy_passing<D, T>(shared_k, keys, shared_v, values, tile + 1, (tile + 1) % 2);
        copy_commit();
        copy_wait<1>();
        __syncthreads();

        float s[T::PASSING / 8][4], dp[T::PASSING / 8][4];
        scores<T>(s, shared_q + own * T::ROW, shared_k + here);
        scores<T>(dp, shared_do + own * T::ROW, shared_v + here);
#pragma unroll
        for (int j = 0; j < T::PASSING / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = tile * T::PASSING + fragment_column(j, i);
                const bool hidden = key >= m || (causal && key > first + own + fragment_row(i));
                const float p = hidden ? 0.f : probability(s[j][i], scale, row_lse[i / 2]);
                s[j][i] = p * (dp[j][i] - row_delta[i / 2]);
            }
        accumulate<T>(sums, s, shared_k + here);
        __syncthreads(); // all warps are done with the tile that the next copies overwrite
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + own + fragment_row(2 * half);
        if (row < n) write_row<D, T>(dq, at_q + size_t(row) * stride, sums, half, scale);
    }
}

template <int D, class T>
__device__ __forceinline__ void attention_dkv(const bf16* q, const bf16* k, const bf16* v, const bf16* d_out,
                                              const float* lse, const float* delta, bf16* dk, bf16* dv, int n,
                                              int m, int heads, float scale, int causal) {
    constexpr int TILE = T::PASSING * T::ROW;
    const int stride = heads * D, first = blockIdx.x * OWN, own = threadIdx.x / 32 * 16;
    const size_t at_q = head_offset(n, stride, D), at_k = head_offset(m, stride, D);
    const size_t at_row = statistics_offset(n, heads);
    const Head queries{q + at_q, n, stride}, gradients{d_out + at_q, n, stride};
    bf16* shared_k = shared_memory<bf16>();
    bf16* shared_v = shared_k + OWN * T::ROW;
    bf16* shared_q = shared_v + OWN * T::ROW; // two tiles
    bf16* shared_do = shared_q + 2 * TILE;    // two tiles
    float* shared_lse = reinterpret_cast<float*>(shared_do + 2 * TILE);
    float* shared_delta = shared_lse + T::PASSING;

    // Queries before the block's first key see none of its keys.
    const int start = causal ? first / T::PASSING : 0, end = (n + T::PASSING - 1) / T::PASSING;
    copy_tile<D, T, OWN>(shared_k, {k + at_k, m, stride}, first);
    copy_tile<D, T, OWN>(shared_v, {v + at_k, m, stride}, first);
    copy_passing<D, T>(shared_q, queries, shared_do, gradients, start, 0);
    copy_commit();

    float sums_k[T::BLOCKS][4] = {}, sums_v[T::BLOCKS][4] = {};
    for (int tile = start; tile < end; tile++) {
        const int here = (tile - start) % 2 * TILE;
        if (tile + 1 < end)
            copy_passing<D, T>(shared_q, queries, shared_do, gradients, tile + 1, (tile - start + 1) % 2);
        copy_commit();
        if (threadIdx.x < T::PASSING) {
            const int row = tile * T::PASSING + threadIdx.x;
            shared_lse[threadIdx.x] = row < n ? lse[at_row + row] : INFINITY;
            shared_delta[threadIdx.x] = row < n ? delta[at_row + row] : 0.f;
        }
        copy_wait<1>();
        __syncthreads();

        float p[T::PASSING / 8][4], ds[T::PASSING / 8][4];
        scores<T>(p, shared_k + own * T::ROW, shared_q + here);
        scores<T>(ds, shared_v + own * T::ROW, shared_do + here);
#pragma unroll
        for (int j = 0; j < T::PASSING / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = fragment_column(j, i);
                const bool hidden = causal && first + own + fragment_row(i) > tile * T::PASSING + column;
                p[j][i] = hidden ? 0.f : probability(p[j][i], scale, shared_lse[column]);
                ds[j][i] = p[j][i] * (ds[j][i] - shared_delta[column]);
            }
        accumulate<T>(sums_v, p, shared_do + here);
        accumulate<T>(sums_k, ds, shared_q + here);
        __syncthreads(); // all warps are done with what the next turn overwrites
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + own + fragment_row(2 * half);
        if (row >= m) continue;
        write_row<D, T>(dk, at_k + size_t(row) * stride, sums_k, half, scale);
        write_row<D, T>(dv, at_k + size_t(row) * stride, sums_v, half, 1.f);
    }
}

#define ATTENTION_BACKWARD(D, KEYS, QUERIES)                                                                   \
    KERNEL(attention_delta_##D, ATTENTION_THREADS,                                                             \
           (const bf16* out, const bf16* d_out, float* delta, int n, int heads),                               \
           attention_delta<D>(out, d_out, delta, n, heads))                                                    \
    KERNEL(attention_dq_##D, ATTENTION_THREADS,                                                                \
           (const bf16* q, const bf16* k, const bf16* v, const bf16* d_out, const float* lse,                  \
            const float* delta, bf16* dq, int n, int m, int heads, float scale, int causal),                   \
           attention_dq<D, Tile<D, KEYS>>(q, k, v, d_out, lse, delta, dq, n, m, heads, scale, causal))         \
    KERNEL(attention_dkv_##D, ATTENTION_THREADS,                                                               \
           (const bf16* q, const bf16* k, const bf16* v, const bf16* d_out, const float* lse,                  \
            const float* delta, bf16* dk, bf16* dv, int n, int m, int heads, float scale, int causal),         \
           attention_dkv<D, Tile<D, QUERIES>>(q, k, v, d_out, lse, delta, dk, dv, n, m, heads, scale, causal))
ATTENTION_BACKWARD(40, 64, 64)
ATTENTION_BACKWARD(64, 64, 64)
ATTENTION_BACKWARD(80, 32, 32)
ATTENTION_BACKWARD(160, 32, 16)
