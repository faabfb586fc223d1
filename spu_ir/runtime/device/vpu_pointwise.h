/*
 * Element-wise instructions of the VPU: 16 lanes in, 16 lanes out.
 *
 * The generated loop loads min(16, n - j) lanes of each operand (as f32, whatever the element
 * type), applies these functions, and stores as many. Truth values are 1.0f and 0.0f.
 */
#ifndef SPU_VPU_POINTWISE_H
#define SPU_VPU_POINTWISE_H

#include "numerics.h"

typedef double f64x16 __attribute__((vector_size(128)));
typedef int64_t i64x16 __attribute__((vector_size(128)));

/* ---- loads and stores of the first `count` (0..16) lanes, as f32 -------------------------- */

SPU_INLINE f32x16 vpu_load_f32(const float *p, int64_t count) { return spu_load_f32(p, count); }
SPU_INLINE f32x16 vpu_load_bf16(const void *p, int64_t count) { return spu_load_bf16(p, count); }
SPU_INLINE f32x16 vpu_load_u8(const uint8_t *p, int64_t count) {
  return spu_to_f32(spu_load_u8(p, count));
}
SPU_INLINE f32x16 vpu_load_i8(const int8_t *p, int64_t count) {
  return spu_to_f32(spu_load_i8(p, count));
}
SPU_INLINE f32x16 vpu_load_i32(const int32_t *p, int64_t count) {
  return spu_to_f32(spu_load_i32(p, count));
}
/* rounded to the nearest float, as i32 is */
SPU_INLINE f32x16 vpu_load_i64(const int64_t *p, int64_t count) {
  i64x16 v = {0};
  if (count >= 16)
    memcpy(&v, p, 128);
  else
    memcpy(&v, p, (size_t)count * 8);
  return __builtin_convertvector(v, f32x16);
}
/* one byte each; any byte but 0 is 1.0f */
SPU_INLINE f32x16 vpu_load_i1(const void *p, int64_t count) {
  const i32x16 byte = spu_load_u8((const uint8_t *)p, count);
  return spu_select(byte != 0, spu_splat(1.0f), spu_splat(0.0f));
}

SPU_INLINE void vpu_store_f32(float *p, f32x16 v, int64_t count) { spu_store_f32(p, v, count); }
SPU_INLINE void vpu_store_bf16(void *p, f32x16 v, int64_t count) { spu_store_bf16(p, v, count); }
/* towards zero, clamped to the type; NaN gives 0 */
SPU_INLINE void vpu_store_u8(uint8_t *p, f32x16 v, int64_t count) {
  const i32x16 t = spu_truncate(v);
  const i32x16 floored = spu_iselect(t > 0, t, spu_isplat(0));
  spu_store_u8(p, spu_iselect(floored < 255, floored, spu_isplat(255)), count);
}
SPU_INLINE void vpu_store_i8(int8_t *p, f32x16 v, int64_t count) {
  const i32x16 t = spu_truncate(v);
  const i32x16 floored = spu_iselect(t > -128, t, spu_isplat(-128));
  spu_store_i8(p, spu_iselect(floored < 127, floored, spu_isplat(127)), count);
}
SPU_INLINE void vpu_store_i32(int32_t *p, f32x16 v, int64_t count) {
  spu_store_i32(p, spu_truncate(v), count);
}
/* the range of i32, sign-extended */
SPU_INLINE void vpu_store_i64(int64_t *p, f32x16 v, int64_t count) {
  const i64x16 wide = __builtin_convertvector(spu_truncate(v), i64x16);
  if (count >= 16)
    memcpy(p, &wide, 128);
  else
    memcpy(p, &wide, (size_t)count * 8);
}
/* 1 where v is not 0 (NaN included) */
SPU_INLINE void vpu_store_i1(void *p, f32x16 v, int64_t count) {
  spu_store_u8((uint8_t *)p, (v != spu_splat(0.0f)) & 1, count);
}

/* ---- arithmetic --------------------------------------------------------------------------- */

