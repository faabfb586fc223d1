/*
 * Pooling of one row of output pixels, in NHWC.
 *
 * The window is clipped to the image, so padding is never read. Elements are taken kernel row by
 * kernel row; the vector axis is the channel. A window with no element in it gives the identity
 * of max (the type's lowest value), and 0 as its average.
 */
#ifndef SPU_VPU_POOL_H
#define SPU_VPU_POOL_H

#include "numerics.h"

typedef struct {
  int64_t x_row, x_pixel, y_pixel; /* elements between rows and pixels of x, and pixels of y */
  int32_t height, width, channels; /* of the image x, without any halo */
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int32_t pad_top, pad_left;
  int32_t count_include_pad; /* an average divides by the whole kernel, else by what is inside */
} vpu_pool;

/* The taps first..last-1 of a window along one axis; `start` is the position of tap 0. */
typedef struct {
  int64_t start;
  int32_t first, last;
} vpu_window;

/* how many of the taps start, start + step, ... lie below `end`, at most `kernel` */
SPU_INLINE int32_t vpu_taps_below(int64_t start, int32_t step, int32_t kernel, int64_t end) {
  const int64_t count = end <= start ? 0 : (end - start + step - 1) / step;
  return count < kernel ? (int32_t)count : kernel;
}

static inline vpu_window vpu_clip_window(int64_t output, int32_t stride, int32_t pad,
                                         int32_t kernel, int32_t dilation, int32_t extent) {
  vpu_window w;
  w.start = output * stride - pad;
  w.first = vpu_taps_below(w.start, dilation, kernel, 0);
  w.last = vpu_taps_below(w.start, dilation, kernel, extent);
  if (w.last < w.first) w.last = w.first;
  return w;
}

/*
 * void name(p, x, y, oh, ow_begin, ow_end): x is pixel (0, 0) of the image, y pixel 0 of output
 * row oh; writes the pixels ow_begin..ow_end-1 of that row.
 * `vector` lanes of `acc_type` start from `identity`, take `step` for each loaded `v`, and are
 * stored by `finish`; `area` is the number that the sum is divided by.
 */
#define VPU_POOL(name, x_type, y_type, parameters, lanes, acc_type, identity, load, step, finish)  \
  static inline void name(const vpu_pool *p, const x_type *x, y_type *y, int64_t oh,              \
                          int64_t ow_begin, int64_t ow_end parameters) {                          \
    const vpu_window h = vpu_clip_window(oh, p->stride_h, p->pad_top, p->kernel_h, p->dilation_h, \
                                         p->height);                                              \
    for (int64_t ow = ow_begin; ow < ow_end; ow++) {                                              \
      const vpu_window w = vpu_clip_window(ow, p->stride_w, p->pad_left, p->kernel_w,             \
                                           p->dilation_w, p->width);                              \
      const int64_t taps = (int64_t)(h.last - h.first) * (w.last - w.first);                      \
      const int64_t all = p->count_include_pad ? (int64_t)p->kernel_h * p->kernel_w : taps;       \
      const float area = (float)(all > 0 ? all : 1);                                              \
      (void)area;                                                                                 \
      for (int64_t c = 0; c < p->channels; c += lanes) {                                          \
        const int64_t left = p->channels - c, count = left < lanes ? left : lanes;                \
        acc_type acc = identity;                                                                  \
        for (int32_t i = h.first; i < h.last; i++)                                                \
          for (int32_t j = w.first; j < w.last; j++) {                                            \
            const x_type *at = x + (h.start + (int64_t)i * p->dilation_h) * p->x_row +            \
                               (w.start + (int64_t)j * p->dilation_w) * p->x_pixel + c;           \
            const acc_type v = load(at, count);                                                   \
            acc = step;                                                                           \
          }                                                                                       \
        y_type *to = y + ow * p->y_pixel + c;                                                     \
        finish;                                                                                   \
      }                                                                                           \
    }                                                                                             \
  }
#define VPU_NO_PARAMETERS
#define VPU_QUANTISED_PARAMETERS , float scale, int32_t zero

typedef uint8_t vpu_u8x64 __attribute__((vector_size(64)));
typedef int8_t vpu_i8x64 __attribute__((vector_size(64)));

SPU_INLINE vpu_u8x64 vpu_load_64_u8(const uint8_t *p, int64_t count) {
  vpu_u8x64 v = {0};
  if (count >= 64)
    memcpy(&v, p, 64);
  else
    memcpy(&v, p, (size_t)count);
  return v;
}
SPU_INLINE vpu_i8x64 vpu_load_64_i8(const int8_t *p, int64_t count) {
  return (vpu_i8x64)vpu_load_64_u8((const uint8_t *)p, count);
}
SPU_INLINE void vpu_store_64(void *p, vpu_u8x64 v, int64_t count) {
  if (count >= 64)
    memcpy(p, &v, 64);
  else
    memcpy(p, &v, (size_t)count);
}
SPU_INLINE vpu_u8x64 vpu_max_64_u8(vpu_u8x64 a, vpu_u8x64 b) {
  const vpu_u8x64 mask = (vpu_u8x64)(a > b);
  return (a & mask) | (b & ~mask);
}
SPU_INLINE vpu_i8x64 vpu_max_64_i8(vpu_i8x64 a, vpu_i8x64 b) {
  const vpu_i8x64 mask = a > b;
  return (a & mask) | (b & ~mask);
}

