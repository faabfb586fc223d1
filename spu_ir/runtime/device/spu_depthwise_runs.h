/*
 * Depthwise convolution of bytes whose taps are mostly a pixel of the tile apart, those of a row
 * without strides: four taps a vpdpbusd, and 64 channels of four pixels put beside each other in
 * eight shuffles. Sums are exact integers, those of spu_depthwise_i8.
 */
#ifndef SPU_DEPTHWISE_RUNS_H
#define SPU_DEPTHWISE_RUNS_H

#include "epilogue.h"

#if defined(SPU_AVX512) && defined(__AVX512VBMI__)

enum {
  SPU_DEPTHWISE_RUN = 64,    /* taps of a run, at most */
  SPU_DEPTHWISE_FOURS = 128, /* fours of pixels of a tile, at most */
};

/* the runs of a tile's taps: how many, and each one's taps, steps and fours of pixels; all fours */
typedef struct {
  int32_t runs, fours;
  struct {
    int16_t taps, steps, fours;
  } run[SPU_DEPTHWISE_FOURS];
} spu_depthwise_plan;

/* [lane group of 16 channels][four pixels of the plan][16 channels][pixel] */
typedef uint8_t spu_depthwise_fours[4 * SPU_DEPTHWISE_FOURS][64];

/*
 * Whether there are at least three taps a run, and their pixels few enough. Pixel m of the tile
 * takes tap 4 c + i - m % 4 at byte i of step c, so that those of m / 4 have the same pixels.
 */
SPU_INLINE int spu_depthwise_plan_of(const spu_tile *t, spu_depthwise_plan *plan) {
  const int32_t *offset = t->w->offset;
  const int64_t end = t->w->begin[1], later = t->rows < 4 ? t->rows - 1 : 3;
  plan->runs = plan->fours = 0;
  for (int64_t q = 0; q < end;) {
    int64_t taps = 1;
    while (taps < SPU_DEPTHWISE_RUN && q + taps < end &&
           offset[q + taps] == offset[q + taps - 1] + t->x_stride)
      taps++;
    const int64_t steps = (taps + later + 3) / 4, needed = steps + (t->rows - 1) / 4;
    if (plan->fours + needed > SPU_DEPTHWISE_FOURS) return 0;
    plan->fours += (int32_t)needed;
    plan->run[plan->runs].taps = (int16_t)taps;
    plan->run[plan->runs].steps = (int16_t)steps;
    plan->run[plan->runs++].fours = (int16_t)needed;
    q += taps;
  }
  return end >= 3 * plan->runs;
}

/* The pixels of a tile, from x on, of 64 channels. */
static __attribute__((noinline, unused)) void spu_depthwise_turn(const spu_tile *t,
                                                                 const spu_depthwise_plan *plan,
                                                                 const uint8_t *x,
                                                                 spu_depthwise_fours to) {
  const int64_t stride = t->x_stride;
  /* pairs of bytes of two pixels, of channels from 0 and from 32 on; then pairs of those */
  const __m512i word = _mm512_cvtepu8_epi16(_mm256_setr_epi8(
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
      26, 27, 28, 29, 30, 31));
  const __m512i low = _mm512_or_si512(
      word, _mm512_slli_epi16(_mm512_add_epi16(word, _mm512_set1_epi16(64)), 8));
  const __m512i high = _mm512_add_epi8(low, _mm512_set1_epi8(32));
  const __m512i lane = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(word));
  const __m512i even = _mm512_or_si512(
      lane, _mm512_slli_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(32)), 16));
  const __m512i odd = _mm512_add_epi16(even, _mm512_set1_epi16(16));
  const int32_t *offset = t->w->offset;
  const int64_t all = plan->fours;
  int64_t four = 0;
  for (int32_t r = 0; r < plan->runs; r++) {
    const int64_t last = t->rows + plan->run[r].taps - 2;
    const uint8_t *from = x + *offset;
    for (int64_t p = 0; p < 4 * plan->run[r].fours; p += 4, four++) {
      __m512i pixel[4];
      if (p + 3 <= last) {
        SPU_UNROLL
        for (int i = 0; i < 4; i++) pixel[i] = _mm512_loadu_si512(from + (p + i) * stride);
      } else { /* behind the last pixel, whose weights are 0, that one again */
        SPU_UNROLL
        for (int i = 0; i < 4; i++)
          pixel[i] = _mm512_loadu_si512(from + (p + i < last ? p + i : last) * stride);
      }
      const __m512i a = _mm512_permutex2var_epi8(pixel[0], low, pixel[1]);
      const __m512i b = _mm512_permutex2var_epi8(pixel[0], high, pixel[1]);
      const __m512i c = _mm512_permutex2var_epi8(pixel[2], low, pixel[3]);
      const __m512i d = _mm512_permutex2var_epi8(pixel[2], high, pixel[3]);
      _mm512_store_si512(to[four], _mm512_permutex2var_epi16(a, even, c));
      _mm512_store_si512(to[all + four], _mm512_permutex2var_epi16(a, odd, c));
      _mm512_store_si512(to[2 * all + four], _mm512_permutex2var_epi16(b, even, d));
      _mm512_store_si512(to[3 * all + four], _mm512_permutex2var_epi16(b, odd, d));
    }
    offset += plan->run[r].taps;
  }
}

