/*
 * The arithmetic of the device: vectors of 16 lanes, loads and stores with a count, rounding,
 * bfloat16, quantisation and the reduction tree. docs/numerics.md is the contract.
 *
 * Everything is written with GCC's vector extensions and plain IEEE single operations, in a fixed
 * order and never fused, so that every instruction set gives the same bits. Intrinsics appear
 * only where they give those same bits faster. Compile with -ffp-contract=off.
 */
#ifndef SPU_NUMERICS_H
#define SPU_NUMERICS_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define SPU_AVX512 1
#endif

#define SPU_FLOAT_MAX 3.402823466e38f
#define SPU_INLINE static inline __attribute__((always_inline, unused))

#if defined(__clang__)
#define SPU_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPU_UNROLL _Pragma("GCC unroll 64")
#endif

typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int8_t i8x16 __attribute__((vector_size(16)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

/*
 * Nothing, on a vector register of AVX-512. Without it GCC sees that accumulators begin equal, or
 * what becomes of them, and copies all of them in every turn of a loop.
 */
#if defined(SPU_AVX512)
#define SPU_PIN(v) __asm__("" : "+v"(v))
#else
#define SPU_PIN(v) (void)0
#endif

/* ---- values ---------------------------------------------------------------------------- */

SPU_INLINE f32x16 spu_splat(float x) {
  return (f32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
SPU_INLINE i32x16 spu_isplat(int32_t x) {
  return (i32x16){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
}
SPU_INLINE i32x16 spu_bits(f32x16 x) { return (i32x16)x; }

/* mask is -1 or 0 in each lane, as a vector comparison gives it */
SPU_INLINE f32x16 spu_select(i32x16 mask, f32x16 yes, f32x16 no) {
  return (f32x16)((mask & (i32x16)yes) | (~mask & (i32x16)no));
}
SPU_INLINE i32x16 spu_iselect(i32x16 mask, i32x16 yes, i32x16 no) {
  return (mask & yes) | (~mask & no);
}
/* lanes 0..count-1 are -1 */
SPU_INLINE i32x16 spu_lanes(int64_t count) {
  const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < spu_isplat((int32_t)count);
}
#if defined(SPU_AVX512)
SPU_INLINE __mmask16 spu_mask16(int64_t count) { return (__mmask16)((1u << count) - 1u); }
#endif

/* a > b ? a : b, so b when either is NaN or both are zeros, as x86 has it */
SPU_INLINE f32x16 spu_max(f32x16 a, f32x16 b) {
#if defined(SPU_AVX512)
  return (f32x16)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return spu_select(a > b, a, b);
#endif
}
/* a < b ? a : b */
SPU_INLINE f32x16 spu_min(f32x16 a, f32x16 b) {
#if defined(SPU_AVX512)
  return (f32x16)_mm512_min_ps((__m512)a, (__m512)b);
#else
  return spu_select(a < b, a, b);
#endif
}
SPU_INLINE f32x16 spu_abs(f32x16 x) { return (f32x16)((i32x16)x & 0x7fffffff); }
SPU_INLINE f32x16 spu_copysign(f32x16 magnitude, f32x16 sign) {
  const i32x16 top = spu_isplat(INT32_MIN);
  return (f32x16)(((i32x16)magnitude & ~top) | ((i32x16)sign & top));
}
SPU_INLINE f32x16 spu_neg(f32x16 x) { return (f32x16)((i32x16)x ^ spu_isplat(INT32_MIN)); }

SPU_INLINE f32x16 spu_sqrt(f32x16 x) {
#if defined(SPU_AVX512)
  return (f32x16)_mm512_sqrt_ps((__m512)x);
#else
  f32x16 y;
  for (int i = 0; i < 16; i++) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

/* ---- rounding -------------------------------------------------------------------------- */

/* to an integer, halves to even; keeps NaN, infinities and the sign of zero */
SPU_INLINE f32x16 spu_round(f32x16 x) {
#if defined(SPU_AVX512)
  return (f32x16)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const f32x16 two23 = spu_splat(8388608.0f);
  const f32x16 a = spu_abs(x);
  const f32x16 r = (a + two23) - two23;
  return spu_select(a < two23, spu_copysign(r, x), x);
#endif
}
/* halves to even, as int32; only for |x| <= 2^22 (other values give a number, but no use) */
SPU_INLINE i32x16 spu_round_small(f32x16 x) {
#if defined(SPU_AVX512)
  return (i32x16)_mm512_cvtps_epi32((__m512)x);
#else
  const f32x16 magic = spu_splat(12582912.0f);
  return (i32x16)((u32x16)(x + magic) - (u32x16)magic);
#endif
}
SPU_INLINE f32x16 spu_floor(f32x16 x) {
  const f32x16 r = spu_round(x);
  const f32x16 down = spu_select(r > x, r - spu_splat(1.0f), r);
  return spu_copysign(down, x);
}
SPU_INLINE f32x16 spu_ceil(f32x16 x) { return spu_neg(spu_floor(spu_neg(x))); }
SPU_INLINE f32x16 spu_to_f32(i32x16 x) { return __builtin_convertvector(x, f32x16); }
/* towards zero, saturating at the largest floats that fit int32; NaN gives 0 */
SPU_INLINE i32x16 spu_truncate(f32x16 x) {
  const f32x16 number = spu_select(x == x, x, spu_splat(0.0f));
  const f32x16 low = spu_splat(-2147483648.0f), high = spu_splat(2147483520.0f);
  return __builtin_convertvector(spu_min(spu_max(number, low), high), i32x16);
}

/* ---- bfloat16 -------------------------------------------------------------------------- */

/* round to nearest even; NaN becomes a quiet NaN. The result is in the low 16 bits. */
SPU_INLINE i32x16 spu_to_bf16_bits(f32x16 x) {
  const u32x16 b = (u32x16)x;
  const u32x16 rounded = (b + 0x7fffu + ((b >> 16) & 1u)) >> 16;
  const u32x16 quiet = (b >> 16) | 0x40u;
  return spu_iselect(x == x, (i32x16)rounded, (i32x16)quiet);
}

/* ---- loads and stores of the first `count` (0..16) lanes; the others are 0 / not written -- */

SPU_INLINE f32x16 spu_load_f32(const float *p, int64_t count) {
  f32x16 v = {0};
  if (count >= 16) {
    memcpy(&v, p, 64);
    return v;
  }
#if defined(SPU_AVX512)
  return (f32x16)_mm512_maskz_loadu_ps(spu_mask16(count), p);
#else
  for (int64_t i = 0; i < count; i++) v[i] = p[i];
  return v;
#endif
}
SPU_INLINE void spu_store_f32(float *p, f32x16 v, int64_t count) {
  if (count >= 16) {
    memcpy(p, &v, 64);
    return;
  }
#if defined(SPU_AVX512)
  _mm512_mask_storeu_ps(p, spu_mask16(count), (__m512)v);
#else
  for (int64_t i = 0; i < count; i++) p[i] = v[i];
#endif
}
SPU_INLINE i32x16 spu_load_i32(const int32_t *p, int64_t count) {
  return (i32x16)spu_load_f32((const float *)(const void *)p, count);
}
SPU_INLINE void spu_store_i32(int32_t *p, i32x16 v, int64_t count) {
  spu_store_f32((float *)(void *)p, (f32x16)v, count);
}
SPU_INLINE u8x16 spu_load_bytes(const void *p, int64_t count) {
  u8x16 v = {0};
  if (count >= 16) {
    memcpy(&v, p, 16);
    return v;
  }
#if defined(SPU_AVX512)
  return (u8x16)_mm_maskz_loadu_epi8(spu_mask16(count), p);
#else
  for (int64_t i = 0; i < count; i++) v[i] = ((const uint8_t *)p)[i];
  return v;
#endif
}
SPU_INLINE void spu_store_bytes(void *p, u8x16 v, int64_t count) {
  if (count >= 16) {
    memcpy(p, &v, 16);
    return;
  }
#if defined(SPU_AVX512)
  _mm_mask_storeu_epi8(p, spu_mask16(count), (__m128i)v);
#else
  for (int64_t i = 0; i < count; i++) ((uint8_t *)p)[i] = v[i];
#endif
}
/* GCC makes these conversions element by element when they are written as such */
SPU_INLINE i32x16 spu_widen_u8(u8x16 v) {
#if defined(SPU_AVX512)
  return (i32x16)_mm512_cvtepu8_epi32((__m128i)v);
#elif defined(__AVX2__)
  const __m256i half[2] = {_mm256_cvtepu8_epi32((__m128i)v),
                           _mm256_cvtepu8_epi32(_mm_unpackhi_epi64((__m128i)v, (__m128i)v))};
  i32x16 y;
  memcpy(&y, half, 64);
  return y;
#else
  return __builtin_convertvector(v, i32x16);
#endif
}
SPU_INLINE i32x16 spu_widen_i8(u8x16 v) {
#if defined(SPU_AVX512)
  return (i32x16)_mm512_cvtepi8_epi32((__m128i)v);
#elif defined(__AVX2__)
  const __m256i half[2] = {_mm256_cvtepi8_epi32((__m128i)v),
                           _mm256_cvtepi8_epi32(_mm_unpackhi_epi64((__m128i)v, (__m128i)v))};
  i32x16 y;
  memcpy(&y, half, 64);
  return y;
#else
  return __builtin_convertvector((i8x16)v, i32x16);
#endif
}
SPU_INLINE i32x16 spu_load_u8(const uint8_t *p, int64_t count) {
  return spu_widen_u8(spu_load_bytes(p, count));
}
SPU_INLINE i32x16 spu_load_i8(const int8_t *p, int64_t count) {
  return spu_widen_i8(spu_load_bytes(p, count));
}
/* the low byte of every lane: u8 and i8 alike */
SPU_INLINE void spu_store_u8(uint8_t *p, i32x16 v, int64_t count) {
#if defined(SPU_AVX512)
  spu_store_bytes(p, (u8x16)_mm512_cvtepi32_epi8((__m512i)v), count);
#else
  spu_store_bytes(p, __builtin_convertvector((u32x16)v, u8x16), count);
#endif
}
/* 64 integers of 0..255 as bytes */
SPU_INLINE void spu_store_64_bytes(void *to, const i32x16 *v) {
#if defined(SPU_AVX512)
  const __m512i low = _mm512_packus_epi32((__m512i)v[0], (__m512i)v[1]);
  const __m512i high = _mm512_packus_epi32((__m512i)v[2], (__m512i)v[3]);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high)));
#else
  for (int g = 0; g < 4; g++) spu_store_u8((uint8_t *)to + 16 * g, v[g], 16);
#endif
}
/* the lowest bytes of 64 integers, each of them plus the lowest byte of `added` */
SPU_INLINE void spu_store_64_low_bytes(void *to, const i32x16 *v, int32_t added) {
#if defined(SPU_AVX512) && defined(__AVX512VBMI__)
  /* every fourth byte of two vectors, twice: the lower half of one result, the upper of another */
  const __m512i fourth = _mm512_set_epi64(
      0x7c7874706c686460, 0x5c5854504c484440, 0x3c3834302c282420, 0x1c1814100c080400,
      0x7c7874706c686460, 0x5c5854504c484440, 0x3c3834302c282420, 0x1c1814100c080400);
  const __m512i low = _mm512_permutex2var_epi8((__m512i)v[0], fourth, (__m512i)v[1]);
  const __m512i high = _mm512_permutex2var_epi8((__m512i)v[2], fourth, (__m512i)v[3]);
  const __m512i bytes = _mm512_mask_mov_epi64(low, 0xf0, high);
  _mm512_storeu_si512(to, _mm512_add_epi8(bytes, _mm512_set1_epi8((char)added)));
#else
  i32x16 bytes[4];
  SPU_UNROLL
  for (int i = 0; i < 4; i++)
    bytes[i] = (i32x16)((u32x16)v[i] + (u32x16)spu_isplat(added)) & 0xff;
  spu_store_64_bytes(to, bytes);
#endif
}
SPU_INLINE void spu_store_i8(int8_t *p, i32x16 v, int64_t count) {
  spu_store_u8((uint8_t *)p, v, count);
}
SPU_INLINE f32x16 spu_load_bf16(const void *p, int64_t count) {
  u16x16 h = {0};
  if (count >= 16) {
    memcpy(&h, p, 32);
  } else {
#if defined(SPU_AVX512)
    h = (u16x16)_mm256_maskz_loadu_epi16(spu_mask16(count), p);
#else
    for (int64_t i = 0; i < count; i++) {
      uint16_t one;
      memcpy(&one, (const char *)p + 2 * i, 2);
      h[i] = one;
    }
#endif
  }
  return (f32x16)(__builtin_convertvector(h, u32x16) << 16);
}
SPU_INLINE void spu_store_bf16(void *p, f32x16 v, int64_t count) {
#if defined(SPU_AVX512)
  const __m256i h = _mm512_cvtepi32_epi16((__m512i)spu_to_bf16_bits(v));
#else
  const u16x16 h = __builtin_convertvector((u32x16)spu_to_bf16_bits(v), u16x16);
#endif
  if (count >= 16) {
    memcpy(p, &h, 32);
    return;
  }
#if defined(SPU_AVX512)
  _mm256_mask_storeu_epi16(p, spu_mask16(count), h);
#else
  for (int64_t i = 0; i < count; i++) {
    const uint16_t one = h[i];
    memcpy((char *)p + 2 * i, &one, 2);
  }
#endif
}

/* ---- turning ---------------------------------------------------------------------------- */

/*
 * 16 words of 4 bytes of each of 16 rows, which are `row` bytes apart: word q of all rows goes to
 * `to` + q * step.
 */
SPU_INLINE void spu_turn_16(const uint8_t *rows, int64_t row, uint8_t *to, int64_t step) {
#if defined(SPU_AVX512)
  __m512i a[16], b[16];
  SPU_UNROLL
  for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_si512(rows + r * row);
  SPU_UNROLL
  for (int r = 0; r < 16; r += 2) {
    b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
  }
  SPU_UNROLL
  for (int r = 0; r < 16; r += 4) { /* word 4 p + i of rows r..r + 3 is piece p of a[r + i] */
    a[r] = _mm512_unpacklo_epi64(b[r], b[r + 2]);
    a[r + 1] = _mm512_unpackhi_epi64(b[r], b[r + 2]);
    a[r + 2] = _mm512_unpacklo_epi64(b[r + 1], b[r + 3]);
    a[r + 3] = _mm512_unpackhi_epi64(b[r + 1], b[r + 3]);
  }
  SPU_UNROLL
  for (int i = 0; i < 4; i++) {
    const __m512i even = _mm512_shuffle_i32x4(a[i], a[4 + i], 0x88);
    const __m512i odd = _mm512_shuffle_i32x4(a[i], a[4 + i], 0xdd);
    const __m512i evens = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0x88);
    const __m512i odds = _mm512_shuffle_i32x4(a[8 + i], a[12 + i], 0xdd);
    _mm512_storeu_si512(to + step * i, _mm512_shuffle_i32x4(even, evens, 0x88));
    _mm512_storeu_si512(to + step * (4 + i), _mm512_shuffle_i32x4(odd, odds, 0x88));
    _mm512_storeu_si512(to + step * (8 + i), _mm512_shuffle_i32x4(even, evens, 0xdd));
    _mm512_storeu_si512(to + step * (12 + i), _mm512_shuffle_i32x4(odd, odds, 0xdd));
  }
#else
  for (int r = 0; r < 16; r++)
    for (int q = 0; q < 16; q++) memcpy(to + q * step + 4 * r, rows + r * row + 4 * q, 4);
#endif
}

/* ---- quantisation ---------------------------------------------------------------------- */

/*
 * x * inv_scale, NaN to 0, clamped in float to [low - zero, high - zero], halves to even, + zero.
 * Only the low byte of a lane is the result: store it with spu_store_u8 or spu_store_i8.
 */
SPU_INLINE i32x16 spu_quantise(f32x16 x, float inv_scale, int32_t zero, int32_t low,
                               int32_t high) {
  f32x16 t = x * spu_splat(inv_scale);
  const f32x16 bottom = spu_splat((float)(low - zero)), top = spu_splat((float)(high - zero));
#if defined(SPU_AVX512)
  /* NaN, in the second operand, passes both and is converted to INT32_MIN: its low byte is 0 */
  t = spu_min(top, spu_max(bottom, t));
#else
  t = spu_min(spu_max(spu_select(t == t, t, spu_splat(0.0f)), bottom), top);
#endif
  return (i32x16)((u32x16)spu_round_small(t) + (u32x16)spu_isplat(zero));
}
SPU_INLINE i32x16 spu_quantise_u8(f32x16 x, float inv_scale, int32_t zero) {
  return spu_quantise(x, inv_scale, zero, 0, 255);
}
SPU_INLINE i32x16 spu_quantise_i8(f32x16 x, float inv_scale, int32_t zero) {
  return spu_quantise(x, inv_scale, zero, -128, 127);
}
/*
 * The same of a row of n floats, whose inverse scale is such that no product of a number is out of
 * range by as much as a half, or infinite: those are not clamped.
 */
SPU_INLINE void spu_quantise_row(const float *x, uint8_t *q, int64_t n, float inv_scale,
                                 int32_t zero, int32_t low, int32_t high) {
  int64_t j = 0;
#if defined(SPU_AVX512)
  if (inv_scale <= SPU_FLOAT_MAX && low != zero)
    for (; j + 64 <= n; j += 64) {
      i32x16 v[4];
      SPU_UNROLL
      for (int i = 0; i < 4; i++) /* NaN becomes INT32_MIN, as there */
        v[i] = spu_round_small(spu_load_f32(x + j + 16 * i, 16) * spu_splat(inv_scale));
      spu_store_64_low_bytes(q + j, v, zero);
    }
#endif
  for (; j < n; j += 16) {
    const int64_t count = n - j < 16 ? n - j : 16;
    const f32x16 v = spu_load_f32(x + j, count);
    spu_store_u8(q + j, spu_quantise(v, inv_scale, zero, low, high), count);
  }
}
/* (float)(q - zero) * scale */
SPU_INLINE f32x16 spu_dequantise(i32x16 q, float scale, int32_t zero) {
  return spu_to_f32(q - spu_isplat(zero)) * spu_splat(scale);
}

/* ---- the reduction tree: lanes l and l + 8, then + 4, + 2, + 1 ---------------------------- */

#if defined(__AVX2__)
#define SPU_TREE(name, combine, step)                                                          \
  SPU_INLINE float name(f32x16 v) {                                                            \
    __m256 half[2];                                                                            \
    memcpy(half, &v, 64);                                                                      \
    const __m256 eight = _mm256_##step##_ps(half[0], half[1]);                                 \
    const __m128 four =                                                                        \
        _mm_##step##_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));       \
    const __m128 two = _mm_##step##_ps(four, _mm_movehl_ps(four, four));                       \
    return _mm_cvtss_f32(_mm_##step##_ss(two, _mm_movehdup_ps(two)));                          \
  }
#else
#define SPU_TREE(name, combine, step)                              \
  SPU_INLINE float name(f32x16 v) {                                \
    float a[16];                                                   \
    memcpy(a, &v, 64);                                             \
    for (int half = 8; half; half >>= 1)                           \
      for (int l = 0; l < half; l++) a[l] = combine(a[l], a[l + half]); \
    return a[0];                                                   \
  }
#endif
#define SPU_SCALAR_ADD(a, b) ((a) + (b))
#define SPU_SCALAR_MUL(a, b) ((a) * (b))
#define SPU_SCALAR_MAX(a, b) ((a) > (b) ? (a) : (b))
#define SPU_SCALAR_MIN(a, b) ((a) < (b) ? (a) : (b))
SPU_TREE(spu_tree_sum, SPU_SCALAR_ADD, add)
SPU_TREE(spu_tree_prod, SPU_SCALAR_MUL, mul)
SPU_TREE(spu_tree_max, SPU_SCALAR_MAX, max)
SPU_TREE(spu_tree_min, SPU_SCALAR_MIN, min)

/* The trees of 16 vectors, one after the other in memory. */
#if defined(SPU_AVX512)
#define SPU_TREES(name, tree, step)                                                \
  SPU_INLINE f32x16 name(const float *x) {                                            \
    __m512 v[16];                                                                     \
    SPU_UNROLL                                                                        \
    for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_ps(x + 16 * i);                  \
    SPU_UNROLL                                                                        \
    for (int i = 0; i < 8; i++)                                                       \
      v[i] = _mm512_##step##_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x44),   \
                                _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xee));  \
    SPU_UNROLL                                                                        \
    for (int i = 0; i < 4; i++)                                                       \
      v[i] = _mm512_##step##_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),   \
                                _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));  \
    SPU_UNROLL                                                                        \
    for (int i = 0; i < 2; i++)                                                       \
      v[i] = _mm512_##step##_ps(_mm512_shuffle_ps(v[2 * i], v[2 * i + 1], 0x44),      \
                                _mm512_shuffle_ps(v[2 * i], v[2 * i + 1], 0xee));     \
    v[0] = _mm512_##step##_ps(_mm512_shuffle_ps(v[0], v[1], 0x88),                    \
                              _mm512_shuffle_ps(v[0], v[1], 0xdd));                   \
    const __m512i order =                                                             \
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);      \
    return (f32x16)_mm512_permutexvar_ps(order, v[0]);                                \
  }