SPU_INLINE f32x16 vpu_add(f32x16 a, f32x16 b) { return a + b; }
SPU_INLINE f32x16 vpu_sub(f32x16 a, f32x16 b) { return a - b; }
SPU_INLINE f32x16 vpu_mul(f32x16 a, f32x16 b) { return a * b; }
SPU_INLINE f32x16 vpu_div(f32x16 a, f32x16 b) { return a / b; }
/* a > b ? a : b, and a < b ? a : b */
SPU_INLINE f32x16 vpu_max(f32x16 a, f32x16 b) { return spu_max(a, b); }
SPU_INLINE f32x16 vpu_min(f32x16 a, f32x16 b) { return spu_min(a, b); }
SPU_INLINE f32x16 vpu_neg(f32x16 x) { return spu_neg(x); }
SPU_INLINE f32x16 vpu_abs(f32x16 x) { return spu_abs(x); }
SPU_INLINE f32x16 vpu_sqrt(f32x16 x) { return spu_sqrt(x); }
SPU_INLINE f32x16 vpu_reciprocal(f32x16 x) { return spu_splat(1.0f) / x; }
SPU_INLINE f32x16 vpu_floor(f32x16 x) { return spu_floor(x); }
SPU_INLINE f32x16 vpu_ceil(f32x16 x) { return spu_ceil(x); }
SPU_INLINE f32x16 vpu_round(f32x16 x) { return spu_round(x); }
/* -1, 0 or 1; NaN gives 0 */
SPU_INLINE f32x16 vpu_sign(f32x16 x) {
  const f32x16 zero = spu_splat(0.0f);
  return spu_select(x > zero, spu_splat(1.0f), spu_select(x < zero, spu_splat(-1.0f), zero));
}
/* low where x is below it or NaN, else high where x is above it */
SPU_INLINE f32x16 vpu_clip(f32x16 x, f32x16 low, f32x16 high) {
  return spu_min(spu_max(x, low), high);
}

/* ---- truth values ------------------------------------------------------------------------- */

SPU_INLINE f32x16 vpu_truth(i32x16 mask) { return (f32x16)(mask & spu_bits(spu_splat(1.0f))); }
SPU_INLINE f32x16 vpu_equal(f32x16 a, f32x16 b) { return vpu_truth(a == b); }
SPU_INLINE f32x16 vpu_less(f32x16 a, f32x16 b) { return vpu_truth(a < b); }
SPU_INLINE f32x16 vpu_less_or_equal(f32x16 a, f32x16 b) { return vpu_truth(a <= b); }
SPU_INLINE f32x16 vpu_greater(f32x16 a, f32x16 b) { return vpu_truth(a > b); }
SPU_INLINE f32x16 vpu_greater_or_equal(f32x16 a, f32x16 b) { return vpu_truth(a >= b); }
SPU_INLINE i32x16 vpu_is_true(f32x16 x) { return x != spu_splat(0.0f); }
SPU_INLINE f32x16 vpu_and(f32x16 a, f32x16 b) {
  return vpu_truth(vpu_is_true(a) & vpu_is_true(b));
}
SPU_INLINE f32x16 vpu_or(f32x16 a, f32x16 b) {
  return vpu_truth(vpu_is_true(a) | vpu_is_true(b));
}
SPU_INLINE f32x16 vpu_not(f32x16 x) { return vpu_truth(x == spu_splat(0.0f)); }
SPU_INLINE f32x16 vpu_select(f32x16 truth, f32x16 yes, f32x16 no) {
  return spu_select(vpu_is_true(truth), yes, no);
}

/* ---- functions and activations ------------------------------------------------------------ */

