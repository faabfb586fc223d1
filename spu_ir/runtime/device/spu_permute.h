/*
 * The SPU's operand crossbar: byte i of the result is byte index[i] of a window of 64 bytes, or
 * of two windows (index 0..63 reaches the first, 64..127 the second).
 */
#ifndef SPU_PERMUTE_H
#define SPU_PERMUTE_H

#include "spu_tile.h"

#if defined(SPU_AVX512)

#if defined(__AVX512VBMI__)

typedef __m512i spu_route;
SPU_INLINE spu_route spu_route_of(const uint8_t *index, int two) {
  (void)two;
  return _mm512_loadu_si512(index);
}
SPU_INLINE __m512i spu_permute(spu_route route, const uint8_t *a, const uint8_t *b, int two) {
  const __m512i first = _mm512_loadu_si512(a);
  if (!two) return _mm512_permutexvar_epi8(route, first);
  return _mm512_permutex2var_epi8(first, route, _mm512_loadu_si512(b));
}

/* Two results from one window, which is read once. */
SPU_INLINE void spu_permute_both(const spu_route *route, const uint8_t *a, __m512i *to) {
  __m512i x = _mm512_loadu_si512(a);
  SPU_PIN(x); /* the compiler would read it twice */
  to[0] = _mm512_permutexvar_epi8(route[0], x);
  to[1] = _mm512_permutexvar_epi8(route[1], x);
}

#else /* no vpermb: four (eight) shuffles inside pieces of 16 bytes, each keeps its own bytes */

typedef struct {
  __m512i index;
  __mmask64 piece[8];
} spu_route;
SPU_INLINE spu_route spu_route_of(const uint8_t *index, int two) {
  spu_route route;
  route.index = _mm512_loadu_si512(index);
  const __m512i piece = _mm512_and_si512(route.index, _mm512_set1_epi8(0x70));
  const int pieces = two ? 8 : 4;
  SPU_UNROLL
  for (int p = 0; p < pieces; p++)
    route.piece[p] = _mm512_cmpeq_epi8_mask(piece, _mm512_set1_epi8((char)(16 * p)));
  return route;
}
SPU_INLINE __m512i spu_permute(spu_route route, const uint8_t *a, const uint8_t *b, int two) {
  __m512i y = _mm512_setzero_si512();
  const int pieces = two ? 8 : 4;
  SPU_UNROLL
  for (int p = 0; p < pieces; p++) {
    const uint8_t *from = (p < 4 ? a : b) + 16 * (p & 3);
    const __m512i x = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)from));
    y = _mm512_mask_shuffle_epi8(y, route.piece[p], x, route.index);
  }
  return y;
}

/* Two results from one window. */
SPU_INLINE void spu_permute_both(const spu_route *route, const uint8_t *a, __m512i *to) {
  to[0] = spu_permute(route[0], a, a, 0);
  to[1] = spu_permute(route[1], a, a, 0);
}

#endif
#elif defined(__AVX2__)

/* half of a quad (8 lanes): index - 16 * piece, with the top bit set where it is out of 0..15 */
typedef struct {
  __m256i index[8];
} spu_route;
SPU_INLINE spu_route spu_route_of(const uint8_t *index, int two) {
  spu_route route;
  const __m256i all = _mm256_loadu_si256((const __m256i *)(const void *)index);
  const int pieces = two ? 8 : 4;
  SPU_UNROLL
  for (int p = 0; p < pieces; p++)
    route.index[p] = _mm256_adds_epu8(_mm256_sub_epi8(all, _mm256_set1_epi8((char)(16 * p))),
                                      _mm256_set1_epi8(0x70));
  return route;
}
SPU_INLINE __m256i spu_permute(const spu_route *route, const uint8_t *a, const uint8_t *b,
                               int two) {
  __m256i y = _mm256_setzero_si256();
  const int pieces = two ? 8 : 4;
  SPU_UNROLL
  for (int p = 0; p < pieces; p++) {
    const uint8_t *from = (p < 4 ? a : b) + 16 * (p & 3);
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)from);
    /* a shuffle gives 0 where the index has its top bit set */
    y = _mm256_or_si256(y, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(x), route->index[p]));
  }
  return y;
}

#endif

/* the byte that index i reaches, in plain C */
SPU_INLINE uint8_t spu_reach(uint8_t i, const uint8_t *a, const uint8_t *b) {
  return i < 64 ? a[i] : b[i - 64];
}

#endif
