/*
 * Runs SPU products that it is sent on stdin, for test_spu_kernel.py: one request after the
 * other, every array in an allocation of its exact size, so that sanitisers see each byte that
 * is read or written out of place. Its own process, because a sanitiser cannot join Python's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "spu.h"

typedef struct {
  int32_t type, format, share, epilogue, residual, activation, out, tile_rows;
  int32_t groups, lane_groups, lanes, residual_zero, out_zero;
  float residual_scale, out_inv_scale;
  int32_t tile_blocks;
  int64_t runs, run_rows, x_stride, residual_stride, out_stride, lane_bytes, residual_lane_bytes;
} request;

static void receive(void *to, size_t bytes) {
  if (bytes && fread(to, 1, bytes, stdin) != bytes) exit(3);
}

/* the next array of the request, or NULL when it is empty; `slack` more bytes are all ones */
static void *array(size_t slack, int64_t *count) {
  int64_t bytes;
  receive(&bytes, sizeof bytes);
  if (count) *count = bytes;
  if (!bytes) return NULL;
  uint8_t *data = malloc((size_t)bytes + slack);
  if (!data) exit(4);
  receive(data, (size_t)bytes);
  /* as bfloat16 or float32 they are NaN: a result that depends on them is seen */
  memset(data + bytes, 0xff, slack);
  return data;
}

/* The fused kernels are unrolled by format and share, which are literals; the rest need not be. */
#define RUN(name, type, format, share)                                                 \
  static __attribute__((noinline)) void name(const spu_tile *t, const request *r) {    \
    spu_tile_run(t, type, format, share, r->epilogue, r->residual, r->activation, r->out); \
  }
RUN(dense_1, SPU_I8, SPU_DENSE, 1)
RUN(dense_2, SPU_I8, SPU_DENSE, 2)
RUN(banked_1, SPU_I8, SPU_BANKED, 1)
RUN(banked_2, SPU_I8, SPU_BANKED, 2)
RUN(banked_4, SPU_I8, SPU_BANKED, 4)
RUN(paired, SPU_I8, SPU_PAIRED, 2)
RUN(banked2_1, SPU_I8, SPU_BANKED2, 1)
RUN(banked2_2, SPU_I8, SPU_BANKED2, 2)
RUN(banked2_4, SPU_I8, SPU_BANKED2, 4)
RUN(bf16, SPU_BF16, r->format, r->share)
RUN(f32, SPU_F32, SPU_DENSE, r->share)

static void run_tile(const spu_tile *t, const request *r) {
  typedef void (*run)(const spu_tile *, const request *);
  static const run i8[4][3] = {{dense_1, dense_2, NULL},
                               {banked_1, banked_2, banked_4},
                               {banked2_1, banked2_2, banked2_4},
                               {NULL, paired, NULL}};
  const run one = r->type == SPU_I8     ? i8[r->format][r->share >> 1]
                  : r->type == SPU_BF16 ? bf16
                                        : f32;
  one(t, r);
}

int main(void) {
  request r;
  while (fread(&r, 1, sizeof r, stdin) == sizeof r) {
    void *index = array(0, NULL), *value = array(0, NULL), *offset = array(0, NULL);
    void *begin = array(0, NULL), *correction = array(0, NULL);
    uint8_t *x = array(63, NULL);
    int64_t *starts = array(0, NULL); /* bytes from x to the first row of every run */
    float *scale = array(0, NULL), *bias = array(0, NULL), *row_scale = array(0, NULL);
    uint8_t *residual = array(0, NULL);
    int64_t bytes;
    uint8_t *out = array(0, &bytes);
    const spu_weight w = {index, value, offset, begin, correction};
    for (int64_t run = 0; run < r.runs; run++)
      for (int64_t row = 0; row < r.run_rows; row += r.tile_rows)
        for (int32_t group = 0; group < r.groups; group++)
          for (int32_t lane = 0; lane < r.lanes; lane += 16 * r.share * r.tile_blocks) {
            const int64_t n = (int64_t)group * r.lanes + lane, m = run * r.run_rows + row;
            const int64_t rows = r.run_rows - row;
            const int32_t lanes = r.lanes - lane, most = 16 * r.share * r.tile_blocks;
            spu_tile t = {0};
            t.w = &w;
            t.group = group * r.lane_groups + lane / 16;
            t.rows = (int32_t)(rows < r.tile_rows ? rows : r.tile_rows);
            t.lanes = lanes < most ? lanes : most;
            t.x = x + starts[run] + row * r.x_stride;
            t.x_stride = r.x_stride;
            t.scale = scale ? scale + n : NULL;
            t.bias = bias ? bias + n : NULL;
            t.row_scale = row_scale ? row_scale + m : NULL;
            t.residual =
                residual ? residual + m * r.residual_stride + n * r.residual_lane_bytes : NULL;
            t.residual_stride = r.residual_stride;
            t.residual_scale = r.residual_scale;
            t.residual_zero = r.residual_zero;
            t.out = out + m * r.out_stride + n * r.lane_bytes;
            t.out_stride = r.out_stride;
            t.out_inv_scale = r.out_inv_scale;
            t.out_zero = r.out_zero;
            run_tile(&t, &r);
          }
    fwrite(out, 1, (size_t)bytes, stdout);
    fflush(stdout);
    void *all[] = {index, value, offset, begin,     correction, x,
                   starts, scale, bias,  row_scale, residual,   out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  }
  return 0;
}
