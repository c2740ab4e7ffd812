// Numbers in memory, bf16, f16 or f32, as f32 in registers, several at a time; and sums over a block.
#pragma once
#include "instructions.cuh"

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(f16 x) { return __half2float(x); }
__device__ __forceinline__ void narrow(float x, float& to) { to = x; }
__device__ __forceinline__ void narrow(float x, bf16& to) { to = __float2bfloat16(x); }
__device__ __forceinline__ void narrow(float x, f16& to) { to = __float2half(x); }

// N numbers that are read or written at once: 16 bytes, or a single number where rows are not so long.
template <class T, int N> struct alignas(sizeof(T) * N) Packed {
    T at[N];
};
template <class T> constexpr int WIDE = 16 / sizeof(T);

template <int N, class T> __device__ __forceinline__ void load(float (&to)[N], const T* from) {
    const Packed<T, N> packed = *reinterpret_cast<const Packed<T, N>*>(from);
#pragma unroll
    for (int i = 0; i < N; i++) to[i] = widen(packed.at[i]);
}
template <int N, class T> __device__ __forceinline__ void store(T* to, const float (&from)[N]) {
    Packed<T, N> packed;
#pragma unroll
    for (int i = 0; i < N; i++) narrow(from[i], packed.at[i]);
    *reinterpret_cast<Packed<T, N>*>(to) = packed;
}

// The sum over the 32 lanes of a warp, for all of them.
template <class T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

// The largest of the 32 lanes of a warp, for all of them.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int distance = 16; distance; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

// The sum over a block of whole warps, for all threads; `scratch` has an element for each warp.
template <class T> __device__ __forceinline__ T block_sum(T x, T* scratch) {
    x = warp_sum(x);
    __syncthreads(); // the scratch of an earlier sum has been read
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = scratch[0];
    for (int warp = 1; warp < int(blockDim.x / 32); warp++) x += scratch[warp];
    return x;
}
