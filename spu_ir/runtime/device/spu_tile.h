/*
 * What a tile of the SPU is: packed weights, rows of activations, and the fused epilogue.
 * spu.h runs one.
 */
#ifndef SPU_TILE_H
#define SPU_TILE_H

#include "numerics.h"

/* the most rows (pixels) of one tile */
#define SPU_MAX_ROWS 14
/* the most lane groups of 16 that share one index vector */
#define SPU_MAX_SHARE 4

enum { SPU_I8, SPU_BF16, SPU_F32 };
enum { SPU_DENSE, SPU_BANKED, SPU_BANKED2, SPU_PAIRED };
enum { SPU_SCALE = 1, SPU_ROW_SCALE = 2, SPU_BIAS = 4, SPU_OUT_SCALE = 8, SPU_OUT_ZERO = 16 };
enum { SPU_RES_NONE, SPU_RES_F32, SPU_RES_BF16, SPU_RES_U8, SPU_RES_I8 };
enum {
  SPU_ACT_NONE,
  SPU_ACT_RELU,
  SPU_ACT_GELU,
  SPU_ACT_GELU_TANH,
  SPU_ACT_TANH,
  SPU_ACT_SIGMOID,
  SPU_ACT_SILU,
  SPU_ACT_SFU_GELU,
  SPU_ACT_SFU_GELU_TANH,
  SPU_ACT_SFU_SILU,
  SPU_ACT_SFU_SIGMOID
};
enum { SPU_OUT_F32, SPU_OUT_BF16, SPU_OUT_U8, SPU_OUT_I8, SPU_OUT_I32 };

/*
 * One packed weight (spu_ir/packing/banked.py writes it). A *block* is `share` lane groups that
 * use one index vector; a dense weight has blocks of one lane group, whatever the tile's share.
 * A SPU_PAIRED one is a SPU_BANKED one of share 1 whose blocks 2i and 2i + 1 of a convolution group
 * have quads of the same windows: it is run as share 2, where both use what is read of a window.
 */
typedef struct {
  const uint8_t *index;      /* banked: [quads][64]; NULL when dense */
  const uint8_t *value;      /* banked: [quads][share][64]; dense: [steps][64] (int8: 16 lanes of
                                4 bytes, bf16: 16 lanes of 2 elements, f32: 16 floats) */
  const int32_t *offset;     /* bytes from x: [quads], or [quads][2] (two windows), or [steps] */
  const int32_t *begin;      /* [blocks + 1]: the first quad (step) of every block */
  const int32_t *correction; /* int8: [groups * 16] the accumulators' first values, or NULL */
} spu_weight;

/* One tile of `rows` x `lanes` outputs, all of one convolution group. */
typedef struct {
  const spu_weight *w;
  int32_t group;      /* first lane group, a multiple of share */
  int32_t rows;       /* 1..SPU_MAX_ROWS */
  int32_t lanes;      /* from the first of `group` on, at least 1; more than 16 * share lanes
                         are consecutive blocks, which one call runs faster than many */
  const void *x;      /* readable up to 63 bytes past the end of every row */
  int64_t x_stride;   /* bytes between consecutive rows */
  const float *scale; /* of this tile's first lane; `lanes` floats */
  const float *bias;  /* likewise */
  const float *row_scale; /* `rows` floats */
  const void *residual;
  int64_t residual_stride; /* bytes */
  float residual_scale;
  int32_t residual_zero;
  void *out;
  int64_t out_stride; /* bytes */
  float out_inv_scale; /* 1 without SPU_OUT_SCALE */
  int32_t out_zero; /* 0 without SPU_OUT_ZERO */
} spu_tile;

/* One walk over the quads of a block, for `rows` rows from x; see the spu_*_walk functions. */
typedef struct {
  const uint8_t *index, *value;
  const int32_t *offset;
  int64_t begin, end;
  const uint8_t *x;
  int64_t x_stride;
  const int32_t *correction; /* of the block's first lane, or NULL */
  int32_t *acc;              /* [rows][share][16] int32 or float */
} spu_walk;

/* bytes of an element of the output, or of the residual */
SPU_INLINE int64_t spu_out_bytes(int out) {
  return out == SPU_OUT_BF16 ? 2 : out == SPU_OUT_U8 || out == SPU_OUT_I8 ? 1 : 4;
}
SPU_INLINE int64_t spu_residual_bytes(int residual) {
  return residual == SPU_RES_F32 ? 4 : residual == SPU_RES_BF16 ? 2 : 1;
}

