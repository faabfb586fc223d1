/*
 * exp, erf, tanh, log and the activations made of them, on 16 lanes.
 *
 * Fixed polynomials in a fixed order of single multiplications and additions, so that numpy's
 * float32 repeats them bit for bit (spu_ir/interpreters/numerics.py). The coefficients of exp and
 * log are those of Cephes (S. Moshier, expf.c, logf.c), those of erf and tanh the rational
 * minimax fits used by Eigen and XLA. Errors are a few units in the last place; docs/numerics.md
 * has the measured ones.
 */
#ifndef SPU_POLYNOMIALS_H
#define SPU_POLYNOMIALS_H

#include "numerics.h"

/* c[0], c[1], ... from the highest power down */
SPU_INLINE f32x16 spu_horner(f32x16 x, const float *c, int count) {
  f32x16 y = spu_splat(c[0]);
  for (int i = 1; i < count; i++) y = y * x + spu_splat(c[i]);
  return y;
}

/* 2^n for -126 <= n <= 127 */
SPU_INLINE f32x16 spu_pow2(i32x16 n) { return (f32x16)(((u32x16)n + 127u) << 23); }

/* overflows to infinity, underflows through the denormals to 0, keeps NaN */
SPU_INLINE f32x16 spu_exp(f32x16 x) {
  static const float c[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                             4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
  x = spu_min(spu_splat(89.0f), spu_max(spu_splat(-104.0f), x));
  const f32x16 n = spu_round(x * spu_splat(1.44269504088896341f));
  f32x16 r = x - n * spu_splat(0.693359375f);
  r = r - n * spu_splat(-2.12194440e-4f);
  const f32x16 y = (spu_horner(r, c, 6) * (r * r) + r) + spu_splat(1.0f);
  /* two steps, because 2^n alone may be out of range; only the second one can round */
  const i32x16 whole = spu_round_small(n);
  const i32x16 half = whole >> 1;
  return (y * spu_pow2(half)) * spu_pow2((i32x16)((u32x16)whole - (u32x16)half));
}

/* natural logarithm: log(0) = -infinity, NaN below 0 */
SPU_INLINE f32x16 spu_log(f32x16 x) {
  static const float c[9] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                             -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                             2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
  const i32x16 tiny = x < spu_splat(1.17549435e-38f);
  const f32x16 scaled = spu_select(tiny, x * spu_splat(8388608.0f), x);
  const u32x16 bits = (u32x16)scaled;
  /* scaled = m * 2^e with m in [0.5, 1) */
  i32x16 e = (i32x16)((bits >> 23) & 0xffu) - spu_isplat(126);
  e = e - (tiny & spu_isplat(23));
  f32x16 m = (f32x16)((bits & 0x007fffffu) | 0x3f000000u);
  const i32x16 low = m < spu_splat(0.707106781186547524f);
  e = e + low; /* low is -1 where it holds */
  m = spu_select(low, m + m, m) - spu_splat(1.0f);
  const f32x16 ef = spu_to_f32(e);
  const f32x16 z = m * m;
  f32x16 y = (spu_horner(m, c, 9) * m) * z;
  y = y + ef * spu_splat(-2.12194440e-4f);
  y = y - z * spu_splat(0.5f);
  y = (m + y) + ef * spu_splat(0.693359375f);
  const f32x16 infinity = spu_splat(__builtin_inff());
  y = spu_select(x == infinity, infinity, y);
  y = spu_select(x == spu_splat(0.0f), spu_neg(infinity), y);
  return spu_select(x >= spu_splat(0.0f), y, spu_splat(__builtin_nanf("")));
}

SPU_INLINE f32x16 spu_erf(f32x16 x) {
  static const float a[7] = {-2.72614225801306e-10f, 2.77068142495902e-08f,
                             -2.10102402082508e-06f, -5.69250639462346e-05f,
                             -7.34990630326855e-04f, -2.95459980854025e-03f,
                             -1.60960333262415e-02f};
  static const float b[5] = {-1.45660718464996e-05f, -2.13374055278905e-04f,
                             -1.68282697438203e-03f, -7.37332916720468e-03f,
                             -1.42647390514189e-02f};
  x = spu_min(spu_splat(4.0f), spu_max(spu_splat(-4.0f), x));
  const f32x16 z = x * x;
  return (x * spu_horner(z, a, 7)) / spu_horner(z, b, 5);
}

SPU_INLINE f32x16 spu_tanh(f32x16 x) {
  static const float a[7] = {-2.76076847742355e-16f, 2.00018790482477e-13f,
                             -8.60467152213735e-11f, 5.12229709037114e-08f,
                             1.48572235717979e-05f,  6.37261928875436e-04f,
                             4.89352455891786e-03f};
  static const float b[4] = {1.19825839466702e-06f, 1.18534705686654e-04f,
                             2.26843463243900e-03f, 4.89352518554385e-03f};
  const f32x16 t = spu_min(spu_splat(7.90531110763549805f),
                           spu_max(spu_splat(-7.90531110763549805f), x));
  const f32x16 z = t * t;
  const f32x16 y = (t * spu_horner(z, a, 7)) / spu_horner(z, b, 4);
  /* below 0.0004 the fit loses the last bits of x itself */
  return spu_select(spu_abs(x) < spu_splat(0.0004f), x, y);
}

SPU_INLINE f32x16 spu_sigmoid(f32x16 x) {
  return spu_splat(1.0f) / (spu_splat(1.0f) + spu_exp(spu_neg(x)));
}
SPU_INLINE f32x16 spu_silu(f32x16 x) { return x * spu_sigmoid(x); }
SPU_INLINE f32x16 spu_relu(f32x16 x) { return spu_max(x, spu_splat(0.0f)); }

/* (x / 2) * (1 + erf(x / sqrt(2))) */
SPU_INLINE f32x16 spu_gelu(f32x16 x) {
  return (x * spu_splat(0.5f)) *
         (spu_splat(1.0f) + spu_erf(x * spu_splat(0.707106781186547524f)));
}

/* (x / 2) * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) */
SPU_INLINE f32x16 spu_gelu_tanh(f32x16 x) {
  const f32x16 cubic = x + spu_splat(0.044715f) * ((x * x) * x);
  return (x * spu_splat(0.5f)) *
         (spu_splat(1.0f) + spu_tanh(spu_splat(0.797884560802865356f) * cubic));
}

#endif