#define VPU_LOWEST spu_splat(-__builtin_inff())
/* NaN is passed over */
VPU_POOL(vpu_max_pool_f32, float, float, VPU_NO_PARAMETERS, 16, f32x16, VPU_LOWEST, spu_load_f32,
         spu_max(v, acc), spu_store_f32(to, acc, count))
VPU_POOL(vpu_max_pool_bf16, uint16_t, uint16_t, VPU_NO_PARAMETERS, 16, f32x16, VPU_LOWEST,
         spu_load_bf16, spu_max(v, acc), spu_store_bf16(to, acc, count))
VPU_POOL(vpu_max_pool_u8, uint8_t, uint8_t, VPU_NO_PARAMETERS, 64, vpu_u8x64, (vpu_u8x64){0},
         vpu_load_64_u8, vpu_max_64_u8(acc, v), vpu_store_64(to, acc, count))
VPU_POOL(vpu_max_pool_i8, int8_t, int8_t, VPU_NO_PARAMETERS, 64, vpu_i8x64,
         (vpu_i8x64){0} - (int8_t)127 - (int8_t)1, vpu_load_64_i8, vpu_max_64_i8(acc, v),
         vpu_store_64(to, (vpu_u8x64)acc, count))

/* sum / count */
VPU_POOL(vpu_avg_pool_f32, float, float, VPU_NO_PARAMETERS, 16, f32x16, spu_splat(0.0f),
         spu_load_f32, acc + v, spu_store_f32(to, acc / spu_splat(area), count))
VPU_POOL(vpu_avg_pool_bf16, uint16_t, uint16_t, VPU_NO_PARAMETERS, 16, f32x16, spu_splat(0.0f),
         spu_load_bf16, acc + v, spu_store_bf16(to, acc / spu_splat(area), count))
/* ((float)(sum of (x - zero)) / count) * scale, the sum exact; f32 results */
#define VPU_QUANTISED_AVERAGE                                                                      \
  spu_store_f32(to, (spu_to_f32(acc) / spu_splat(area)) * spu_splat(scale), count)
VPU_POOL(vpu_avg_pool_u8, uint8_t, float, VPU_QUANTISED_PARAMETERS, 16, i32x16, spu_isplat(0),
         spu_load_u8, acc + (v - spu_isplat(zero)), VPU_QUANTISED_AVERAGE)
VPU_POOL(vpu_avg_pool_i8, int8_t, float, VPU_QUANTISED_PARAMETERS, 16, i32x16, spu_isplat(0),
         spu_load_i8, acc + (v - spu_isplat(zero)), VPU_QUANTISED_AVERAGE)

/* The pool whose one window is the whole image; strides in elements. */
SPU_INLINE vpu_pool vpu_whole_image(int64_t x_row, int64_t x_pixel, int32_t height, int32_t width,
                                    int32_t channels) {
  return (vpu_pool){x_row, x_pixel, channels, height, width, channels, height, width, 1, 1, 1, 1,
                    0, 0, 0};
}
/* y[c] = mean over all pixels, in order */
static inline void vpu_global_average_f32(const float *x, int64_t x_row, int64_t x_pixel,
                                          int32_t height, int32_t width, int32_t channels,
                                          float *y) {
  const vpu_pool whole = vpu_whole_image(x_row, x_pixel, height, width, channels);
  vpu_avg_pool_f32(&whole, x, y, 0, 0, 1);
}
static inline void vpu_global_average_bf16(const uint16_t *x, int64_t x_row, int64_t x_pixel,
                                           int32_t height, int32_t width, int32_t channels,
                                           uint16_t *y) {
  const vpu_pool whole = vpu_whole_image(x_row, x_pixel, height, width, channels);
  vpu_avg_pool_bf16(&whole, x, y, 0, 0, 1);
}
static inline void vpu_global_average_u8(const uint8_t *x, int64_t x_row, int64_t x_pixel,
                                         int32_t height, int32_t width, int32_t channels,
                                         float *y, float scale, int32_t zero) {
  const vpu_pool whole = vpu_whole_image(x_row, x_pixel, height, width, channels);
  vpu_avg_pool_u8(&whole, x, y, 0, 0, 1, scale, zero);
}
static inline void vpu_global_average_i8(const int8_t *x, int64_t x_row, int64_t x_pixel,
                                         int32_t height, int32_t width, int32_t channels,
                                         float *y, float scale, int32_t zero) {
  const vpu_pool whole = vpu_whole_image(x_row, x_pixel, height, width, channels);
  vpu_avg_pool_i8(&whole, x, y, 0, 0, 1, scale, zero);
}

#endif
