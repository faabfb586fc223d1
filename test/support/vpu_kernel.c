/* One exported function for every VPU instruction, for test_vpu_kernel.py. */
#include "attention.h"
#include "attention_int8.h"
#include "sfu.h"
#include "vpu.h"

#define EACH16 for (int64_t j = 0, c = n < 16 ? n : 16; j < n; j += 16, c = n - j < 16 ? n - j : 16)

#define UNARY(name)                                                \
  void unary_##name(const float *x, float *y, int64_t n) {         \
    EACH16 vpu_store_f32(y + j, vpu_##name(vpu_load_f32(x + j, c)), c); \
  }
UNARY(abs)
UNARY(neg)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(reciprocal)
UNARY(erf)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
UNARY(gelu)
UNARY(gelu_tanh)
UNARY(silu)
UNARY(softplus)
UNARY(floor)
UNARY(ceil)
UNARY(round)
UNARY(sign)
UNARY(not)
UNARY(hard_swish)

#define SFU(name)                                                  \
  void unary_sfu_##name(const float *x, float *y, int64_t n) {     \
    EACH16 spu_store_f32(y + j, spu_sfu_##name(spu_load_f32(x + j, c)), c); \
  }
SFU(gelu)
SFU(gelu_tanh)
SFU(silu)
SFU(sigmoid)

#define UNARY_WITH(name, ...)                                                         \
  void unary_##name(const float *x, float *y, int64_t n) {                            \
    EACH16 vpu_store_f32(y + j, vpu_##name(vpu_load_f32(x + j, c), __VA_ARGS__), c);  \
  }
UNARY_WITH(leaky_relu, 0.1f)
UNARY_WITH(elu, 1.5f)
UNARY_WITH(hard_sigmoid, 0.2f, 0.5f)
UNARY_WITH(clip, spu_splat(-1.0f), spu_splat(6.0f))

#define BINARY(name)                                                                      \
  void binary_##name(const float *a, const float *b, float *y, int64_t n) {               \
    EACH16 vpu_store_f32(y + j, vpu_##name(vpu_load_f32(a + j, c), vpu_load_f32(b + j, c)), c); \
  }
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(pow)
BINARY(min)
BINARY(max)
BINARY(equal)
BINARY(less)
BINARY(less_or_equal)
BINARY(greater)
BINARY(greater_or_equal)
BINARY(and)
BINARY(or)

void ternary_select(const float *a, const float *b, const float *x, float *y, int64_t n) {
  EACH16 vpu_store_f32(y + j, vpu_select(vpu_load_f32(a + j, c), vpu_load_f32(b + j, c),
                                         vpu_load_f32(x + j, c)), c);
}

#define INTEGER1(name)                                             \
  void integer_##name(const int64_t *x, int64_t *y, int64_t n) {   \
    for (int64_t j = 0; j < n; j++) y[j] = vpu_integer_##name(x[j]); \
  }
INTEGER1(neg)
INTEGER1(abs)
INTEGER1(sign)
INTEGER1(relu)
#define INTEGER2(name)                                                                  \
  void integer_##name(const int64_t *a, const int64_t *b, int64_t *y, int64_t n) {      \
    for (int64_t j = 0; j < n; j++) y[j] = vpu_integer_##name(a[j], b[j]);              \
  }
INTEGER2(add)
INTEGER2(sub)
INTEGER2(mul)
INTEGER2(div)
INTEGER2(min)
INTEGER2(max)
INTEGER2(equal)
INTEGER2(less)
INTEGER2(less_or_equal)
INTEGER2(greater)
INTEGER2(greater_or_equal)

#define CONVERT(name, type)                                                                        \
  void load_##name(const type *x, float *y, int64_t n) {                                           \
    EACH16 vpu_store_f32(y + j, vpu_load_##name(x + j, c), c);                                     \
  }                                                                                                \
  void store_##name(const float *x, type *y, int64_t n) {                                          \
    EACH16 vpu_store_##name(y + j, vpu_load_f32(x + j, c), c);                                     \
  }
CONVERT(bf16, uint16_t)
CONVERT(u8, uint8_t)
CONVERT(i8, int8_t)
CONVERT(i32, int32_t)
CONVERT(i64, int64_t)
CONVERT(i1, uint8_t)

