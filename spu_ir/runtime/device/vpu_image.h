/*
 * Images on the VPU: the taps of a resize, and the resize, bit by bit as Pillow does it
 * (src/libImaging/Resample.c): taps in double precision, sums of products in int32.
 */
#ifndef SPU_VPU_IMAGE_H
#define SPU_VPU_IMAGE_H

#include "numerics.h"

enum {
  VPU_BILINEAR,
  VPU_BICUBIC,
  VPU_RESIZE_BITS = 22,     /* binary places of a weight */
  VPU_RESIZE_ROW = 12288,   /* most bytes of a resized row, and sums that a core keeps at once */
  VPU_RESIZE_SLACK = 64     /* behind a row, for whole vectors and pixels of four bytes */
};

/* ---- taps ------------------------------------------------------------------------------------ */

SPU_INLINE double vpu_resize_weight(double x, const int filter) {
  x = __builtin_fabs(x);
  if (filter == VPU_BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
  if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
  return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
}

/*
 * The taps (first pixel, number) and weights, `most` to a position, of the `count` positions of an
 * axis with geometry (extent, first stored, extent resized, first taken). Returns 1, and taps of no
 * pixels, when an extent is below 1, a position is outside, or takes more than `most` pixels.
 */
static inline int32_t vpu_resize_taps(const int32_t *geometry, int64_t count, int64_t most,
                                      int32_t *taps, int32_t *weights, const int filter,
                                      const int antialias) {
  const int64_t extent = geometry[0], stored = geometry[1];
  const int64_t resized = geometry[2], first = geometry[3];
  memset(taps, 0, (size_t)(2 * count) * sizeof(int32_t));
  memset(weights, 0, (size_t)(count * most) * sizeof(int32_t));
  if (extent < 1 || resized < 1 || stored < 0 || stored > extent || first < 0 ||
      first + count > resized)
    return 1;
  const double scale = (double)extent / (double)resized;
  const double grown = antialias && scale > 1.0 ? scale : 1.0, inverse = 1.0 / grown;
  const double support = (filter == VPU_BILINEAR ? 1.0 : 2.0) * grown;
  for (int64_t i = 0; i < count; i++) {
    const double centre = ((double)(first + i) + 0.5) * scale;
    int64_t low = (int64_t)(centre - support + 0.5), high = (int64_t)(centre + support + 0.5);
    if (low < 0) low = 0;
    if (high > extent) high = extent;
    const int64_t number = high > low ? high - low : 0;
    if (number > most) return 1;
    double total = 0.0;
    for (int64_t k = 0; k < number; k++)
      total += vpu_resize_weight(((double)(k + low) - centre + 0.5) * inverse, filter);
    if (total == 0.0) total = 1.0;
    for (int64_t k = 0; k < number; k++) {
      const double weight =
          vpu_resize_weight(((double)(k + low) - centre + 0.5) * inverse, filter) / total;
      weights[i * most + k] =
          (int32_t)((weight < 0.0 ? -0.5 : 0.5) + weight * (double)(1 << VPU_RESIZE_BITS));
    }
    taps[2 * i] = (int32_t)(low - stored);
    taps[2 * i + 1] = (int32_t)number;
  }
  return 0;
}

/* ---- resize ---------------------------------------------------------------------------------- */

/* a sum of products as a byte */
SPU_INLINE i32x16 vpu_resize_byte(u32x16 sum) {
  const i32x16 v = (i32x16)sum >> VPU_RESIZE_BITS, top = spu_isplat(255);
  return spu_iselect(v < 0, spu_isplat(0), spu_iselect(v > top, top, v));
}

/* the pixel at p and what follows it, up to four bytes; nothing at `end` or behind it is read */
SPU_INLINE uint32_t vpu_pixel(const uint8_t *p, const uint8_t *end, const int channels) {
  uint32_t v = 0;
  if (end - p >= 4)
    memcpy(&v, p, 4);
  else
    memcpy(&v, p, (size_t)channels);
  return v;
}

/* rows of x narrowed to `width` pixels, four at a time: lane 4 * i + c is channel c of row i */
SPU_INLINE void vpu_resize_columns(const uint8_t *const *x, const uint8_t *end, uint8_t *y,
                                   int64_t width, const int32_t *taps, const int32_t *weights,
                                   int64_t most, const int channels) {
  typedef uint32_t u32x4 __attribute__((vector_size(16)));
  for (int64_t j = 0; j < width; j++) {
    const int64_t place = (int64_t)taps[2 * j] * channels, number = taps[2 * j + 1];
    u32x16 sum = (u32x16)spu_isplat(1 << (VPU_RESIZE_BITS - 1));
    for (int64_t k = 0; k < number; k++) {
      const int64_t at = place + k * channels;
      const u32x4 four = {vpu_pixel(x[0] + at, end, channels), vpu_pixel(x[1] + at, end, channels),
                          vpu_pixel(x[2] + at, end, channels), vpu_pixel(x[3] + at, end, channels)};
      sum += (u32x16)spu_widen_u8((u8x16)four) * (u32x16)spu_isplat(weights[j * most + k]);
    }
    uint8_t bytes[16];
    spu_store_u8(bytes, vpu_resize_byte(sum), 16);
    for (int i = 0; i < 4; i++)
      memcpy(y + i * (VPU_RESIZE_ROW + VPU_RESIZE_SLACK) + j * channels, bytes + 4 * i, 4);
  }
}

/* whether `count` taps lie within an extent, and no more than `most` each */
SPU_INLINE int vpu_taps_fit(const int32_t *taps, int64_t count, int64_t most, int64_t extent) {
  for (int64_t i = 0; i < count; i++) {
    const int64_t first = taps[2 * i], number = taps[2 * i + 1];
    if (first < 0 || number < 0 || number > most || first + number > extent) return 0;
  }
  return 1;
}

/* `count` rows of y, so few that their sums fit */
SPU_INLINE void vpu_resize_rows(const uint8_t *x, const uint8_t *end, int64_t x_row,
                                const int32_t *rows, const int32_t *row_weights, int64_t row_most,
                                const int32_t *columns, const int32_t *column_weights,
                                int64_t column_most, uint8_t *y, int64_t y_row, int64_t count,
                                int64_t width, const int channels) {
  uint32_t sums[VPU_RESIZE_ROW] __attribute__((aligned(64)));
  uint8_t narrow[4 * (VPU_RESIZE_ROW + VPU_RESIZE_SLACK)];
  const int64_t bytes = width * channels, stride = (bytes + 15) / 16 * 16;
  int64_t start = INT64_MAX, stop = 0;
  for (int64_t t = 0; t < count; t++) {
    const int64_t first = rows[2 * t], after = first + rows[2 * t + 1];
    start = first < start ? first : start;
    stop = after > stop ? after : stop;
  }
  for (int64_t i = 0; i < count * stride; i++) sums[i] = 1u << (VPU_RESIZE_BITS - 1);
  for (int64_t r = start; r < stop; r += 4) {
    const uint8_t *four[4];
    for (int64_t i = 0; i < 4; i++) four[i] = x + (r + i < stop ? r + i : stop - 1) * x_row;
    vpu_resize_columns(four, end, narrow, width, columns, column_weights, column_most, channels);
    for (int64_t t = 0; t < count; t++) {
      const int64_t first = rows[2 * t], number = rows[2 * t + 1];
      if (r >= first + number || r + 4 <= first) continue;
      u32x16 weight[4];
      for (int64_t i = 0; i < 4; i++) {
        const int64_t k = r + i - first;
        weight[i] = (u32x16)spu_isplat(k >= 0 && k < number ? row_weights[t * row_most + k] : 0);
      }
      for (int64_t j = 0; j < stride; j += 16) {
        u32x16 sum = (u32x16)spu_load_f32((const float *)(const void *)(sums + t * stride + j), 16);
        for (int64_t i = 0; i < 4; i++)
          sum += (u32x16)spu_load_u8(narrow + i * (VPU_RESIZE_ROW + VPU_RESIZE_SLACK) + j, 16) *
                 weight[i];
        spu_store_i32((int32_t *)(void *)(sums + t * stride + j), (i32x16)sum, 16);
      }
    }
  }
  for (int64_t t = 0; t < count; t++)
    for (int64_t j = 0; j < bytes; j += 16) {
      const i32x16 sum = spu_load_i32((const int32_t *)(const void *)(sums + t * stride + j), 16);
      spu_store_u8(y + t * y_row + j, vpu_resize_byte((u32x16)sum),
                   bytes - j < 16 ? bytes - j : 16);
    }
}

/*
 * `count` rows of a resized image of `width` <= VPU_RESIZE_ROW / channels pixels, from an image of
 * height * columns_stored pixels; rows are x_row and y_row bytes apart. Returns 1, writing zeros,
 * where taps lie outside the image.
 */
static inline int32_t vpu_resize_u8(const uint8_t *x, int64_t height, int64_t columns_stored,
                                    int64_t x_row, const int32_t *rows, const int32_t *row_weights,
                                    int64_t row_most, const int32_t *columns,
                                    const int32_t *column_weights, int64_t column_most, uint8_t *y,
                                    int64_t y_row, int64_t count, int64_t width,
                                    const int channels) {
  if (!vpu_taps_fit(rows, count, row_most, height) ||
      !vpu_taps_fit(columns, width, column_most, columns_stored)) {
    for (int64_t t = 0; t < count; t++) memset(y + t * y_row, 0, (size_t)(width * channels));
    return 1;
  }
  const uint8_t *end = x + (height - 1) * x_row + columns_stored * channels;
  const int64_t step = VPU_RESIZE_ROW / ((width * channels + 15) / 16 * 16);
  for (int64_t t = 0; t < count; t += step)
    vpu_resize_rows(x, end, x_row, rows + 2 * t, row_weights + t * row_most, row_most, columns,
                    column_weights, column_most, y + t * y_row, y_row,
                    count - t < step ? count - t : step, width, channels);
  return 0;
}

/* ---- a table for each channel ---------------------------------------------------------------- */

/* y[i] = table[256 * c + x[i]], c the channel of byte i of `pixels` interleaved ones */
#define VPU_TABLE_CHANNELS(name, type)                                                            \
  static inline void name(const type *table, const uint8_t *x, type *y, int64_t pixels,           \
                          const int64_t channels) {                                               \
    for (int64_t i = 0; i < pixels; i++)                                                          \
      for (int64_t c = 0; c < channels; c++)                                                      \
        y[i * channels + c] = table[256 * c + x[i * channels + c]];                               \
  }
VPU_TABLE_CHANNELS(vpu_table_channels_any_u8, uint8_t)
VPU_TABLE_CHANNELS(vpu_table_channels_f32, float)

static inline void vpu_table_channels_u8(const uint8_t *table, const uint8_t *x, uint8_t *y,
                                         int64_t pixels, const int64_t channels) {
#if defined(SPU_AVX512) && defined(__AVX512VBMI__)
  if (channels == 3) {
    /* 64 bytes at a time, looked up in all three tables; every third lane is of one channel, and
     * the next 64 begin one channel further */
    const __mmask64 third = UINT64_C(0x9249249249249249);
    __m512i t[3][4];
    for (int c = 0; c < 3; c++)
      for (int i = 0; i < 4; i++) t[c][i] = _mm512_loadu_si512(table + 256 * c + 64 * i);
    const int64_t n = 3 * pixels;
    int phase = 0;
    for (int64_t i = 0; i < n; i += 64) {
      const __mmask64 lanes = n - i < 64 ? (__mmask64)((UINT64_C(1) << (n - i)) - 1) : ~UINT64_C(0);
      const __m512i v = _mm512_maskz_loadu_epi8(lanes, x + i);
      const __mmask64 top = _mm512_movepi8_mask(v);
      __m512i r[3];
      for (int c = 0; c < 3; c++)
        r[c] = _mm512_mask_blend_epi8(top, _mm512_permutex2var_epi8(t[c][0], v, t[c][1]),
                                      _mm512_permutex2var_epi8(t[c][2], v, t[c][3]));
      /* lane l is of channel (l + phase) % 3 */
      const __mmask64 first = third << ((3 - phase) % 3), second = third << ((4 - phase) % 3);
      const __m512i two = _mm512_mask_blend_epi8(second, r[2], r[1]);
      _mm512_mask_storeu_epi8(y + i, lanes, _mm512_mask_blend_epi8(first, two, r[0]));
      phase = phase == 2 ? 0 : phase + 1;
    }
    return;
  }
#endif
  vpu_table_channels_any_u8(table, x, y, pixels, channels);
}

#endif
