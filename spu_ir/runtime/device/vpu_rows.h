/*
 * VPU instructions over rows: reductions, softmax, normalisation, row quantisation.
 *
 * A reduction over the last axis keeps 16 partial results: lane j takes elements j, j + 16, ...
 * in order, and the lanes are then combined by the fixed tree of numerics.h. A reduction over
 * another axis goes through its elements in order. Output may be the input's own row.
 */
#ifndef SPU_VPU_ROWS_H
#define SPU_VPU_ROWS_H

#include "numerics.h"

/* how a row becomes one number */
enum {
  SPU_SUM,
  SPU_MEAN,
  SPU_MAX,
  SPU_MIN,
  SPU_PROD,
  SPU_SUM_SQUARE,
  SPU_L1,
  SPU_L2,
  SPU_LOG_SUM,
  SPU_LOG_SUM_EXP
};

SPU_INLINE float vpu_scalar_sqrt(float x) {
#if defined(__AVX2__)
  return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
#else
  return __builtin_sqrtf(x);
#endif
}
SPU_INLINE float vpu_scalar_exp(float x) { return spu_exp(spu_splat(x))[0]; }
SPU_INLINE float vpu_scalar_log(float x) { return spu_log(spu_splat(x))[0]; }

/* acc = update in the lanes that have an element; `v` is this step's 16 elements of x */
#define VPU_ROW_LOOP(x, n, acc, update)                                     \
  do {                                                                      \
    int64_t vpu_j = 0;                                                      \
    for (; vpu_j + 16 <= (n); vpu_j += 16) {                                \
      const f32x16 v = spu_load_f32((x) + vpu_j, 16);                       \
      acc = update;                                                         \
    }                                                                       \
    if (vpu_j < (n)) {                                                      \
      const f32x16 v = spu_load_f32((x) + vpu_j, (n) - vpu_j);              \
      acc = spu_select(spu_lanes((n) - vpu_j), update, acc);                \
    }                                                                       \
  } while (0)

/* y = value for every element; `v` is this step's 16 elements of x, `j` the first one's index,
 * `count` how many there are */
#define VPU_ROW_MAP(x, y, n, value)                                         \
  do {                                                                      \
    int64_t j = 0;                                                          \
    for (; j + 16 <= (n); j += 16) {                                        \
      const int64_t count = 16;                                             \
      const f32x16 v = spu_load_f32((x) + j, count);                        \
      spu_store_f32((y) + j, value, count);                                 \
    }                                                                       \
    if (j < (n)) {                                                          \
      const int64_t count = (n) - j;                                        \
      const f32x16 v = spu_load_f32((x) + j, count);                        \
      spu_store_f32((y) + j, value, count);                                 \
    }                                                                       \
  } while (0)

static inline float vpu_row_sum(const float *x, int64_t n) {
  f32x16 acc = spu_splat(0.0f);
  VPU_ROW_LOOP(x, n, acc, acc + v);
  return spu_tree_sum(acc);
}
static inline float vpu_row_max(const float *x, int64_t n) {
  f32x16 acc = spu_splat(-__builtin_inff());
  VPU_ROW_LOOP(x, n, acc, spu_max(acc, v));
  return spu_tree_max(acc);
}
static inline float vpu_row_min(const float *x, int64_t n) {
  f32x16 acc = spu_splat(__builtin_inff());
  VPU_ROW_LOOP(x, n, acc, spu_min(acc, v));
  return spu_tree_min(acc);
}
static inline float vpu_row_product(const float *x, int64_t n) {
  f32x16 acc = spu_splat(1.0f);
  VPU_ROW_LOOP(x, n, acc, acc * v);
  return spu_tree_prod(acc);
}
static inline float vpu_row_sum_square(const float *x, int64_t n) {
  f32x16 acc = spu_splat(0.0f);
  VPU_ROW_LOOP(x, n, acc, acc + v * v);
  return spu_tree_sum(acc);
}
static inline float vpu_row_sum_abs(const float *x, int64_t n) {
  f32x16 acc = spu_splat(0.0f);
  VPU_ROW_LOOP(x, n, acc, acc + spu_abs(v));
  return spu_tree_sum(acc);
}
/* sum of exp(x - shift) */
static inline float vpu_row_sum_exp(const float *x, int64_t n, float shift) {
  f32x16 acc = spu_splat(0.0f);
  VPU_ROW_LOOP(x, n, acc, acc + spu_exp(v - spu_splat(shift)));
  return spu_tree_sum(acc);
}
/* the shift of a sum of exponentials: the maximum, or 0 where that is infinite */
SPU_INLINE float vpu_finite_or_zero(float x) {
  return x - x == 0.0f ? x : 0.0f;
}

