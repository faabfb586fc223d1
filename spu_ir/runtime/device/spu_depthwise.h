/*
 * Depthwise convolution: one weight a channel and tap, so the vector is 16 channels of a pixel,
 * or of four pixels side by side.
 *
 * The weight's value is [lane groups][taps][64 bytes]: 16 int32, 16 bfloat16 below two zero
 * bytes each, or 16 floats; offset [taps] is in bytes from x, begin is {0, taps}. Taps are added
 * in order: int8 exactly, f32 as every product of the SPU, bfloat16 a step a tap whose odd slot
 * is 0 * 0.
 */
#ifndef SPU_DEPTHWISE_H
#define SPU_DEPTHWISE_H

#include "epilogue.h"
#include "spu_bf16.h"
#include "spu_depthwise_runs.h"
#include "spu_f32.h"

/* pixels that are in registers together, of vectors as wide as these are */
#if defined(SPU_AVX512)
#define SPU_DEPTHWISE_ROWS 14
#elif defined(__AVX2__)
#define SPU_DEPTHWISE_ROWS 6
#else
#define SPU_DEPTHWISE_ROWS 4
#endif
#if defined(SPU_AVX512) && !defined(__AVX512BF16__)
#define SPU_DEPTHWISE_ROWS_BF16 2
#elif defined(SPU_AVX512)
#define SPU_DEPTHWISE_ROWS_BF16 14
#else
#define SPU_DEPTHWISE_ROWS_BF16 1
#endif

typedef int32_t spu_i32n __attribute__((vector_size(4 * SPU_F32_WIDTH)));

/* x * w of bytes that were widened to 32 bits: x in 0..255, w in -128..127 */
SPU_INLINE spu_i32n spu_byte_product(spu_i32n x, spu_i32n w) {
#if defined(SPU_AVX512)
  return (spu_i32n)_mm512_madd_epi16((__m512i)x, (__m512i)w);
#elif defined(__AVX2__)
  return (spu_i32n)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#else
  return x * w;
#endif
}

/* `rows` pixels from x, of one lane group whose weights are at `value`; acc is [rows][16] */
#define SPU_DEPTHWISE_WALK(name, vector, load, start, step)                                  \
  SPU_INLINE void name(const spu_walk *k, const int format, const int share, const int rows) { \
    (void)format;                                                                            \
    (void)share;                                                                             \
    enum { parts = (int)(64 / sizeof(vector)) };                                             \
    for (int p = 0; p < parts; p++) {                                                        \
      vector acc[SPU_MAX_ROWS];                                                              \
      SPU_UNROLL                                                                             \
      for (int m = 0; m < rows; m++) acc[m] = start;                                         \
      for (int64_t q = 0; q < k->end; q++) {                                                 \
        const uint8_t *a = k->x + k->offset[q];                                              \
        vector w;                                                                            \
        memcpy(&w, k->value + 64 * q + p * (int)sizeof(vector), sizeof(vector));             \
        SPU_UNROLL                                                                           \
        for (int m = 0; m < rows; m++) {                                                     \
          const uint8_t *at = a + m * k->x_stride;                                           \
          load;                                                                              \
          acc[m] = step;                                                                     \
        }                                                                                    \
      }                                                                                      \
      SPU_UNROLL                                                                             \
      for (int m = 0; m < rows; m++)                                                         \
        memcpy((uint8_t *)k->acc + 64 * m + p * (int)sizeof(vector), &acc[m], sizeof(vector)); \
    }                                                                                        \
  }

SPU_INLINE spu_i32n spu_depthwise_correction(const spu_walk *k, int part) {
  spu_i32n first = {0};
  if (k->correction) memcpy(&first, k->correction + SPU_F32_WIDTH * part, sizeof first);
  return first;
}
SPU_INLINE spu_i32n spu_depthwise_bytes(const uint8_t *at) {
#if defined(SPU_AVX512)
  return (spu_i32n)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i_u *)at));
#elif defined(__AVX2__)
  return (spu_i32n)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i_u *)at));
#else
  return (spu_i32n){at[0], at[1], at[2], at[3]};
