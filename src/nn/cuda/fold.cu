// out [outer, width] = the sums over `parts` of in [outer, parts, width], in f32 and always in the same order.
//
// A block takes 32 columns; its eight warps take every eighth part each.
#include "vector.cuh"

constexpr int FOLD_THREADS = 256;

__device__ __forceinline__ void fold(const float* in, float* out, int parts, int width) {
    float* sums = shared_memory<float>(); // [8][32]
    const int column = blockIdx.x * 32 + threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* from = in + size_t(blockIdx.y) * parts * width;
    float sum = 0.f;
    if (column < width)
        for (int part = warp; part < parts; part += 8) sum += from[size_t(part) * width + column];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || column >= width) return;
    for (int other = 1; other < 8; other++) sum += sums[other * 32 + threadIdx.x];
    out[size_t(blockIdx.y) * width + column] = sum;
}

KERNEL(fold_parts, FOLD_THREADS, (const float* in, float* out, int parts, int width), fold(in, out, parts, width))
