/*
 * Timed runs of the SPU's kernels, for spu_matmul_kernels.py.
 */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "spu.h"

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define KERNEL(name, format, share)                                                     \
  static __attribute__((noinline)) void name(const spu_tile *t) {                       \
    spu_tile_run(t, SPU_I8, format, share, SPU_SCALE | SPU_BIAS | SPU_OUT_ZERO,         \
                 SPU_RES_NONE, SPU_ACT_NONE, SPU_OUT_U8);                               \
  }
KERNEL(dense, SPU_DENSE, 2)
KERNEL(banked_1, SPU_BANKED, 1)
KERNEL(banked_2, SPU_BANKED, 2)
KERNEL(paired, SPU_PAIRED, 2)
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
  void (*kernel)(const spu_tile *) = format == SPU_DENSE    ? dense
                                     : format == SPU_PAIRED ? paired
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