/* one number of a contiguous row of n floats; an empty row gives the operation's identity
 * (and the mean NaN) */
static inline float vpu_reduce_f32(const float *x, int64_t n, const int op) {
  switch (op) {
    case SPU_MEAN: return vpu_row_sum(x, n) / (float)n;
    case SPU_MAX: return vpu_row_max(x, n);
    case SPU_MIN: return vpu_row_min(x, n);
    case SPU_PROD: return vpu_row_product(x, n);
    case SPU_SUM_SQUARE: return vpu_row_sum_square(x, n);
    case SPU_L1: return vpu_row_sum_abs(x, n);
    case SPU_L2: return vpu_scalar_sqrt(vpu_row_sum_square(x, n));
    case SPU_LOG_SUM: return vpu_scalar_log(vpu_row_sum(x, n));
    case SPU_LOG_SUM_EXP: {
      const float shift = vpu_finite_or_zero(vpu_row_max(x, n));
      return shift + vpu_scalar_log(vpu_row_sum_exp(x, n, shift));
    }
    default: return vpu_row_sum(x, n);
  }
}

SPU_INLINE f32x16 vpu_reduce_identity(const int op) {
  return spu_splat(op == SPU_MAX   ? -__builtin_inff()
                   : op == SPU_MIN ? __builtin_inff()
                   : op == SPU_PROD ? 1.0f
                                    : 0.0f);
}
SPU_INLINE f32x16 vpu_reduce_step(f32x16 acc, f32x16 v, const int op) {
  switch (op) {
    case SPU_MAX: return spu_max(acc, v);
    case SPU_MIN: return spu_min(acc, v);
    case SPU_PROD: return acc * v;
    case SPU_SUM_SQUARE:
    case SPU_L2: return acc + v * v;
    case SPU_L1: return acc + spu_abs(v);
    default: return acc + v;
  }
}
SPU_INLINE f32x16 vpu_reduce_column(const float *x, int64_t n, int64_t stride, int64_t count,
                                    const int op) {
  f32x16 acc = vpu_reduce_identity(op);
  for (int64_t i = 0; i < n; i++)
    acc = vpu_reduce_step(acc, spu_load_f32(x + i * stride, count), op);
  return acc;
}

/* y[j] = x[j], x[stride + j], ..., x[(n - 1) * stride + j] reduced in this order, j < width */
static inline __attribute__((always_inline)) void
vpu_reduce_strided_f32(const float *x, int64_t n, int64_t stride, float *y, int64_t width,
                       const int op) {
  for (int64_t j = 0; j < width; j += 16) {
    const int64_t count = width - j < 16 ? width - j : 16;
    f32x16 acc = vpu_reduce_column(x + j, n, stride, count, op == SPU_LOG_SUM_EXP ? SPU_MAX : op);
    if (op == SPU_MEAN) acc = acc / spu_splat((float)n);
    if (op == SPU_L2) acc = spu_sqrt(acc);
    if (op == SPU_LOG_SUM) acc = spu_log(acc);
    if (op == SPU_LOG_SUM_EXP) {
      const f32x16 zero = spu_splat(0.0f), shift = spu_select(acc - acc == zero, acc, zero);
      f32x16 sum = zero;
      for (int64_t i = 0; i < n; i++)
        sum = sum + spu_exp(spu_load_f32(x + i * stride + j, count) - shift);
      acc = shift + spu_log(sum);
    }
    spu_store_f32(y + j, acc, count);
  }
}

