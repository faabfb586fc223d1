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

#if defined(SPU_AVX512) && defined(__AVX512VBMI__)

enum { SPU_DEPTHWISE_RUN = 64 }; /* taps that are taken together, at most */

/* How many taps from `q` on are a pixel of the tile apart. */
SPU_INLINE int64_t spu_depthwise_next(const int32_t *offset, int64_t q, int64_t end,
                                      int64_t x_stride) {
  const int64_t limit = end - q < SPU_DEPTHWISE_RUN ? end - q : SPU_DEPTHWISE_RUN;
  int64_t count = 1;
  while (count < limit && offset[q + count] == offset[q + count - 1] + x_stride) count++;
  return count;
}

/* Whether most taps are a pixel of the tile apart: those of a row, without strides. */
SPU_INLINE int spu_depthwise_runs(const spu_tile *t) {
  const int64_t taps = t->w->begin[1];
  int64_t runs = 0;
  for (int64_t q = 0; q < taps; runs++)
    q += spu_depthwise_next(t->w->offset, q, taps, t->x_stride);
  return taps >= 3 * runs;
}

/* 16 channels of four pixels from `p` on; behind the last, that one again */
SPU_INLINE __m512i spu_depthwise_pixels(const uint8_t *x, int64_t stride, int64_t p,
                                        int64_t last) {
  __m128i pixel[4];
  SPU_UNROLL
  for (int i = 0; i < 4; i++) {
    const uint8_t *at = x + (p + i < last ? p + i : last) * stride;
    pixel[i] = _mm_loadu_si128((const __m128i_u *)at);
  }
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(pixel[0]), pixel[1], 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(pixel[2]), pixel[3], 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/*
 * spu_depthwise_i8_walk, four taps a step. What tap q of pixel m needs, tap q - 1 of pixel m + 1
 * does too: so four pixels from each on are put beside each other, channel by channel, once.
 */
SPU_INLINE void spu_depthwise_i8_quads(const spu_walk *k, const int format, const int share,
                                       const int rows) {
  (void)format;
  (void)share;
  _Alignas(64) uint8_t fours[SPU_MAX_ROWS + SPU_DEPTHWISE_RUN + 4][64];
  const __m512i turn = _mm512_set_epi8(
      63, 47, 31, 15, 62, 46, 30, 14, 61, 45, 29, 13, 60, 44, 28, 12, 59, 43, 27, 11, 58, 42, 26,
      10, 57, 41, 25, 9, 56, 40, 24, 8, 55, 39, 23, 7, 54, 38, 22, 6, 53, 37, 21, 5, 52, 36, 20, 4,
      51, 35, 19, 3, 50, 34, 18, 2, 49, 33, 17, 1, 48, 32, 16, 0);
  __m512i acc[SPU_MAX_ROWS];
  SPU_UNROLL
  for (int m = 0; m < rows; m++) acc[m] = (__m512i)spu_depthwise_correction(k, 0);
  for (int64_t q = 0; q < k->end;) {
    const int64_t taps = spu_depthwise_next(k->offset, q, k->end, k->x_stride);
    const uint8_t *x = k->x + k->offset[q];
    const int64_t last = rows + taps - 2;
    __m512i four = spu_depthwise_pixels(x, k->x_stride, 0, last);
    for (int64_t p = 0; p <= last; p += 4) {
      const __m512i next = spu_depthwise_pixels(x, k->x_stride, p + 4, last);
      const __m512i from[4] = {four, _mm512_alignr_epi32(next, four, 4),
                               _mm512_alignr_epi32(next, four, 8),
                               _mm512_alignr_epi32(next, four, 12)};
      SPU_UNROLL
      for (int i = 0; i < 4; i++)
        _mm512_store_si512(fours[p + i], _mm512_permutexvar_epi8(turn, from[i]));
      four = next;
    }
    for (int64_t done = 0; done < taps; done += 4) {
      __m512i w = _mm512_setzero_si512();
      for (int64_t i = taps - done < 4 ? taps - done : 4; i-- > 0;) {
        const __m512i one = _mm512_loadu_si512(k->value + 64 * (q + done + i));
        w = _mm512_or_si512(_mm512_slli_epi32(w, 8),
                            _mm512_and_si512(one, _mm512_set1_epi32(0xff)));
      }
      SPU_UNROLL
      for (int m = 0; m < rows; m++)
        acc[m] = _mm512_dpbusd_epi32(acc[m], _mm512_load_si512(fours[done + m]), w);
    }
    q += taps;
  }
  SPU_UNROLL
  for (int m = 0; m < rows; m++) _mm512_storeu_si512(k->acc + 16 * m, acc[m]);
}

#else

SPU_INLINE int spu_depthwise_runs(const spu_tile *t) {
  (void)t;
  return 0;
}
#define spu_depthwise_i8_quads spu_depthwise_i8_walk

#endif

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
SPU_DEPTHWISE_SUMS(spu_depthwise_i8_runs, spu_depthwise_i8_quads, SPU_DEPTHWISE_ROWS)

/*
 * A tile of pixels and all their channels from the first of lane group `tile->group` on, at x;
 * the other arguments as those of spu_tile_run.
 */
SPU_INLINE void spu_depthwise_run(const spu_tile *tile, int type, int epilogue, int residual,
                                  int activation, int out) {
  const int64_t bytes = type == SPU_I8 ? 1 : type == SPU_BF16 ? 2 : 4;
  const int runs = type == SPU_I8 && spu_depthwise_runs(tile);
  for (int32_t done = 0; done < tile->lanes; done += 16) {
    _Alignas(64) int32_t acc[SPU_MAX_ROWS * 16];
    const spu_tile t = spu_tile_after(tile, done, epilogue, residual, out);
    const uint8_t *x = (const uint8_t *)tile->x + done * bytes;
    if (runs)
      spu_depthwise_i8_runs(&t, t.group, x, acc);
    else if (type == SPU_I8)
      spu_depthwise_i8(&t, t.group, x, acc);
    else if (type == SPU_BF16)
      spu_depthwise_bf16(&t, t.group, x, acc);
    else
      spu_depthwise_f32(&t, t.group, x, acc);
    spu_epilogue(&t, acc, type, 1, epilogue, residual, activation, out);
  }
}

#endif
