/*
 * INT8 attention of one head: scores and weighted sums are exact int32 sums of bytes, softmax is
 * f32 and gives bytes. docs/numerics.md has the formulas.
 *
 * Keys and values are quantised by row and packed once a head (spu_pack_keys, spu_pack_values),
 * in blocks of 64 keys. Sixteen query rows at a time meet eight blocks: the scores of one and the
 * exponentials of the one before; then all sums. A value's scale is part of its key's exponential:
 * e = 2^(score + log2(scale)), in bytes relative to the block's largest, which sums the packed
 * values directly; e / scale adds up to the divisor.
 */
#ifndef SPU_ATTENTION_INT8_H
#define SPU_ATTENTION_INT8_H

#include "attention_pack.h"
#include "sfu.h"
#include "spu_tile.h"

enum {
  SPU_QUERY_TILE = 4, /* rows whose accumulators are in registers: 16, with room for softmax */
  SPU_QUERIES = 16,   /* rows that meet a block while it is in L1: the lanes of their maxima */
  SPU_KEY_BLOCKS = 8  /* blocks that are scored before any is summed */
};
/* steps of their own: in one large function GCC keeps too little in registers */
#define SPU_STAGE static __attribute__((noinline, unused))

typedef int16_t i16x32 __attribute__((vector_size(64)));
typedef uint16_t u16x32 __attribute__((vector_size(64)));

/* ---- products of bytes ------------------------------------------------------------------ */

#if defined(__AVX2__) && !defined(SPU_AVX512)
/* half a vector of spu_dot4, without vpmaddubsw, which would saturate */
SPU_INLINE __m256i spu_dot4_half(__m256i acc, __m256i x, __m256i y) {
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(y, 8), 8);
  const __m256i evens = _mm256_madd_epi16(_mm256_and_si256(x, _mm256_set1_epi16(0xff)), even);
  const __m256i odds = _mm256_madd_epi16(_mm256_srli_epi16(x, 8), _mm256_srai_epi16(y, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(evens, odds));
}
#endif

/* acc[l] + the sum over i < 4 of x[4 l + i] * y[4 l + i]: x unsigned bytes, y signed ones */
SPU_INLINE i32x16 spu_dot4(i32x16 acc, i32x16 x, i32x16 y) {
#if defined(SPU_AVX512)
  return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)x, (__m512i)y);
#else
  /* 255 * 127 fits 16 bits; even bytes, then odd ones; the even products, then the odd ones */
  const i16x32 even = (i16x32)(((u16x32)x & 0xff)) * ((i16x32)((u16x32)y << 8) >> 8);
  const i16x32 odd = (i16x32)((u16x32)x >> 8) * ((i16x32)y >> 8);
  acc = acc + (((i32x16)((u32x16)even << 16)) >> 16) + (((i32x16)even) >> 16);
  return acc + (((i32x16)((u32x16)odd << 16)) >> 16) + (((i32x16)odd) >> 16);
#endif
}
SPU_INLINE i32x16 spu_four_bytes(const void *p) {
  int32_t four;
  memcpy(&four, p, 4);
  return spu_isplat(four);
}
SPU_INLINE i32x16 spu_lane_bytes(const void *p) {
  i32x16 v;
  memcpy(&v, p, 64);
  return v;
}

/* one step of spu_head_products */
SPU_INLINE void spu_head_quad(i32x16 acc[SPU_QUERY_TILE][4], const void *lanes, const void *four,
                              int64_t row, const int groups, const int keys) {
  i32x16 x[4];
  SPU_UNROLL
  for (int g = 0; g < groups; g++) {
    x[g] = spu_lane_bytes((const uint8_t *)lanes + 64 * g);
    SPU_PIN(x[g]);
  }
  SPU_UNROLL
  for (int r = 0; r < SPU_QUERY_TILE; r++) {
    const i32x16 y = spu_four_bytes((const uint8_t *)four + r * row);
    SPU_UNROLL
    for (int g = 0; g < groups; g++) {
      acc[r][g] = keys ? spu_dot4(acc[r][g], x[g], y) : spu_dot4(acc[r][g], y, x[g]);
    }
  }
}

