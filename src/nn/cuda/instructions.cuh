// The instructions below C++ that the kernels need: PTX for a GPU, and for g++ the same by definition.
//
// Kernels include this file and nothing else of either world, so one text is compiled by nvcc for cards and by
// g++ for the tests.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#else
#include "emulation/registry.h"
#endif

typedef __nv_bfloat16 bf16;
typedef __half f16;

// A kernel by its C name: KERNEL(name, threads of a block, (parameters), statement). For KERNEL_OF_BLOCKS, so many
// blocks on a multiprocessor are enough: without that number the compiler may spill registers to let more run.
#ifdef __CUDACC__
#define KERNEL(name, threads, parameters, ...)                                                                 \
    extern "C" __global__ void __launch_bounds__(threads) name parameters { __VA_ARGS__; }
#define KERNEL_OF_BLOCKS(name, threads, blocks, parameters, ...)                                               \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name parameters { __VA_ARGS__; }
#else
#define KERNEL_OF_BLOCKS(name, threads, blocks, parameters, ...) KERNEL(name, threads, parameters, __VA_ARGS__)
#define KERNEL(name, threads, parameters, ...)                                                                 \
    static void name parameters { __VA_ARGS__; }                                                               \
    static const emulation::Registration register_##name(#name, threads, name);
#endif

#ifdef __CUDACC__

// The shared memory of the block: all of it is dynamic, its size given at the launch.
template <class T> __device__ __forceinline__ T* shared_memory() {
    extern __shared__ __align__(128) unsigned char bytes[];
    return reinterpret_cast<T*>(bytes);
}

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Starts a copy of 16 bytes to shared memory; zeros if `present` is false, and `from` is then not read.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool present) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(present ? 16 : 0)
                 : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread's copies are on their way.
template <int N> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane 8i + r gives the address of row r of matrix i.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// sum [16 x 8] += a [16 x 16] b [16 x 8], of bf16 or f16
template <bool F16>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#define MULTIPLY_ADD(type)                                                                                     \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "  \
                 "{%8,%9}, {%0,%1,%2,%3};"                                                                     \
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
    if (F16) MULTIPLY_ADD("f16");
    else MULTIPLY_ADD("bf16");
#undef MULTIPLY_ADD
}

// Two numbers as bf16 or f16.
template <bool F16> __device__ __forceinline__ uint32_t pack(float low, float high) {
    if (F16) {
        const __half2 pair = __floats2half2_rn(low, high);
        return *reinterpret_cast<const uint32_t*>(&pair);
    }
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
}

#else

template <class T> T* shared_memory() { return reinterpret_cast<T*>(emulation::launch->shared.get()); }

inline void copy_async(void* to, const void* from, bool present) {
    const emulation::Copy copy{to, present ? from : nullptr, emulation::current().groups};
    if (emulation::launch->eager) return emulation::land(copy);
    tsan::Unseen unseen;
    emulation::current().copies.push_back(copy);
}
inline void copy_commit() {
    tsan::Unseen unseen;
    emulation::current().groups++;
}
template <int N> void copy_wait() {
    auto& own = emulation::current();
    auto due = [&](const emulation::Copy& copy) { return copy.group < own.groups - N; };
    std::vector<emulation::Copy> landing;
    {
        tsan::Unseen unseen;
        std::copy_if(own.copies.begin(), own.copies.end(), std::back_inserter(landing), due);
        own.copies.erase(std::remove_if(own.copies.begin(), own.copies.end(), due), own.copies.end());
    }
    for (const auto& copy : landing) emulation::land(copy);
}

inline void load_matrices(uint32_t (&to)[4], const bf16* row, int line = __builtin_LINE()) {
    const auto all = emulation::meet<const bf16*, emulation::FourMatrices>(~0u, line, row,
                                                                           emulation::load_matrices<false>);
    std::memcpy(to, all.of, 16);
}
inline void load_matrices_transposed(uint32_t (&to)[4], const bf16* row, int line = __builtin_LINE()) {
    const auto all =
        emulation::meet<const bf16*, emulation::FourMatrices>(~0u, line, row, emulation::load_matrices<true>);
    std::memcpy(to, all.of, 16);
}

template <bool F16>
void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int line = __builtin_LINE()) {
    const emulation::Fragments own{{sum[0], sum[1], sum[2], sum[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    const auto sums = emulation::meet<emulation::Fragments, emulation::Sums>(~0u, line, own,
                                                                             emulation::multiply_add<F16>);
    std::memcpy(sum, sums.of, 16);
}

template <bool F16> uint32_t pack(float low, float high) {
    if (F16) return __float2half(low).bits | uint32_t(__float2half(high).bits) << 16;
    return __float2bfloat16(low).bits | uint32_t(__float2bfloat16(high).bits) << 16;
}

#endif
