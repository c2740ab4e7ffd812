// out = softmax(scale q k^T) v, and the logarithm of each row's sum of exponentials for backward.
//
// q [batch, n, heads * D], k and v [batch, m, heads * D]; lse [batch, heads, n] in f32. The next tile of keys is
// copied while this one is used.
#include "attention.cuh"

template <int D, class T>
__device__ __forceinline__ void attention_forward(const bf16* q, const bf16* k, const bf16* v, bf16* out,
                                                  float* lse, int n, int m, int heads, float scale, int causal) {
    constexpr int TILE = T::PASSING * T::ROW;
    constexpr int OWN = T::OWN;
    const int warp = threadIdx.x / 32, part = warp % T::PARTS * T::PART; // the first column of the warp's sums
    const int stride = heads * D, first = blockIdx.x * OWN, own = warp / T::PARTS * 16;
    const size_t at_q = head_offset(n, stride, D), at_k = head_offset(m, stride, D);
    const Head keys{k + at_k, m, stride}, values{v + at_k, m, stride};
    bf16* shared_q = shared_memory<bf16>();
    bf16* shared_k = shared_q + OWN * T::ROW; // two tiles
    bf16* shared_v = shared_k + 2 * TILE;     // two tiles

    copy_tile<D, T, OWN>(shared_q, {q + at_q, n, stride}, first);
    copy_passing<D, T>(shared_k, keys, shared_v, values, 0, 0);
    copy_commit();

    float sums[T::BLOCKS][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {0.f, 0.f};
    const int visible = causal ? min(m, first + OWN) : m; // keys that some query of the block sees
    const int tiles = (visible + T::PASSING - 1) / T::PASSING;
    for (int tile = 0; tile < tiles; tile++) {
        const int here = tile % 2 * TILE;
        if (tile + 1 < tiles) copy_passing<D, T>(shared_k, keys, shared_v, values, tile + 1, (tile + 1) % 2);
        copy_commit();
        copy_wait<1>();
        __syncthreads();

        float s[T::PASSING / 8][4];
        scores<T>(s, shared_q + own * T::ROW, shared_k + here);

        float now[2] = {largest[0], largest[1]};
#pragma unroll
        for (int j = 0; j < T::PASSING / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = tile * T::PASSING + fragment_column(j, i);
                if (key >= m || (causal && key > first + own + fragment_row(i))) s[j][i] = -INFINITY;
                now[i / 2] = fmaxf(now[i / 2], s[j][i]);
            }
        float shrink[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            now[half] = row_max(now[half]);
            shrink[half] = exp2f((largest[half] - now[half]) * (scale * LOG2_E));
            largest[half] = now[half];
            total[half] *= shrink[half];
        }
#pragma unroll
        for (int j = 0; j < T::PASSING / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[j][i] = exp2f((s[j][i] - largest[i / 2]) * (scale * LOG2_E));
                total[i / 2] += s[j][i];
            }
#pragma unroll
        for (int j = 0; j < T::BLOCKS; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[j][i] *= shrink[i / 2];
        accumulate<T>(sums, s, shared_v + here + part);
        __syncthreads(); // all warps are done with the tile that the next copies overwrite
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] = row_sum(total[half]);
        const int row = first + own + fragment_row(2 * half);
        if (row >= n) continue;
        if (threadIdx.x % 4 == 0 && part == 0)
            lse[statistics_offset(n, heads) + row] = largest[half] * scale + logf(total[half]);
        write_row<D, T>(out, at_q + size_t(row) * stride + part, sums, half, 1.f / total[half]);
    }
}

#define ATTENTION_FORWARD(D, PASSING, PARTS)                                                                   \
    ATTENTION_FORWARD_OF(attention_forward_##D, D, PASSING, PARTS, false)                                      \
    ATTENTION_FORWARD_OF(attention_forward_f16_##D, D, PASSING, PARTS, true)
#define ATTENTION_FORWARD_OF(name, D, PASSING, PARTS, F16)                                                     \
    KERNEL(name, ATTENTION_THREADS,                                                                            \
           (const bf16* q, const bf16* k, const bf16* v, bf16* out, float* lse, int n, int m, int heads,       \
            float scale, int causal),                                                                          \
           attention_forward<D, Tile<D, PASSING, PARTS, F16>>(q, k, v, out, lse, n, m, heads, scale, causal))
ATTENTION_FORWARD(40, 64, 1)
ATTENTION_FORWARD(64, 64, 1)
ATTENTION_FORWARD(80, 64, 1)
ATTENTION_FORWARD(160, 32, 1)
ATTENTION_FORWARD(512, 16, 2)