/*
 * acc[r][g] += over `quads` steps: lanes[step * lane_step + 64 g] . four[r * row + 4 step], of
 * which `keys` says whether the lanes are the unsigned factor. groups is a literal.
 */
SPU_INLINE void spu_head_products(i32x16 acc[SPU_QUERY_TILE][4], const void *lanes,
                                  int64_t lane_step, const void *four, int64_t row,
                                  int32_t quads, const int groups, const int keys) {
  const uint8_t *l = lanes, *f = four;
#if defined(SPU_AVX512)
  for (int32_t c = 0; c < quads; c++, l += lane_step)
    spu_head_quad(acc, l, f + 4 * c, row, groups, keys);
#elif defined(__AVX2__) /* GCC keeps vectors of 64 bytes in memory */
  for (int r = 0; r < SPU_QUERY_TILE; r++)
    for (int g = 0; g < 2 * groups; g++) {
      __m256i sum, *half = (__m256i *)(void *)acc[r];
      memcpy(&sum, half + g, 32);
      for (int32_t c = 0; c < quads; c++) {
        int32_t bytes;
        memcpy(&bytes, f + r * row + 4 * c, 4);
        const __m256i y = _mm256_set1_epi32(bytes);
        const uint8_t *from = l + c * lane_step + 32 * g;
        const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)from);
        sum = keys ? spu_dot4_half(sum, x, y) : spu_dot4_half(sum, y, x);
      }
      memcpy(half + g, &sum, 32);
    }
#else /* registers hold one accumulator */
  for (int r = 0; r < SPU_QUERY_TILE; r++)
    for (int g = 0; g < groups; g++) {
      i32x16 sum = acc[r][g];
      for (int32_t c = 0; c < quads; c++) {
        const i32x16 x = spu_lane_bytes(l + c * lane_step + 64 * g);
        const i32x16 y = spu_four_bytes(f + r * row + 4 * c);
        sum = keys ? spu_dot4(sum, x, y) : spu_dot4(sum, y, x);
      }
      acc[r][g] = sum;
    }
#endif
}

/* ---- a tile of query rows --------------------------------------------------------------- */

typedef struct {
  int32_t rows; /* that exist, and repetitions of the last one up to a multiple of four */
  _Alignas(64) int8_t query[SPU_QUERIES * SPU_HEAD_BYTES];
  _Alignas(64) float query_scale[16]; /* in steps: times the scale of the scores and log2(e) */
  _Alignas(64) int32_t query_start[16]; /* -128 times the sum of a row: the keys' zero point */
  /* what is added to a score, in steps: the mask, and log2 of the value's scale */
  _Alignas(64) float addend[SPU_QUERIES][SPU_KEY_BLOCKS * SPU_KEY_BLOCK];
  _Alignas(64) float score[2][SPU_QUERIES][SPU_KEY_BLOCK]; /* of even and of odd blocks */
  /* of block b and row r at b * SPU_QUERIES + r: */
  _Alignas(64) uint8_t bytes[SPU_KEY_BLOCKS * SPU_QUERIES][SPU_KEY_BLOCK];
  _Alignas(64) float lanes[SPU_KEY_BLOCKS * SPU_QUERIES][16]; /* maxima, then divisors */
  _Alignas(64) float most[SPU_KEY_BLOCKS * SPU_QUERIES];
  _Alignas(64) float weight[SPU_KEY_BLOCKS * SPU_QUERIES];
  /* of every row: the maximum so far, the factor of what has been summed before, the divisor's
   * lanes and the sums */
  _Alignas(64) float top[16];
  _Alignas(64) float factor[16];
  _Alignas(64) float total[SPU_QUERIES][16];
  _Alignas(64) float sum[SPU_QUERIES * SPU_HEAD_BYTES];
} spu_attention_tile;

