/*
 * VPU instructions that quantise rows of which the columns are scaled first: x[j] * columns[j] is
 * what vpu_rows.h calls x. Products are rounded to f32 before anything else happens to them.
 */
#ifndef SPU_VPU_COLUMNS_H
#define SPU_VPU_COLUMNS_H

#include "numerics.h"

SPU_INLINE f32x16 vpu_scaled(const float *x, const float *columns, int64_t j, int64_t count) {
  return spu_load_f32(x + j, count) * spu_load_f32(columns + j, count);
}

/* spu_quantise_row of x * columns */
SPU_INLINE void vpu_quantise_scaled(const float *x, const float *columns, uint8_t *q, int64_t n,
                                    float inverse, int32_t zero, int32_t low, int32_t high) {
  int64_t j = 0;
#if defined(SPU_AVX512)
  if (inverse <= SPU_FLOAT_MAX && low != zero)
    for (; j + 64 <= n; j += 64) {
      i32x16 v[4];
      SPU_UNROLL
      for (int i = 0; i < 4; i++)
        v[i] = spu_round_small(vpu_scaled(x, columns, j + 16 * i, 16) * spu_splat(inverse));
      spu_store_64_low_bytes(q + j, v, zero);
    }
#endif
  for (; j < n; j += 16) {
    const int64_t count = n - j < 16 ? n - j : 16;
    const f32x16 v = vpu_scaled(x, columns, j, count);
    spu_store_u8(q + j, spu_quantise(v, inverse, zero, low, high), count);
  }
}

/* vpu_quantise_row_f32 of x * columns */
static inline void vpu_quantise_columns_f32(const float *x, const float *columns, uint8_t *q,
                                            float *scale, int64_t n) {
  f32x16 most = spu_splat(0.0f), mosts = most;
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) { /* a maximum has no order */
    most = spu_max(spu_abs(vpu_scaled(x, columns, j, 16)), most);
    mosts = spu_max(spu_abs(vpu_scaled(x, columns, j + 16, 16)), mosts);
  }
  for (; j < n; j += 16)
    most = spu_max(spu_abs(vpu_scaled(x, columns, j, n - j < 16 ? n - j : 16)), most);
  const float peak = spu_tree_max(spu_max(most, mosts));
  *scale = peak == 0.0f ? 1.0f : peak / 127.0f;
  vpu_quantise_scaled(x, columns, q, n, peak == 0.0f ? 0.0f : 127.0f / peak, 128, 1, 255);
}

/* vpu_quantise_row_from_f32 of x * columns */
static inline void vpu_quantise_columns_from_f32(const float *x, const float *columns, uint8_t *q,
                                                 float *scale, int64_t n, int32_t zero) {
  f32x16 most = spu_splat(0.0f), least = most, mosts = most, leasts = most;
  int64_t j = 0;
  for (; j + 32 <= n; j += 32) {
    const f32x16 a = vpu_scaled(x, columns, j, 16), b = vpu_scaled(x, columns, j + 16, 16);
    mosts = spu_max(a, mosts);
    most = spu_max(b, most);
    leasts = spu_min(a, leasts);
    least = spu_min(b, least);
  }
  for (; j < n; j += 16) { /* lanes that are not loaded are 0, which is where both begin */
    const f32x16 v = vpu_scaled(x, columns, j, n - j < 16 ? n - j : 16);
    most = spu_max(v, most);
    least = spu_min(v, least);
  }
  const float above = spu_tree_max(spu_max(mosts, most)) / (float)(255 - zero);
  const float below = zero ? -spu_tree_min(spu_min(leasts, least)) / (float)zero : 0.0f;
  const float step = below > above ? below : above;
  *scale = step == 0.0f ? 1.0f : step;
  vpu_quantise_scaled(x, columns, q, n, step == 0.0f ? 0.0f : 1.0f / step, zero, 0, 255);
}

#endif
