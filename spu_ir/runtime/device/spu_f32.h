/*
 * The SPU's dense float32 products: every output adds its products one after the other, from
 * 0.0f, in the order of the steps; each product is rounded, then each sum.
 */
#ifndef SPU_F32_H
#define SPU_F32_H

#include "spu_tile.h"

/* vectors as wide as the registers: a wider type would live in memory */
#if defined(SPU_AVX512)
#define SPU_F32_WIDTH 16
#define SPU_F32_ROWS_1 14
#define SPU_F32_ROWS_2 12
#elif defined(__AVX2__)
#define SPU_F32_WIDTH 8
#define SPU_F32_ROWS_1 5
#define SPU_F32_ROWS_2 2
#else
#define SPU_F32_WIDTH 4
#define SPU_F32_ROWS_1 2
#define SPU_F32_ROWS_2 1
#endif
typedef float spu_f32n __attribute__((vector_size(4 * SPU_F32_WIDTH)));

SPU_INLINE void spu_f32_walk(const spu_walk *k, const int format, const int share,
                             const int rows) {
  (void)format; /* dense */
  enum { parts = 16 / SPU_F32_WIDTH };
  spu_f32n acc[SPU_MAX_ROWS][2 * parts];
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int p = 0; p < share * parts; p++) acc[m][p] = (spu_f32n){0};
  }
  const int64_t steps = k->end - k->begin;
  for (int64_t q = k->begin; q < k->end; q++) {
    const uint8_t *a = k->x + k->offset[q];
    spu_f32n value[2 * parts];
    SPU_UNROLL
    for (int p = 0; p < share * parts; p++)
      memcpy(&value[p], k->value + 64 * (q + p / parts * steps) + p % parts * sizeof(spu_f32n),
             sizeof(spu_f32n));
    SPU_UNROLL
    for (int m = 0; m < rows; m++) {
      float x;
      memcpy(&x, a + m * k->x_stride, 4);
      SPU_UNROLL
      for (int p = 0; p < share * parts; p++) acc[m][p] = acc[m][p] + x * value[p];
    }
  }
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int p = 0; p < share * parts; p++)
      memcpy((uint8_t *)k->acc + 64 * m * share + p * sizeof(spu_f32n), &acc[m][p],
             sizeof(spu_f32n));
  }
}

SPU_DEFINE(spu_f32_dense_1, spu_f32_walk, SPU_DENSE, 1, SPU_F32_ROWS_1)
SPU_DEFINE(spu_f32_dense_2, spu_f32_walk, SPU_DENSE, 2, SPU_F32_ROWS_2)

#endif
