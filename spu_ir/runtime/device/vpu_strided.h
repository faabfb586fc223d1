/*
 * Loads and stores of up to 16 lanes that lie `stride` elements apart; stride 0 repeats one.
 */
#ifndef SPU_VPU_STRIDED_H
#define SPU_VPU_STRIDED_H

#include "vpu_pointwise.h"

#define VPU_STRIDED(name, type, vector, load)                                              \
  SPU_INLINE vector name(const type *p, int64_t stride, int64_t count) {                   \
    if (stride == 1) return load(p, count);                                                \
    type lanes[16] = {0};                                                                  \
    for (int64_t i = 0; i < count; i++)                                                    \
      lanes[i] = p[i * stride];                                                            \
    return load(lanes, 16);                                                                \
  }
VPU_STRIDED(vpu_read_f32, float, f32x16, vpu_load_f32)
VPU_STRIDED(vpu_read_bf16, uint16_t, f32x16, vpu_load_bf16)
VPU_STRIDED(vpu_read_u8, uint8_t, f32x16, vpu_load_u8)
VPU_STRIDED(vpu_read_i8, int8_t, f32x16, vpu_load_i8)
VPU_STRIDED(vpu_read_i32, int32_t, f32x16, vpu_load_i32)
VPU_STRIDED(vpu_read_i64, int64_t, f32x16, vpu_load_i64)
VPU_STRIDED(vpu_read_i1, uint8_t, f32x16, vpu_load_i1)
VPU_STRIDED(vpu_read_int_u8, uint8_t, i32x16, spu_load_u8)
VPU_STRIDED(vpu_read_int_i8, int8_t, i32x16, spu_load_i8)
VPU_STRIDED(vpu_read_int_i32, int32_t, i32x16, spu_load_i32)

#define VPU_STRIDED_STORE(name, type, vector, store)                                       \
  SPU_INLINE void name(type *p, int64_t stride, vector v, int64_t count) {                 \
    if (stride == 1) {                                                                     \
      store(p, v, count);                                                                  \
      return;                                                                              \
    }                                                                                      \
    type lanes[16];                                                                        \
    store(lanes, v, 16);                                                                   \
    for (int64_t i = 0; i < count; i++)                                                    \
      p[i * stride] = lanes[i];                                                            \
  }
VPU_STRIDED_STORE(vpu_write_f32, float, f32x16, vpu_store_f32)
VPU_STRIDED_STORE(vpu_write_bf16, uint16_t, f32x16, vpu_store_bf16)
VPU_STRIDED_STORE(vpu_write_u8, uint8_t, f32x16, vpu_store_u8)
VPU_STRIDED_STORE(vpu_write_i8, int8_t, f32x16, vpu_store_i8)
VPU_STRIDED_STORE(vpu_write_i32, int32_t, f32x16, vpu_store_i32)
VPU_STRIDED_STORE(vpu_write_i64, int64_t, f32x16, vpu_store_i64)
VPU_STRIDED_STORE(vpu_write_i1, uint8_t, f32x16, vpu_store_i1)
VPU_STRIDED_STORE(vpu_write_low_u8, uint8_t, i32x16, spu_store_u8)
VPU_STRIDED_STORE(vpu_write_low_i8, int8_t, i32x16, spu_store_i8)

#endif
