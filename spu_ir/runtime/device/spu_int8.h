/*
 * The SPU's INT8 products: exact int32 sums of u8 activations and i8 weights.
 *
 * spu_i8_walk streams the quads (steps) of a block past `rows` rows whose accumulators stay in
 * registers: per quad and row one permute of a 64-byte window and one dot product of 4 bytes in
 * each lane. format, share and rows are literals. With AVX-512, the commonest epilogues take the
 * sums where they are, in registers: spu_i8_fused.
 */
#ifndef SPU_INT8_H
#define SPU_INT8_H

#include "epilogue.h"
#include "spu_permute.h"

#if defined(SPU_AVX512)

/* 28 accumulators, one route, two values and one operand fill the 32 registers */
#define SPU_I8_ROWS_1 14
#define SPU_I8_ROWS_2 12
#define SPU_I8_ROWS_4 6

/*
 * Nothing, on a vector register. Without it GCC sees that accumulators begin equal, or what
 * becomes of them, and copies all of them in every turn of the loop.
 */
#define SPU_PIN(v) __asm__("" : "+v"(v))
/* likewise, and operations stay in the order written */
#define SPU_STEP(v) __asm__ volatile("" : "+v"(v))

typedef __m512i spu_i8_sums[SPU_MAX_ROWS][SPU_MAX_SHARE];

/* the first values of lane group j of a block */
SPU_INLINE __m512i spu_i8_first(const spu_walk *k, int j) {
  return k->correction ? _mm512_loadu_si512(k->correction + 16 * j) : _mm512_setzero_si512();
}

SPU_INLINE void spu_i8_begin(const spu_walk *k, spu_i8_sums acc, const int share,
                             const int rows) {
  SPU_UNROLL
  for (int j = 0; j < share; j++) {
    const __m512i first = spu_i8_first(k, j);
    SPU_UNROLL
    for (int m = 0; m < rows; m++) {
      acc[m][j] = first;
      SPU_PIN(acc[m][j]);
    }
  }
}

SPU_INLINE void spu_i8_add(const spu_walk *k, spu_i8_sums acc, const int format,
                           const int share, const int rows) {
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
    for (int j = 0; j < share; j++) SPU_PIN(acc[m][j]);
  }
}

SPU_INLINE void spu_i8_walk(const spu_walk *k, const int format, const int share,
                            const int rows) {
  spu_i8_sums acc;
  spu_i8_begin(k, acc, share, rows);
  spu_i8_add(k, acc, format, share, rows);
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int j = 0; j < share; j++) _mm512_storeu_si512(k->acc + 16 * (m * share + j), acc[m][j]);
  }
}

/* what spu_i8_fused can do, of literals */
SPU_INLINE int spu_i8_fusible(int epilogue, int residual, int activation, int out) {
  const int bytes = out == SPU_OUT_U8 || out == SPU_OUT_I8;
  return residual == SPU_RES_NONE && (activation == SPU_ACT_NONE || activation == SPU_ACT_RELU) &&
         (bytes ? !(epilogue & SPU_ROW_SCALE) : out == SPU_OUT_F32);
}

/*
 * Whether no int32 can become NaN or reach 2^30 with the scales and biases of `lanes` lanes
 * (rounding is monotonous): then an integer saturation equals the clamp in float, and the ReLU
 * is a maximum of bytes.
 */
SPU_INLINE int spu_i8_bounded(const spu_tile *t, const int32_t lanes, const int epilogue) {
  const __m512 inv_scale = _mm512_set1_ps(t->out_inv_scale);
  /* as unsigned integers, negative numbers and NaN are above all others */
  const __m512i limit = _mm512_castps_si512(_mm512_set1_ps(1073741824.0f));
  __mmask16 above = 0;
  for (int32_t lane = 0; lane < lanes; lane += 16) {
    __m512 most = _mm512_set1_ps(2147483648.0f);
    if (epilogue & SPU_SCALE)
      most = _mm512_mul_ps(most, _mm512_abs_ps(_mm512_loadu_ps(t->scale + lane)));
    if (epilogue & SPU_BIAS)
      most = _mm512_add_ps(most, _mm512_abs_ps(_mm512_loadu_ps(t->bias + lane)));
    const __m512i bits = _mm512_castps_si512(_mm512_mul_ps(most, inv_scale));
    above |= _mm512_cmpge_epu32_mask(bits, limit);
  }
  return above == 0;
}

/* the operands of the first quad of a block; without one, those that add nothing */
typedef struct {
  const uint8_t *index, *value, *a, *b;
} spu_i8_quad;

SPU_INLINE spu_i8_quad spu_i8_quad_of(const spu_walk *k, const int format) {
  static const uint8_t nothing[64] = {0};
  if (k->begin >= k->end) return (spu_i8_quad){nothing, nothing, k->x, k->x};
  const int two = format == SPU_BANKED2;
  const int32_t *offset = k->offset + (two ? 2 * k->begin : k->begin);
  return (spu_i8_quad){k->index + 64 * k->begin, k->value + 64 * k->begin, k->x + offset[0],
                       k->x + offset[two]};
}

/*
 * `blocks` whole blocks of `rows` rows from `first`. The steps of the epilogue are staggered: at
 * any time one row is converted, another scaled, and so on, while the accumulators that are free
 * take the first products of the next block. The processor would not look far enough ahead to
 * find that order itself.
 */
