/*
 * The SPU's INT8 products: exact int32 sums of u8 activations and i8 weights.
 *
 * spu_i8_walk streams the quads (steps) of a block past `rows` rows whose accumulators stay in
 * registers: per quad and row one permute of a 64-byte window and one dot product of 4 bytes in
 * each lane. format, share and rows are literals. With AVX-512, the commonest epilogues take the
 * sums where they are, in registers: spu_i8_fused; and two blocks with the same windows can use
 * each window that is read, SPU_PAIRED, which elsewhere are two blocks.
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

/* how many quads before its use a weight is fetched into L1 */
#define SPU_I8_AHEAD 6

/* as SPU_PIN, and operations stay in the order written */
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

/* where lane group j of a SPU_PAIRED block, or the whole of another, has its index of quad q */
SPU_INLINE const uint8_t *spu_index_of(const spu_walk *k, int64_t q, int j) {
  return k->index + 64 * (q + j * (k->end - k->begin));
}

/* results of a block that are still to be activated and stored, one row after the other */
typedef struct {
  const spu_tile *tile;
  const float *from;
  uint8_t *to;
  int32_t left;
} spu_i8_rest;

SPU_INLINE void spu_i8_finish(spu_i8_rest *rest, const int activation, const int out) {
  f32x16 v = spu_load_f32(rest->from, 16);
  SPU_PIN(v); /* the compiler would load it again for each use */
  spu_store_output(rest->tile, rest->to, 0, spu_activate(v, activation), 16, out);
  rest->from += 16;
  rest->to += rest->tile->out_stride;
  rest->left--;
}

SPU_INLINE void spu_i8_add(const spu_walk *k, spu_i8_sums acc, const int format,
                           const int share, const int rows, spu_i8_rest *rest,
                           const int activation, const int out) {
  const int routes = format == SPU_DENSE ? 0 : format == SPU_PAIRED ? 2 : 1;
  for (int64_t q = k->begin; q < k->end; q++) {
    const uint8_t *a = k->x + k->offset[format == SPU_BANKED2 ? 2 * q : q];
    const uint8_t *b = format == SPU_BANKED2 ? k->x + k->offset[2 * q + 1] : a;
    /* weights come from L2; behind the last ones nothing is read */
    if (format == SPU_BANKED || format == SPU_BANKED2) {
      _mm_prefetch((const char *)k->index + 64 * (q + SPU_I8_AHEAD), _MM_HINT_T0);
      SPU_UNROLL
      for (int j = 0; j < share; j++)
        _mm_prefetch((const char *)k->value + 64 * ((q + SPU_I8_AHEAD) * share + j),
                     _MM_HINT_T0);
    }
    __m512i value[SPU_MAX_SHARE];
    SPU_UNROLL
    for (int j = 0; j < share; j++)
      value[j] = _mm512_loadu_si512(spu_value_of(k, q, j, format, share));
    spu_route route[2];
    SPU_UNROLL
    for (int j = 0; j < routes; j++)
      route[j] = spu_route_of(spu_index_of(k, q, j), format == SPU_BANKED2);
    SPU_UNROLL
    for (int m = 0; m < rows; m++) {
      __m512i x[2];
      if (format == SPU_DENSE) {
        int32_t four;
        memcpy(&four, a + m * k->x_stride, 4);
        x[0] = _mm512_set1_epi32(four);
      } else if (format == SPU_PAIRED) {
        spu_permute_both(route, a + m * k->x_stride, x);
      } else {
        x[0] = spu_permute(route[0], a + m * k->x_stride, b + m * k->x_stride,
                           format == SPU_BANKED2);
      }
      SPU_UNROLL
      for (int j = 0; j < share; j++)
        acc[m][j] = _mm512_dpbusd_epi32(acc[m][j], x[format == SPU_PAIRED ? j : 0], value[j]);
    }
    if (rest && rest->left) spu_i8_finish(rest, activation, out);
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
  spu_i8_add(k, acc, format, share, rows, NULL, 0, 0);
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int j = 0; j < share; j++) _mm512_storeu_si512(k->acc + 16 * (m * share + j), acc[m][j]);
  }
}

