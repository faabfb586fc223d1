/*
 * Products of two f32 activations.
 *
 * Every output element is summed over the depth one product at a time, from 0.0f: multiply,
 * then add, never fused. The vector axis is the output column, so a register block of any
 * width and height gives the same bits, and each ISA uses its own width here.
 */
#ifndef SPU_MATMUL_F32_H
#define SPU_MATMUL_F32_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define SPU_WIDE 16 /* floats of one native register */
#define SPU_STRIP_VECTORS 4
#elif defined(__AVX__)
#define SPU_WIDE 8
#define SPU_STRIP_VECTORS 2
#else
#define SPU_WIDE 4
#define SPU_STRIP_VECTORS 2
#endif
#define SPU_STRIP_ROWS 4                          /* a register block: 4 rows by a strip */
#define SPU_STRIP (SPU_STRIP_VECTORS * SPU_WIDE)  /* columns of a strip */
#define SPU_CHUNK 128                             /* depth of one packed panel */

/* Unaligned views of float arrays, so that a load or a store is one instruction. */
typedef float spu_wide __attribute__((vector_size(4 * SPU_WIDE), aligned(4), may_alias));
typedef float spu_f32x4 __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define SPU_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t spu_i32x4 __attribute__((vector_size(16)));
#define SPU_SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (spu_i32x4){i, j, k, l})
#endif

/* y[j][i] = x[i][j] for a 4 x 4 block. */
static inline void spu_transpose4_f32(const float *x, int64_t x_row, float *y, int64_t y_row) {
  const spu_f32x4 a = *(const spu_f32x4 *)x, b = *(const spu_f32x4 *)(x + x_row);
  const spu_f32x4 c = *(const spu_f32x4 *)(x + 2 * x_row);
  const spu_f32x4 d = *(const spu_f32x4 *)(x + 3 * x_row);
  const spu_f32x4 ab = SPU_SHUFFLE4(a, b, 0, 4, 1, 5), cd = SPU_SHUFFLE4(c, d, 0, 4, 1, 5);
  const spu_f32x4 AB = SPU_SHUFFLE4(a, b, 2, 6, 3, 7), CD = SPU_SHUFFLE4(c, d, 2, 6, 3, 7);
  *(spu_f32x4 *)y = SPU_SHUFFLE4(ab, cd, 0, 1, 4, 5);
  *(spu_f32x4 *)(y + y_row) = SPU_SHUFFLE4(ab, cd, 2, 3, 6, 7);
  *(spu_f32x4 *)(y + 2 * y_row) = SPU_SHUFFLE4(AB, CD, 0, 1, 4, 5);
  *(spu_f32x4 *)(y + 3 * y_row) = SPU_SHUFFLE4(AB, CD, 2, 3, 6, 7);
}

/* y[j][i] = x[i][j] for i < rows, j < cols; strides in elements. */
static inline void spu_transpose_f32(const float *x, int64_t x_row, float *y, int64_t y_row,
                                     int64_t rows, int64_t cols) {
  const int64_t whole_rows = rows & ~INT64_C(3), whole_cols = cols & ~INT64_C(3);
  for (int64_t i = 0; i < whole_rows; i += 4) {
    for (int64_t j = 0; j < whole_cols; j += 4)
      spu_transpose4_f32(x + i * x_row + j, x_row, y + j * y_row + i, y_row);
    for (int64_t j = whole_cols; j < cols; j++)
      for (int64_t r = i; r < i + 4; r++)
        y[j * y_row + r] = x[r * x_row + j];
  }
  for (int64_t i = whole_rows; i < rows; i++)
    for (int64_t j = 0; j < cols; j++)
      y[j * y_row + i] = x[i * x_row + j];
}

/*
 * One register block: out[r][c] = out[r][c] * keep[r] + sum_k a[r][k] * b[k][c], where a NULL
 * keep starts from 0.0f. rows (1..4) and vectors (1..4) are literals at the call.
 */
static inline __attribute__((always_inline)) void
spu_block_f32(const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t b_row,
              const float *keep, float *out, int64_t out_row, int64_t depth, const int rows,
              const int vectors) {
  spu_wide sum[SPU_STRIP_ROWS][4];
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      sum[r][v] = (spu_wide){0.0f};
      if (keep)
        sum[r][v] = *(const spu_wide *)(out + r * out_row + v * SPU_WIDE) * keep[r];
    }
  for (int64_t k = 0; k < depth; k++) {
    spu_wide w[4];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      w[v] = *(const spu_wide *)(b + k * b_row + v * SPU_WIDE);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
      const float x = a[r * a_row + k * a_col];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++)
        sum[r][v] = sum[r][v] + w[v] * x;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      *(spu_wide *)(out + r * out_row + v * SPU_WIDE) = sum[r][v];
}

/* A strip of `vectors` registers of columns and any number of rows, kept as in a block. */
#define SPU_STRIP_F32(name, vectors)                                                            \
  static inline void name(const float *a, int64_t a_row, int64_t a_col, const float *b,         \
                          int64_t b_row, const float *keep, float *out, int64_t out_row,        \
                          int64_t rows, int64_t depth) {                                        \
    for (int64_t four = rows >> 2; four > 0; four--) {                                          \
      spu_block_f32(a, a_row, a_col, b, b_row, keep, out, out_row, depth, 4, vectors);          \
      a += 4 * a_row;                                                                           \
      out += 4 * out_row;                                                                       \
      if (keep) keep += 4;                                                                      \
    }                                                                                           \
    for (int64_t one = rows & 3; one > 0; one--) {                                              \
      spu_block_f32(a, a_row, a_col, b, b_row, keep, out, out_row, depth, 1, vectors);          \
      a += a_row;                                                                               \
      out += out_row;                                                                           \
      if (keep) keep++;                                                                         \
    }                                                                                           \
  }
