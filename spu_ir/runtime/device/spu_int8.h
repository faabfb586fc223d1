/*
 * The SPU's INT8 products: exact int32 sums of u8 activations and i8 weights.
 *
 * spu_i8_walk streams the quads (steps) of a block past `rows` rows whose accumulators stay in
 * registers: per quad and row one permute of a 64-byte window and one dot product of 4 bytes in
 * each lane. format, share and rows are literals.
 */
#ifndef SPU_INT8_H
#define SPU_INT8_H

#include "spu_permute.h"

#if defined(SPU_AVX512)

/* 28 accumulators, one route, two values and one operand fill the 32 registers */
#define SPU_I8_ROWS_1 14
#define SPU_I8_ROWS_2 12
#define SPU_I8_ROWS_4 6

SPU_INLINE void spu_i8_walk(const spu_walk *k, const int format, const int share,
                            const int rows) {
  __m512i acc[SPU_MAX_ROWS][SPU_MAX_SHARE];
  SPU_UNROLL
  for (int j = 0; j < share; j++) {
    const __m512i first =
        k->correction ? _mm512_loadu_si512(k->correction + 16 * j) : _mm512_setzero_si512();
    SPU_UNROLL
    for (int m = 0; m < rows; m++) acc[m][j] = first;
  }
  for (int64_t q = k->begin; q < k->end; q++) {
    const uint8_t *a = k->x + k->offset[format == SPU_BANKED2 ? 2 * q : q];
    const uint8_t *b = format == SPU_BANKED2 ? k->x + k->offset[2 * q + 1] : a;
    __m512i value[SPU_MAX_SHARE];
    SPU_UNROLL
    for (int j = 0; j < share; j++)
      value[j] = _mm512_loadu_si512(spu_value_of(k, q, j, format, share));
    spu_route route;
    if (format != SPU_DENSE) route = spu_route_of(k->index + 64 * q, format == SPU_BANKED2);
    SPU_UNROLL
    for (int m = 0; m < rows; m++) {
      __m512i x;
      if (format == SPU_DENSE) {
        int32_t four;
        memcpy(&four, a + m * k->x_stride, 4);
        x = _mm512_set1_epi32(four);
      } else {
        x = spu_permute(route, a + m * k->x_stride, b + m * k->x_stride, format == SPU_BANKED2);
      }
      SPU_UNROLL
      for (int j = 0; j < share; j++) acc[m][j] = _mm512_dpbusd_epi32(acc[m][j], x, value[j]);
    }
  }
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int j = 0; j < share; j++) _mm512_storeu_si512(k->acc + 16 * (m * share + j), acc[m][j]);
  }
}

#elif defined(__AVX2__)

#define SPU_I8_ROWS_1 4
#define SPU_I8_ROWS_2 4
#define SPU_I8_ROWS_4 4

/*
 * Half a lane group (8 lanes) at a time, because a route alone fills four registers. Products of
 * even and odd bytes are summed in pairs as 16-bit words: vpmaddubsw would saturate.
 */
