/*
 * A spu_parallel_fn that runs a region on the calling thread and notes how long it took; for
 * compare_profile.py, which lends it to a compiled model instead of the pool.
 */
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <time.h>

typedef struct {
  double *seconds; /* of every region, in the order of a run */
  int64_t limit;
  int64_t count;
} region_times;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void timed_parallel(void *times_, void (*body)(void *, int64_t), void *frame, int64_t count) {
  region_times *times = times_;
  const double start = now();
  for (int64_t i = 0; i < count; i++) body(frame, i);
  if (times->count < times->limit) times->seconds[times->count] = now() - start;
  times->count++;
}