#else
#define SPU_TREES(name, tree, step)                                                \
  SPU_INLINE f32x16 name(const float *x) {                                            \
    f32x16 all;                                                                       \
    for (int i = 0; i < 16; i++) all[i] = spu_tree_##tree(spu_load_f32(x + 16 * i, 16)); \
    return all;                                                                       \
  }
#endif
SPU_TREES(spu_trees_sum, sum, add)
SPU_TREES(spu_trees_max, max, max)

#if defined(SPU_AVX512)
/* whether the bits of |x|, or the largest bits of several, are those of NaN */
SPU_INLINE int spu_any_nan(__m512i size) {
  return _mm512_cmpgt_epu32_mask(size, _mm512_set1_epi32(0x7f800000)) != 0;
}
#endif
/* the largest |x| of a row of n floats in each of 16 lanes; NaN is passed over */
SPU_INLINE f32x16 spu_row_peaks(const float *x, int64_t n) {
  f32x16 most = spu_splat(0.0f), other[3] = {most, most, most};
  int64_t j = 0;
#if defined(SPU_AVX512)
  /* the bits of positive numbers are in their order, which four ports compare, not two */
  __m512i bits[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  const __m512i size = _mm512_set1_epi32(INT32_MAX);
  for (; j + 32 <= n; j += 32) {
    SPU_UNROLL
    for (int i = 0; i < 2; i++)
      bits[i] = _mm512_max_epu32(
          bits[i], _mm512_and_si512(_mm512_loadu_si512(x + j + 16 * i), size));
  }
  bits[0] = _mm512_max_epu32(bits[0], bits[1]);
  if (__builtin_expect(!spu_any_nan(bits[0]), 1))
    most = (f32x16)bits[0];
  else
    j = 0;
#endif
  for (; j + 64 <= n; j += 64) { /* a maximum has no order */
    most = spu_max(spu_abs(spu_load_f32(x + j, 16)), most);
    SPU_UNROLL
    for (int i = 0; i < 3; i++)
      other[i] = spu_max(spu_abs(spu_load_f32(x + j + 16 * (i + 1), 16)), other[i]);
  }
  for (; j < n; j += 16)
    most = spu_max(spu_abs(spu_load_f32(x + j, n - j < 16 ? n - j : 16)), most);
  return spu_max(spu_max(most, other[0]), spu_max(other[1], other[2]));
}
/* the scale peak / 127 (1 of a row of zeros), and 127 / peak (0), of the row's spu_row_peaks */
SPU_INLINE float spu_peaks_scale(f32x16 peaks, float *inverse) {
  const float peak = spu_tree_max(peaks);
  *inverse = peak == 0.0f ? 0.0f : 127.0f / peak;
  return peak == 0.0f ? 1.0f : peak / 127.0f;
}
SPU_INLINE float spu_row_scale(const float *x, int64_t n, float *inverse) {
  return spu_peaks_scale(spu_row_peaks(x, n), inverse);
}
/* the same of 16 rows at a time */
SPU_INLINE f32x16 spu_rows_scale(f32x16 peak, float *inverse) {
  const f32x16 zero = spu_splat(0.0f), one = spu_splat(1.0f), steps = spu_splat(127.0f);
  const i32x16 empty = peak == zero;
  spu_store_f32(inverse, spu_select(empty, zero, steps / spu_select(empty, one, peak)), 16);
  return spu_select(empty, one, peak / steps);
}

#include "polynomials.h"

#endif
