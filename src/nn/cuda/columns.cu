// The columns of a convolution with channels last, and the way back, for matrix products around them.
//
// x [batch, height, width, channels]; row (image, y, x) of the columns is [kernel, kernel, channels], the patch under
// output pixel (y, x), so that columns times a weight [kernel, kernel, channels, out] is the output in its own
// layout, and the copies are runs of whole pixels. The columns of a slab of rows first_row.. are made at a time.
// With scale 2, x is first enlarged to 2 height x 2 width by repeating pixels, which is never stored.
#include "channels.cuh"

constexpr int COLUMNS_THREADS = 128;

struct Convolution {
    int height, width, channels, out_height, out_width, kernel, stride, padding, scale;
};

// A block makes one row.
template <class T, int V>
__device__ __forceinline__ void image_to_columns(const T* x, T* columns, int first_row, Convolution c) {
    const int row = first_row + blockIdx.x, pixels = c.out_height * c.out_width;
    const int image = row / pixels, top = row % pixels / c.out_width * c.stride - c.padding;
    const int left = row % c.out_width * c.stride - c.padding;
    const int length = c.kernel * c.kernel * c.channels;
    for (int i = threadIdx.x * V; i < length; i += COLUMNS_THREADS * V) {
        const int tap = i / c.channels, channel = i % c.channels;
        const int y = top + tap / c.kernel, x_ = left + tap % c.kernel;
        Packed<T, V> run;
        if (y >= 0 && x_ >= 0 && y < c.scale * c.height && x_ < c.scale * c.width) {
            const size_t pixel = (size_t(image) * c.height + y / c.scale) * c.width + x_ / c.scale;
            run = *reinterpret_cast<const Packed<T, V>*>(x + pixel * c.channels + channel);
        } else {
#pragma unroll
            for (int e = 0; e < V; e++) narrow(0.f, run.at[e]);
        }
        *reinterpret_cast<Packed<T, V>*>(columns + size_t(blockIdx.x) * length + i) = run;
    }
}

// The gradient of x from that of the columns of rows first_row..first_row + rows: a block gathers one input pixel, so
// nothing is added by two blocks. A pixel that earlier slabs have a part in keeps it.
template <class T, int V>
__device__ __forceinline__ void columns_to_image(const T* columns, T* dx, int first_pixel, int first_row, int rows,
                                                 Convolution c) {
    const int pixel = first_pixel + blockIdx.x, image = pixel / (c.height * c.width);
    const int y = pixel / c.width % c.height, x = pixel % c.width;
    const int taps = c.kernel * c.kernel, sub_pixels = c.scale * c.scale;
    for (int channel = threadIdx.x * V; channel < c.channels; channel += COLUMNS_THREADS * V) {
        float sum[V] = {};
        bool earlier = false;
        for (int i = 0; i < sub_pixels * taps; i++) {
            const int sub = i / taps, tap = i % taps;
            const int from_top = c.scale * y + sub / c.scale + c.padding - tap / c.kernel;
            const int from_left = c.scale * x + sub % c.scale + c.padding - tap % c.kernel;
            if (from_top < 0 || from_left < 0 || from_top % c.stride || from_left % c.stride) continue;
            const int out_y = from_top / c.stride, out_x = from_left / c.stride;
            if (out_y >= c.out_height || out_x >= c.out_width) continue;
            const int row = (image * c.out_height + out_y) * c.out_width + out_x;
            earlier |= row < first_row;
            if (row < first_row || row >= first_row + rows) continue;
            float part[V];
            load<V>(part, columns + (size_t(row - first_row) * taps + tap) * c.channels + channel);
#pragma unroll
            for (int e = 0; e < V; e++) sum[e] += part[e];
        }
        T* to = dx + size_t(pixel) * c.channels + channel;
        if (earlier) {
            float before[V];
            load<V>(before, to);
#pragma unroll
            for (int e = 0; e < V; e++) sum[e] += before[e];
        }
        store<V>(to, sum);
    }
}

#define CONVOLUTION                                                                                            \
    int height, int width, int channels, int out_height, int out_width, int kernel, int stride, int padding, int scale
#define PARAMETERS(T) (const T* x, T* columns, int first_row, CONVOLUTION)
#define CALL(T, V)                                                                                             \
    image_to_columns<T, V>(x, columns, first_row,                                                              \
                           {height, width, channels, out_height, out_width, kernel, stride, padding, scale})
FORWARD_KERNELS(image_to_columns, COLUMNS_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL

#define PARAMETERS(T) (const T* columns, T* dx, int first_pixel, int first_row, int rows, CONVOLUTION)
#define CALL(T, V)                                                                                             \
    columns_to_image<T, V>(columns, dx, first_pixel, first_row, rows,                                          \
                           {height, width, channels, out_height, out_width, kernel, stride, padding, scale})
CHANNEL_KERNELS(columns_to_image, COLUMNS_THREADS, PARAMETERS, CALL)
#undef PARAMETERS
#undef CALL
#undef CONVOLUTION
