/*
 * What a generated program and its host say to each other: the three functions that
 * a program defines, and the context that the host lends it for one run.
 */
#ifndef SPU_CONTEXT_H
#define SPU_CONTEXT_H

#include <stdint.h>

/* One step of a parallel region; steps of a region are independent and run in any order. */
typedef void (*spu_body)(void *frame, int64_t index);

/* Runs body(frame, 0) .. body(frame, count - 1) and returns when all of them have returned. */
typedef void (*spu_parallel_fn)(void *pool, spu_body body, void *frame, int64_t count);

typedef struct {
  const uint8_t *weights;   /* first byte of the weights; aligned to 4096 */
  uint8_t *arena;           /* spu_arena_bytes(extents) + SPU_SLACK bytes; aligned to 64 */
  spu_parallel_fn parallel; /* spu_pool_parallel(), or any function that keeps its promise */
  void *pool;               /* passed to parallel */
  int64_t *counters;        /* NULL, or where a profiled program adds up its instructions */
  int32_t threads;          /* how many threads parallel has; 0 where that is not known */
} spu_context;

/* Bytes that may be read, never written, behind the end of the arena and of the weights. */
#define SPU_SLACK 64

/* What spu_run returns. */
enum {
  SPU_OK = 0,
  SPU_BAD_EXTENT = 1, /* an extent is outside the bounds that the program was compiled for */
  SPU_BAD_INDEX = 2,  /* an index among the inputs is outside the axis that it selects from */
  SPU_BAD_IMAGE = 3   /* an image's geometry among the inputs is impossible, or not of the image */
};

/* Bytes of arena that a run with these extents needs. */
int64_t spu_arena_bytes(const int64_t *extents);

/* Writes the shape of output number `output` (its rank is fixed) for these extents. */
void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape);

/*
 * Runs the program once. Inputs and outputs are contiguous, in the order of the program's
 * ports. Concurrent runs need a context (arena) each; everything else is shared.
 */
int32_t spu_run(const spu_context *context, const int64_t *extents, const void *const *inputs,
                void *const *outputs);

#endif