SPU_STAGE void spu_attention_query(spu_attention_tile *t, const float *q, int64_t stride,
                                   int32_t rows, int32_t d, float scale) {
  const int32_t width = (d + 3) / 4 * 4;
  _Alignas(64) float lanes[16][16] = {{0}};
  _Alignas(64) float inverse[16];
  t->rows = (rows + SPU_QUERY_TILE - 1) / SPU_QUERY_TILE * SPU_QUERY_TILE;
  memset(t->query, 0, (size_t)(t->rows * width));
  for (int32_t r = 0; r < t->rows; r++) {
    /* rows that do not exist repeat the last one */
    const float *row = q + (r < rows ? r : rows - 1) * stride;
    spu_store_f32(lanes[r], spu_row_peaks(row, d), 16);
  }
  const f32x16 by = spu_rows_scale(spu_trees_max(lanes[0]), inverse);
  spu_store_f32(t->query_scale, (by * spu_splat(scale)) * spu_splat(SPU_STEPS_E), 16);
  for (int32_t r = 0; r < t->rows; r++) {
    int8_t *bytes = t->query + r * width;
    spu_quantise_row(q + (r < rows ? r : rows - 1) * stride, (uint8_t *)bytes, d, inverse[r], 0,
                     -127, 127);
    i32x16 sum = spu_isplat(0);
    for (int32_t c = 0; c < width; c += 64) {
      const i32x16 some = spu_lanes((width - c) / 4) & spu_lane_bytes(bytes + c);
      sum = spu_dot4(sum, spu_isplat(0x01010101), some);
    }
    spu_store_f32(lanes[r], spu_to_f32(sum), 16); /* whole numbers: any sum is exact */
  }
  const f32x16 sums = spu_trees_sum(lanes[0]) * spu_splat(-128.0f);
  spu_store_i32(t->query_start, spu_round_small(sums), 16);
}

/*
 * addend[r] = mask[r] in steps + level, of `count` keys; -infinity where row r does not see a key:
 * all but its first `seen[r]`. mask (or NULL) points to the first row and key. `each`: rows have
 * addends of their own, else the first row's are all's.
 */
SPU_STAGE void spu_attention_addends(spu_attention_tile *t, const float *mask, int64_t mask_row,
                                     int64_t mask_col, const float *level, int64_t count,
                                     const int64_t *seen, int each, int32_t rows) {
  const f32x16 hidden = spu_splat(-__builtin_inff());
  for (int64_t key = 0; key < count; key += 16) {
    const int64_t some = count - key < 16 ? count - key : 16;
    const f32x16 base = spu_load_f32(level + key, 16);
    for (int32_t r = 0; r < (each ? t->rows : 1); r++) {
      f32x16 add = base;
      if (mask) {
        const float *from = mask + (r < rows ? r : rows - 1) * mask_row + key * mask_col;
        f32x16 m = spu_splat(from[0]);
        if (mask_col == 1)
          m = spu_load_f32(from, some);
        else if (mask_col != 0)
          for (int64_t l = 0; l < some; l++) m[l] = from[l * mask_col];
        /* the lowest floats stay finite: a row of nothing else is their mean */
        const f32x16 scaled = spu_max(m * spu_splat(SPU_STEPS_E), spu_splat(-3.0e38f));
        add = spu_select(m == hidden, hidden, scaled) + base;
      }
      if (seen[r] < key + 16) add = spu_select(spu_lanes(seen[r] - key), add, hidden);
      spu_store_f32(t->addend[r] + key, add, 16);
    }
  }
  for (int64_t key = (count + 15) & ~INT64_C(15); key % SPU_KEY_BLOCK; key += 16)
    for (int32_t r = 0; r < (each ? t->rows : 1); r++)
      spu_store_f32(t->addend[r] + key, hidden, 16);
}

/* 255 * 2^-m + 128 m for the middles m of 32 parts of an octave; but the first is right at 0 */
static const float spu_exp2_table[32] = {
    255.0f, 252.847885f, 251.558441f, 250.382339f, 249.317154f, 248.360504f,
    247.510071f, 246.763565f, 246.118759f, 245.573502f, 245.125626f, 244.773056f,
    244.513763f, 244.345734f, 244.267014f, 244.275696f, 244.369904f, 244.547806f,
    244.807602f, 245.147552f, 245.565933f, 246.06105f, 246.631271f, 247.274979f,
    247.990616f, 248.776627f, 249.6315f, 250.553772f, 251.542007f, 252.594757f,
    253.710678f, 254.888382f,
};

