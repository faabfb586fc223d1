/*
 * Loops in registers, whose rates nothing that does the same with memory exceeds; for spu_peaks.py.
 */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "spu.h"

#if defined(SPU_AVX512)

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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