SPU_STRIP_F32(spu_strip1_f32, 1)
SPU_STRIP_F32(spu_strip2_f32, 2)
#if SPU_STRIP_VECTORS == 4
SPU_STRIP_F32(spu_strip4_f32, 4)
#define spu_strip_f32 spu_strip4_f32
#else
#define spu_strip_f32 spu_strip2_f32
#endif

/* panel[k][c] = b[k][c] for c < cols, 0 up to SPU_STRIP. */
static inline void spu_pack_f32(const float *b, int64_t b_row, int64_t b_col, float *panel,
                                int64_t cols, int64_t depth) {
  if (cols < SPU_STRIP)
    memset(panel, 0, (size_t)depth * SPU_STRIP * sizeof(float));
  if (b_row == 1) {
    spu_transpose_f32(b, b_col, panel, SPU_STRIP, cols, depth);
    return;
  }
  for (int64_t k = 0; k < depth; k++)
    for (int64_t c = 0; c < cols; c++)
      panel[k * SPU_STRIP + c] = b[k * b_row + c * b_col];
}

/* A strip of `cols` <= SPU_STRIP columns through a packed panel of at most SPU_CHUNK depths. */
static inline void spu_packed_strip_f32(const float *a, int64_t a_row, int64_t a_col,
                                        const float *b, int64_t b_row, int64_t b_col,
                                        const float *keep, float *out, int64_t out_row,
                                        int64_t rows, int64_t cols, int64_t depth) {
  static const float whole[SPU_STRIP_ROWS] = {1.0f, 1.0f, 1.0f, 1.0f};
  _Alignas(64) float panel[SPU_CHUNK * SPU_STRIP], block[SPU_STRIP_ROWS * SPU_STRIP] = {0};
  const size_t bytes = (size_t)cols * sizeof(float);
  for (int64_t k = 0; k < depth || k == 0; k += SPU_CHUNK) {
    const int64_t chunk = depth - k < SPU_CHUNK ? depth - k : SPU_CHUNK;
    spu_pack_f32(b + k * b_row, b_row, b_col, panel, cols, chunk);
    for (int64_t r = 0; r < rows; r += SPU_STRIP_ROWS) {
      const int64_t count = rows - r < SPU_STRIP_ROWS ? rows - r : SPU_STRIP_ROWS;
      /* Going on after the first chunk: times 1.0f is exact. */
      const float *factor = k > 0 ? whole : keep ? keep + r : keep;
      const float *x = a + r * a_row + k * a_col;
      float *y = out + r * out_row;
      if (cols == SPU_STRIP) {
        spu_strip_f32(x, a_row, a_col, panel, SPU_STRIP, factor, y, out_row, count, chunk);
        continue;
      }
      for (int64_t i = 0; factor && i < count; i++)
        memcpy(block + i * SPU_STRIP, y + i * out_row, bytes);
      spu_strip_f32(x, a_row, a_col, panel, SPU_STRIP, factor, block, SPU_STRIP, count, chunk);
      for (int64_t i = 0; i < count; i++)
        memcpy(y + i * out_row, block + i * SPU_STRIP, bytes);
    }
  }
}

/* out = out * keep[row] + a . b, or a . b where keep is NULL; strides in elements. */
static inline void spu_accumulate_f32(const float *a, int64_t a_row, int64_t a_col,
                                      const float *b, int64_t b_row, int64_t b_col,
                                      const float *keep, float *out, int64_t out_row,
                                      int64_t rows, int64_t cols, int64_t depth) {
  int64_t c = 0;
  if (b_col == 1) {
    for (; cols - c >= SPU_STRIP; c += SPU_STRIP)
      spu_strip_f32(a, a_row, a_col, b + c, b_row, keep, out + c, out_row, rows, depth);
    for (; cols - c >= 2 * SPU_WIDE; c += 2 * SPU_WIDE)
      spu_strip2_f32(a, a_row, a_col, b + c, b_row, keep, out + c, out_row, rows, depth);
    for (; cols - c >= SPU_WIDE; c += SPU_WIDE)
      spu_strip1_f32(a, a_row, a_col, b + c, b_row, keep, out + c, out_row, rows, depth);
  }
  for (; c < cols; c += SPU_STRIP) {
    const int64_t count = cols - c < SPU_STRIP ? cols - c : SPU_STRIP;
    spu_packed_strip_f32(a, a_row, a_col, b + c * b_col, b_row, b_col, keep, out + c, out_row,
                         rows, count, depth);
  }
}

/*
 * One matrix of a batch: out[r][c] = (sum over k of a[r][k] * b[k][c]) * alpha.
 * Strides are in elements; out's columns are contiguous and out overlaps neither input.
 */
static inline void spu_batch_matmul_f32(const float *a, int64_t a_row, int64_t a_col,
                                        const float *b, int64_t b_row, int64_t b_col,
                                        float *out, int64_t out_row, int64_t rows, int64_t cols,
                                        int64_t depth, float alpha) {
  spu_accumulate_f32(a, a_row, a_col, b, b_row, b_col, NULL, out, out_row, rows, cols, depth);
  if (alpha != 1.0f)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < cols; c++)
        out[r * out_row + c] = out[r * out_row + c] * alpha;
}

#endif
