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

/*
 * k [keys, d] f32 -> u8 with the zero point 128, [blocks][quads of d][64 keys][4], and the scale of
 * every key. Keys that fill up the last block have the scale 0; what they hold is of no account.
 */
static inline void spu_pack_keys(const float *k, int64_t stride, int64_t keys, int32_t d,
                                 uint8_t *packed, float *scale) {
  const int32_t quads = (d + 3) / 4;
  uint8_t row[SPU_HEAD_BYTES];
  for (int64_t key = 0; key < keys; key++) {
    const float *from = k + key * stride;
    uint8_t *to =
        packed + key / SPU_KEY_BLOCK * quads * 256 + key % SPU_KEY_BLOCK * 4;
    float inverse;
    scale[key] = spu_row_scale(from, d, &inverse);
    for (int32_t c = 0; c < d; c += 16)
      spu_store_u8(row + c, spu_head_values(from + c, d - c < 16 ? d - c : 16, inverse) + 128,
                   16);
    for (int32_t q = 0; q < quads; q++) memcpy(to + q * 256, row + 4 * q, 4);
  }
  for (int64_t key = keys; key % SPU_KEY_BLOCK; key++) scale[key] = 0.0f;
}

/*
 * v [keys, d] f32 -> i8, [blocks][16 quads of keys][channels, a multiple of 16][4 keys]. Of every
 * key, 1 / scale and log2(scale) in steps. Keys that fill up the last block are 0, with 0 and
 * -infinity: they are hidden.
 */
static inline void spu_pack_values(const float *v, int64_t stride, int64_t keys, int32_t d,
                                   int8_t *packed, float *inverse, float *level) {
  const int32_t wide = (d + 15) & ~15;
  const int64_t padded = (keys + SPU_KEY_BLOCK - 1) / SPU_KEY_BLOCK * SPU_KEY_BLOCK;
  for (int64_t key = 0; key < padded; key++) {
    float by;
    level[key] = key < keys ? spu_row_scale(v + key * stride, d, &by) : 0.0f;
    inverse[key] = key >= keys ? 0.0f : by == 0.0f ? 1.0f : by;
  }
  for (int64_t key = 0; key < padded; key += 16) {
    const f32x16 log2 = spu_log(spu_load_f32(level + key, 16)) * spu_splat(SPU_STEPS_E);
    spu_store_f32(level + key, log2, 16);
  }
  for (int64_t key = 0; key < padded; key += 4) {
    for (int32_t c = 0; c < d; c += 16) {
      u32x16 word = {0};
      for (int64_t i = 0; i < 4 && key + i < keys; i++) {
        const float *from = v + (key + i) * stride + c;
        const i32x16 one = spu_head_values(from, d - c < 16 ? d - c : 16, inverse[key + i]);
        word |= ((u32x16)one & 0xffu) << (8 * i);
      }
      memcpy(packed + key * wide + 4 * c, &word, 64);
    }
  }
}

#endif
