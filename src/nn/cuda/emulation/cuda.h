// CUDA C++ as the kernels use it, for g++: qualifiers, built-in variables, shuffles, bf16. Beside it, the
// instructions of `instructions.cuh` by the definitions of NVIDIA's PTX manual.
#pragma once
#include <cmath>
#include <string>
#include "fibers.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (emulation::current().thread)
#define blockIdx (emulation::launch->block)
#define blockDim (emulation::launch->block_size)
#define gridDim (emulation::launch->grid)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

inline void __syncthreads(int line = __builtin_LINE()) { emulation::barrier(line); }

template <class T> T __shfl_xor_sync(unsigned mask, T value, int distance, int line = __builtin_LINE()) {
    struct In {
        T value;
        int distance;
    };
    return emulation::meet<In, T>(mask, line, In{value, distance}, [](const void* const* in, void* const* out) {
        for (int lane = 0; lane < emulation::WARP; lane++) {
            if (!in[lane]) continue;
            const void* from = in[lane ^ static_cast<const In*>(in[lane])->distance];
            // A GPU leaves it undefined what a lane reads that takes no part.
            if (from) *static_cast<T*>(out[lane]) = static_cast<const In*>(from)->value;
            else emulation::report("a shuffle reads a lane that is not in the mask", lane, 0);
        }
    });
}

using std::max;
using std::min;

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}
inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (std::isnan(x)) return {0x7fff};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)}; // to nearest, ties to even
}
struct __half {
    uint16_t bits;
};
inline float __half2float(__half x) {
    const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                       : exponent     ? std::ldexp(float(1024 + fraction), exponent - 25)
                                      : std::ldexp(float(fraction), -24);
    return x.bits >> 15 ? -size : size;
}
inline __half __float2half(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float size = std::fabs(x);
    if (std::isnan(x)) return {0x7fff};
    if (size == 0.f) return {sign};
    if (size >= 65520.f) return {uint16_t(sign | 0x7c00)}; // halfway between the largest and what would be next
    int exponent = 0;
    std::frexp(size, &exponent);
    exponent = max(exponent, -13); // below 2^-14 all have the same unit
    // In units of the last place, to nearest, ties to even; eleven bits carry into the exponent by themselves.
    const int units = int(std::nearbyint(std::ldexp(size, 11 - exponent)));
    return {uint16_t(sign | (units + (exponent + 13) * 1024))};
}
// Products and sums that the compiler never contracts to one rounding.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }

namespace emulation {

// ldmatrix.x4: lane 8i + r holds the address of row r of matrix i, and lane 4g + t receives the elements 2t and
// 2t + 1 of row g of each matrix, or, transposed, of column g.
struct FourMatrices {
    uint32_t of[4];
};
template <bool TRANSPOSED> void load_matrices(const void* const* in, void* const* out) {
    for (int matrix = 0; matrix < 4; matrix++)
        for (int lane = 0; lane < WARP; lane++) {
            uint16_t pair[2];
            for (int i = 0; i < 2; i++) {
                const int row = TRANSPOSED ? lane % 4 * 2 + i : lane / 4;
                const int column = TRANSPOSED ? lane / 4 : lane % 4 * 2 + i;
                const uint16_t* address = *static_cast<const uint16_t* const*>(in[matrix * 8 + row]);
                if (reinterpret_cast<uintptr_t>(address) % 16) {
                    report("a row of a matrix is not aligned to 16 bytes", matrix, row);
                    return;
                }
                pair[i] = address[column];
            }
            std::memcpy(&static_cast<FourMatrices*>(out[lane])->of[matrix], pair, 4);
        }
}

// mma.m16n8k16 for bf16 or f16: with lane = 4g + t, register i of A holds row g + 8 (i % 2), columns 2t, 2t + 1 plus
// 8 (i / 2); of B rows 2t, 2t + 1 plus 8i, column g; of C and D row g + 8 (i / 2), column 2t + i % 2.
struct Fragments {
    float sum[4];
    uint32_t a[4], b[2];
};
struct Sums {
    float of[4];
};
template <bool F16> void multiply_add(const void* const* in, void* const* out) {
    auto half = [](uint32_t pair, int which) {
        const uint16_t bits = uint16_t(pair >> 16 * which);
        return F16 ? __half2float({bits}) : __bfloat162float({bits});
    };
    float a[16][16], b[8][16];
    for (int lane = 0; lane < WARP; lane++) {
        const Fragments& own = *static_cast<const Fragments*>(in[lane]);
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int e = 0; e < 2; e++) a[g + i % 2 * 8][t * 2 + e + i / 2 * 8] = half(own.a[i], e);
        for (int i = 0; i < 2; i++)
            for (int e = 0; e < 2; e++) b[g][t * 2 + e + i * 8] = half(own.b[i], e);
    }
    for (int lane = 0; lane < WARP; lane++)
        for (int i = 0; i < 4; i++) {
            const float *row = a[lane / 4 + i / 2 * 8], *column = b[lane % 4 * 2 + i % 2];
            float sum = static_cast<const Fragments*>(in[lane])->sum[i];
            for (int k = 0; k < 16; k++) sum += row[k] * column[k];
            static_cast<Sums*>(out[lane])->of[i] = sum;
        }
}

inline void land(const Copy& copy) {
    if (copy.from) std::memcpy(copy.to, copy.from, 16);
    else std::memset(copy.to, 0, 16);
}

} // namespace emulation