/* byte 0 of 16 lanes of four vectors, side by side */
SPU_INLINE __m512i spu_depthwise_four_taps(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i byte = _mm512_slli_epi32(lane, 2);
  const __m512i low = _mm512_or_si512(
      byte, _mm512_slli_epi32(_mm512_add_epi32(byte, _mm512_set1_epi32(64)), 8));
  const __m512i first = _mm512_permutex2var_epi8(a, low, b);
  const __m512i second = _mm512_permutex2var_epi8(c, _mm512_slli_epi32(low, 16), d);
  return _mm512_mask_mov_epi16(first, 0xaaaaaaaa, second);
}

/* one step of `rows` pixels: the taps of `now` behind those of the step before */
SPU_INLINE void spu_depthwise_step(__m512i *acc, const uint8_t (*fours)[64], __m512i before,
                                   __m512i now, const int rows) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i lanes = _mm512_mullo_epi32(lane, _mm512_set1_epi32(0x04040404));
  __m512i w[4] = {now, now, now, now};
  SPU_UNROLL
  for (int s = 1; s < 4; s++) {
    /* byte i of a lane is byte i - s of it, from s on, or byte 4 + i - s of the step before */
    uint32_t from = 0;
    for (int i = 0; i < 4; i++) from |= (uint32_t)(i < s ? 4 + i - s : 64 + i - s) << (8 * i);
    const __m512i order = _mm512_add_epi8(_mm512_set1_epi32((int32_t)from), lanes);
    w[s] = _mm512_permutex2var_epi8(before, order, now);
  }
  SPU_UNROLL
  for (int m = 0; m < rows; m++)
    acc[m] = _mm512_dpbusd_epi32(acc[m], _mm512_load_si512(fours[m / 4]), w[m % 4]);
}

/*
 * `rows` pixels, a literal, of the tile's lanes from `done` on: of 16 lanes with their epilogue,
 * or, as `sums` [rows][16] without it, if that is not NULL. There is no address of a tile after
 * its first lanes, so that none has to be written to memory.
 */
