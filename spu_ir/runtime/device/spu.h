/*
 * The SPU's one instruction: a tile of sparse or dense products with its epilogue.
 */
#ifndef SPU_H
#define SPU_H

#include "epilogue.h"
#include "spu_bf16.h"
#include "spu_f32.h"
#include "spu_int8.h"

/* The accumulators of a tile, [rows][share][16]. */
SPU_INLINE void spu_sums(const spu_tile *t, int32_t *acc, int type, int format, int share) {
#define SPU_CALL(kind, shape, n) \
  if (share == n) {              \
    spu_##kind##_##shape##_##n(t, acc); \
    return;                      \
  }
#define SPU_CALLS(kind)        \
  switch (format) {            \
    case SPU_DENSE:            \
      SPU_CALL(kind, dense, 1) \
      SPU_CALL(kind, dense, 2) \
      break;                   \
    case SPU_BANKED:           \
      SPU_CALL(kind, banked, 1) \
      SPU_CALL(kind, banked, 2) \
      SPU_CALL(kind, banked, 4) \
      break;                   \
    default:                   \
      SPU_CALL(kind, banked2, 1) \
      SPU_CALL(kind, banked2, 2) \
      SPU_CALL(kind, banked2, 4) \
      break;                   \
  }
  if (type == SPU_I8) {
    SPU_CALLS(i8)
  } else if (type == SPU_BF16) {
    SPU_CALLS(bf16)
  } else {
    SPU_CALL(f32, dense, 1)
    SPU_CALL(f32, dense, 2)
  }
#undef SPU_CALLS
#undef SPU_CALL
}

#if defined(SPU_AVX512)

/* lanes of float32 sums between two passes: with 14 rows, half of an L1 cache */
#define SPU_I8_BETWEEN 256

/*
 * The tile's whole blocks; returns how many lanes that were. Where spu_i8_fused cannot do the
 * epilogue, it leaves the sums with their residual as float32, and a second pass activates and
 * converts them, row by row from L1.
 */
SPU_INLINE int32_t spu_i8_run(const spu_tile *tile, int format, int share, int epilogue,
                              int residual, int activation, int out) {
  const int one_pass = spu_i8_fusible(epilogue, residual, activation, out);
  /* literals need no loop; without them, as in the tests, only one copy of spu_i8_fused */
  if (__builtin_constant_p(one_pass) && one_pass)
    return spu_i8_fused(tile, format, share, epilogue, residual, activation, out, SPU_ACT_NONE,
                        out);
  /* beside the products of the next block, whose registers leave room for it */
  if (__builtin_constant_p(activation) && activation >= SPU_ACT_SFU_GELU && share == 1 &&
      format != SPU_DENSE)
    return spu_i8_fused(tile, format, share, epilogue, residual, SPU_ACT_NONE, SPU_OUT_F32,
                        activation, out);
  const int32_t lanes = tile->lanes / (16 * share) * (16 * share);
  _Alignas(64) float between[SPU_MAX_ROWS * SPU_I8_BETWEEN];
  for (int32_t done = 0; done < lanes; done += SPU_I8_BETWEEN) {
    spu_tile t = spu_tile_after(tile, done, epilogue, residual, out);
    t.lanes = lanes - done < SPU_I8_BETWEEN ? lanes - done : SPU_I8_BETWEEN;
    spu_tile sums = t;
    if (!one_pass && out != SPU_OUT_F32) {
      sums.out = between;
      sums.out_stride = sizeof(float) * SPU_I8_BETWEEN;
    }
    if (!spu_i8_fused(&sums, format, share, epilogue, residual,
                      one_pass ? activation : SPU_ACT_NONE, one_pass ? out : SPU_OUT_F32,
                      SPU_ACT_NONE, out))
      return done;
    for (int32_t m = 0; !one_pass && m < t.rows; m++) {
      const float *from = (const float *)(const void *)((uint8_t *)sums.out + m * sums.out_stride);
      uint8_t *to = (uint8_t *)t.out + m * t.out_stride;
      for (int32_t j = 0; 16 * j < t.lanes; j++)
        spu_store_output(&t, to, j, spu_activate(spu_load_f32(from + 16 * j, 16), activation), 16,
                         out);
    }
  }
  return lanes;
}

#endif

/*
 * type SPU_I8 | SPU_BF16 | SPU_F32; format SPU_DENSE | SPU_BANKED | SPU_BANKED2 | SPU_PAIRED
 * (SPU_I8 only, from the first lane group of a pair); share 1, 2 or 4 (paired: 2; dense: 1 or 2,
 * the lane groups of this tile, which must be in one convolution group; float32 is always dense);
 * epilogue bits SPU_SCALE | SPU_ROW_SCALE | SPU_BIAS | SPU_OUT_SCALE | SPU_OUT_ZERO; residual
 * SPU_RES_*; activation SPU_ACT_*; out SPU_OUT_* (SPU_OUT_I32: the raw sums of SPU_I8, no
 * epilogue). All of these are literals at the call, so one call is one specialised kernel.
 */
SPU_INLINE void spu_tile_run(const spu_tile *tile, int type, int format, int share, int epilogue,
                             int residual, int activation, int out) {
  int32_t done = 0;
#if defined(SPU_AVX512)
  if (type == SPU_I8 && out != SPU_OUT_I32)
    done = spu_i8_run(tile, format, share, epilogue, residual, activation, out);
#endif
  if (format == SPU_PAIRED) { /* the rest, block by block */
    format = SPU_BANKED;
    share = 1;
  }
  for (; done < tile->lanes; done += 16 * share) {
    _Alignas(64) int32_t acc[SPU_MAX_ROWS * SPU_MAX_SHARE * 16];
    const spu_tile t = spu_tile_after(tile, done, epilogue, residual, out);
    /* the last tile of a dense weight may be narrower than its share */
    if (format == SPU_DENSE && share > 1 && t.lanes <= 16) {
      spu_sums(&t, acc, type, format, 1);
      spu_epilogue(&t, acc, type, 1, epilogue, residual, activation, out);
    } else {
      spu_sums(&t, acc, type, format, share);
      spu_epilogue(&t, acc, type, share, epilogue, residual, activation, out);
    }
  }
}

#endif