/* y = exp(x - max) * (1 / sum of them) */
static inline void vpu_softmax_f32(const float *x, float *y, int64_t n) {
  const f32x16 top = spu_splat(vpu_row_max(x, n));
  VPU_ROW_MAP(x, y, n, spu_exp(v - top));
  const f32x16 inverse = spu_splat(1.0f / vpu_row_sum(y, n));
  VPU_ROW_MAP(y, y, n, v * inverse);
}

/* y = (x - max) - log(sum of exp(x - max)) */
static inline void vpu_log_softmax_f32(const float *x, float *y, int64_t n) {
  const float top = vpu_row_max(x, n);
  const f32x16 shift = spu_splat(top);
  const f32x16 log_sum = spu_splat(vpu_scalar_log(vpu_row_sum_exp(x, n, top)));
  VPU_ROW_MAP(x, y, n, (v - shift) - log_sum);
}

/* softmax down the columns: the n elements of each of `width` columns are `stride` apart,
 * in x and in y; the sum goes through them in order */
static inline void vpu_softmax_strided_f32(const float *x, float *y, int64_t n, int64_t stride,
                                           int64_t width) {
  for (int64_t j = 0; j < width; j += 16) {
    const int64_t count = width - j < 16 ? width - j : 16;
    const f32x16 top = vpu_reduce_column(x + j, n, stride, count, SPU_MAX);
    f32x16 sum = spu_splat(0.0f);
    for (int64_t i = 0; i < n; i++) {
      const f32x16 e = spu_exp(spu_load_f32(x + i * stride + j, count) - top);
      sum = sum + e;
      spu_store_f32(y + i * stride + j, e, count);
    }
    const f32x16 inverse = spu_splat(1.0f) / sum;
    for (int64_t i = 0; i < n; i++) {
      float *at = y + i * stride + j;
      spu_store_f32(at, spu_load_f32(at, count) * inverse, count);
    }
  }
}

/* rows that are normalised together */
enum { VPU_NORM_ROWS = 4 };

/* the steps of vpu_layer_norm_some, for 16 elements of a row, or `count` */
SPU_INLINE f32x16 vpu_norm_add(f32x16 sum, f32x16 v, int64_t count) {
  return count < 16 ? spu_select(spu_lanes(count), sum + v, sum) : sum + v;
}
SPU_INLINE f32x16 vpu_norm_add_square(f32x16 sum, f32x16 v, f32x16 mean, int64_t count) {
  const f32x16 d = v - mean, more = sum + d * d;
  return count < 16 ? spu_select(spu_lanes(count), more, sum) : more;
}

/* the same loop twice: of 16 elements at a time, and of what is left */
#define VPU_NORM_LOOP(n, body)                                          \
  do {                                                                  \
    int64_t j = 0;                                                      \
    for (; j + 16 <= (n); j += 16) {                                    \
      const int64_t count = 16;                                         \
      SPU_UNROLL                                                        \
      for (int r = 0; r < rows; r++) body;                              \
    }                                                                   \
    if (j < (n)) {                                                      \
      const int64_t count = (n) - j;                                    \
      SPU_UNROLL                                                        \
      for (int r = 0; r < rows; r++) body;                              \
    }                                                                   \
  } while (0)

SPU_INLINE void vpu_norm_put(const float *x, f32x16 mean, f32x16 inverse, const float *gamma,
                             const float *beta, float *y, f32x16 *peak, int64_t count) {
  f32x16 v = (spu_load_f32(x, count) - mean) * inverse;
  if (gamma) v = v * spu_load_f32(gamma, count);
  if (beta) v = v + spu_load_f32(beta, count);
  if (peak && count < 16) v = spu_select(spu_lanes(count), v, spu_splat(0.0f));
  if (peak) *peak = spu_max(spu_abs(v), *peak);
  spu_store_f32(y, v, count);
}

/*
 * `rows` rows together, a literal: a row's sums alone would wait for each other. Unless it is NULL,
 * `peak` gets the largest |y| of every row in each of 16 lanes, see spu_row_peaks.
 */
