/*
 * The special function unit: an activation as 32 parabolas of equal width, of which the input
 * chooses one. A third of the time of the functions in polynomials.h, to 7e-5 near 0.
 */
#ifndef SPU_SFU_H
#define SPU_SFU_H

#include "numerics.h"
#include "sfu_tables.h"

/* 32 floats by the lowest five bits of integers */
SPU_INLINE f32x16 spu_sfu_look_up(const float *table, i32x16 piece) {
#if defined(SPU_AVX512)
  return (f32x16)_mm512_permutex2var_ps(_mm512_loadu_ps(table), (__m512i)piece,
                                        _mm512_loadu_ps(table + 16));
#elif defined(__AVX2__)
  f32x16 y;
  for (int half = 0; half < 2; half++) {
    __m256i at;
    __m256 of[4];
    memcpy(&at, (const char *)&piece + 32 * half, 32);
    for (int i = 0; i < 4; i++) /* by three bits */
      of[i] = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8 * i), at);
    const __m256 eight = _mm256_castsi256_ps(_mm256_slli_epi32(at, 28));
    const __m256 sixteen = _mm256_castsi256_ps(_mm256_slli_epi32(at, 27));
    const __m256 low = _mm256_blendv_ps(of[0], of[1], eight);
    const __m256 high = _mm256_blendv_ps(of[2], of[3], eight);
    const __m256 found = _mm256_blendv_ps(low, high, sixteen);
    memcpy((char *)&y + 32 * half, &found, 32);
  }
  return y;
#else
  f32x16 y;
  for (int l = 0; l < 16; l++) y[l] = table[piece[l] & 31];
  return y;
#endif
}

/* piece i starts at (i - 16) / step, a power of two; any piece of NaN gives NaN */
SPU_INLINE f32x16 spu_sfu(f32x16 x, const float (*table)[32], float step) {
#if defined(SPU_AVX512)
  /*
   * Floats from 1.5 * 2^23 / step on are 1 / step apart, and their bits count them: rounded down,
   * the sum's are those of `first` + piece. Larger numbers have larger bits, negative ones
   * negative bits; a look-up sees the lowest five.
   */
  const __m512 first = _mm512_set1_ps(12582912.0f / step);
  const __m512 shift = _mm512_set1_ps((12582912.0f + 16.0f) / step);
  const __m512i least = _mm512_castps_si512(first);
  const __m512i most = _mm512_castps_si512(_mm512_set1_ps((12582912.0f + 31.0f) / step));
  const __m512 place =
      _mm512_add_round_ps((__m512)x, shift, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const i32x16 piece = (i32x16)_mm512_min_epi32(
      _mm512_max_epi32(_mm512_castps_si512(place), least), most);
#else
  const f32x16 place = x * spu_splat(step);
  const f32x16 near = spu_min(spu_max(place, spu_splat(-16.0f)), spu_splat(15.0f));
  const i32x16 piece = spu_round_small(spu_floor(near)) + 16;
#endif
  const f32x16 slope = spu_sfu_look_up(table[2], piece) * x + spu_sfu_look_up(table[1], piece);
  return slope * x + spu_sfu_look_up(table[0], piece);
}

SPU_INLINE f32x16 spu_sfu_gelu(f32x16 x) { return spu_sfu(x, spu_sfu_gelu_table, SFU_GELU_STEP); }
SPU_INLINE f32x16 spu_sfu_gelu_tanh(f32x16 x) {
  return spu_sfu(x, spu_sfu_gelu_tanh_table, SFU_GELU_TANH_STEP);
}
SPU_INLINE f32x16 spu_sfu_silu(f32x16 x) { return spu_sfu(x, spu_sfu_silu_table, SFU_SILU_STEP); }
SPU_INLINE f32x16 spu_sfu_sigmoid(f32x16 x) {
  return spu_sfu(x, spu_sfu_sigmoid_table, SFU_SIGMOID_STEP);
}

#endif
