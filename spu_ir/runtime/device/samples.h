/*
 * Sample by sample: for programs whose samples have nothing in common. What a layer writes of one
 * sample is still in the caches when the next layer reads it, which all samples' would not be.
 */
#ifndef SPU_SAMPLES_H
#define SPU_SAMPLES_H

#include "context.h"

/* Runs `count` samples from `first` on; extents, inputs and outputs are those of all samples. */
typedef int32_t (*spu_samples_fn)(const spu_context *context, const int64_t *extents,
                                  int64_t first, int64_t count, const void *const *inputs,
                                  void *const *outputs);

/* Bytes of arena of a sample's own: whole cache lines. */
static inline int64_t spu_sample_arena(int64_t one) { return (one + 63) / 64 * 64; }

/* What `samples` need, if one needs `one` bytes and all in one run `together`. */
static inline int64_t spu_samples_arena(int64_t samples, int64_t one, int64_t together) {
  const int64_t apart = samples * spu_sample_arena(one);
  return apart > together ? apart : together;
}

typedef struct {
  const spu_context *context;
  spu_samples_fn run;
  const int64_t *extents;
  const void *const *inputs;
  void *const *outputs;
  int64_t whole, arena; /* samples that one thread each runs; bytes of a thread's arena */
  int64_t next;         /* the next of them to claim */
  int32_t status;
} spu_samples;

/* A region of a thread that has a sample to itself. */
static inline void spu_alone(void *pool, spu_body body, void *frame, int64_t count) {
  (void)pool;
  for (int64_t i = 0; i < count; i++) body(frame, i);
}

/* Thread number `slot` takes samples until none is left. */
static inline void spu_samples_of_a_thread(void *frame, int64_t slot) {
  spu_samples *s = frame;
  spu_context context = *s->context;
  context.arena += slot * s->arena;
  context.parallel = spu_alone;
  for (;;) {
    const int64_t sample = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
    if (sample >= s->whole) return;
    const int32_t status = s->run(&context, s->extents, sample, 1, s->inputs, s->outputs);
    if (status != SPU_OK) __atomic_store_n(&s->status, status, __ATOMIC_RELAXED);
  }
}

/*
 * All samples: as many as the threads divide evenly by whole samples a thread, then the others
 * one after the other, each on all threads. `one` is a sample's arena in bytes.
 */
static inline int32_t spu_run_samples(const spu_context *context, const int64_t *extents,
                                      int64_t samples, int64_t one, spu_samples_fn run,
                                      const void *const *inputs, void *const *outputs) {
  const int64_t threads = context->threads > 1 ? context->threads : 1;
  const int64_t whole = threads > 1 ? samples - samples % threads : 0;
  spu_samples s = {context, run,   extents, inputs, outputs, whole, spu_sample_arena(one),
                   0,       SPU_OK};
  if (s.whole) context->parallel(context->pool, spu_samples_of_a_thread, &s, threads);
  for (int64_t sample = s.whole; sample < samples; sample++) {
    const int32_t status = run(context, extents, sample, 1, inputs, outputs);
    if (status != SPU_OK) s.status = status;
  }
  return s.status;
}

#endif