SPU_INLINE f32x16 vpu_exp(f32x16 x) { return spu_exp(x); }
SPU_INLINE f32x16 vpu_log(f32x16 x) { return spu_log(x); }
SPU_INLINE f32x16 vpu_erf(f32x16 x) { return spu_erf(x); }
SPU_INLINE f32x16 vpu_tanh(f32x16 x) { return spu_tanh(x); }
SPU_INLINE f32x16 vpu_sigmoid(f32x16 x) { return spu_sigmoid(x); }
SPU_INLINE f32x16 vpu_silu(f32x16 x) { return spu_silu(x); }
SPU_INLINE f32x16 vpu_relu(f32x16 x) { return spu_relu(x); }
SPU_INLINE f32x16 vpu_gelu(f32x16 x) { return spu_gelu(x); }
SPU_INLINE f32x16 vpu_gelu_tanh(f32x16 x) { return spu_gelu_tanh(x); }
/* x < 0 ? x * slope : x */
SPU_INLINE f32x16 vpu_prelu(f32x16 x, f32x16 slope) {
  return spu_select(x < spu_splat(0.0f), x * slope, x);
}
SPU_INLINE f32x16 vpu_leaky_relu(f32x16 x, float slope) {
  return vpu_prelu(x, spu_splat(slope));
}
/* x > 0 ? x : (exp(x) - 1) * alpha */
SPU_INLINE f32x16 vpu_elu(f32x16 x, float alpha) {
  const f32x16 curve = (spu_exp(x) - spu_splat(1.0f)) * spu_splat(alpha);
  return spu_select(x > spu_splat(0.0f), x, curve);
}
/* max(x, 0) + log(1 + exp(-|x|)), the logarithm corrected for the rounding of 1 + t */
SPU_INLINE f32x16 vpu_softplus(f32x16 x) {
  const f32x16 one = spu_splat(1.0f);
  const f32x16 t = spu_exp(spu_neg(spu_abs(x)));
  const f32x16 u = one + t;
  const f32x16 log1p = spu_select(u == one, t, spu_log(u) * (t / (u - one)));
  return spu_select(x > spu_splat(0.0f), x, spu_splat(0.0f)) + log1p;
}
/* clip(x * alpha + beta, 0, 1) */
SPU_INLINE f32x16 vpu_hard_sigmoid(f32x16 x, float alpha, float beta) {
  return vpu_clip(x * spu_splat(alpha) + spu_splat(beta), spu_splat(0.0f), spu_splat(1.0f));
}
SPU_INLINE f32x16 vpu_hard_swish(f32x16 x) {
  return x * vpu_hard_sigmoid(x, 1.0f / 6.0f, 0.5f);
}

/* ---- quantisation with a scale and a zero point per lane ------------------------------------- */

/*
 * x / scale, NaN to 0, clamped to [low - zero, high - zero], halves to even, + zero; zero is loaded
 * as q of vpu_dequantise. Only the low byte of a lane is the result, for vpu_write_low_u8 or _i8.
 *
 * A division takes longer than all the rest. A product with 1 / scale, which differs from it by
 * 255.5 * 3 * 2^-24 < 2^-14 at most, is rounded to the same number unless it is as near to the
 * middle between two; and unless 1 / scale is none of the normal numbers.
 */