SPU_INLINE void spu_i8_half(const spu_walk *k, const int format, const int share,
                            const int rows, const int j, const int half) {
  const __m256i low = _mm256_set1_epi16(0xff);
  __m256i acc[SPU_MAX_ROWS];
  SPU_UNROLL
  for (int m = 0; m < rows; m++)
    acc[m] = k->correction ? _mm256_loadu_si256((const __m256i *)(const void *)(
                                 k->correction + 16 * j + 8 * half))
                           : _mm256_setzero_si256();
  for (int64_t q = k->begin; q < k->end; q++) {
    const uint8_t *a = k->x + k->offset[format == SPU_BANKED2 ? 2 * q : q];
    const uint8_t *b = format == SPU_BANKED2 ? k->x + k->offset[2 * q + 1] : a;
    const uint8_t *bytes = spu_value_of(k, q, j, format, share) + 32 * half;
    const __m256i value = _mm256_loadu_si256((const __m256i *)(const void *)bytes);
    const __m256i odd = _mm256_srai_epi16(value, 8);
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(value, 8), 8);
    spu_route route;
    if (format != SPU_DENSE)
      route = spu_route_of(k->index + 64 * q + 32 * half, format == SPU_BANKED2);
    SPU_UNROLL
    for (int m = 0; m < rows; m++) {
      __m256i x;
      if (format == SPU_DENSE) {
        int32_t four;
        memcpy(&four, a + m * k->x_stride, 4);
        x = _mm256_set1_epi32(four);
      } else {
        x = spu_permute(&route, a + m * k->x_stride, b + m * k->x_stride, format == SPU_BANKED2);
      }
      const __m256i evens = _mm256_madd_epi16(_mm256_and_si256(x, low), even);
      const __m256i odds = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), odd);
      acc[m] = _mm256_add_epi32(acc[m], _mm256_add_epi32(evens, odds));
    }
  }
  SPU_UNROLL
  for (int m = 0; m < rows; m++)
    _mm256_storeu_si256((__m256i *)(void *)(k->acc + 16 * (m * share + j) + 8 * half), acc[m]);
}
SPU_INLINE void spu_i8_walk(const spu_walk *k, const int format, const int share,
                            const int rows) {
  for (int j = 0; j < share; j++)
    for (int half = 0; half < 2; half++) spu_i8_half(k, format, share, rows, j, half);
}

#else /* plain C */

#define SPU_I8_ROWS_1 1
#define SPU_I8_ROWS_2 1
#define SPU_I8_ROWS_4 1

SPU_INLINE void spu_i8_walk(const spu_walk *k, const int format, const int share,
                            const int rows) {
  (void)rows; /* one: without vectors, more rows save nothing */
  for (int j = 0; j < share; j++) {
    int32_t acc[16];
    for (int l = 0; l < 16; l++) acc[l] = k->correction ? k->correction[16 * j + l] : 0;
    for (int64_t q = k->begin; q < k->end; q++) {
      const uint8_t *a = k->x + k->offset[format == SPU_BANKED2 ? 2 * q : q];
      const uint8_t *b = format == SPU_BANKED2 ? k->x + k->offset[2 * q + 1] : a;
      const int8_t *value = (const int8_t *)spu_value_of(k, q, j, format, share);
      const uint8_t *index = format == SPU_DENSE ? NULL : k->index + 64 * q;
      for (int i = 0; i < 64; i++) {
        const int32_t x = format == SPU_DENSE    ? a[i & 3]
                          : format == SPU_BANKED ? a[index[i]]
                                                 : spu_reach(index[i], a, b);
        acc[i >> 2] += x * value[i];
      }
    }
    memcpy(k->acc + 16 * j, acc, sizeof acc);
  }
}

#endif

SPU_DEFINE(spu_i8_dense_1, spu_i8_walk, SPU_DENSE, 1, SPU_I8_ROWS_1)
SPU_DEFINE(spu_i8_dense_2, spu_i8_walk, SPU_DENSE, 2, SPU_I8_ROWS_2)
SPU_DEFINE(spu_i8_banked_1, spu_i8_walk, SPU_BANKED, 1, SPU_I8_ROWS_1)
SPU_DEFINE(spu_i8_banked_2, spu_i8_walk, SPU_BANKED, 2, SPU_I8_ROWS_2)
SPU_DEFINE(spu_i8_banked_4, spu_i8_walk, SPU_BANKED, 4, SPU_I8_ROWS_4)
SPU_DEFINE(spu_i8_banked2_1, spu_i8_walk, SPU_BANKED2, 1, SPU_I8_ROWS_1)
SPU_DEFINE(spu_i8_banked2_2, spu_i8_walk, SPU_BANKED2, 2, SPU_I8_ROWS_2)
SPU_DEFINE(spu_i8_banked2_4, spu_i8_walk, SPU_BANKED2, 4, SPU_I8_ROWS_4)

#endif
