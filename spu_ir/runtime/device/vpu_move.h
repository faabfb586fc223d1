/*
 * Data movement of the VPU: strided copies, fills, gathers, tables, and index results.
 */
#ifndef SPU_VPU_MOVE_H
#define SPU_VPU_MOVE_H

#include "numerics.h"

enum { VPU_MAX_RANK = 8 };

/* ---- strided copies: transpose, slice, concatenate, expand, pad ------------------------------ */

/* y[i * y_outer + j * y_inner] = x[i * x_outer + j * x_inner], for one element type. Blocks of
 * 16 x 16 keep both sides of a transposition in the cache. An image's three planes that become
 * pixels are a loop that GCC makes vectors of. */
#define VPU_COPY_PLANE(name, type)                                                              \
  static inline void name(const void *from, void *to, int64_t outer, int64_t inner,             \
                          int64_t x_outer, int64_t x_inner, int64_t y_outer, int64_t y_inner) { \
    const type *x = (const type *)from;                                                         \
    type *y = (type *)to;                                                                       \
    if (x_inner == 1 && y_inner == 1) {                                                         \
      for (int64_t i = 0; i < outer; i++)                                                       \
        memcpy(y + i * y_outer, x + i * x_outer, (size_t)inner * sizeof(type));                 \
      return;                                                                                   \
    }                                                                                           \
    if (inner == 3 && x_outer == 1 && y_inner == 1 && y_outer == 3) {                           \
      const type *restrict red = x, *restrict green = x + x_inner;                              \
      const type *restrict blue = x + 2 * x_inner;                                              \
      type *restrict pixel = y;                                                                 \
      for (int64_t i = 0; i < outer; i++) {                                                     \
        pixel[3 * i] = red[i];                                                                  \
        pixel[3 * i + 1] = green[i];                                                            \
        pixel[3 * i + 2] = blue[i];                                                             \
      }                                                                                         \
      return;                                                                                   \
    }                                                                                           \
    for (int64_t a = 0; a < outer; a += 16)                                                     \
      for (int64_t b = 0; b < inner; b += 16) {                                                 \
        const int64_t last_i = outer - a < 16 ? outer : a + 16;                                 \
        const int64_t last_j = inner - b < 16 ? inner : b + 16;                                 \
        if (sizeof(type) == 4 && x_outer == 1 && y_inner == 1 && last_i - a == 16 &&            \
            last_j - b == 16) {                                                                 \
          spu_turn_16((const uint8_t *)(x + a + b * x_inner), 4 * x_inner,                      \
                      (uint8_t *)(y + a * y_outer + b), 4 * y_outer);                           \
          continue;                                                                             \
        }                                                                                       \
        for (int64_t i = a; i < last_i; i++)                                                    \
          for (int64_t j = b; j < last_j; j++)                                                  \
            y[i * y_outer + j * y_inner] = x[i * x_outer + j * x_inner];                        \
      }                                                                                         \
  }
VPU_COPY_PLANE(vpu_copy_plane_1, uint8_t)
VPU_COPY_PLANE(vpu_copy_plane_2, uint16_t)
VPU_COPY_PLANE(vpu_copy_plane_4, uint32_t)
VPU_COPY_PLANE(vpu_copy_plane_8, uint64_t)

/* the next index of the axes `first`..`last`-1, the last one fastest, moving both offsets;
 * 0 after the final one */
static inline int vpu_next_index(int64_t *index, const int64_t *extents, const int64_t *x_strides,
                                 const int64_t *y_strides, int32_t first, int32_t last,
                                 int64_t *x, int64_t *y) {
  for (int32_t axis = last - 1; axis >= first; axis--) {
    *x += x_strides[axis];
    *y += y_strides[axis];
    if (++index[axis] < extents[axis]) return 1;
    *x -= extents[axis] * x_strides[axis];
    *y -= extents[axis] * y_strides[axis];
    index[axis] = 0;
  }
  return 0;
}

/*
 * Copies `rank` <= 8 axes of `extents`; strides are in elements of `bytes` = 1, 2, 4 or 8, and
 * any axis may have any stride (0 repeats, negative reverses). x and y do not overlap.
 */