SPU_INLINE i32x16 vpu_quantise(f32x16 x, f32x16 scale, i32x16 zero, float low, float high) {
  const f32x16 least = spu_splat(low) - spu_to_f32(zero), most = spu_splat(high) - spu_to_f32(zero);
#if defined(SPU_AVX512)
  const f32x16 inverse = spu_splat(1.0f) / scale, size = spu_abs(inverse);
  const i32x16 normal = (size >= spu_splat(0x1p-126f)) & (size <= spu_splat(0x1p126f));
  /* NaN, in the second operand, passes both and is not below any bound */
  const f32x16 close = spu_min(most, spu_max(least, x * inverse));
  const f32x16 whole = spu_round(close);
  const __mmask16 sure =
      _mm512_cmp_ps_mask((__m512)spu_abs(close - whole), _mm512_set1_ps(0.5f - 0x1p-13f),
                         _CMP_LT_OQ) &
      _mm512_movepi32_mask((__m512i)normal);
  if (__builtin_expect(sure == 0xffff, 1))
    return (i32x16)((u32x16)spu_round_small(whole) + (u32x16)zero);
#endif
  const f32x16 t = x / scale, number = spu_select(t == t, t, spu_splat(0.0f));
  return (i32x16)((u32x16)spu_round_small(vpu_clip(number, least, most)) + (u32x16)zero);
}
/* vpu_quantise of n floats, times `factor` unless that is NULL, with one scale and zero point */
SPU_INLINE void vpu_quantise_run(const float *x, const float *factor, void *to, int64_t n,
                                 float scale, int32_t zero, float low, float high) {
  uint8_t *q = to;
  int64_t j = 0;
#if defined(SPU_AVX512)
  const float inverse = 1.0f / scale, size = inverse < 0.0f ? -inverse : inverse;
  const f32x16 least = spu_splat(low - (float)zero), most = spu_splat(high - (float)zero);
  if (size >= 0x1p-126f && size <= 0x1p126f)
    for (; j + 64 <= n; j += 64) {
      i32x16 whole[4];
      __m512i farthest = _mm512_setzero_si512(); /* the bits of a size; those of NaN are largest */
      SPU_UNROLL
      for (int i = 0; i < 4; i++) {
        f32x16 v = spu_load_f32(x + j + 16 * i, 16);
        if (factor) v = v * spu_load_f32(factor + j + 16 * i, 16);
        const f32x16 close = spu_min(most, spu_max(least, v * spu_splat(inverse)));
        whole[i] = spu_round_small(close);
        const f32x16 rest = spu_abs(close - spu_to_f32(whole[i]));
        farthest = _mm512_max_epu32(farthest, (__m512i)rest);
      }
      const __m512i sure = _mm512_castps_si512(_mm512_set1_ps(0.5f - 0x1p-13f));
      if (__builtin_expect(_mm512_cmpge_epu32_mask(farthest, sure) == 0, 1)) {
        spu_store_64_low_bytes(q + j, whole, zero);
        continue;
      }
      for (int i = 0; i < 4; i++) {
        f32x16 v = spu_load_f32(x + j + 16 * i, 16);
        if (factor) v = v * spu_load_f32(factor + j + 16 * i, 16);
        const i32x16 one = vpu_quantise(v, spu_splat(scale), spu_isplat(zero), low, high);
        spu_store_u8(q + j + 16 * i, one, 16);
      }
    }
#endif
  for (; j < n; j += 16) {
    const int64_t count = n - j < 16 ? n - j : 16;
    f32x16 v = spu_load_f32(x + j, count);
    if (factor) v = v * spu_load_f32(factor + j, count);
    spu_store_u8(q + j, vpu_quantise(v, spu_splat(scale), spu_isplat(zero), low, high), count);
  }
}
/* (float)(q - zero) * scale; q is loaded by spu_load_u8, spu_load_i8 or spu_load_i32 */
SPU_INLINE f32x16 vpu_dequantise(i32x16 q, f32x16 scale, i32x16 zero) {
  return spu_to_f32((i32x16)((u32x16)q - (u32x16)zero)) * scale;
}

/* ---- integers, one at a time: exact in 64 bits, wrapping, narrowed by the store --------------- */

SPU_INLINE int64_t vpu_integer_add(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}
SPU_INLINE int64_t vpu_integer_sub(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a - (uint64_t)b);
}
SPU_INLINE int64_t vpu_integer_mul(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a * (uint64_t)b);
}
/* towards zero; by 0 gives 0 */
SPU_INLINE int64_t vpu_integer_div(int64_t a, int64_t b) {
  return b == 0 ? 0 : b == -1 ? vpu_integer_sub(0, a) : a / b;
}
SPU_INLINE int64_t vpu_integer_min(int64_t a, int64_t b) { return a < b ? a : b; }
SPU_INLINE int64_t vpu_integer_max(int64_t a, int64_t b) { return a > b ? a : b; }
SPU_INLINE int64_t vpu_integer_equal(int64_t a, int64_t b) { return a == b; }
SPU_INLINE int64_t vpu_integer_less(int64_t a, int64_t b) { return a < b; }
SPU_INLINE int64_t vpu_integer_less_or_equal(int64_t a, int64_t b) { return a <= b; }
SPU_INLINE int64_t vpu_integer_greater(int64_t a, int64_t b) { return a > b; }
SPU_INLINE int64_t vpu_integer_greater_or_equal(int64_t a, int64_t b) { return a >= b; }
SPU_INLINE int64_t vpu_integer_neg(int64_t x) { return vpu_integer_sub(0, x); }
SPU_INLINE int64_t vpu_integer_abs(int64_t x) { return x < 0 ? vpu_integer_neg(x) : x; }
SPU_INLINE int64_t vpu_integer_sign(int64_t x) { return (x > 0) - (x < 0); }
SPU_INLINE int64_t vpu_integer_relu(int64_t x) { return x > 0 ? x : 0; }

