// AdamW, the moving average and the half-precision copy of all tensors in one launch, and the norm for clipping.
//
// The table of tensors lies on the device. A block takes CHUNK elements of one tensor, which it finds by bisection
// of the tensors' first blocks. The norm is made in two stages in a fixed order: a sum of squares per block, then
// one block over those. The factor that clips stays on the device, so the host never waits.
//
// Products and sums are rounded one by one, as on the CPU: both give the same bits.
#include "vector.cuh"

struct TrainedTensor {
    float* parameter;
    const float* gradient; // null: the loss does not depend on it, only the average moves
    float *first, *second; // the moments
    float* average;        // null: there is none
    bf16* half;            // null: there is none
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

// m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
// p = keep p - rate m / (sqrt(v) root_correction + eps);  average -= approach (average - p)
template <int N>
__device__ __forceinline__ void update(const TrainedTensor& tensor, const Step& step, long long i) {
    float p[N];
    load<N>(p, tensor.parameter + i);
    if (tensor.gradient) {
        float g[N], m[N], v[N];
        load<N>(g, tensor.gradient + i), load<N>(m, tensor.first + i), load<N>(v, tensor.second + i);
#pragma unroll
        for (int e = 0; e < N; e++) {
            const float clipped = __fmul_rn(g[e], step.clip);
            m[e] = __fadd_rn(__fmul_rn(step.beta1, m[e]), __fmul_rn(step.rest1, clipped));
            v[e] = __fadd_rn(__fmul_rn(step.beta2, v[e]), __fmul_rn(step.rest2, __fmul_rn(clipped, clipped)));
            const float root = __fadd_rn(__fmul_rn(__fsqrt_rn(v[e]), step.root_correction), step.eps);
            p[e] = __fsub_rn(__fmul_rn(p[e], step.keep), __fmul_rn(step.rate, __fdiv_rn(m[e], root)));
        }
        store<N>(tensor.first + i, m), store<N>(tensor.second + i, v), store<N>(tensor.parameter + i, p);
        if (tensor.half) store<N>(tensor.half + i, p);
    }
    if (tensor.average) {
        float average[N];
        load<N>(average, tensor.average + i);
#pragma unroll
        for (int e = 0; e < N; e++)
            average[e] = __fsub_rn(average[e], __fmul_rn(step.approach, __fsub_rn(average[e], p[e])));
        store<N>(tensor.average + i, average);
    }
}

// `norm` is the result of `norm_and_clip`. A norm that is not finite changes nothing, so the host may find out
// later, with the weights as they were.
__device__ __forceinline__ void adamw(const TrainedTensor* tensors, int count, const float* norm, Step step) {
    if (!(norm[0] < INFINITY)) return;
    step.clip = norm[1];
    const TrainedTensor tensor = tensor_of_block(tensors, count);
    each_element(
        tensor, [&](long long i) { update<4>(tensor, step, i); },
        [&](long long i) { update<1>(tensor, step, i); });
}

KERNEL(optimiser_squared_norms, OPTIMISER_THREADS, (const TrainedTensor* tensors, int count, double* partial),
       squared_norms(tensors, count, partial))
KERNEL(optimiser_norm_and_clip, OPTIMISER_THREADS,
       (const double* partial, int blocks, float largest, float* result),
       norm_and_clip(partial, blocks, largest, result))
KERNEL(optimiser_adamw, OPTIMISER_THREADS,
       (const TrainedTensor* tensors, int count, const float* norm, float beta1, float beta2, float rest1,
        float rest2, float keep, float rate, float root_correction, float eps, float approach),
       adamw(tensors, count, norm, {0.f, beta1, beta2, rest1, rest2, keep, rate, root_correction, eps, approach}))