void quantise_by_u8(const float *x, const float *scale, const int32_t *zero, uint8_t *y,
                    int64_t n) {
  EACH16 spu_store_u8(y + j, vpu_quantise(vpu_load_f32(x + j, c), vpu_load_f32(scale + j, c),
                                          spu_load_i32(zero + j, c), 0, 255), c);
}
void quantise_by_i8(const float *x, const float *scale, const int32_t *zero, int8_t *y,
                    int64_t n) {
  EACH16 spu_store_i8(y + j, vpu_quantise(vpu_load_f32(x + j, c), vpu_load_f32(scale + j, c),
                                          spu_load_i32(zero + j, c), -128, 127), c);
}
void quantise_run_u8(const float *x, const float *factor, uint8_t *y, int64_t n, float scale,
                     int32_t zero) {
  vpu_quantise_run(x, factor, y, n, scale, zero, 0.0f, 255.0f);
}
void quantise_run_i8(const float *x, const float *factor, int8_t *y, int64_t n, float scale,
                     int32_t zero) {
  vpu_quantise_run(x, factor, y, n, scale, zero, -128.0f, 127.0f);
}
void dequantise_by(const int32_t *x, const float *scale, const int32_t *zero, float *y, int64_t n) {
  EACH16 vpu_store_f32(y + j, vpu_dequantise(spu_load_i32(x + j, c), vpu_load_f32(scale + j, c),
                                             spu_load_i32(zero + j, c)), c);
}

#define REDUCE(name, op)                                                                           \
  float reduce_##name(const float *x, int64_t n) { return vpu_reduce_f32(x, n, op); }              \
  void strided_##name(const float *x, int64_t n, int64_t stride, float *y, int64_t width) {        \
    vpu_reduce_strided_f32(x, n, stride, y, width, op);                                            \
  }
REDUCE(sum, SPU_SUM)
REDUCE(mean, SPU_MEAN)
REDUCE(max, SPU_MAX)
REDUCE(min, SPU_MIN)
REDUCE(prod, SPU_PROD)
REDUCE(sum_square, SPU_SUM_SQUARE)
REDUCE(l1, SPU_L1)
REDUCE(l2, SPU_L2)
REDUCE(log_sum, SPU_LOG_SUM)
REDUCE(log_sum_exp, SPU_LOG_SUM_EXP)

#define EXPORT(name, parameters, arguments) \
  void test_##name parameters { name arguments; }
EXPORT(vpu_softmax_f32, (const float *x, float *y, int64_t n), (x, y, n))
EXPORT(vpu_log_softmax_f32, (const float *x, float *y, int64_t n), (x, y, n))
EXPORT(vpu_softmax_strided_f32, (const float *x, float *y, int64_t n, int64_t stride, int64_t width),
       (x, y, n, stride, width))
EXPORT(vpu_layer_norm_f32,
       (const float *x, int64_t x_stride, const float *gamma, const float *beta, float *y,
        int64_t y_stride, int64_t rows, int64_t n, float eps),
       (x, x_stride, gamma, beta, y, y_stride, rows, n, eps))
EXPORT(vpu_layer_norm_rows_f32,
       (const float *x, int64_t x_stride, const float *gamma, const float *beta, uint8_t *q,
        int64_t q_stride, float *scale, int64_t rows, int64_t n, float eps),
       (x, x_stride, gamma, beta, q, q_stride, scale, rows, n, eps))
EXPORT(vpu_rms_norm_f32, (const float *x, const float *gamma, float *y, int64_t n, float eps),
       (x, gamma, y, n, eps))
EXPORT(vpu_quantise_row_from_f32,
       (const float *x, uint8_t *q, float *scale, int64_t n, int32_t zero),
       (x, q, scale, n, zero))
EXPORT(vpu_quantise_row_f32, (const float *x, uint8_t *q, float *scale, int64_t n),
       (x, q, scale, n))
EXPORT(vpu_quantise_rows_from_f32,
       (const float *x, int64_t x_stride, uint8_t *q, int64_t q_stride, float *scale, int64_t rows,
        int64_t n, int32_t zero),
       (x, x_stride, q, q_stride, scale, rows, n, zero))
EXPORT(vpu_quantise_rows_f32,
       (const float *x, int64_t x_stride, uint8_t *q, int64_t q_stride, float *scale, int64_t rows,
        int64_t n),
       (x, x_stride, q, q_stride, scale, rows, n))
EXPORT(vpu_quantise_columns_from_f32,
       (const float *x, const float *columns, uint8_t *q, float *scale, int64_t n, int32_t zero),
       (x, columns, q, scale, n, zero))
