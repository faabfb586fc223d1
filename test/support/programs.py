"""Small hand-written programs for tests of the runtime."""

from __future__ import annotations

import numpy as np

from spu_ir.runtime.program import Extent, Port, Program

ADD = Program(
    source="""
#include "spu_device.h"

/* sum = a + b + bias, sums = each row's sum of that, batch x seq at a time */
typedef struct {
  const float *a, *b, *bias;
  float *sum;
  uint8_t *arena;
  int64_t seq;
} frame_0;

static void body_0(void *opaque, int64_t i) {
  const frame_0 *f = opaque;
  float *row = (float *)(void *)f->arena + i * f->seq;
  for (int64_t j = 0; j < f->seq; ++j) row[j] = f->a[i * f->seq + j] + f->b[i * f->seq + j];
  for (int64_t j = 0; j < f->seq; ++j) f->sum[i * f->seq + j] = row[j] + f->bias[j];
}

int64_t spu_arena_bytes(const int64_t *extents) { return 4 * extents[0] * extents[1]; }

void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape) {
  shape[0] = extents[0];
  shape[1] = output == 0 ? extents[1] : 2 * extents[1];
}

int32_t spu_run(const spu_context *context, const int64_t *extents, const void *const *inputs,
                void *const *outputs) {
  frame_0 f = {inputs[0], inputs[1], (const float *)(const void *)(context->weights + 64),
               outputs[0], context->arena, extents[1]};
  context->parallel(context->pool, body_0, &f, extents[0]);
  const float *sum = outputs[0];
  int64_t *twice = outputs[1];
  for (int64_t i = 0; i < extents[0] * extents[1]; ++i) {
    twice[2 * i] = (int64_t)sum[i];
    twice[2 * i + 1] = (int64_t)sum[i];
  }
  return SPU_OK;
}
""",
    weights={
        "unused": np.arange(3, dtype=np.int8),
        "bias": np.arange(8, dtype=np.float32),
    },
    inputs=(
        Port("left side", "float32", ("batch", "seq")),
        Port("right", "float32", ("batch", "seq")),
    ),
    outputs=(
        Port("sum", "float32", ("batch", "seq")),
        Port("twice", "int64", ("batch", "?")),
    ),
    extents=(Extent("batch", 1, 64), Extent("seq", 1, 8)),
    ir="builtin.module {}\n",
    report=[{"op": "vpu.add", "density": 1.0}],
)
"""`sum = left side + right + bias` by rows in parallel, and `twice`, each element two times."""


def add_reference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The output `sum` of `ADD`."""
    return left + right + np.arange(left.shape[1], dtype=np.float32)


LOOKUP = Program(
    source="""
#include "spu_device.h"

int64_t spu_arena_bytes(const int64_t *extents) {
  (void)extents;
  return 0;
}

void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape) {
  (void)output;
  (void)extents;
  shape[0] = 2;
}

int32_t spu_run(const spu_context *context, const int64_t *extents, const void *const *inputs,
                void *const *outputs) {
  (void)extents;
  const uint16_t *table = (const uint16_t *)(const void *)context->weights;
  const int64_t *indices = inputs[0];
  uint16_t *out = outputs[0];
  for (int i = 0; i < 2; ++i) {
    if (indices[i] < 0 || indices[i] >= 4) return SPU_BAD_INDEX;
    out[i] = table[indices[i]];
  }
  return SPU_OK;
}
""",
    weights={"table": np.array([0.5, 1.5, 2.5, 3.5]).astype(Port("", "bfloat16", ()).numpy_dtype)},
    inputs=(Port("indices", "int64", (2,)),),
    outputs=(Port("values", "bfloat16", (2,)),),
    extents=(),
    ir="builtin.module {}\n",
    report=[],
)
"""Two bfloat16 values of a table of four, with no run-time extents and no arena."""
