// AdamW, the moving average and the half-precision copy of all tensors in one launch, and the norm for clipping.
//
// The table of tensors lies on the device. A block takes CHUNK elements of one tensor, which it finds by bisection
// of the tensors' first blocks. The norm is made in two stages in a fixed order: a sum of squares per block, then
// one block over those. The factor that clips stays on the device, so the host never waits.
//
// Moments are f32, or codes of 8 bits with a scale for each 256 (`nn/blockwise.rs`), which a warp takes at a time.
//
// Products and sums are rounded one by one, as on the CPU: both give the same bits.
#include "vector.cuh"

struct TrainedTensor {
    float* parameter;
    const float* gradient; // null: the loss does not depend on it, only the average moves
    void *first, *second; // the moments: f32, or their codes
    float *first_scales, *second_scales; // null: the moments are f32
    float* average;                      // null: there is none
    bf16* half;                          // null: there is none
    long long first_block, elements;
};

constexpr int OPTIMISER_THREADS = 256, CHUNK = 1 << 14;

// The tensor of this block: the last one whose first block is not after it.
__device__ __forceinline__ TrainedTensor tensor_of_block(const TrainedTensor* tensors, int count) {
    int low = 0, high = count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (tensors[middle].first_block <= blockIdx.x) low = middle;
        else high = middle - 1;
    }
    return tensors[low];
}

// Calls `four(i)` or `one(i)` for the elements of the block's chunk, four at a time as long as they last.
template <class Four, class One>
__device__ __forceinline__ void each_element(const TrainedTensor& tensor, Four four, One one) {
    const long long start = (blockIdx.x - tensor.first_block) * CHUNK;
    const long long left = tensor.elements - start;
    const int length = left < CHUNK ? int(left) : CHUNK;
    for (int i = threadIdx.x * 4; i < length; i += OPTIMISER_THREADS * 4) {
        if (i + 4 <= length) four(start + i);
        else
            for (int rest = i; rest < length; rest++) one(start + rest);
    }
}

