/*
 * What a program counts of itself. Everything here is empty unless SPU_PROFILE is defined, and then
 * a program counts each instruction that it executes and times each of its steps.
 *
 * A region counts in a variable of its own and adds that to the step's counters when it ends, so
 * threads meet once a region. docs/counters.md says what is counted.
 */
#ifndef SPU_COUNTERS_H
#define SPU_COUNTERS_H

#include <stdint.h>

/* A step's counters in spu_context.counters, SPU_COUNTERS of them, in this order. */
enum {
  SPU_INSTRUCTIONS,
  SPU_MACS,
  SPU_DENSE_MACS,
  SPU_VECTOR_OPS,
  SPU_SPECIAL_OPS,
  SPU_ACTIVATIONS,
  SPU_ZEROS_SEEN,
  SPU_NANOSECONDS,
  SPU_REAL_ROWS, /* of vpu.row_offsets: rows that all samples have, padding left out */
  SPU_BYTES, /* of the step's operands, in order */
  SPU_COUNTERS = SPU_BYTES + 16
};

#ifndef SPU_PROFILE

#define SPU_PROFILED(...)
#define SPU_PROFILE_BEGIN(counters) ((void)0)
#define SPU_BEGIN(step)
#define SPU_END()
#define SPU_REGION_BEGIN(counters)
#define SPU_REGION_END()
#define SPU_COUNT(...)
#define SPU_ZEROS(...)
#define SPU_ROWS(...)

#else

#include <time.h>

#include "spu_tile.h"

typedef struct {
  int64_t value[SPU_COUNTERS];
} spu_counts;

SPU_INLINE int64_t spu_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
SPU_INLINE int64_t spu_least(int64_t a, int64_t b) { return a < b ? a : b; }
SPU_INLINE int64_t spu_most(int64_t a, int64_t b) { return a > b ? a : b; }

/* The quads (steps) that `lanes` lanes from lane group `group` on run. */
SPU_INLINE int64_t spu_quads(const spu_weight *w, int64_t group, int64_t lanes, int64_t share) {
  return w->begin[spu_ceil_div(group + spu_ceil_div(lanes, 16), share)] - w->begin[group / share];
}
SPU_INLINE int64_t spu_taps(const spu_weight *w, int64_t lanes) {
  return spu_ceil_div(lanes, 16) * w->begin[1];
}

SPU_INLINE int64_t spu_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* numbers: those from SPU_MACS to SPU_ACTIVATIONS, then bytes of the operands from `first` on */
SPU_INLINE void spu_count(spu_counts *counts, int first, const int64_t *numbers, int size) {
  const int moved = SPU_ACTIVATIONS - SPU_MACS + 1;
  counts->value[SPU_INSTRUCTIONS]++;
  for (int i = 0; i < moved; i++) counts->value[SPU_MACS + i] += numbers[i];
  for (int i = moved; i < size; i++) counts->value[SPU_BYTES + first + i - moved] += numbers[i];
}

/* Elements that are `zero` (0.0 of either sign for floats) of a view: size and stride by axis. */
static __attribute__((unused)) int64_t spu_zeros(int kind, const void *x, int32_t zero, int rank,
                                                 const int64_t *axes) {
  const int64_t bytes = kind == SPU_I8 ? 1 : kind == SPU_BF16 ? 2 : 4;
  int64_t found = 0;
/* contiguous ones in a loop of their own, which is vectorised */
#define SPU_ZEROS_OF(type, test)                                     \
  const type *at = x;                                                \
  const int64_t end = axes[0] * axes[1], step = axes[1];             \
  if (step == 1)                                                     \
    for (int64_t i = 0; i < end; i++) found += test;                 \
  else if (step > 1)                                                 \
    for (int64_t i = 0; i < end; i += step) found += test;           \
  else                                                               \
    for (int64_t n = 0, i = 0; n < axes[0]; n++, i += step) found += test;
  if (rank > 1) {
    for (int64_t i = 0; i < axes[0]; i++)
      found += spu_zeros(kind, (const uint8_t *)x + i * axes[1] * bytes, zero, rank - 1, axes + 2);
  } else if (kind == SPU_I8) {
    SPU_ZEROS_OF(uint8_t, at[i] == zero)
  } else if (kind == SPU_BF16) {
    SPU_ZEROS_OF(uint16_t, (at[i] & 0x7fff) == 0)
  } else {
    SPU_ZEROS_OF(float, at[i] == 0.0f)
  }
#undef SPU_ZEROS_OF
  return found;
}

/* Adds a region's counts to a step's counters, which other threads may be adding to. */
static __attribute__((unused)) void spu_add_counts(int64_t *counters, const spu_counts *counts) {
  for (int i = 0; counters && i < SPU_COUNTERS; i++)
    if (counts->value[i]) __atomic_fetch_add(&counters[i], counts->value[i], __ATOMIC_RELAXED);
}

/* Of a step that began at `start`. Leaves `counts` empty. */
static __attribute__((unused)) void spu_end_step(int64_t *counters, spu_counts *counts,
                                                 int64_t start) {
  counts->value[SPU_NANOSECONDS] = spu_clock() - start;
  spu_add_counts(counters, counts);
  *counts = (spu_counts){{0}};
}

#define SPU_PROFILED(...) __VA_ARGS__
#define SPU_PROFILE_BEGIN(all)                 \
  int64_t *const all_counters = all, *counters; \
  int64_t started;                             \
  spu_counts counts = {{0}}
#define SPU_BEGIN(step)                                                    \
  counters = all_counters ? all_counters + (step)*SPU_COUNTERS : NULL; \
  started = spu_clock()
#define SPU_END() spu_end_step(counters, &counts, started)
#define SPU_REGION_BEGIN(of_step)     \
  int64_t *const counters = of_step; \
  spu_counts counts = {{0}}
#define SPU_REGION_END() spu_add_counts(counters, &counts)
#define SPU_COUNT(first, ...)                           \
  spu_count(&counts, first, (const int64_t[]){__VA_ARGS__}, \
            (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define SPU_ROWS(rows) counts.value[SPU_REAL_ROWS] += (rows)
#define SPU_ZEROS(kind, x, zero, rank, ...) \
  counts.value[SPU_ZEROS_SEEN] += spu_zeros(kind, x, zero, rank, (const int64_t[]){__VA_ARGS__})

#endif

#endif