/*
 * What spu_i8_fused can do, of literals: every sum as float32, and bytes that have a bound, see
 * spu_i8_bounded. spu_i8_run does the rest in a second pass.
 */
SPU_INLINE int spu_i8_fusible(int epilogue, int residual, int activation, int out) {
  const int bytes = out == SPU_OUT_U8 || out == SPU_OUT_I8;
  const int byte_residual =
      residual == SPU_RES_NONE || residual == SPU_RES_U8 || residual == SPU_RES_I8;
  return (activation == SPU_ACT_NONE || activation == SPU_ACT_RELU) &&
         (bytes ? byte_residual && !(epilogue & SPU_ROW_SCALE) : out == SPU_OUT_F32);
}

/*
 * Whether no int32 can become NaN or reach 2^30 with the scales and biases of `lanes` lanes and
 * the residual (rounding is monotonous): then an integer saturation equals the clamp in float,
 * and the ReLU is a maximum of bytes.
 */
SPU_INLINE int spu_i8_bounded(const spu_tile *t, const int32_t lanes, const int epilogue,
                              const int residual) {
  const __m512 inv_scale = _mm512_set1_ps(t->out_inv_scale);
  const __m512 residual_scale = _mm512_abs_ps(_mm512_set1_ps(t->residual_scale));
  /* as unsigned integers, negative numbers and NaN are above all others */
  const __m512i limit = _mm512_castps_si512(_mm512_set1_ps(1073741824.0f));
  __mmask16 above = 0;
  for (int32_t lane = 0; lane < lanes; lane += 16) {
    __m512 most = _mm512_set1_ps(2147483648.0f);
    if (epilogue & SPU_SCALE)
      most = _mm512_mul_ps(most, _mm512_abs_ps(_mm512_loadu_ps(t->scale + lane)));
    if (epilogue & SPU_BIAS)
      most = _mm512_add_ps(most, _mm512_abs_ps(_mm512_loadu_ps(t->bias + lane)));
    if (residual != SPU_RES_NONE) /* bytes, less a zero point of their own type */
      most = _mm512_add_ps(most, _mm512_mul_ps(_mm512_set1_ps(255.0f), residual_scale));
    const __m512i bits = _mm512_castps_si512(_mm512_mul_ps(most, inv_scale));
    above |= _mm512_cmpge_epu32_mask(bits, limit);
  }
  return above == 0;
}

/*
 * 16 integers of each of `rows` <= 4 rows as bytes: 16 bytes a row in the result. Saturated words
 * to which the zero point is added saturate to the bytes that the sums would.
 */
SPU_INLINE __m512i spu_i8_pack(const __m512i *v, const int rows, const __m512i zero,
                               const int epilogue, const int out) {
  const __m512i a = v[0], b = v[rows > 1 ? 1 : 0], c = v[rows > 2 ? 2 : 0], d = v[rows - 1];
  __m512i first = _mm512_packs_epi32(a, b);
  if (epilogue & SPU_OUT_ZERO) first = _mm512_adds_epi16(first, zero);
  __m512i second = rows > 2 ? _mm512_packs_epi32(c, d) : first;
  if (rows > 2 && (epilogue & SPU_OUT_ZERO)) second = _mm512_adds_epi16(second, zero);
  const __m512i bytes = out == SPU_OUT_U8 ? _mm512_packus_epi16(first, second)
                                          : _mm512_packs_epi16(first, second);
  const __m512i order =
      _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes);
}

SPU_INLINE void spu_i8_store_row(uint8_t *to, __m512i bytes, const int row) {
  switch (row) {
    case 0: _mm_storeu_si128((__m128i *)(void *)to, _mm512_castsi512_si128(bytes)); break;
    case 1: _mm_storeu_si128((__m128i *)(void *)to, _mm512_extracti32x4_epi32(bytes, 1)); break;
    case 2: _mm_storeu_si128((__m128i *)(void *)to, _mm512_extracti32x4_epi32(bytes, 2)); break;
    default: _mm_storeu_si128((__m128i *)(void *)to, _mm512_extracti32x4_epi32(bytes, 3));
  }
}