/* ---- power --------------------------------------------------------------------------------- */

SPU_INLINE f64x16 vpu_splat_f64(double x) {
  return (f64x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
SPU_INLINE f64x16 vpu_select_f64(i64x16 mask, f64x16 yes, f64x16 no) {
  return (f64x16)((mask & (i64x16)yes) | (~mask & (i64x16)no));
}

/* log(x) of positive finite doubles that are not denormal, to about 1e-15 */
SPU_INLINE f64x16 vpu_log_f64(f64x16 x) {
  i64x16 e = (((i64x16)x >> 52) & 0x7ff) - 1023;
  f64x16 m = (f64x16)(((i64x16)x & INT64_C(0x000fffffffffffff)) | INT64_C(0x3ff0000000000000));
  const i64x16 high = m > vpu_splat_f64(1.4142135623730951);
  e = e - high; /* high is -1 where it holds */
  m = vpu_select_f64(high, m * vpu_splat_f64(0.5), m);
  const f64x16 one = vpu_splat_f64(1.0);
  const f64x16 s = (m - one) / (m + one), z = s * s;
  f64x16 p = vpu_splat_f64(1.0 / 19.0);
  for (int i = 17; i > 0; i -= 2)
    p = p * z + vpu_splat_f64(1.0 / i);
  return __builtin_convertvector(e, f64x16) * vpu_splat_f64(0.6931471805599453) + (s + s) * p;
}

/* exp(x) for |x| <= 200, to about 1e-14 */
SPU_INLINE f64x16 vpu_exp_f64(f64x16 x) {
  static const double c[13] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                               1.0 / 40320,     1.0 / 5040,     1.0 / 720,     1.0 / 120,
                               1.0 / 24,        1.0 / 6,        0.5,           1.0,
                               1.0};
  /* adding and taking away 1.5 * 2^52 rounds to an integer, halves to even */
  const f64x16 magic = vpu_splat_f64(6755399441055744.0);
  const f64x16 shifted = x * vpu_splat_f64(1.4426950408889634) + magic;
  const i64x16 n = (i64x16)shifted - (i64x16)magic;
  const f64x16 r = x - (shifted - magic) * vpu_splat_f64(0.6931471805599453);
  f64x16 p = vpu_splat_f64(c[0]);
  for (int i = 1; i < 13; i++)
    p = p * r + vpu_splat_f64(c[i]);
  return p * (f64x16)((n + 1023) << 52);
}

/* x to the y in double precision, with the special cases of C's pow */
SPU_INLINE f32x16 vpu_pow(f32x16 x, f32x16 y) {
  const f32x16 zero = spu_splat(0.0f), one = spu_splat(1.0f);
  const f32x16 infinity = spu_splat(__builtin_inff());
  const f32x16 magnitude = spu_abs(x);
  const i32x16 usual = (magnitude > zero) & (magnitude < infinity);
  const f64x16 base = __builtin_convertvector(spu_select(usual, magnitude, one), f64x16);
  f64x16 t = __builtin_convertvector(y, f64x16) * vpu_log_f64(base);
  const f64x16 limit = vpu_splat_f64(200.0);
  t = vpu_select_f64(t < limit, t, limit);
  t = vpu_select_f64(t > -limit, t, -limit);
  f32x16 power = __builtin_convertvector(vpu_exp_f64(t), f32x16);
  const i32x16 grows = (magnitude > one) == (y > zero);
  power = spu_select(usual, power, spu_select(grows, infinity, zero));
  const f32x16 half = y * spu_splat(0.5f);
  const i32x16 whole = spu_round(y) == y, odd = whole & (spu_round(half) != half);
  power = spu_select(odd & (spu_bits(x) < 0), spu_neg(power), power);
  const i32x16 undefined = ((x < zero) & usual & ~whole) | (x != x) | (y != y);
  power = spu_select(undefined, spu_splat(__builtin_nanf("")), power);
  const i32x16 unit = (x == one) | (y == zero) |
                      ((x == spu_neg(one)) & (spu_abs(y) == infinity));
  return spu_select(unit, one, power);
}

#endif
