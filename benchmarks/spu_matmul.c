/*
 * Timed runs of the SPU's kernels, and the peaks to hold them to; for spu_matmul.py.
 */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "spu.h"

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(SPU_AVX512)

/* The compiler must neither merge equal operations nor hoist one out of the loop. */
#define OPAQUE(v) __asm__ volatile("" : "+v"(v))

#define PEAK(name, operand)                                             \
  double name(int64_t loops) {                                          \
    __m512i acc[12], x = _mm512_set1_epi8(5), w = _mm512_set1_epi8(3);  \
    __m512i index = _mm512_set1_epi8(7);                                \
    SPU_UNROLL                                                          \
    for (int i = 0; i < 12; i++) {                                      \
      acc[i] = _mm512_setzero_si512();                                  \
      OPAQUE(acc[i]);                                                   \
    }                                                                   \
    OPAQUE(x);                                                          \
    OPAQUE(index);                                                      \
    const double start = seconds();                                     \
    for (int64_t n = 0; n < loops; n++) {                               \
      SPU_UNROLL                                                        \
      for (int i = 0; i < 12; i++) {                                    \
        OPAQUE(x);                                                      \
        const __m512i y = operand;                                      \
        acc[i] = _mm512_dpbusd_epi32(acc[i], y, w);                     \
        OPAQUE(acc[i]);                                                 \
      }                                                                 \
    }                                                                   \
    const double spent = seconds() - start;                             \
    return 12.0 * 64.0 * (double)loops / spent;                         \
  }
/* MAC/s of 12 independent dot products in registers */
PEAK(peak_dot, x)
#if defined(__AVX512VBMI__)
/* likewise, each after a permute of its operand */
PEAK(peak_pair, _mm512_permutexvar_epi8(index, x))
#endif

#endif

#define KERNEL(name, format, share)                                                     \
  static __attribute__((noinline)) void name(const spu_tile *t) {                       \
    spu_tile_run(t, SPU_I8, format, share, SPU_SCALE | SPU_BIAS, SPU_RES_NONE, SPU_ACT_NONE, \
                 SPU_OUT_U8);                                                           \
  }
KERNEL(dense, SPU_DENSE, 2)
KERNEL(banked_1, SPU_BANKED, 1)
KERNEL(banked_2, SPU_BANKED, 2)
KERNEL(banked2_1, SPU_BANKED2, 1)
KERNEL(banked2_2, SPU_BANKED2, 2)

/*
 * The seconds of one whole product, the fastest of `repeats`: `runs` runs of `run_rows` rows from
 * x + starts[i], in tiles of `tile_rows` rows and of `block_lanes` lanes, whose weights stay in the
 * L2 cache. `model` has the fields that all tiles share.
 */
double time_product(const spu_tile *model, int format, int32_t share, int64_t runs,
                    const int64_t *starts, int32_t run_rows, int32_t tile_rows, int32_t lanes,
                    int32_t block_lanes, int32_t repeats) {
  void (*kernel)(const spu_tile *) = format == SPU_DENSE     ? dense
                                     : format == SPU_BANKED ? (share == 1 ? banked_1 : banked_2)
                                     : share == 1           ? banked2_1
                                                            : banked2_2;
  double best = 1e30;
  for (int32_t repeat = 0; repeat < repeats; repeat++) {
    const double start = seconds();
    for (int32_t block = 0; block < lanes; block += block_lanes) {
      const int32_t end = block + block_lanes < lanes ? block + block_lanes : lanes;
      for (int64_t run = 0; run < runs; run++)
        for (int32_t row = 0; row < run_rows; row += tile_rows) {
          spu_tile t = *model;
          t.group = block / 16;
          t.rows = run_rows - row < tile_rows ? run_rows - row : tile_rows;
          t.lanes = end - block;
          t.x = (const uint8_t *)model->x + starts[run] + row * model->x_stride;
          t.scale = model->scale + block;
          t.bias = model->bias + block;
          t.out = (uint8_t *)model->out + (run * run_rows + row) * model->out_stride + block;
          kernel(&t);
        }
    }
    const double spent = seconds() - start;
    if (spent < best) best = spent;
  }
  return best;
}