/*
 * 255 * 2^-below, to 0.6 %, of `below` >= 0 in steps: 255 at 0, where the block's largest is. A
 * float's bits are nearly its logarithm: to take the steps off those of a number from a table makes
 * up for the rest. From 120 octaves on, and of NaN, it is as of 120: no byte, and too small to
 * change a sum.
 */
SPU_INLINE f32x16 spu_exp2_bytes(f32x16 below) {
  const int32_t far = 120 << 23;
#if defined(SPU_AVX512)
  /* what is out of range is INT32_MIN: unsigned, more than any that is in range */
  const __m512i some = _mm512_cvtps_epi32((__m512)below);
  const i32x16 steps = (i32x16)_mm512_min_epu32(some, _mm512_set1_epi32(far));
#else
  const i32x16 near = (below >= spu_splat(-0.5f)) & (below <= spu_splat((float)far));
  const f32x16 whole = spu_round(spu_select(near, below, spu_splat((float)far)));
  const i32x16 steps = __builtin_convertvector(whole, i32x16);
#endif
  const f32x16 y = spu_sfu_look_up(spu_exp2_table, steps >> 18);
  return (f32x16)((u32x16)y - (u32x16)steps);
}

/* What a row of a block is relative to: its maximum, unless there is none. */
SPU_INLINE f32x16 spu_attention_shift(const spu_attention_tile *t, int64_t at) {
  const float top = t->most[at];
  return spu_splat(top == -__builtin_inff() ? 0.0f : top);
}

/* 16 bytes of row r of block b, as integers; their shares of the divisor are added to *sum */
SPU_INLINE i32x16 spu_attention_exps(const spu_attention_tile *t, int64_t b, int64_t r, int g,
                                     f32x16 shift, const float *inverse, f32x16 *sum) {
  const f32x16 y = spu_exp2_bytes(shift - spu_load_f32(t->score[b & 1][r] + 16 * g, 16));
  *sum = *sum + y * spu_load_f32(inverse + SPU_KEY_BLOCK * b + 16 * g, 16);
  return spu_round_small(y);
}

/*
 * The bytes of four rows of block b, from `first` on; beside them as many of spu_head_products'
 * first steps as there is room for, whose count is returned: products use two of the four ports
 * of a processor, and exponentials the others.
 */
SPU_INLINE int32_t spu_attention_bytes(spu_attention_tile *t, int64_t b, int64_t first,
                                       const float *inverse, i32x16 acc[SPU_QUERY_TILE][4],
                                       const uint8_t *lanes, int64_t lane_step,
                                       const uint8_t *four, int64_t row, int32_t quads,
                                       const int groups, const int keys) {
  int32_t done = 0;
  for (int64_t r = first; r < first + SPU_QUERY_TILE; r++) {
    const int64_t at = b * SPU_QUERIES + r;
    const f32x16 shift = spu_attention_shift(t, at);
    f32x16 sum = spu_splat(0.0f);
    i32x16 e[4];
    SPU_UNROLL
    for (int g = 0; g < 4; g++) {
#if defined(SPU_AVX512)
      if (done < quads) {
        spu_head_quad(acc, lanes + done * lane_step, four + 4 * done, row, groups, keys);
        done++;
      }
#endif
      e[g] = spu_attention_exps(t, b, r, g, shift, inverse, &sum);
      SPU_PIN(e[g]);
    }
    spu_store_64_bytes(t->bytes[at], e);
    spu_store_f32(t->lanes[at], sum, 16);
  }
  (void)acc, (void)lanes, (void)lane_step, (void)four, (void)row, (void)quads, (void)groups,
      (void)keys;
  return done;
}

/*
 * Of `blocks` blocks: the scores, every row's maximum, and the bytes of all blocks but the last,
 * which are made beside the next one's products. `inverse` is of the first block.
 */