static inline void vpu_copy_strided(const void *x, void *y, int32_t rank, const int64_t *extents,
                                    const int64_t *x_strides, const int64_t *y_strides,
                                    const int32_t bytes) {
  int64_t e[VPU_MAX_RANK + 2], xs[VPU_MAX_RANK + 2], ys[VPU_MAX_RANK + 2];
  int64_t index[VPU_MAX_RANK + 2] = {0};
  /* two axes of extent 1 in front, so that there is always a plane */
  int32_t axes = 2;
  e[0] = e[1] = 1;
  xs[0] = xs[1] = ys[0] = ys[1] = 0;
  for (int32_t i = 0; i < rank; i++) {
    if (extents[i] <= 0) return;
    if (extents[i] == 1) continue;
    /* an axis that continues the one before it, on both sides, is the same axis */
    if (axes > 2 && xs[axes - 1] == x_strides[i] * extents[i] &&
        ys[axes - 1] == y_strides[i] * extents[i]) {
      e[axes - 1] *= extents[i];
      xs[axes - 1] = x_strides[i];
      ys[axes - 1] = y_strides[i];
      continue;
    }
    e[axes] = extents[i];
    xs[axes] = x_strides[i];
    ys[axes] = y_strides[i];
    axes++;
  }
  if (axes == 2) axes = 3, e[2] = 1, xs[2] = ys[2] = 1;
  /* the plane is the last axis and the one that is contiguous in x, or else the one before */
  int32_t mate = axes - 2;
  for (int32_t i = 0; i < axes - 1; i++)
    if (xs[axes - 1] != 1 && xs[i] == 1) mate = i;
  for (int32_t i = mate; i < axes - 2; i++) {
    const int64_t swap_e = e[i], swap_x = xs[i], swap_y = ys[i];
    e[i] = e[i + 1], xs[i] = xs[i + 1], ys[i] = ys[i + 1];
    e[i + 1] = swap_e, xs[i + 1] = swap_x, ys[i + 1] = swap_y;
  }
  int64_t from = 0, to = 0;
  do {
    const char *source = (const char *)x + from * bytes;
    char *target = (char *)y + to * bytes;
    const int32_t i = axes - 2, j = axes - 1;
    switch (bytes) {
      case 1: vpu_copy_plane_1(source, target, e[i], e[j], xs[i], xs[j], ys[i], ys[j]); break;
      case 2: vpu_copy_plane_2(source, target, e[i], e[j], xs[i], xs[j], ys[i], ys[j]); break;
      case 4: vpu_copy_plane_4(source, target, e[i], e[j], xs[i], xs[j], ys[i], ys[j]); break;
      default: vpu_copy_plane_8(source, target, e[i], e[j], xs[i], xs[j], ys[i], ys[j]); break;
    }
  } while (vpu_next_index(index, e, xs, ys, 0, axes - 2, &from, &to));
}

/* `count` elements of `bytes` = 1, 2, 4 or 8, all equal to *value */
static inline void vpu_fill(void *y, const void *value, int64_t count, const int32_t bytes) {
  uint8_t pattern[8] = {0};
  memcpy(pattern, value, (size_t)bytes);
  if (bytes == 1) {
    memset(y, pattern[0], (size_t)count);
    return;
  }
  for (int64_t i = 0; i < count; i++)
    memcpy((char *)y + i * bytes, pattern, (size_t)bytes);
}

/* ---- gathers ---------------------------------------------------------------------------------- */

/*
 * y[i] = table[index[i]] for rows of `row_bytes`; a negative index counts from the end.
 * Returns 0, or 1 when any index is outside -rows..rows-1 (its row of y is zeros then).
 */