/*
 * What is read through the result is loaded where it is used. Pointers that live through the
 * products are more than there are registers for: GCC keeps some of them in vector registers, and
 * the next block's addresses then wait in the same queue as the products.
 */
SPU_INLINE const spu_tile *spu_again(const spu_tile *tile) {
  __asm__ volatile("" : "+r"(tile));
  return tile;
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
 * `blocks` whole blocks of the tile's first `rows` rows. The steps of the epilogue are staggered:
 * at any time one row is converted, another scaled, and so on, while the accumulators that are
 * free take the first products of the next block. The processor would not look far enough ahead
 * to find that order itself. With a late activation, `out` is SPU_OUT_F32, and the results are
 * activated and stored as `late_out` beside the products of the next block: those use the three
 * ports that multiply and permute, and leave one.
 */
SPU_INLINE void spu_i8_fused_rows(const spu_tile *tile, const int32_t blocks, const int format,
                                  const int share, const int epilogue, const int residual,
                                  const int activation, const int out, const int late_activation,
                                  const int late_out, const int rows) {
  const int banked = format != SPU_DENSE, two = format == SPU_BANKED2;
  const int ahead = banked && share == 1; /* wider tiles have no registers for it */
  const int bytes = out != SPU_OUT_F32;
  const int n = rows * share, stages = 6;
  spu_walk k = spu_walk_of(tile, NULL, 0, format, share);
  float row_scale[SPU_MAX_ROWS] = {0}; /* a copy, for which no pointer has to be kept */
  if (epilogue & SPU_ROW_SCALE) memcpy(row_scale, tile->row_scale, (size_t)rows * sizeof(float));
  spu_i8_sums acc;
  /* sums as float32 that are activated while the next block's are made */
  const int late_on = late_activation != SPU_ACT_NONE, stored = late_on ? late_out : out;
  _Alignas(64) float between[SPU_MAX_ROWS * 16];
  spu_i8_rest rest = {tile, between, NULL, 0};
  spu_i8_begin(&k, acc, share, rows);
  for (int32_t block = 0; block < blocks; block++) {
    spu_i8_add(&k, acc, format, share, rows, late_on ? &rest : NULL, late_activation, late_out);
    while (late_on && rest.left) spu_i8_finish(&rest, late_activation, late_out);
    const spu_tile *late = spu_again(tile);
    const spu_tile t = spu_tile_after(late, 16 * share * block, epilogue, residual, stored);
    __m512 scale = _mm512_setzero_ps(), bias = scale;
    if (epilogue & SPU_SCALE) scale = _mm512_loadu_ps(t.scale);
    if (epilogue & SPU_BIAS) bias = _mm512_loadu_ps(t.bias);
    SPU_STEP(scale);
    SPU_STEP(bias);
    const int32_t following = block + 1 < blocks ? block + 1 : block;
    const spu_tile next =
        spu_tile_after(late, 16 * share * following, epilogue, residual, stored);
    k = spu_walk_of(&next, NULL, 0, format, share);
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
    const __m512 inv_scale = _mm512_set1_ps(late->out_inv_scale);
    const __m512i zero = _mm512_set1_epi16((int16_t)late->out_zero);
    const __m512i least = _mm512_set1_epi8((char)late->out_zero);
    __m512 v[SPU_MAX_ROWS * 2] = {0};
    f32x16 other[SPU_MAX_ROWS * 2] = {0};
    __m512i whole[SPU_MAX_ROWS * 2] = {0};
    const uint8_t *from = NULL;
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
        if ((epilogue & SPU_SCALE) && j > 0 && i % rows == 0)
          scale = _mm512_loadu_ps(t.scale + 16 * j);
        if (epilogue & SPU_SCALE) v[i] = _mm512_mul_ps(v[i], scale);
        SPU_STEP(v[i]);
        if (residual != SPU_RES_NONE) {
          if (i % rows == 0)
            from = (const uint8_t *)t.residual + 16 * j * spu_residual_bytes(residual);
          else
            from += t.residual_stride;
          __asm__("" : "+r"(from));
          other[i] = spu_residual(late, from, 0, 16, residual);
          SPU_STEP(other[i]);
        }
      }
      i = step - 2;
      if (i >= 0 && i < n) {
        const int j = i / rows, m = i % rows;
        if ((epilogue & SPU_BIAS) && j > 0 && m == 0) bias = _mm512_loadu_ps(t.bias + 16 * j);
        if (epilogue & SPU_ROW_SCALE)
          v[i] = _mm512_mul_ps(v[i], _mm512_set1_ps(row_scale[m]));
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
      if (i >= 0 && i < n) {
        if (residual != SPU_RES_NONE) v[i] = (__m512)((f32x16)v[i] + other[i]);
        SPU_STEP(v[i]);
      }
      i = step - 4;
      if (bytes && i >= 0 && i < n) {
        if (epilogue & SPU_OUT_SCALE) v[i] = _mm512_mul_ps(v[i], inv_scale);
        SPU_STEP(v[i]);
      }
      i = step - 5;
      if (bytes && i >= 0 && i < n) {
        whole[i] = _mm512_cvtps_epi32(v[i]);
        SPU_STEP(whole[i]);
      }
      i = step - 6;
      if (i >= 0 && i < n) {
        const int j = i / rows, m = i % rows, last = m % 4 == 3 || m == rows - 1;
        if (m == 0 && late_on)
          to = (uint8_t *)between;
        else if (m == 0)
          to = (uint8_t *)spu_again(tile)->out + 16 * (share * block + j) * spu_out_bytes(out);
        __asm__("" : "+r"(to));
        if (!bytes) {
          /* the one activation that comes here */
          if (activation == SPU_ACT_RELU) v[i] = (__m512)spu_relu((f32x16)v[i]);
          _mm512_storeu_ps(to, v[i]);
          to += late_on ? 64 : t.out_stride;
        } else if (last) {
          const int count = m % 4 + 1;
          __m512i packed = spu_i8_pack(whole + i + 1 - count, count, zero, epilogue, out);
          /* bytes without a sign are not below a zero point of 0 */
          if (activation == SPU_ACT_RELU && (out == SPU_OUT_I8 || (epilogue & SPU_OUT_ZERO)))
            packed = out == SPU_OUT_U8 ? _mm512_max_epu8(packed, least)
                                       : _mm512_max_epi8(packed, least);
          SPU_UNROLL
          for (int row = 0; row < count; row++) {
            spu_i8_store_row(to, packed, row);
            to += t.out_stride;
          }
        }
      }
    }
    if (late_on)
      rest = (spu_i8_rest){tile, between, (uint8_t *)t.out, rows};
  }
  while (late_on && rest.left) spu_i8_finish(&rest, late_activation, late_out);
}

/* The tile's whole blocks, with the epilogue; returns how many lanes that were. */
SPU_INLINE int32_t spu_i8_fused(const spu_tile *t, const int format, const int share,
                                const int epilogue, const int residual, const int activation,
                                const int out, const int late_activation, const int late_out) {
  const int32_t blocks = t->lanes / (16 * share);
  const int32_t lanes = 16 * share * blocks;
  const int limit = share == 1   ? SPU_I8_ROWS_1
                    : share == 2 ? SPU_I8_ROWS_2
                                 : SPU_I8_ROWS_4;
  if (out != SPU_OUT_F32 && !spu_i8_bounded(t, lanes, epilogue, residual)) return 0;
  for (int32_t first = 0; first < t->rows;) {
    const int32_t rows = spu_walk_rows(t->rows - first, limit);
    spu_tile part;
    if (first > 0) part = spu_tile_below(t, first, epilogue, residual);
    switch (rows) {
      SPU_CASES(limit, spu_i8_fused_rows, first > 0 ? &part : t, blocks, format, share, epilogue,
                residual, activation, out, late_activation, late_out)
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