EXPORT(vpu_quantise_columns_f32,
       (const float *x, const float *columns, uint8_t *q, float *scale, int64_t n),
       (x, columns, q, scale, n))
EXPORT(vpu_minmax_f32, (const float *x, int64_t n, float *low, float *high), (x, n, low, high))
EXPORT(vpu_dynamic_scale, (float low, float high, float *scale, int32_t *zero),
       (low, high, scale, zero))
EXPORT(vpu_quantise_u8, (const float *x, uint8_t *q, int64_t n, float inv_scale, int32_t zero),
       (x, q, n, inv_scale, zero))
EXPORT(vpu_quantise_i8, (const float *x, int8_t *q, int64_t n, float inv_scale, int32_t zero),
       (x, q, n, inv_scale, zero))

/* one image; v: x_row x_pixel y_pixel height width channels kernel(2) stride(2) dilation(2) pad(2)
 * count_include_pad rows columns y_row; columns are cut in two calls */
#define POOL(name, x_type, y_type, parameters, ...)                                                \
  void test_##name(const int64_t *v, const x_type *x, y_type *y parameters) {                      \
    const vpu_pool p = {v[0], v[1], v[2], (int32_t)v[3], (int32_t)v[4], (int32_t)v[5],             \
                        (int32_t)v[6], (int32_t)v[7], (int32_t)v[8], (int32_t)v[9],                \
                        (int32_t)v[10], (int32_t)v[11], (int32_t)v[12], (int32_t)v[13],            \
                        (int32_t)v[14]};                                                           \
    for (int64_t oh = 0; oh < v[15]; oh++) {                                                       \
      name(&p, x, y + oh * v[17], oh, 0, v[16] / 2 __VA_ARGS__);                                   \
      name(&p, x, y + oh * v[17], oh, v[16] / 2, v[16] __VA_ARGS__);                               \
    }                                                                                              \
  }
#define COMMA ,
POOL(vpu_max_pool_f32, float, float, )
POOL(vpu_max_pool_bf16, uint16_t, uint16_t, )
POOL(vpu_max_pool_u8, uint8_t, uint8_t, )
POOL(vpu_max_pool_i8, int8_t, int8_t, )
POOL(vpu_avg_pool_f32, float, float, )
POOL(vpu_avg_pool_bf16, uint16_t, uint16_t, )
POOL(vpu_avg_pool_u8, uint8_t, float, COMMA float scale COMMA int32_t zero, , scale, zero)
POOL(vpu_avg_pool_i8, int8_t, float, COMMA float scale COMMA int32_t zero, , scale, zero)

EXPORT(vpu_global_average_f32,
       (const float *x, int64_t row, int64_t pixel, int32_t h, int32_t w, int32_t c, float *y),
       (x, row, pixel, h, w, c, y))
EXPORT(vpu_global_average_bf16,
       (const uint16_t *x, int64_t row, int64_t pixel, int32_t h, int32_t w, int32_t c, uint16_t *y),
       (x, row, pixel, h, w, c, y))
EXPORT(vpu_global_average_u8,
       (const uint8_t *x, int64_t row, int64_t pixel, int32_t h, int32_t w, int32_t c, float *y,
        float scale, int32_t zero),
       (x, row, pixel, h, w, c, y, scale, zero))
EXPORT(vpu_global_average_i8,
       (const int8_t *x, int64_t row, int64_t pixel, int32_t h, int32_t w, int32_t c, float *y,
        float scale, int32_t zero),
       (x, row, pixel, h, w, c, y, scale, zero))

void test_vpu_copy_strided(const void *x, void *y, int32_t rank, const int64_t *extents,
                           const int64_t *x_strides, const int64_t *y_strides, int32_t bytes) {
  switch (bytes) {
    case 1: vpu_copy_strided(x, y, rank, extents, x_strides, y_strides, 1); break;
    case 2: vpu_copy_strided(x, y, rank, extents, x_strides, y_strides, 2); break;
    case 4: vpu_copy_strided(x, y, rank, extents, x_strides, y_strides, 4); break;
    default: vpu_copy_strided(x, y, rank, extents, x_strides, y_strides, 8); break;
  }
}
EXPORT(vpu_fill, (void *y, const void *value, int64_t count, int32_t bytes),
       (y, value, count, bytes))