SPU_INLINE void vpu_layer_norm_some(const float *x, int64_t x_stride, const float *gamma,
                                    const float *beta, float *y, int64_t y_stride, int64_t n,
                                    float eps, f32x16 *peak, const int rows) {
  f32x16 sums[VPU_NORM_ROWS], mean[VPU_NORM_ROWS], inverse[VPU_NORM_ROWS];
  SPU_UNROLL
  for (int r = 0; r < rows; r++) sums[r] = spu_splat(0.0f);
  VPU_NORM_LOOP(n, sums[r] = vpu_norm_add(sums[r], spu_load_f32(x + r * x_stride + j, count),
                                          count));
  SPU_UNROLL
  for (int r = 0; r < rows; r++) {
    mean[r] = spu_splat(spu_tree_sum(sums[r]) / (float)n);
    sums[r] = spu_splat(0.0f);
  }
  VPU_NORM_LOOP(n, sums[r] = vpu_norm_add_square(sums[r], spu_load_f32(x + r * x_stride + j, count),
                                                 mean[r], count));
  SPU_UNROLL
  for (int r = 0; r < rows; r++) {
    const float variance = spu_tree_sum(sums[r]) / (float)n;
    inverse[r] = spu_splat(1.0f / vpu_scalar_sqrt(variance + eps));
    if (peak) peak[r] = spu_splat(0.0f);
  }
  VPU_NORM_LOOP(n, vpu_norm_put(x + r * x_stride + j, mean[r], inverse[r], gamma ? gamma + j : NULL,
                                beta ? beta + j : NULL, y + r * y_stride + j,
                                peak ? peak + r : NULL, count));
}

/*
 * y = ((x - mean) * (1 / sqrt(variance + eps))) * gamma + beta for each of `rows` rows; gamma and
 * beta may be NULL.
 */
static inline void vpu_layer_norm_f32(const float *x, int64_t x_stride, const float *gamma,
                                      const float *beta, float *y, int64_t y_stride,
                                      int64_t rows, int64_t n, float eps) {
  const int64_t whole = rows - rows % VPU_NORM_ROWS;
  for (int64_t r = 0; r < whole; r += VPU_NORM_ROWS)
    vpu_layer_norm_some(x + r * x_stride, x_stride, gamma, beta, y + r * y_stride, y_stride, n,
                        eps, NULL, VPU_NORM_ROWS);
  for (int64_t r = whole; r < rows; r++)
    vpu_layer_norm_some(x + r * x_stride, 0, gamma, beta, y + r * y_stride, 0, n, eps, NULL, 1);
}

/* y = (x * (1 / sqrt(mean of x^2 + eps))) * gamma; gamma may be NULL */
static inline void vpu_rms_norm_f32(const float *x, const float *gamma, float *y, int64_t n,
                                    float eps) {
  const float mean = vpu_row_sum_square(x, n) / (float)n;
  const f32x16 inverse = spu_splat(1.0f / vpu_scalar_sqrt(mean + eps));
  if (gamma)
    VPU_ROW_MAP(x, y, n, (v * inverse) * spu_load_f32(gamma + j, count));
  else
    VPU_ROW_MAP(x, y, n, v * inverse);
}

/* ---- quantisation ------------------------------------------------------------------------- */

/* q = round(x * (127 / max|x|)) + 128, *scale = max|x| / 127 (1 for a row of zeros) */
static inline void vpu_quantise_row_f32(const float *x, uint8_t *q, float *scale, int64_t n) {
  float inverse;
  *scale = spu_row_scale(x, n, &inverse);
  spu_quantise_row(x, q, n, inverse, 128, 1, 255);
}

/* the most elements of a row that vpu_layer_norm_rows_f32 normalises */
enum { VPU_NORM_ROW = 1024 };

