/*
 * The SPU's bfloat16 products, as vdpbf16ps defines them: in every lane the odd product is added
 * to the float32 accumulator, then the even one, each product and sum rounded once (as a fused
 * multiply-add does), to nearest even, with denormal operands and results flushed to a zero of
 * their sign.
 */
#ifndef SPU_BF16_H
#define SPU_BF16_H

#include "spu_permute.h"

#if defined(SPU_AVX512) && defined(__AVX512BF16__)

#define SPU_BF16_ROWS_1 14
#define SPU_BF16_ROWS_2 12
#define SPU_BF16_ROWS_4 6

SPU_INLINE f32x16 spu_bf16_dot(f32x16 acc, i32x16 x, i32x16 w) {
  return (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, (__m512bh)w);
}

#else

/* the sums pass through doubles, which even 32 registers hold only a few of */
#define SPU_BF16_ROWS_1 2
#define SPU_BF16_ROWS_2 1
#define SPU_BF16_ROWS_4 1

typedef double f64x16 __attribute__((vector_size(128)));
typedef int64_t i64x16 __attribute__((vector_size(128)));

SPU_INLINE f32x16 spu_flush(i32x16 bits) {
  const i32x16 denormal = (bits & 0x7f800000) == 0;
  return (f32x16)(bits & ~(denormal & 0x007fffff));
}
/*
 * acc + x * w rounded once. A product of two bfloat16 has 16 bits and is exact in a double. The
 * sum with 24 bits is exact there too, unless one of the two is 2^28 times the other, and then
 * it is never near the middle of two floats: so rounding twice is rounding once. Below
 * 2^-126 - 2^-151 the sum would still be denormal after rounding to 24 bits, and is flushed.
 */
SPU_INLINE f32x16 spu_bf16_step(f32x16 acc, f32x16 x, f32x16 w) {
  const double least = 0x1p-126 - 0x1p-151;
  const f64x16 sum = __builtin_convertvector(acc, f64x16) +
                     __builtin_convertvector(x, f64x16) * __builtin_convertvector(w, f64x16);
  const i64x16 keep = ~((sum < least) & (sum > -least));
  const f32x16 rounded = __builtin_convertvector(sum, f32x16);
  const i32x16 kept = __builtin_convertvector(keep, i32x16);
  return (f32x16)((i32x16)rounded & (kept | INT32_MIN));
}
SPU_INLINE f32x16 spu_bf16_dot(f32x16 acc, i32x16 x, i32x16 w) {
  const i32x16 upper = spu_isplat((int32_t)0xffff0000u);
  acc = spu_bf16_step(acc, spu_flush(x & upper), spu_flush(w & upper));
  return spu_bf16_step(acc, spu_flush((i32x16)((u32x16)x << 16)),
                       spu_flush((i32x16)((u32x16)w << 16)));
}

#endif

/* the operands of one quad: 16 lanes of two bfloat16 */
SPU_INLINE i32x16 spu_bf16_operands(const uint8_t *index, const uint8_t *a, const uint8_t *b,
                                    int two) {
  uint8_t y[64];
  for (int i = 0; i < 64; i++) y[i] = two ? spu_reach(index[i], a, b) : a[index[i]];
  i32x16 x;
  memcpy(&x, y, 64);
  return x;
}

SPU_INLINE void spu_bf16_walk(const spu_walk *k, const int format, const int share,
                              const int rows) {
  f32x16 acc[SPU_MAX_ROWS][SPU_MAX_SHARE];
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int j = 0; j < share; j++) acc[m][j] = (f32x16){0};
  }
  for (int64_t q = k->begin; q < k->end; q++) {
    const uint8_t *a = k->x + k->offset[format == SPU_BANKED2 ? 2 * q : q];
    const uint8_t *b = format == SPU_BANKED2 ? k->x + k->offset[2 * q + 1] : a;
    i32x16 value[SPU_MAX_SHARE];
    SPU_UNROLL
    for (int j = 0; j < share; j++) memcpy(&value[j], spu_value_of(k, q, j, format, share), 64);
#if defined(SPU_AVX512)
    spu_route route;
    if (format != SPU_DENSE) route = spu_route_of(k->index + 64 * q, format == SPU_BANKED2);
#endif
    SPU_UNROLL
    for (int m = 0; m < rows; m++) {
      const uint8_t *am = a + m * k->x_stride, *bm = b + m * k->x_stride;
      i32x16 x;
      if (format == SPU_DENSE) {
        int32_t two;
        memcpy(&two, am, 4);
        x = spu_isplat(two);
      } else {
#if defined(SPU_AVX512)
        x = (i32x16)spu_permute(route, am, bm, format == SPU_BANKED2);
#else
        x = spu_bf16_operands(k->index + 64 * q, am, bm, format == SPU_BANKED2);
#endif
      }
      SPU_UNROLL
      for (int j = 0; j < share; j++) acc[m][j] = spu_bf16_dot(acc[m][j], x, value[j]);
    }
  }
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_UNROLL
    for (int j = 0; j < share; j++) memcpy(k->acc + 16 * (m * share + j), &acc[m][j], 64);
  }
}

SPU_DEFINE(spu_bf16_dense_1, spu_bf16_walk, SPU_DENSE, 1, SPU_BF16_ROWS_1)
SPU_DEFINE(spu_bf16_dense_2, spu_bf16_walk, SPU_DENSE, 2, SPU_BF16_ROWS_2)
SPU_DEFINE(spu_bf16_banked_1, spu_bf16_walk, SPU_BANKED, 1, SPU_BF16_ROWS_1)
SPU_DEFINE(spu_bf16_banked_2, spu_bf16_walk, SPU_BANKED, 2, SPU_BF16_ROWS_2)
SPU_DEFINE(spu_bf16_banked_4, spu_bf16_walk, SPU_BANKED, 4, SPU_BF16_ROWS_4)
SPU_DEFINE(spu_bf16_banked2_1, spu_bf16_walk, SPU_BANKED2, 1, SPU_BF16_ROWS_1)
SPU_DEFINE(spu_bf16_banked2_2, spu_bf16_walk, SPU_BANKED2, 2, SPU_BF16_ROWS_2)
SPU_DEFINE(spu_bf16_banked2_4, spu_bf16_walk, SPU_BANKED2, 4, SPU_BF16_ROWS_4)

#endif
