// What the three attention kernels share: tiles of rows in shared memory and two products of tiles.
//
// Attention by tiles (Dao 2023, FlashAttention-2) without atomics: forward and dQ give each block a tile of queries
// and let keys pass by; dK and dV give it a tile of keys and let queries pass by. The block's own tile is cut into
// 16 rows per warp, and all three kernels are made of
//     scores:      S [16 x PASSING] = own rows [16 x D] times the passing tile [PASSING x D] transposed
//     accumulate:  sums [16 x D] += P [16 x PASSING] times the passing tile [PASSING x D]
// (heads of 512: PART columns of the tile, because registers hold the sums of no more; the warps that share rows compute the
// same scores). P stays in the registers in which S came out: the fragment of a sum (two 8x8 blocks side by side, each lane
// with two neighbours of row lane / 4 and two of row lane / 4 + 8) is the fragment of a left operand.
//
// Tensors are [batch, rows, heads * D] in bf16, forward also in f16. Rows in shared memory are 16 bytes longer than their multiple of
// 32 bytes, so that the eight rows of an 8x8 block start in eight different groups of banks.
#pragma once
#include "vector.cuh"

constexpr int WARPS = 4, ATTENTION_THREADS = WARPS * 32, OWN = WARPS * 16; // rows of a block whose warps share none
constexpr float LOG2_E = 1.44269504f;

template <int D, int PASSING_, int PARTS_ = 1, bool F16_ = false> struct Tile {
    static constexpr bool F16 = F16_;                    // f16 behind pointers to bf16, which only products tell apart
    static constexpr int PASSING = PASSING_;             // rows of a passing tile
    static constexpr int PARTS = PARTS_;                 // warps that share rows and divide the columns of the sums
    static constexpr int OWN = WARPS / PARTS * 16;       // rows of the block's own tile
    static constexpr int WIDTH = (D + 15) / 16 * 16;     // D in whole steps of the product
    static constexpr int ROW = WIDTH + 8;                // elements from row to row
    static constexpr int PART = WIDTH / PARTS;           // columns of a warp's sums
    static constexpr int BLOCKS = PART / 8;              // 8x8 blocks across them
    static_assert(PART % 16 == 0 && (PARTS == 1 || WIDTH == D), "parts are whole steps of the product");
};

// One head of one sample: a matrix [rows x D] whose rows are `stride` elements apart.
struct Head {
    const bf16* at;
    int rows, stride;
};
__device__ __forceinline__ size_t head_offset(int rows, int stride, int d) {
    return size_t(blockIdx.z) * rows * stride + blockIdx.y * d;
}

// Where the rows of a head begin in lse and delta, [batch, heads, n].
__device__ __forceinline__ size_t statistics_offset(int n, int heads) {
    return (size_t(blockIdx.z) * heads + blockIdx.y) * n;
}

// Starts to copy rows first..first + ROWS of a head to shared memory, zeros beyond its rows and beyond D columns.
template <int D, class T, int ROWS>
__device__ __forceinline__ void copy_tile(bf16* to, const Head& head, int first) {
    constexpr int PIECES = T::WIDTH / 8;
    for (int i = threadIdx.x; i < ROWS * PIECES; i += ATTENTION_THREADS) {
        const int row = i / PIECES, column = i % PIECES * 8;
        const bool present = first + row < head.rows && column < D;
        const size_t offset = present ? size_t(first + row) * head.stride + column : 0;
        copy_async(to + row * T::ROW + column, head.at + offset, present);
    }
}

// Starts to copy tile `tile` of two operands that pass by together, each to the first or the second of its two places.
template <int D, class T>
__device__ __forceinline__ void copy_passing(bf16* to_a, const Head& a, bf16* to_b, const Head& b, int tile,
                                             int place) {
    const int at = place * T::PASSING * T::ROW;
    copy_tile<D, T, T::PASSING>(to_a + at, a, tile * T::PASSING);
    copy_tile<D, T, T::PASSING>(to_b + at, b, tile * T::PASSING);
}

// s = own rows times the passing tile transposed. `own` is the warp's first row.
template <class T>
__device__ __forceinline__ void scores(float (&s)[T::PASSING / 8][4], const bf16* own, const bf16* passing) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < T::PASSING / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[j][i] = 0.f;
#pragma unroll
    for (int d = 0; d < T::WIDTH; d += 16) {
        // Blocks of the left operand: rows 0 and 8 at column d, then rows 0 and 8 at column d + 8.
        uint32_t a[4];
        load_matrices(a, own + lane % 16 * T::ROW + d + lane / 16 * 8);
#pragma unroll
        for (int row = 0; row < T::PASSING; row += 16) {
            // Blocks of the right operand: row `row` at columns d and d + 8, then row `row` + 8.
            uint32_t b[4];
            load_matrices(b, passing + (row + lane / 16 * 8 + lane % 8) * T::ROW + d + lane / 8 % 2 * 8);
            multiply_add<T::F16>(s[row / 8], a, b[0], b[1]);
            multiply_add<T::F16>(s[row / 8 + 1], a, b[2], b[3]);
        }
    }
}

// sums += p times the passing tile, from its first column that is wanted, p rounded to their type.
template <class T>
__device__ __forceinline__ void accumulate(float (&sums)[T::BLOCKS][4], const float (&p)[T::PASSING / 8][4],
                                           const bf16* passing) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int row = 0; row < T::PASSING; row += 16) {
        const float(&left)[4] = p[row / 8], (&right)[4] = p[row / 8 + 1];
        const uint32_t a[4] = {pack<T::F16>(left[0], left[1]), pack<T::F16>(left[2], left[3]), pack<T::F16>(right[0], right[1]),
                               pack<T::F16>(right[2], right[3])};
#pragma unroll
        for (int d = 0; d < T::PART; d += 16) {
            uint32_t b[4];
            load_matrices_transposed(b, passing + (row + lane / 8 % 2 * 8 + lane % 8) * T::ROW + d + lane / 16 * 8);
            multiply_add<T::F16>(sums[d / 8], a, b[0], b[1]);
            multiply_add<T::F16>(sums[d / 8 + 1], a, b[2], b[3]);
        }
    }
}

// The row and the column, within the warp's 16 rows and the passing tile, of element i of block j of a fragment.
__device__ __forceinline__ int fragment_row(int i) { return threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ __forceinline__ int fragment_column(int j, int i) { return j * 8 + threadIdx.x % 4 * 2 + i % 2; }

// Writes a row of a head, from the warp's first column, from half `half` (0 or 1) of the warp's fragments, times `factor`.
template <int D, class T>
__device__ __forceinline__ void write_row(bf16* to, size_t row_offset, const float (&sums)[T::BLOCKS][4],
                                          int half, float factor) {
#pragma unroll
    for (int j = 0; j < T::BLOCKS; j++)
        if (j * 8 < D)
            *reinterpret_cast<uint32_t*>(to + row_offset + fragment_column(j, 0)) =
                pack<T::F16>(sums[j][2 * half] * factor, sums[j][2 * half + 1] * factor);
}

// The sum, and the maximum, over the four lanes that hold a row of a fragment.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