int32_t test_vpu_gather_rows(const void *table, int64_t rows, int64_t row_bytes,
                             const int64_t *index, int64_t count, void *y) {
  return vpu_gather_rows(table, rows, row_bytes, index, count, y);
}
int32_t test_vpu_gather_rows_i32(const void *table, int64_t rows, int64_t row_bytes,
                                 const int32_t *index, int64_t count, void *y) {
  return vpu_gather_rows_i32(table, rows, row_bytes, index, count, y);
}
EXPORT(vpu_table_u8, (const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t n),
       (table, x, y, n))
int64_t test_vpu_argmax_f32(const float *x, int64_t n, int64_t stride, int last) {
  return vpu_argmax_f32(x, n, stride, last);
}
int64_t test_vpu_argmin_f32(const float *x, int64_t n, int64_t stride, int last) {
  return vpu_argmin_f32(x, n, stride, last);
}
EXPORT(vpu_cumsum_f32,
       (const float *x, float *y, int64_t n, int64_t stride, int exclusive, int reverse),
       (x, y, n, stride, exclusive, reverse))
EXPORT(vpu_cumsum_i32,
       (const int32_t *x, int32_t *y, int64_t n, int64_t stride, int exclusive, int reverse),
       (x, y, n, stride, exclusive, reverse))
EXPORT(vpu_cumsum_i64,
       (const int64_t *x, int64_t *y, int64_t n, int64_t stride, int exclusive, int reverse),
       (x, y, n, stride, exclusive, reverse))

EXPORT(spu_attention_f32,
       (const float *q, int64_t q_stride, const float *k, int64_t k_stride, const float *v,
        int64_t v_stride, const float *mask, int64_t mask_row, int64_t mask_col, float *out,
        int64_t out_stride, int32_t rows, int64_t keys, int32_t d, int32_t dv, float scale,
        int64_t causal_first),
       (q, q_stride, k, k_stride, v, v_stride, mask, mask_row, mask_col, out, out_stride, rows,
        keys, d, dv, scale, causal_first))
EXPORT(spu_pack_keys,
       (const float *k, int64_t stride, int64_t keys, int32_t d, uint8_t *packed, float *scale),
       (k, stride, keys, d, packed, scale))
EXPORT(spu_pack_values,
       (const float *v, int64_t stride, int64_t keys, int32_t d, int8_t *packed, float *inverse,
        float *level),
       (v, stride, keys, d, packed, inverse, level))
EXPORT(spu_attention_int8,
       (const float *q, int64_t q_stride, const uint8_t *k, const float *k_scale, const int8_t *v,
        const float *v_inverse, const float *v_level, const float *mask, int64_t mask_row,
        int64_t mask_col, float *out, int64_t out_stride, int32_t rows, int64_t keys, int32_t d,
        int32_t dv, float scale, int64_t causal_first),
       (q, q_stride, k, k_scale, v, v_inverse, v_level, mask, mask_row, mask_col, out, out_stride,
        rows, keys, d, dv, scale, causal_first))
EXPORT(spu_batch_matmul_f32,
       (const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t b_row, int64_t b_col,
        float *out, int64_t out_row, int64_t rows, int64_t cols, int64_t depth, float alpha),
       (a, a_row, a_col, b, b_row, b_col, out, out_row, rows, cols, depth, alpha))

/* images; the options are constants in programs */
int32_t test_vpu_resize_taps(const int32_t *geometry, int64_t count, int64_t most, int32_t *taps,
                             int32_t *weights, int64_t filter, int64_t antialias) {
  return vpu_resize_taps(geometry, count, most, taps, weights, (int)filter, (int)antialias);
}
int32_t test_vpu_resize_u8(const uint8_t *x, int64_t height, int64_t columns_stored, int64_t x_row,
                           const int32_t *rows, const int32_t *row_weights, int64_t row_most,
                           const int32_t *columns, const int32_t *column_weights,
                           int64_t column_most, uint8_t *y, int64_t y_row, int64_t count,
                           int64_t width, int64_t channels) {
  return vpu_resize_u8(x, height, columns_stored, x_row, rows, row_weights, row_most, columns,
                       column_weights, column_most, y, y_row, count, width, (int)channels);
}
EXPORT(vpu_table_channels_u8,
       (const uint8_t *table, const uint8_t *x, uint8_t *y, int64_t pixels, int64_t channels),
       (table, x, y, pixels, channels))
EXPORT(vpu_table_channels_f32,
       (const float *table, const uint8_t *x, float *y, int64_t pixels, int64_t channels),
       (table, x, y, pixels, channels))
EXPORT(vpu_table_f32, (const float *table, const uint8_t *x, float *y, int64_t n), (table, x, y, n))