SPU_INLINE void spu_depthwise_quads(const spu_tile *tile, const int32_t done,
                                    const spu_depthwise_plan *plan, const uint8_t (*fours)[64],
                                    int32_t *sums, const int epilogue, const int residual,
                                    const int activation, const int out, const int rows) {
  const spu_weight *weight = tile->w;
  const int32_t group = tile->group + done / 16;
  const uint8_t *value = weight->value + 64 * (int64_t)weight->begin[1] * group;
  const int32_t *correction = weight->correction ? weight->correction + 16 * group : NULL;
  __m512i acc[SPU_MAX_ROWS];
  const __m512i first = correction ? _mm512_loadu_si512(correction) : _mm512_setzero_si512();
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    acc[m] = first;
    SPU_PIN(acc[m]);
  }
  for (int32_t r = 0; r < plan->runs; r++) {
    const int64_t taps = plan->run[r].taps, steps = plan->run[r].steps;
    __m512i before = _mm512_setzero_si512();
    int64_t c = 0;
    for (; 4 * c + 4 <= taps; c++) {
      const uint8_t *w = value + 256 * c;
      const __m512i now =
          spu_depthwise_four_taps(_mm512_loadu_si512(w), _mm512_loadu_si512(w + 64),
                                  _mm512_loadu_si512(w + 128), _mm512_loadu_si512(w + 192));
      spu_depthwise_step(acc, fours + c, before, now, rows);
      before = now;
    }
    for (; c < steps; c++) {
      __m512i w[4];
      SPU_UNROLL
      for (int i = 0; i < 4; i++)
        w[i] = 4 * c + i < taps ? _mm512_loadu_si512(value + 64 * (4 * c + i))
                                : _mm512_setzero_si512();
      const __m512i now = spu_depthwise_four_taps(w[0], w[1], w[2], w[3]);
      spu_depthwise_step(acc, fours + c, before, now, rows);
      before = now;
    }
    value += 64 * taps;
    fours += plan->run[r].fours;
  }
  const spu_tile t = spu_tile_after(tile, done, epilogue, residual, out);
  f32x16 scale = {0}, bias = {0};
  if (!sums && (epilogue & SPU_SCALE)) scale = spu_load_f32(t.scale, 16);
  if (!sums && (epilogue & SPU_BIAS)) bias = spu_load_f32(t.bias, 16);
  SPU_UNROLL
  for (int m = 0; m < rows; m++) {
    SPU_PIN(acc[m]);
    if (sums)
      _mm512_storeu_si512(sums + 16 * m, acc[m]);
    else
      spu_epilogue_row(&t, (i32x16)acc[m], scale, bias, m, 0, 16, SPU_I8, epilogue, residual,
                       activation, out);
  }
}

static __attribute__((noinline, unused)) void spu_depthwise_sums(const spu_tile *t, int32_t done,
                                                                 const spu_depthwise_plan *plan,
                                                                 const uint8_t (*fours)[64],
                                                                 int32_t *sums) {
  switch (t->rows) {
    SPU_CASES(SPU_MAX_ROWS, spu_depthwise_quads, t, done, plan, fours, sums, 0, SPU_RES_NONE,
              SPU_ACT_NONE, SPU_OUT_I32)
  }
}

/* spu_depthwise_run of a tile that has a plan */
SPU_INLINE void spu_depthwise_by_four(const spu_tile *tile, const spu_depthwise_plan *plan,
                                       int epilogue, int residual, int activation, int out) {
  _Alignas(64) spu_depthwise_fours fours;
  for (int32_t done = 0; done < tile->lanes; done += 16) {
    if (done % 64 == 0) spu_depthwise_turn(tile, plan, (const uint8_t *)tile->x + done, fours);
    const uint8_t(*group)[64] = (const uint8_t(*)[64])(fours + done / 16 % 4 * plan->fours);
    if (tile->lanes - done >= 16) {
      switch (tile->rows) {
        SPU_CASES(SPU_MAX_ROWS, spu_depthwise_quads, tile, done, plan, group, NULL, epilogue,
                  residual, activation, out)
      }
    } else {
      _Alignas(64) int32_t acc[SPU_MAX_ROWS * 16];
      const spu_tile t = spu_tile_after(tile, done, epilogue, residual, out);
      spu_depthwise_sums(tile, done, plan, group, acc);
      spu_epilogue(&t, acc, SPU_I8, 1, epilogue, residual, activation, out);
    }
  }
}

#endif

#endif