// A thread adds up to 64 squares in f32; everything above that is f64.
__device__ __forceinline__ void squared_norms(const TrainedTensor* tensors, int count, double* partial) {
    const TrainedTensor tensor = tensor_of_block(tensors, count);
    float sum = 0.f;
    if (tensor.gradient)
        each_element(
            tensor,
            [&](long long i) {
                float g[4];
                load<4>(g, tensor.gradient + i);
                sum += g[0] * g[0] + g[1] * g[1] + (g[2] * g[2] + g[3] * g[3]);
            },
            [&](long long i) { sum += tensor.gradient[i] * tensor.gradient[i]; });
    const double total = block_sum(double(sum), shared_memory<double>());
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// result[0] is the norm of all gradients, result[1] the factor that limits it to `largest`, as torch computes it.
__device__ __forceinline__ void norm_and_clip(const double* partial, int blocks, float largest, float* result) {
    double sum = 0.;
    for (int i = threadIdx.x; i < blocks; i += OPTIMISER_THREADS) sum += partial[i];
    sum = block_sum(sum, shared_memory<double>());
    if (threadIdx.x > 0) return;
    const double norm = sqrt(sum), factor = largest / (norm + 1e-6);
    result[0] = float(norm);
    result[1] = factor < 1. ? float(factor) : 1.f;
}

// The constants of a step, as in `nn/cpu/adamw.rs`.
struct Step {
    float clip, beta1, beta2, rest1, rest2, keep, rate, root_correction, eps, approach;
};

// m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p = keep p - rate m / (sqrt(v) root_correction + eps)
__device__ __forceinline__ void advance(const Step& step, float g, float& p, float& m, float& v) {
    const float clipped = __fmul_rn(g, step.clip);
    m = __fadd_rn(__fmul_rn(step.beta1, m), __fmul_rn(step.rest1, clipped));
    v = __fadd_rn(__fmul_rn(step.beta2, v), __fmul_rn(step.rest2, __fmul_rn(clipped, clipped)));
    const float root = __fadd_rn(__fmul_rn(__fsqrt_rn(v), step.root_correction), step.eps);
    p = __fsub_rn(__fmul_rn(p, step.keep), __fmul_rn(step.rate, __fdiv_rn(m, root)));
}

// average -= approach (average - p)
template <int N>
__device__ __forceinline__ void average(const TrainedTensor& tensor, const Step& step, long long i,
                                        const float (&p)[N]) {
    if (!tensor.average) return;
    float average[N];
    load<N>(average, tensor.average + i);
#pragma unroll
    for (int e = 0; e < N; e++)
        average[e] = __fsub_rn(average[e], __fmul_rn(step.approach, __fsub_rn(average[e], p[e])));
    store<N>(tensor.average + i, average);
}

template <int N>
__device__ __forceinline__ void update(const TrainedTensor& tensor, const Step& step, long long i) {
    float p[N];
    load<N>(p, tensor.parameter + i);
    if (tensor.gradient) {
        float g[N], m[N], v[N];
        float* const first = static_cast<float*>(tensor.first) + i;
        float* const second = static_cast<float*>(tensor.second) + i;
        load<N>(g, tensor.gradient + i), load<N>(m, first), load<N>(v, second);
#pragma unroll
        for (int e = 0; e < N; e++) advance(step, g[e], p[e], m[e], v[e]);
        store<N>(first, m), store<N>(second, v), store<N>(tensor.parameter + i, p);
        if (tensor.half) store<N>(tensor.half + i, p);
    }
    average<N>(tensor, step, i, p);
}

// Numbers with one scale, and how many of them a lane takes.
constexpr int SCALED = 256, EACH = SCALED / 32;
using Code = unsigned char;

// The first moment has a sign and its zero at 128; the second has none.
template <bool SIGNED> __device__ __forceinline__ float decode(Code code, float scale) {
    const float part = SIGNED ? __fmul_rn(float(code) - 128.f, 1.f / 127.f) : __fmul_rn(float(code), 1.f / 255.f);
    return __fmul_rn(scale, __fmul_rn(__fmul_rn(part, part), __fmul_rn(part, fabsf(part))));
}
template <bool SIGNED> __device__ __forceinline__ Code encode(float x, float by_scale) {
    const float root = __fsqrt_rn(__fsqrt_rn(__fmul_rn(fabsf(x), by_scale)));
    if (SIGNED) return Code(copysignf(rintf(__fmul_rn(127.f, root)), x) + 128.f);
    // A second moment of zero would let the first move the weight without limit.
    return Code(fmaxf(rintf(__fmul_rn(255.f, root)), x > 0.f ? 1.f : 0.f));
}

// The codes and the scale of a warp's numbers, which it had and now has.
template <bool SIGNED>
__device__ __forceinline__ void write_codes(Code* codes, float* scale, const float (&x)[EACH]) {
    float largest = 0.f;
#pragma unroll
    for (int e = 0; e < EACH; e++) largest = fmaxf(largest, fabsf(x[e]));
    largest = warp_max(largest);
    const float by_scale = __fdiv_rn(1.f, fmaxf(largest, 1.17549435e-38f));
    Packed<Code, EACH> packed;
#pragma unroll
    for (int e = 0; e < EACH; e++) packed.at[e] = encode<SIGNED>(x[e], by_scale);
    *reinterpret_cast<Packed<Code, EACH>*>(codes) = packed;
    if (threadIdx.x % 32 == 0) *scale = largest;
}

// Beyond the tensor's end there are codes, but no parameters; moments are zero there.
__device__ __forceinline__ void update_scaled(const TrainedTensor& tensor, const Step& step) {
    const long long start = (blockIdx.x - tensor.first_block) * CHUNK;
    const long long end = start + CHUNK < tensor.elements ? start + CHUNK : tensor.elements;
    constexpr int STRIDE = OPTIMISER_THREADS / 32 * SCALED;
    for (long long block = start + threadIdx.x / 32 * SCALED; block < end; block += STRIDE) {
        const long long i = block + threadIdx.x % 32 * EACH;
        Code* const first = static_cast<Code*>(tensor.first) + i;
        Code* const second = static_cast<Code*>(tensor.second) + i;
        float* const first_scale = tensor.first_scales + block / SCALED;
        float* const second_scale = tensor.second_scales + block / SCALED;
        const Packed<Code, EACH> of_m = *reinterpret_cast<const Packed<Code, EACH>*>(first);
        const Packed<Code, EACH> of_v = *reinterpret_cast<const Packed<Code, EACH>*>(second);
        const float scale_of_m = *first_scale, scale_of_v = *second_scale;
        float m[EACH], v[EACH];
#pragma unroll
        for (int four = 0; four < EACH; four += 4) {
            float p[4], g[4];
            const bool whole = i + four + 4 <= tensor.elements;
            if (whole) load<4>(p, tensor.parameter + i + four), load<4>(g, tensor.gradient + i + four);
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const long long at = i + four + e;
                m[four + e] = v[four + e] = 0.f;
                if (at >= tensor.elements) continue;
                if (!whole) p[e] = tensor.parameter[at], g[e] = tensor.gradient[at];
                m[four + e] = decode<true>(of_m.at[four + e], scale_of_m);
                v[four + e] = decode<false>(of_v.at[four + e], scale_of_v);
                advance(step, g[e], p[e], m[four + e], v[four + e]);
                if (whole) continue;
                const float one[1] = {p[e]};
                tensor.parameter[at] = p[e];
                if (tensor.half) store<1>(tensor.half + at, one);
                average<1>(tensor, step, at, one);
            }
            if (!whole) continue;
            store<4>(tensor.parameter + i + four, p);
            if (tensor.half) store<4>(tensor.half + i + four, p);
            average<4>(tensor, step, i + four, p);
        }
        write_codes<true>(first, first_scale, m);
        write_codes<false>(second, second_scale, v);
    }
}

// `norm` is the result of `norm_and_clip`. A norm that is not finite changes nothing, so the host may find out
// later, with the weights as they were.
__device__ __forceinline__ void adamw(const TrainedTensor* tensors, int count, const float* norm, Step step) {
    if (!(norm[0] < INFINITY)) return;
    step.clip = norm[1];
    const TrainedTensor tensor = tensor_of_block(tensors, count);
    if (tensor.gradient && tensor.first_scales) return update_scaled(tensor, step);
    each_element(
        tensor, [&](long long i) { update<4>(tensor, step, i); },
        [&](long long i) { update<1>(tensor, step, i); });
}

KERNEL(optimiser_squared_norms, OPTIMISER_THREADS, (const TrainedTensor* tensors, int count, double* partial),
       squared_norms(tensors, count, partial))
KERNEL(optimiser_norm_and_clip, OPTIMISER_THREADS,
       (const double* partial, int blocks, float largest, float* result),
       norm_and_clip(partial, blocks, largest, result))
KERNEL_OF_BLOCKS(optimiser_adamw, OPTIMISER_THREADS, 2,
                 (const TrainedTensor* tensors, int count, const float* norm, float beta1, float beta2, float rest1,
                  float rest2, float keep, float rate, float root_correction, float eps, float approach),
                 adamw(tensors, count, norm,
                       {0.f, beta1, beta2, rest1, rest2, keep, rate, root_correction, eps, approach}))
