/*
 * Keys and values of one attention head, quantised by row and packed in blocks of 64 keys, as
 * attention_int8.h takes them. docs/numerics.md has the formulas.
 */
#ifndef SPU_ATTENTION_PACK_H
#define SPU_ATTENTION_PACK_H

#include "numerics.h"

enum {
  SPU_KEY_BLOCK = 64,  /* keys of one row of bytes */
  SPU_HEAD_BYTES = 256 /* the largest head */
};
/*
 * Scores count in steps of 2^-23 of an octave, as a float's bits do: log2(e) and ln(2), times a
 * power of two.
 */
#define SPU_STEPS_E (1.44269504088896341f * 8388608.0f)
#define SPU_LN_STEP (0.693147180559945309f / 8388608.0f)

/* `count` <= 16 floats as -127..127 */
SPU_INLINE i32x16 spu_head_values(const float *x, int32_t count, float inverse) {
  const i32x16 v = spu_quantise(spu_load_f32(x, count), inverse, 0, -127, 127);
  return (i32x16)((u32x16)v << 24) >> 24; /* NaN is right in the low byte only */
}

/* spu_row_scale of `count` <= 16 rows of a head; the rest is 1 and 0 */
SPU_INLINE f32x16 spu_heads_scale(const float *x, int64_t stride, int32_t count, int32_t d,
                                  float *inverse) {
  _Alignas(64) float peaks[16][16];
  if (count < 16) memset(peaks, 0, sizeof peaks);
  for (int32_t r = 0; r < count; r++)
    spu_store_f32(peaks[r], spu_row_peaks(x + r * stride, d), 16);
  return spu_rows_scale(spu_trees_max(peaks[0]), inverse);
}

/*
 * k [keys, d] f32 -> u8 with the zero point 128, [blocks][quads of d][64 keys][4], and the scale of
 * every key. Keys that fill up the last block have the scale 0; what they hold is of no account.
 */
static inline void spu_pack_keys(const float *k, int64_t stride, int64_t keys, int32_t d,
                                 uint8_t *packed, float *scale) {
  const int32_t quads = (d + 3) / 4;
  _Alignas(64) uint8_t row[16][SPU_HEAD_BYTES];
  _Alignas(64) float inverse[16];
  for (int64_t key = 0; key < keys; key += 16) {
    const int32_t count = keys - key < 16 ? (int32_t)(keys - key) : 16;
    uint8_t *to = packed + key / SPU_KEY_BLOCK * quads * 256 + key % SPU_KEY_BLOCK * 4;
    spu_store_f32(scale + key, spu_heads_scale(k + key * stride, stride, count, d, inverse), count);
    for (int32_t r = 0; r < count; r++)
      spu_quantise_row(k + (key + r) * stride, row[r], d, inverse[r], 128, 1, 255);
    /* what lies behind a row's end has the zero point's value */
    for (int32_t r = 0; r < count && d % 4; r++) memset(row[r] + d, 128, (size_t)(4 * quads - d));
    int32_t q = 0;
    for (; q + 16 <= quads && count == 16; q += 16)
      spu_turn_16(row[0] + 4 * q, SPU_HEAD_BYTES, to + q * 256, 256);
    for (; q < quads; q++)
      for (int32_t r = 0; r < count; r++) memcpy(to + q * 256 + 4 * r, row[r] + 4 * q, 4);
  }
  for (int64_t key = keys; key % SPU_KEY_BLOCK; key++) scale[key] = 0.0f;
}

#if defined(SPU_AVX512)
SPU_INLINE int spu_all_finite(const float *x, int count) {
  int all = 1;
  for (int i = 0; i < count; i++) all &= x[i] <= SPU_FLOAT_MAX;
  return all;
}
/* 16 channels of four keys as -127..127, side by side; see spu_quantise_row */
SPU_INLINE void spu_store_four(int8_t *to, const float *x, int64_t stride, const float *inverse) {
  __m512i v[4];
  SPU_UNROLL
  for (int i = 0; i < 4; i++) {
    const f32x16 t = spu_load_f32(x + i * stride, 16) * spu_splat(inverse[i]);
    v[i] = (__m512i)(spu_round_small(t) & 0xff);
  }
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_packus_epi32(v[0], v[1]), _mm512_packus_epi32(v[2], v[3]));
  const __m128i turn = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(to, _mm512_shuffle_epi8(bytes, _mm512_broadcast_i32x4(turn)));
}
#endif

/*
 * v [keys, d] f32 -> i8, [blocks][16 quads of keys][channels, a multiple of 16][4 keys]. Of every
 * key, 1 / scale and log2(scale) in steps. Keys that fill up the last block are 0, with 0 and
 * -infinity: they are hidden.
 */
static inline void spu_pack_values(const float *v, int64_t stride, int64_t keys, int32_t d,
                                   int8_t *packed, float *inverse, float *level) {
  const int32_t wide = (d + 15) & ~15;
  const int64_t padded = (keys + SPU_KEY_BLOCK - 1) / SPU_KEY_BLOCK * SPU_KEY_BLOCK;
  for (int64_t key = 0; key < padded; key += 16) {
    const int64_t left = keys - key;
    const int32_t count = left < 0 ? 0 : left < 16 ? (int32_t)left : 16;
    const f32x16 zero = spu_splat(0.0f), one = spu_splat(1.0f);
    const i32x16 real = spu_lanes(count);
    _Alignas(64) float by[16];
    const f32x16 scale = spu_heads_scale(v + key * stride, stride, count, d, by);
    const f32x16 log2 = spu_log(spu_select(real, scale, zero)) * spu_splat(SPU_STEPS_E);
    spu_store_f32(level + key, log2, 16);
    const f32x16 factor = spu_load_f32(by, 16);
    spu_store_f32(inverse + key, spu_select(real, spu_select(factor == zero, one, factor), zero), 16);
  }
  for (int64_t key = 0; key < padded; key += 4) {
    const int32_t count = keys - key < 4 ? (int32_t)(keys < key ? 0 : keys - key) : 4;
    int32_t c = 0;
#if defined(SPU_AVX512)
    if (count == 4 && spu_all_finite(inverse + key, 4))
      for (; c + 16 <= d; c += 16)
        spu_store_four(packed + key * wide + 4 * c, v + key * stride + c, stride, inverse + key);
#endif
    for (; c < d; c += 16) {
      u32x16 word = {0};
      for (int32_t i = 0; i < count; i++) {
        const float *from = v + (key + i) * stride + c;
        const i32x16 one = spu_head_values(from, d - c < 16 ? d - c : 16, inverse[key + i]);
        word |= ((u32x16)one & 0xffu) << (8 * i);
      }
      memcpy(packed + key * wide + 4 * c, &word, 64);
    }
  }
}

#endif
