/*
 * What happens to an accumulator before it is stored, in this order and in float32 without fused
 * operations: scale, row scale, bias, residual, activation, store. Every argument but the tile
 * and the accumulators is a literal at the call.
 */
#ifndef SPU_EPILOGUE_H
#define SPU_EPILOGUE_H

#include "sfu.h"
#include "spu_tile.h"

SPU_INLINE f32x16 spu_activate(f32x16 v, int activation) {
  switch (activation) {
    case SPU_ACT_RELU: return spu_relu(v);
    case SPU_ACT_GELU: return spu_gelu(v);
    case SPU_ACT_GELU_TANH: return spu_gelu_tanh(v);
    case SPU_ACT_TANH: return spu_tanh(v);
    case SPU_ACT_SIGMOID: return spu_sigmoid(v);
    case SPU_ACT_SILU: return spu_silu(v);
    case SPU_ACT_SFU_GELU: return spu_sfu_gelu(v);
    case SPU_ACT_SFU_GELU_TANH: return spu_sfu_gelu_tanh(v);
    case SPU_ACT_SFU_SILU: return spu_sfu_silu(v);
    case SPU_ACT_SFU_SIGMOID: return spu_sfu_sigmoid(v);
    default: return v;
  }
}

/* the residual of lanes 16j.. of a row */
SPU_INLINE f32x16 spu_residual(const spu_tile *t, const uint8_t *row, int j, int64_t count,
                               int residual) {
  switch (residual) {
    case SPU_RES_F32: return spu_load_f32((const float *)(const void *)row + 16 * j, count);
    case SPU_RES_BF16: return spu_load_bf16(row + 32 * j, count);
    case SPU_RES_U8:
      return spu_dequantise(spu_load_u8(row + 16 * j, count), t->residual_scale,
                            t->residual_zero);
    default:
      return spu_dequantise(spu_load_i8((const int8_t *)row + 16 * j, count), t->residual_scale,
                            t->residual_zero);
  }
}

SPU_INLINE void spu_store_output(const spu_tile *t, uint8_t *row, int j, f32x16 v, int64_t count,
                                 int out) {
  switch (out) {
    case SPU_OUT_F32: spu_store_f32((float *)(void *)row + 16 * j, v, count); break;
    case SPU_OUT_BF16: spu_store_bf16(row + 32 * j, v, count); break;
    case SPU_OUT_U8:
      spu_store_u8(row + 16 * j, spu_quantise_u8(v, t->out_inv_scale, t->out_zero), count);
      break;
    default:
      spu_store_i8((int8_t *)row + 16 * j, spu_quantise_i8(v, t->out_inv_scale, t->out_zero),
                   count);
  }
}

/* `count` lanes from 16 * j on of row m, whose sums are integers or, as `type` says, floats */
SPU_INLINE void spu_epilogue_row(const spu_tile *t, i32x16 sum, f32x16 scale, f32x16 bias,
                                 int32_t m, int j, int64_t count, int type, int epilogue,
                                 int residual, int activation, int out) {
  uint8_t *to = (uint8_t *)t->out + m * t->out_stride;
  if (out == SPU_OUT_I32) {
    spu_store_i32((int32_t *)(void *)to + 16 * j, sum, count);
    return;
  }
  f32x16 v = type == SPU_I8 ? spu_to_f32(sum) : (f32x16)sum;
  if (epilogue & SPU_SCALE) v = v * scale;
  if (epilogue & SPU_ROW_SCALE) v = v * spu_splat(t->row_scale[m]);
  if (epilogue & SPU_BIAS) v = v + bias;
  if (residual != SPU_RES_NONE)
    v = v + spu_residual(t, (const uint8_t *)t->residual + m * t->residual_stride, j, count,
                         residual);
  spu_store_output(t, to, j, spu_activate(v, activation), count, out);
}

/* acc is [rows][share][16]: int32 when type is SPU_I8, else float */
SPU_INLINE void spu_epilogue(const spu_tile *tile, const int32_t *acc, int type, int share,
                             int epilogue, int residual, int activation, int out) {
  /* a copy that no store can reach, so that what it holds stays in registers */
  const spu_tile t = *tile;
  SPU_UNROLL
  for (int j = 0; j < share; j++) {
    if (16 * j >= t.lanes) return;
    const int64_t count = t.lanes - 16 * j < 16 ? t.lanes - 16 * j : 16;
    f32x16 scale = {0}, bias = {0};
    if (epilogue & SPU_SCALE) scale = spu_load_f32(t.scale + 16 * j, count);
    if (epilogue & SPU_BIAS) bias = spu_load_f32(t.bias + 16 * j, count);
    for (int32_t m = 0; m < t.rows; m++) {
      const i32x16 sum = spu_load_i32(acc + 16 * ((int64_t)m * share + j), 16);
      spu_epilogue_row(&t, sum, scale, bias, m, j, count, type, epilogue, residual, activation,
                       out);
    }
  }
}

#endif