SPU_STAGE void spu_attention_scores(spu_attention_tile *t, const uint8_t *k, const float *k_scale,
                                    int32_t quads, int64_t blocks, const float *addend,
                                    int64_t addend_row, const float *inverse) {
  for (int64_t b = 0; b < blocks; b++, k += 256 * quads) {
    for (int64_t first = 0; first < t->rows; first += SPU_QUERY_TILE) {
      i32x16 acc[SPU_QUERY_TILE][4];
      SPU_UNROLL
      for (int r = 0; r < SPU_QUERY_TILE; r++) {
        SPU_UNROLL
        for (int g = 0; g < 4; g++) {
          acc[r][g] = spu_isplat(t->query_start[first + r]);
          SPU_PIN(acc[r][g]);
        }
      }
      const uint8_t *four = (const uint8_t *)t->query + first * 4 * quads;
      int32_t done = 0;
      if (b > 0)
        done = spu_attention_bytes(t, b - 1, first, inverse, acc, k, 256, four, 4 * quads, quads, 4,
                                   1);
      spu_head_products(acc, k + 256 * done, 256, four + 4 * done, 4 * quads, quads - done, 4, 1);
      SPU_UNROLL
      for (int r = 0; r < SPU_QUERY_TILE; r++) {
        const f32x16 by = spu_splat(t->query_scale[first + r]);
        const float *add = addend + (first + r) * addend_row + SPU_KEY_BLOCK * b;
        f32x16 s[4];
        SPU_UNROLL
        for (int g = 0; g < 4; g++) {
          const f32x16 key = spu_load_f32(k_scale + SPU_KEY_BLOCK * b + 16 * g, 16);
          s[g] = (spu_to_f32(acc[r][g]) * by) * key + spu_load_f32(add + 16 * g, 16);
          spu_store_f32(t->score[b & 1][first + r] + 16 * g, s[g], 16);
        }
        const f32x16 most = spu_max(spu_max(s[0], s[1]), spu_max(s[2], s[3]));
        spu_store_f32(t->lanes[b * SPU_QUERIES + first + r], most, 16);
      }
    }
    const int64_t at = b * SPU_QUERIES;
    spu_store_f32(t->most + at, spu_trees_max(t->lanes[at]), 16);
  }
}

/*
 * sum += weight of the block * bytes . values, of all blocks and `lanes` groups of 16 channels from
 * `first`; `fresh` says that there is no sum yet. With the first channels come the last block's
 * bytes, beside the first block's products.
 */
SPU_INLINE void spu_attention_mix(spu_attention_tile *t, const int8_t *v, int32_t first,
                                  int32_t wide, int64_t blocks, const float *inverse, int fresh,
                                  const int lanes) {
  const int32_t quads = SPU_KEY_BLOCK / 4;
  if (first == 0 && blocks == 1)
    for (int64_t row = 0; row < t->rows; row += SPU_QUERY_TILE)
      spu_attention_bytes(t, 0, row, inverse, NULL, NULL, 0, NULL, 0, 0, lanes, 0);
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t before = fresh && b == 0 ? 0 : 16;
    const uint8_t *values = (const uint8_t *)v + b * SPU_KEY_BLOCK * wide + 4 * first;
    for (int64_t row = 0; row < t->rows; row += SPU_QUERY_TILE) {
      i32x16 acc[SPU_QUERY_TILE][4];
      SPU_UNROLL
      for (int r = 0; r < SPU_QUERY_TILE; r++) {
        SPU_UNROLL
        for (int g = 0; g < lanes; g++) {
          acc[r][g] = spu_isplat(0);
          SPU_PIN(acc[r][g]);
        }
      }
      const uint8_t *bytes = t->bytes[b * SPU_QUERIES + row];
      int32_t done = 0;
      if (first == 0 && b == 0 && blocks > 1)
        done = spu_attention_bytes(t, blocks - 1, row, inverse, acc, values, 4 * wide, bytes,
                                   SPU_KEY_BLOCK, quads, lanes, 0);
      if (done < quads)
        spu_head_products(acc, values, 4 * wide, bytes, SPU_KEY_BLOCK, quads, lanes, 0);
      SPU_UNROLL
      for (int r = 0; r < SPU_QUERY_TILE; r++) {
        const f32x16 weight = spu_splat(t->weight[b * SPU_QUERIES + row + r]);
        SPU_UNROLL
        for (int g = 0; g < lanes; g++) {
          float *to = t->sum + (row + r) * wide + first + 16 * g;
          spu_store_f32(to, spu_load_f32(to, before) + spu_to_f32(acc[r][g]) * weight, 16);
        }
      }
    }
  }
}