/* The tile without its first `lanes` lanes, a multiple of 16 * share. */
SPU_INLINE spu_tile spu_tile_after(const spu_tile *tile, int32_t lanes, int epilogue,
                                   int residual, int out) {
  spu_tile t = *tile;
  t.group += lanes / 16;
  t.lanes -= lanes;
  if (epilogue & SPU_SCALE) t.scale += lanes;
  if (epilogue & SPU_BIAS) t.bias += lanes;
  if (residual != SPU_RES_NONE)
    t.residual = (const uint8_t *)t.residual + lanes * spu_residual_bytes(residual);
  t.out = (uint8_t *)t.out + lanes * spu_out_bytes(out);
  return t;
}

/* The tile without its first `rows` rows. */
SPU_INLINE spu_tile spu_tile_below(const spu_tile *tile, int32_t rows, int epilogue,
                                   int residual) {
  spu_tile t = *tile;
  t.rows -= rows;
  t.x = (const uint8_t *)t.x + rows * t.x_stride;
  if (epilogue & SPU_ROW_SCALE) t.row_scale += rows;
  if (residual != SPU_RES_NONE)
    t.residual = (const uint8_t *)t.residual + rows * t.residual_stride;
  t.out = (uint8_t *)t.out + rows * t.out_stride;
  return t;
}

/* The first block's quads, relative to the first of them, and x rows [first, ...) of a tile. */
SPU_INLINE spu_walk spu_walk_of(const spu_tile *t, int32_t *acc, int32_t first, int format,
                                int share) {
  const spu_weight *w = t->w;
  const int banked = format != SPU_DENSE, together = banked && format != SPU_PAIRED;
  const int32_t block = together ? t->group / share : t->group;
  const int64_t quad = w->begin[block];
  spu_walk k;
  k.index = banked ? w->index + 64 * quad : NULL;
  k.value = w->value + 64 * quad * (together ? share : 1);
  k.offset = w->offset + quad * (format == SPU_BANKED2 ? 2 : 1);
  k.begin = 0;
  k.end = w->begin[block + 1] - quad;
  k.x = (const uint8_t *)t->x + first * t->x_stride;
  k.x_stride = t->x_stride;
  k.correction = w->correction ? w->correction + 16 * (int64_t)t->group : NULL;
  k.acc = acc + (int64_t)first * share * 16;
  return k;
}

/* Where lane group j of the block has its 64 value bytes of quad (step) q. */
SPU_INLINE const uint8_t *spu_value_of(const spu_walk *k, int64_t q, int j, int format,
                                       int share) {
  if (format == SPU_BANKED || format == SPU_BANKED2) return k->value + 64 * (q * share + j);
  return k->value + 64 * (q + j * (k->end - k->begin));
}

/* The rows of the next walk when `left` rows are left and a walk takes at most `limit`: even. */
SPU_INLINE int32_t spu_walk_rows(int32_t left, int32_t limit) {
  if (left <= limit) return left;
  const int32_t walks = (left + limit - 1) / limit;
  return (left + walks - 1) / walks;
}

/* The cases of a switch on a number of rows: `body(n)` for every n up to `limit`, a literal. */
#define SPU_CASE(n, limit, body, ...)       \
  case n:                                   \
    if (n <= (limit)) body(__VA_ARGS__, n); \
    break;
#define SPU_CASES(limit, body, ...)      \
  SPU_CASE(1, limit, body, __VA_ARGS__)  \
  SPU_CASE(2, limit, body, __VA_ARGS__)  \
  SPU_CASE(3, limit, body, __VA_ARGS__)  \
  SPU_CASE(4, limit, body, __VA_ARGS__)  \
  SPU_CASE(5, limit, body, __VA_ARGS__)  \
  SPU_CASE(6, limit, body, __VA_ARGS__)  \
  SPU_CASE(7, limit, body, __VA_ARGS__)  \
  SPU_CASE(8, limit, body, __VA_ARGS__)  \
  SPU_CASE(9, limit, body, __VA_ARGS__)  \
  SPU_CASE(10, limit, body, __VA_ARGS__) \
  SPU_CASE(11, limit, body, __VA_ARGS__) \
  SPU_CASE(12, limit, body, __VA_ARGS__) \
  SPU_CASE(13, limit, body, __VA_ARGS__) \
  SPU_CASE(14, limit, body, __VA_ARGS__) \
  default:                               \
    break;

/*
 * Defines `name(tile, acc)`, the sums of a tile's first block: one body of `walk` for every
 * number of rows up to `limit` (a literal), each with its loops unrolled completely; a taller
 * tile takes several walks.
 */
#define SPU_DEFINE(name, walk, format, share, limit)                                    \
  static __attribute__((noinline, unused)) void name(const spu_tile *t, int32_t *acc) { \
    for (int32_t first = 0; first < t->rows;) {                                         \
      const int32_t rows = spu_walk_rows(t->rows - first, limit);                       \
      const spu_walk k = spu_walk_of(t, acc, first, format, share);                     \
      switch (rows) { SPU_CASES(limit, walk, &k, format, share) }                       \
      first += rows;                                                                    \
    }                                                                                   \
  }

#endif
