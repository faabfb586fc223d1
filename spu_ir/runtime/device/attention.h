/*
 * f32 attention of one head, a block of 64 keys at a time, with no buffer of the sequence's size.
 *
 * Per block: scores (sequential over d) * scale + mask; the new maximum; the output and the sum
 * so far times exp(old maximum - new maximum); plus exp(score - new maximum) times V (sequential
 * over the keys). A row's bits do not depend on how the rows are cut into calls.
 */
#ifndef SPU_ATTENTION_H
#define SPU_ATTENTION_H

#include "matmul_f32.h"
#include "numerics.h"

enum { SPU_ATTENTION_ROWS = 64, SPU_ATTENTION_KEYS = 64, SPU_ATTENTION_DEPTH = 256 };

/* One row's scores for `keys` <= 64 keys, scaled and masked in place; the causal mask hides all but
 * the first `seen`. Returns their maximum. */
static inline float spu_attention_mask(float *score, const float *mask, int64_t mask_col,
                                       int64_t keys, int64_t seen, float scale) {
  const f32x16 hidden = spu_splat(-__builtin_inff());
  f32x16 most = hidden;
  for (int64_t first = 0; first < keys; first += 16) {
    f32x16 s = spu_load_f32(score + first, 16) * spu_splat(scale);
    if (mask) {
      const int64_t count = keys - first < 16 ? keys - first : 16;
      f32x16 add = spu_splat(0.0f);
      if (mask_col == 1)
        add = spu_load_f32(mask + first, count);
      else
        for (int64_t l = 0; l < count; l++)
          add[l] = mask[(first + l) * mask_col];
      s = s + add;
    }
    if (seen < first + 16) s = spu_select(spu_lanes(seen - first), s, hidden);
    most = spu_max(most, s);
    spu_store_f32(score + first, s, 16);
  }
  return spu_tree_max(most);
}

/* score -> exp(score - shift) in place; returns the sum over the `keys` keys. */
static inline float spu_attention_exp(float *score, int64_t keys, float shift) {
  f32x16 sum = spu_splat(0.0f);
  for (int64_t first = 0; first < keys; first += 16) {
    const f32x16 p = spu_exp(spu_load_f32(score + first, 16) - spu_splat(shift));
    sum = keys < first + 16 ? spu_select(spu_lanes(keys - first), sum + p, sum) : sum + p;
    spu_store_f32(score + first, p, 16);
  }
  return spu_tree_sum(sum);
}

/* Of `rows` rows: the new maximum from this block's and the one before, what to take off the
 * scores, and the factor of what is accumulated so far. */
static inline void spu_attention_rescale(float *top, const float *block, float *shift,
                                         float *factor, int64_t rows) {
  const f32x16 lowest = spu_splat(-__builtin_inff());
  for (int64_t r = 0; r < rows; r += 16) {
    const int64_t count = rows - r < 16 ? rows - r : 16;
    const f32x16 before = spu_load_f32(top + r, count);
    const f32x16 now = spu_max(before, spu_load_f32(block + r, count));
    /* a row with nothing but -infinity so far: exp(-infinity - 0) is 0 */
    const f32x16 base = spu_select(now == lowest, spu_splat(0.0f), now);
    spu_store_f32(top + r, now, count);
    spu_store_f32(shift + r, base, count);
    spu_store_f32(factor + r, spu_exp(before - base), count);
  }
}

/*
 * out[r] = softmax(q[r] . k^T * scale + mask[r]) . v for `rows` <= 64 query rows.
 *
 * Strides are in elements; d <= 256 floats of q and k are contiguous, dv of v and out (any dv).
 * mask is NULL or added: mask[r * mask_row_stride + key * mask_col_stride]. causal_first is -1,
 * or the position of the first query row: it sees the keys 0..causal_first + r.
 * out must not overlap an input. No key at all gives 0.
 */
static inline void spu_attention_f32(const float *q, int64_t q_stride, const float *k,
                                     int64_t k_stride, const float *v, int64_t v_stride,
                                     const float *mask, int64_t mask_row_stride,
                                     int64_t mask_col_stride, float *out, int64_t out_stride,
                                     int32_t rows, int64_t keys, int32_t d, int32_t dv,
                                     float scale, int64_t causal_first) {
  _Alignas(64) float turned[SPU_ATTENTION_DEPTH * SPU_ATTENTION_KEYS];
  _Alignas(64) float score[SPU_ATTENTION_ROWS * SPU_ATTENTION_KEYS];
  float top[SPU_ATTENTION_ROWS], total[SPU_ATTENTION_ROWS], factor[SPU_ATTENTION_ROWS];
  float block[SPU_ATTENTION_ROWS], shift[SPU_ATTENTION_ROWS];
  for (int32_t r = 0; r < rows; r++) {
    top[r] = -__builtin_inff();
    total[r] = 0.0f;
    memset(out + r * out_stride, 0, (size_t)dv * sizeof(float));
  }
  for (int64_t first = 0; first < keys; first += SPU_ATTENTION_KEYS) {
    const int64_t left = keys - first;
    const int64_t count = left < SPU_ATTENTION_KEYS ? left : SPU_ATTENTION_KEYS;
    /* rows that see none of this block's keys are left as they are */
    const int64_t start =
        causal_first >= 0 && first > causal_first ? first - causal_first : 0;
    if (start >= rows) break;
    /* whole vectors of keys: those that do not exist are hidden below */
    const int64_t width = (count + 15) & ~INT64_C(15);
    if (count < width)
      memset(turned, 0, (size_t)d * SPU_ATTENTION_KEYS * sizeof(float));
    spu_transpose_f32(k + first * k_stride, k_stride, turned, SPU_ATTENTION_KEYS, count, d);
    spu_accumulate_f32(q + start * q_stride, q_stride, 1, turned, SPU_ATTENTION_KEYS, 1, NULL,
                       score, SPU_ATTENTION_KEYS, rows - start, width, d);
    for (int64_t r = start; r < rows; r++) {
      const int64_t visible = causal_first >= 0 ? causal_first + r + 1 - first : count;
      const float *row_mask =
          mask ? mask + r * mask_row_stride + first * mask_col_stride : mask;
      block[r - start] = spu_attention_mask(
          score + (r - start) * SPU_ATTENTION_KEYS, row_mask, mask_col_stride, count,
          visible < count ? visible : count, scale);
    }
    spu_attention_rescale(top + start, block, shift, factor, rows - start);
    for (int64_t r = start; r < rows; r++) {
      const float sum = spu_attention_exp(score + (r - start) * SPU_ATTENTION_KEYS, count,
                                          shift[r - start]);
      total[r] = total[r] * factor[r - start] + sum;
    }
    spu_accumulate_f32(score, SPU_ATTENTION_KEYS, 1, v + first * v_stride, v_stride, 1, factor,
                       out + start * out_stride, out_stride, rows - start, dv, count);
  }
  for (int32_t r = 0; keys > 0 && r < rows; r++) {
    /* a row whose every key is masked by -infinity is 0, as ONNX's Attention has it */
    const float inverse = total[r] == 0.0f ? 0.0f : 1.0f / total[r];
    for (int32_t c = 0; c < dv; c++)
      out[r * out_stride + c] = out[r * out_stride + c] * inverse;
  }
}

#endif
