/*
 * The special function unit: an activation as 32 parabolas of equal width, of which the input
 * chooses one. A third of the time of the functions in polynomials.h, to 7e-5 near 0.
 */
#ifndef SPU_SFU_H
#define SPU_SFU_H

#include "numerics.h"
#include "sfu_tables.h"

/* 32 floats by the integers 0..31 */
SPU_INLINE f32x16 spu_sfu_look_up(const float *table, i32x16 piece) {
#if defined(SPU_AVX512)
  return (f32x16)_mm512_permutex2var_ps(_mm512_loadu_ps(table), (__m512i)piece,
                                        _mm512_loadu_ps(table + 16));
#else
  f32x16 y;
  for (int l = 0; l < 16; l++) y[l] = table[piece[l]];
  return y;
#endif
}

/* piece i is around (i - 15.5) / step; NaN stays */
SPU_INLINE f32x16 spu_sfu(f32x16 x, const float (*table)[32], float step) {
  f32x16 place = x * spu_splat(step) + spu_splat(15.5f);
#if defined(SPU_AVX512)
  /* below the range of int32 is INT32_MIN, and any piece of NaN gives NaN */
  const __m512i near = _mm512_cvtps_epi32((__m512)spu_min(place, spu_splat(31.0f)));
  const i32x16 piece = (i32x16)_mm512_max_epi32(near, _mm512_setzero_si512());
#else
  place = spu_min(spu_max(place, spu_splat(0.0f)), spu_splat(31.0f));
  const i32x16 piece = spu_round_small(place);
#endif
  const f32x16 slope = spu_sfu_look_up(table[2], piece) * x + spu_sfu_look_up(table[1], piece);
  return slope * x + spu_sfu_look_up(table[0], piece);
}

SPU_INLINE f32x16 spu_sfu_gelu(f32x16 x) { return spu_sfu(x, spu_sfu_gelu_table, SFU_GELU_STEP); }
SPU_INLINE f32x16 spu_sfu_gelu_tanh(f32x16 x) {
  return spu_sfu(x, spu_sfu_gelu_tanh_table, SFU_GELU_TANH_STEP);
}
SPU_INLINE f32x16 spu_sfu_silu(f32x16 x) { return spu_sfu(x, spu_sfu_silu_table, SFU_SILU_STEP); }

#endif