#define VPU_GATHER_ROWS(name, type)                                                             \
  static inline int32_t name(const void *table, int64_t rows, int64_t row_bytes,                \
                             const type *index, int64_t count, void *y) {                       \
    int32_t outside = 0;                                                                        \
    for (int64_t i = 0; i < count; i++) {                                                       \
      const int64_t given = index[i], at = given < 0 ? given + rows : given;                    \
      char *to = (char *)y + i * row_bytes;                                                     \
      if (at >= 0 && at < rows) {                                                               \
        memcpy(to, (const char *)table + at * row_bytes, (size_t)row_bytes);                    \
      } else {                                                                                  \
        memset(to, 0, (size_t)row_bytes);                                                       \
        outside = 1;                                                                            \
      }                                                                                         \
    }                                                                                           \
    return outside;                                                                             \
  }
VPU_GATHER_ROWS(vpu_gather_rows, int64_t)
VPU_GATHER_ROWS(vpu_gather_rows_i32, int32_t)

/* y[i] = table[x[i]], 256 entries of one byte (i8 ones too: index and entry are the raw bytes) */
static inline void vpu_table_u8(const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t n) {
  int64_t i = 0;
#if defined(SPU_AVX512) && defined(__AVX512VBMI__)
  const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
  const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
  for (; i < n; i += 64) {
    const __mmask64 lanes = n - i < 64 ? (__mmask64)((UINT64_C(1) << (n - i)) - 1) : ~UINT64_C(0);
    const __m512i v = _mm512_maskz_loadu_epi8(lanes, x + i);
    const __m512i low = _mm512_permutex2var_epi8(t0, v, t1);
    const __m512i high = _mm512_permutex2var_epi8(t2, v, t3);
    _mm512_mask_storeu_epi8(y + i, lanes,
                            _mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));
  }
#else
  for (; i < n; i++)
    y[i] = table[x[i]];
#endif
}
static inline void vpu_table_f32(const float *table, const uint8_t *x, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = table[x[i]];
}

/* ---- packed rows ------------------------------------------------------------------------------ */

/* offsets[0..batch] of the rows of real[batch][seq], whose samples are `stride` apart: each sample
 * has as many rows as the position behind its last real one (not 0) */
static inline void vpu_row_offsets(const uint8_t *real, int64_t stride, int64_t batch, int64_t seq,
                                   int64_t *offsets) {
  offsets[0] = 0;
  for (int64_t b = 0; b < batch; b++) {
    int64_t rows = seq;
    while (rows > 0 && !real[b * stride + rows - 1]) rows--;
    offsets[b + 1] = offsets[b] + rows;
  }
}

/* ---- indices ---------------------------------------------------------------------------------- */

/* where the largest of n >= 1 elements `stride` apart is, the first one (or the last one);
 * NaN is passed over after the first element */
static inline int64_t vpu_argmax_f32(const float *x, int64_t n, int64_t stride, const int last) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++) {
    const float candidate = x[i * stride], top = x[best * stride];
    if (last ? candidate >= top : candidate > top) best = i;
  }
  return best;
}
static inline int64_t vpu_argmin_f32(const float *x, int64_t n, int64_t stride, const int last) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++) {
    const float candidate = x[i * stride], top = x[best * stride];
    if (last ? candidate <= top : candidate < top) best = i;
  }
  return best;
}

/* y[i] = x[0] + ... + x[i], in order from 0; integers wrap; elements `stride` apart on both sides.
 * exclusive leaves x[i] itself out; reverse goes from the last element down. */
#define VPU_CUMSUM(NAME, TYPE, SUM)                                                               \
  static inline void NAME(const TYPE *x, TYPE *y, int64_t n, int64_t stride, const int exclusive, \
                          const int reverse) {                                                    \
    SUM sum = 0;                                                                                  \
    for (int64_t i = 0; i < n; i++) {                                                             \
      const int64_t at = (reverse ? n - 1 - i : i) * stride;                                      \
      const SUM next = sum + (SUM)x[at];                                                          \
      y[at] = (TYPE)(exclusive ? sum : next);                                                     \
      sum = next;                                                                                 \
    }                                                                                             \
  }
VPU_CUMSUM(vpu_cumsum_f32, float, float)
VPU_CUMSUM(vpu_cumsum_i32, int32_t, uint32_t)
VPU_CUMSUM(vpu_cumsum_i64, int64_t, uint64_t)

#endif