SPU_STAGE void spu_attention_mix_1(spu_attention_tile *t, const int8_t *v, int32_t first,
                                   int32_t wide, int64_t blocks, const float *inverse, int fresh) {
  spu_attention_mix(t, v, first, wide, blocks, inverse, fresh, 1);
}
SPU_STAGE void spu_attention_mix_2(spu_attention_tile *t, const int8_t *v, int32_t first,
                                   int32_t wide, int64_t blocks, const float *inverse, int fresh) {
  spu_attention_mix(t, v, first, wide, blocks, inverse, fresh, 2);
}
SPU_STAGE void spu_attention_mix_4(spu_attention_tile *t, const int8_t *v, int32_t first,
                                   int32_t wide, int64_t blocks, const float *inverse, int fresh) {
  spu_attention_mix(t, v, first, wide, blocks, inverse, fresh, 4);
}

/*
 * Of `blocks` blocks: the weight 2^(maximum - top), where the top is the row's maximum so far, and
 * the factor of what has been summed before.
 */
SPU_STAGE void spu_attention_weights(spu_attention_tile *t, int64_t blocks) {
  const f32x16 lowest = spu_splat(-__builtin_inff()), step = spu_splat(SPU_LN_STEP);
  const f32x16 before = spu_load_f32(t->top, 16);
  f32x16 top = before;
  for (int64_t b = 0; b < blocks; b++)
    top = spu_max(spu_load_f32(t->most + b * SPU_QUERIES, 16), top);
  spu_store_f32(t->top, top, 16);
  /* a row with nothing but -infinity so far: 2^(-infinity - 0) is 0 */
  const f32x16 base = spu_select(top == lowest, spu_splat(0.0f), top);
  spu_store_f32(t->factor, spu_exp((before - base) * step), 16);
  for (int64_t b = 0; b < blocks; b++) {
    const f32x16 most = spu_load_f32(t->most + b * SPU_QUERIES, 16);
    spu_store_f32(t->weight + b * SPU_QUERIES, spu_exp((most - base) * step), 16);
  }
}

/* what has been summed before, by its factor */
SPU_STAGE void spu_attention_lower(spu_attention_tile *t, int32_t wide) {
  for (int32_t r = 0; r < t->rows; r++)
    for (int32_t c = 0; c < wide; c += 16) {
      float *sum = t->sum + r * wide + c;
      spu_store_f32(sum, spu_load_f32(sum, 16) * spu_splat(t->factor[r]), 16);
    }
}

/* the divisors of `blocks` blocks */
SPU_STAGE void spu_attention_totals(spu_attention_tile *t, int64_t blocks) {
  f32x16 total[SPU_QUERIES];
  SPU_UNROLL
  for (int r = 0; r < SPU_QUERIES; r++)
    total[r] = spu_load_f32(t->total[r], 16) * spu_splat(t->factor[r]);
  for (int64_t at = 0; at < blocks * SPU_QUERIES; at += SPU_QUERIES) {
    SPU_UNROLL
    for (int r = 0; r < SPU_QUERIES; r++)
      total[r] = total[r] + spu_load_f32(t->lanes[at + r], 16) * spu_splat(t->weight[at + r]);
  }
  SPU_UNROLL
  for (int r = 0; r < SPU_QUERIES; r++) spu_store_f32(t->total[r], total[r], 16);
}

/* the sums by their divisors */
SPU_STAGE void spu_attention_store(spu_attention_tile *t, float *out, int64_t stride,
                                   int32_t rows, int32_t dv, int32_t wide) {
  const f32x16 zero = spu_splat(0.0f), one = spu_splat(1.0f);
  const f32x16 sum = spu_trees_sum(t->total[0]);
  /* a row whose every key is masked by -infinity is 0, as ONNX's Attention has it */
  const i32x16 empty = sum == zero;
  _Alignas(64) float inverse[16];
  spu_store_f32(inverse, spu_select(empty, zero, one / spu_select(empty, one, sum)), 16);
  for (int32_t r = 0; r < rows; r++)
    for (int32_t c = 0; c < dv; c += 16) {
      const int64_t n = dv - c < 16 ? dv - c : 16;
      const f32x16 v = spu_load_f32(t->sum + r * wide + c, n) * spu_splat(inverse[r]);
      spu_store_f32(out + r * stride + c, v, n);
    }
}