#endif
}
SPU_INLINE i32x16 spu_depthwise_halves(const uint8_t *at) {
#if defined(SPU_AVX512)
  return (i32x16)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i_u *)at));
#else
  u16x16 x;
  memcpy(&x, at, sizeof x);
  return __builtin_convertvector(x, i32x16);
#endif
}

SPU_DEPTHWISE_WALK(spu_depthwise_f32_walk, spu_f32n, spu_f32n x;
                   memcpy(&x, at + p * (int)sizeof x, sizeof x), (spu_f32n){0}, acc[m] + x * w)
SPU_DEPTHWISE_WALK(spu_depthwise_i8_walk, spu_i32n,
                   const spu_i32n x = spu_depthwise_bytes(at + p * SPU_F32_WIDTH),
                   spu_depthwise_correction(k, p), acc[m] + spu_byte_product(x, w))
SPU_DEPTHWISE_WALK(spu_depthwise_bf16_walk, i32x16, const i32x16 x = spu_depthwise_halves(at),
                   spu_isplat(0), (i32x16)spu_bf16_dot((f32x16)acc[m], x, w))

#define SPU_DEPTHWISE_SUMS(name, walk, limit)                                              \
  static __attribute__((noinline, unused)) void name(const spu_tile *t, int64_t lane_group, \
                                                     const uint8_t *x, int32_t *acc) {     \
    for (int32_t first = 0; first < t->rows;) {                                            \
      const int32_t rows = spu_walk_rows(t->rows - first, limit);                          \
      const int64_t taps = t->w->begin[1];                                                 \
      const spu_walk k = {                                                                 \
          .value = t->w->value + 64 * taps * lane_group,                                   \
          .offset = t->w->offset,                                                          \
          .end = taps,                                                                     \
          .x = x + first * t->x_stride,                                                    \
          .x_stride = t->x_stride,                                                         \
          .correction = t->w->correction ? t->w->correction + 16 * lane_group : NULL,      \
          .acc = acc + (int64_t)first * 16,                                                \
      };                                                                                   \
      switch (rows) { SPU_CASES(limit, walk, &k, SPU_DENSE, 1) }                           \
      first += rows;                                                                       \
    }                                                                                      \
  }
SPU_DEPTHWISE_SUMS(spu_depthwise_f32, spu_depthwise_f32_walk, SPU_DEPTHWISE_ROWS)
SPU_DEPTHWISE_SUMS(spu_depthwise_i8, spu_depthwise_i8_walk, SPU_DEPTHWISE_ROWS)
SPU_DEPTHWISE_SUMS(spu_depthwise_bf16, spu_depthwise_bf16_walk, SPU_DEPTHWISE_ROWS_BF16)

/*
 * A tile of pixels and all their channels from the first of lane group `tile->group` on, at x;
 * the other arguments as those of spu_tile_run.
 */
SPU_INLINE void spu_depthwise_run(const spu_tile *tile, int type, int epilogue, int residual,
                                  int activation, int out) {
  const int64_t bytes = type == SPU_I8 ? 1 : type == SPU_BF16 ? 2 : 4;
#if defined(SPU_AVX512) && defined(__AVX512VBMI__)
  spu_depthwise_plan plan;
  if (type == SPU_I8 && spu_depthwise_plan_of(tile, &plan)) {
    spu_depthwise_by_four(tile, &plan, epilogue, residual, activation, out);
    return;
  }
#endif
  for (int32_t done = 0; done < tile->lanes; done += 16) {
    _Alignas(64) int32_t acc[SPU_MAX_ROWS * 16];
    const spu_tile t = spu_tile_after(tile, done, epilogue, residual, out);
    const uint8_t *x = (const uint8_t *)tile->x + done * bytes;
    if (type == SPU_I8)
      spu_depthwise_i8(&t, t.group, x, acc);
    else if (type == SPU_BF16)
      spu_depthwise_bf16(&t, t.group, x, acc);
    else
      spu_depthwise_f32(&t, t.group, x, acc);
    spu_epilogue(&t, acc, type, 1, epilogue, residual, activation, out);
  }
}

#endif