SPU_INLINE void spu_i8_fused_rows(const spu_tile *tile, const int32_t first, const int32_t blocks,
                                  const int format, const int share, const int epilogue,
                                  const int activation, const int out, const int rows) {
  const int banked = format != SPU_DENSE, two = format == SPU_BANKED2;
  const int ahead = banked && share == 1; /* wider tiles have no registers for it */
  const int n = rows * share, stages = 6;
  spu_tile t = *tile;
  spu_walk k = spu_walk_of(&t, NULL, first, banked, share);
  spu_i8_sums acc;
  spu_i8_begin(&k, acc, share, rows);
  for (int32_t block = 0; block < blocks; block++) {
    spu_i8_add(&k, acc, format, share, rows);
    const spu_tile next = block + 1 < blocks
                              ? spu_tile_after(&t, 16 * share, epilogue, SPU_RES_NONE, out)
                              : t;
    k = spu_walk_of(&next, NULL, first, banked, share);
    spu_i8_quad quad = {0};
    __m512i value = _mm512_setzero_si512(), start = spu_i8_first(&k, 0);
    spu_route route;
    memset(&route, 0, sizeof route);
    if (ahead) {
      quad = spu_i8_quad_of(&k, format);
      value = _mm512_loadu_si512(quad.value);
      route = spu_route_of(quad.index, two);
      k.begin++;
    }
    /* u8 is saturated as i8, 128 lower */
    const int32_t low = out == SPU_OUT_U8 ? 128 : 0;
    const spu_tile *late = tile; /* what follows is loaded again, not kept through the sums */
    __asm__ volatile("" : "+r"(late));
    const __m512 inv_scale = _mm512_set1_ps(late->out_inv_scale);
    const __m512i zero = _mm512_set1_epi32(late->out_zero - low);
    const __m128i least = _mm_set1_epi8((char)(late->out_zero - low));
    __m512 v[SPU_MAX_ROWS * 2] = {0}, scale = _mm512_setzero_ps(), bias = scale;
    __m512i whole[SPU_MAX_ROWS * 2] = {0};
    __m128i bytes[SPU_MAX_ROWS * 2] = {0};
    uint8_t *to = NULL;
    SPU_UNROLL
    for (int step = 0; step < n + stages; step++) {
      int i = step;
      if (i < n) {
        v[i] = _mm512_cvtepi32_ps(acc[i % rows][i / rows]);
        SPU_STEP(v[i]);
      }
      i = step - 1;
      if (i >= 0 && i < n) {
        const int j = i / rows;
        if ((epilogue & SPU_SCALE) && i % rows == 0) scale = _mm512_loadu_ps(t.scale + 16 * j);
        if (epilogue & SPU_SCALE) v[i] = _mm512_mul_ps(v[i], scale);
        SPU_STEP(v[i]);
      }
      i = step - 2;
      if (i >= 0 && i < n) {
        const int j = i / rows, m = i % rows;
        if ((epilogue & SPU_BIAS) && m == 0) bias = _mm512_loadu_ps(t.bias + 16 * j);
        if (epilogue & SPU_ROW_SCALE)
          v[i] = _mm512_mul_ps(v[i], _mm512_set1_ps(t.row_scale[first + m]));
        if (epilogue & SPU_BIAS) v[i] = _mm512_add_ps(v[i], bias);
        SPU_STEP(v[i]);
        if (ahead) {
          const __m512i x =
              spu_permute(route, quad.a + m * k.x_stride, quad.b + m * k.x_stride, two);
          acc[m][j] = _mm512_dpbusd_epi32(start, x, value);
        } else {
          if (m == 0) start = spu_i8_first(&k, j);
          acc[m][j] = start;
        }
        SPU_STEP(acc[m][j]);
      }
      i = step - 3;
      if (out != SPU_OUT_F32 && i >= 0 && i < n) {
        v[i] = _mm512_mul_ps(v[i], inv_scale);
        SPU_STEP(v[i]);
      }
      i = step - 4;
      if (out != SPU_OUT_F32 && i >= 0 && i < n) {
        whole[i] = _mm512_cvtps_epi32(v[i]);
        SPU_STEP(whole[i]);
      }
      i = step - 5;
      if (out != SPU_OUT_F32 && i >= 0 && i < n) {
        bytes[i] = _mm512_cvtsepi32_epi8(_mm512_add_epi32(whole[i], zero));
        SPU_STEP(bytes[i]);
      }
      i = step - 6;
      if (i >= 0 && i < n) {
        if (i % rows == 0)
          to = (uint8_t *)t.out + first * t.out_stride + 16 * (i / rows) * spu_out_bytes(out);
        else
          to += t.out_stride;
        __asm__("" : "+r"(to));
        if (out == SPU_OUT_F32) {
          _mm512_storeu_ps(to, (__m512)spu_activate((f32x16)v[i], activation));
        } else {
          if (activation == SPU_ACT_RELU) bytes[i] = _mm_max_epi8(bytes[i], least);
          if (low) bytes[i] = _mm_xor_si128(bytes[i], _mm_set1_epi8((char)low));
          _mm_storeu_si128((__m128i *)(void *)to, bytes[i]);
        }
      }
    }
    t = next;
  }
}

/* The tile's whole blocks, with the epilogue; returns how many lanes that were. */
SPU_INLINE int32_t spu_i8_fused(const spu_tile *t, const int format, const int share,
                                const int epilogue, const int activation, const int out) {
  const int32_t blocks = t->lanes / (16 * share);
  const int32_t lanes = 16 * share * blocks;
  const int limit = share == 1   ? SPU_I8_ROWS_1
                    : share == 2 ? SPU_I8_ROWS_2
                                 : SPU_I8_ROWS_4;
  if (out != SPU_OUT_F32 && !spu_i8_bounded(t, lanes, epilogue)) return 0;
  for (int32_t first = 0; first < t->rows;) {
    const int32_t rows = spu_walk_rows(t->rows - first, limit);
    switch (rows) {
      SPU_CASES(limit, spu_i8_fused_rows, t, first, blocks, format, share, epilogue, activation,
                out)
    }
    first += rows;
  }
  return lanes;
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