/* `rows` rows of vpu_layer_norm_rows_f32, a literal; what is between stays in L1 */
SPU_INLINE void vpu_layer_norm_rows_some(const float *x, int64_t x_stride, const float *gamma,
                                         const float *beta, uint8_t *q, int64_t q_stride,
                                         float *scale, int64_t n, float eps, const int rows) {
  _Alignas(64) float y[VPU_NORM_ROWS * (VPU_NORM_ROW + 16)];
  const int64_t stride = (n + 15) / 16 * 16 + 16;
  f32x16 peaks[VPU_NORM_ROWS];
  vpu_layer_norm_some(x, x_stride, gamma, beta, y, stride, n, eps, peaks, rows);
  for (int r = 0; r < rows; r++) {
    float inverse;
    scale[r] = spu_peaks_scale(peaks[r], &inverse);
    spu_quantise_row(y + r * stride, q + r * q_stride, n, inverse, 128, 1, 255);
  }
}

/* vpu_quantise_row_f32 of every row that vpu_layer_norm_f32 gives, of n <= VPU_NORM_ROW */
static inline void vpu_layer_norm_rows_f32(const float *x, int64_t x_stride, const float *gamma,
                                           const float *beta, uint8_t *q, int64_t q_stride,
                                           float *scale, int64_t rows, int64_t n, float eps) {
  const int64_t whole = rows - rows % VPU_NORM_ROWS;
  for (int64_t r = 0; r < whole; r += VPU_NORM_ROWS)
    vpu_layer_norm_rows_some(x + r * x_stride, x_stride, gamma, beta, q + r * q_stride, q_stride,
                             scale + r, n, eps, VPU_NORM_ROWS);
  for (int64_t r = whole; r < rows; r++)
    vpu_layer_norm_rows_some(x + r * x_stride, 0, gamma, beta, q + r * q_stride, 0, scale + r, n,
                             eps, 1);
}

/* the largest x and -x of a row, or 0; NaN is passed over */
SPU_INLINE void vpu_row_reach(const float *x, int64_t n, float *above, float *below) {
  f32x16 most = spu_splat(0.0f), least = spu_splat(0.0f), mosts = most, leasts = least;
  int64_t start = 0;
#if defined(SPU_AVX512)
  /*
   * Bits of positive numbers are in their order, and above those of negative ones if they have a
   * sign, below if not; negative ones without a sign are in the order of their size.
   */
  __m512i high = _mm512_setzero_si512(), low = high, highs = high, lows = high;
  for (; start + 32 <= n; start += 32) {
    __m512i a = _mm512_loadu_si512(x + start), b = _mm512_loadu_si512(x + start + 16);
    SPU_PIN(a); /* the compiler would load them for each use */
    SPU_PIN(b);
    high = _mm512_max_epi32(high, a);
    highs = _mm512_max_epi32(highs, b);
    low = _mm512_max_epu32(low, a);
    lows = _mm512_max_epu32(lows, b);
  }
  high = _mm512_max_epi32(high, highs);
  low = _mm512_max_epu32(low, lows);
  const __m512i size =
      _mm512_maskz_and_epi32(_mm512_movepi32_mask(low), low, _mm512_set1_epi32(INT32_MAX));
  if (__builtin_expect(!spu_any_nan(_mm512_max_epu32(high, size)), 1)) {
    most = (f32x16)high;
    least = spu_neg((f32x16)size);
  } else {
    start = 0;
  }
#endif
  for (; start + 32 <= n; start += 32) { /* a maximum has no order */
    const f32x16 a = spu_load_f32(x + start, 16), b = spu_load_f32(x + start + 16, 16);
    mosts = spu_max(a, mosts);
    most = spu_max(b, most);
    leasts = spu_min(a, leasts);
    least = spu_min(b, least);
  }
  most = spu_max(mosts, most);
  least = spu_min(leasts, least);
  VPU_ROW_LOOP(x + start, n - start, most, spu_max(v, most));
  VPU_ROW_LOOP(x + start, n - start, least, spu_min(v, least));
  *above = spu_tree_max(most);
  *below = -spu_tree_min(least);
}

/* the scale of a row around a zero point below 128, and its inverse, or 0 */
SPU_INLINE float vpu_row_step(const float *x, int64_t n, int32_t zero, float *inverse) {
  float most, least;
  vpu_row_reach(x, n, &most, &least);
  const float above = most / (float)(255 - zero);
  const float below = zero ? least / (float)zero : 0.0f;
  const float step = below > above ? below : above;
  *inverse = step == 0.0f ? 0.0f : 1.0f / step;
  return step == 0.0f ? 1.0f : step;
}