/*
 * out[r] = softmax(q[r] . k^T * scale + mask[r]) . v for `rows` query rows of one head.
 *
 * Strides are in elements; d <= 256 floats of q are contiguous, dv <= 256 of out. Keys and values
 * are packed. mask is NULL or added: mask[r * mask_row + key * mask_col]. causal_first is -1, or
 * the position of the first query row: row r sees the keys 0..causal_first + r. No key gives 0.
 */
static inline void spu_attention_int8(const float *q, int64_t q_stride, const uint8_t *k,
                                      const float *k_scale, const int8_t *v,
                                      const float *v_inverse, const float *v_level,
                                      const float *mask, int64_t mask_row,
                                      int64_t mask_col, float *out, int64_t out_stride,
                                      int32_t rows, int64_t keys, int32_t d, int32_t dv,
                                      float scale, int64_t causal_first) {
  const int32_t quads = (d + 3) / 4, wide = (dv + 15) & ~15;
  const int each = causal_first >= 0 || (mask && mask_row != 0);
  spu_attention_tile t;
  if (rows % SPU_QUERIES) memset(t.lanes, 0, sizeof t.lanes); /* rows that do not exist have some */
  for (int32_t done = 0; done < rows; done += SPU_QUERIES) {
    const int32_t count = rows - done < SPU_QUERIES ? rows - done : SPU_QUERIES;
    spu_attention_query(&t, q + done * q_stride, q_stride, count, d, scale);
    memset(t.total, 0, sizeof t.total);
    spu_store_f32(t.top, spu_splat(-__builtin_inff()), 16);
    int64_t visible = keys; /* to the last row */
    if (causal_first >= 0 && causal_first + done + count < keys)
      visible = causal_first + done + count;
    if (visible == 0) memset(t.sum, 0, (size_t)(t.rows * wide) * sizeof(float));
    for (int64_t first = 0; first < visible; first += SPU_KEY_BLOCKS * SPU_KEY_BLOCK) {
      const int64_t left = visible - first;
      const int64_t most = SPU_KEY_BLOCKS * SPU_KEY_BLOCK, some = left < most ? left : most;
      const int64_t blocks = (some + SPU_KEY_BLOCK - 1) / SPU_KEY_BLOCK;
      const float *addend = v_level + first;
      if (mask || causal_first >= 0) {
        int64_t seen[SPU_QUERIES];
        for (int r = 0; r < SPU_QUERIES; r++) {
          const int32_t row = done + (r < count ? r : count - 1);
          seen[r] = causal_first < 0 ? some : causal_first + row + 1 - first;
        }
        const float *from = mask ? mask + done * mask_row + first * mask_col : mask;
        /* what all rows share stays, if it is all that there is */
        if (each || done == 0 || visible > most)
          spu_attention_addends(&t, from, mask_row, mask_col, v_level + first, some, seen, each,
                                count);
        addend = t.addend[0];
      }
      spu_attention_scores(&t, k + first * quads * 4, k_scale + first, quads, blocks, addend,
                           each ? SPU_KEY_BLOCKS * SPU_KEY_BLOCK : 0, v_inverse + first);
      spu_attention_weights(&t, blocks);
      if (first > 0) spu_attention_lower(&t, wide);
      for (int32_t c = 0; c < wide;) {
        const int8_t *values = v + first * wide;
        const float *inverse = v_inverse + first;
        if (wide - c >= 64)
          spu_attention_mix_4(&t, values, c, wide, blocks, inverse, first == 0), c += 64;
        else if (wide - c >= 32)
          spu_attention_mix_2(&t, values, c, wide, blocks, inverse, first == 0), c += 32;
        else
          spu_attention_mix_1(&t, values, c, wide, blocks, inverse, first == 0), c += 16;
      }
      spu_attention_totals(&t, blocks);
    }
    spu_attention_store(&t, out + done * out_stride, out_stride, count, dv, wide);
  }
}

#endif