/*
 * The same around another zero point, below 128, of rows that reach further up than down:
 * *scale = max(max(x) / (255 - zero), max(-x) / zero) of what is positive, or 1;
 * q = round(x * (1 / *scale)) + zero. With zero 0 negative numbers become 0.
 */
static inline void vpu_quantise_row_from_f32(const float *x, uint8_t *q, float *scale, int64_t n,
                                             int32_t zero) {
  float inverse;
  *scale = vpu_row_step(x, n, zero, &inverse);
  spu_quantise_row(x, q, n, inverse, zero, 0, 255);
}

/* floats of a row, at most, of which two stay in L1 with the bytes that are made of one */
enum { VPU_ROW_AHEAD = 1536 };

/*
 * Both of `rows` rows. The scale of a short row is made while the divisions of the one before are
 * waited for.
 */
#define VPU_QUANTISE_ROWS(scale_of, zero, low)                                             \
  const int64_t ahead = n <= VPU_ROW_AHEAD;                                                \
  float inverse = 0.0f, following = 0.0f;                                                  \
  for (int64_t r = -ahead; r < rows; r++) {                                                \
    const int64_t f = r + ahead;                                                           \
    if (f < rows) scale[f] = scale_of;                                                     \
    if (!ahead) inverse = following;                                                       \
    if (r >= 0)                                                                            \
      spu_quantise_row(x + r * x_stride, q + r * q_stride, n, inverse, zero, low, 255);    \
    inverse = following;                                                                   \
  }
static inline void vpu_quantise_rows_f32(const float *x, int64_t x_stride, uint8_t *q,
                                         int64_t q_stride, float *scale, int64_t rows,
                                         int64_t n) {
  VPU_QUANTISE_ROWS(spu_row_scale(x + f * x_stride, n, &following), 128, 1)
}
static inline void vpu_quantise_rows_from_f32(const float *x, int64_t x_stride, uint8_t *q,
                                              int64_t q_stride, float *scale, int64_t rows,
                                              int64_t n, int32_t zero) {
  VPU_QUANTISE_ROWS(vpu_row_step(x + f * x_stride, n, zero, &following), zero, 0)
}
#undef VPU_QUANTISE_ROWS

/* *low and *high are widened to hold x; NaN is passed over */
static inline void vpu_minmax_f32(const float *x, int64_t n, float *low, float *high) {
  f32x16 least = spu_splat(*low), most = spu_splat(*high);
  VPU_ROW_LOOP(x, n, least, spu_min(v, least));
  VPU_ROW_LOOP(x, n, most, spu_max(v, most));
  *low = spu_tree_min(least);
  *high = spu_tree_max(most);
}

/* ONNX's DynamicQuantizeLinear: u8 scale and zero point of a range that holds 0 */
static inline void vpu_dynamic_scale(float low, float high, float *scale, int32_t *zero) {
  *scale = high == low ? 1.0f : (high - low) / 255.0f;
  *zero = spu_quantise(spu_splat(-low / *scale), 1.0f, 0, 0, 255)[0] & 255;
}

/* q = x * inv_scale rounded and clamped, + zero */
static inline void vpu_quantise_u8(const float *x, uint8_t *q, int64_t n, float inv_scale,
                                   int32_t zero) {
  for (int64_t j = 0; j < n; j += 16) {
    const int64_t count = n - j < 16 ? n - j : 16;
    spu_store_u8(q + j, spu_quantise_u8(spu_load_f32(x + j, count), inv_scale, zero), count);
  }
}
static inline void vpu_quantise_i8(const float *x, int8_t *q, int64_t n, float inv_scale,
                                   int32_t zero) {
  for (int64_t j = 0; j < n; j += 16) {
    const int64_t count = n - j < 16 ? n - j : 16;
    spu_store_i8(q + j, spu_quantise_i8(spu_load_f32(x + j, count), inv_scale, zero), count);
  }
}

#endif
