// RUN: spu-opt %s -p quantise,cse,dce,fold-qdq,cse,dce,memory -t c | filecheck %s

// CHECK:      /* spu-ir {{.*}}: generated, do not edit.
// CHECK:      #include "spu_device.h"
// CHECK:      int64_t spu_arena_bytes(const int64_t *extents) {
// CHECK:      void spu_output_shape(int32_t output, const int64_t *extents, int64_t *shape) {
// CHECK:          shape[0] = v0;
// CHECK-NEXT:     shape[1] = 16;
// CHECK:      static __attribute__((noinline)) void kernel0(const spu_tile *tile) {
// CHECK-NEXT:   spu_tile_run(tile, SPU_I8, SPU_DENSE, 1,
// CHECK-NEXT:                SPU_SCALE | SPU_ROW_SCALE, SPU_RES_NONE,
// CHECK-NEXT:                SPU_ACT_RELU, SPU_OUT_F32);
// CHECK:      static void region0(void *frame_, int64_t index) {
// CHECK:        vpu_quantise_rows_f32(
// CHECK:      static void region1(void *frame_, int64_t index) {
// CHECK:        kernel0(&(const spu_tile){
// CHECK:      int32_t spu_run(const spu_context *context, const int64_t *extents,
// CHECK:        if (extents[0] < 1 || extents[0] > 8) return SPU_BAD_EXTENT;
// CHECK:        context->parallel(context->pool, region0, &frame,
// CHECK:        context->parallel(context->pool, region1, &frame,
// CHECK:        return status;
func.func @main(%x: tensor<?x96xf32> {onnx.name = "x", onnx.dim_params = "0:batch"}) -> (tensor<?x16xf32> {onnx.name = "y"}) attributes {spu.extents = {batch = [1, 8]}} {
  %c0 = arith.constant 0 : index
  %b = tensor.dim %x, %c0 : tensor<?x96xf32>
  %w = antoum.constant dense<1.0> : tensor<16x96xf32> : tensor<16x96xf32>
  %e = tensor.empty(%b) : tensor<?x16xf32>
  %y = spu.matmul %x, %w into %e {activation = #spu.activation relu} : tensor<?x96xf32>, tensor<16x96xf32>, tensor<?x16xf32> -> tensor<?x16xf32>
  func.return %y : tensor<?x16xf32>
}
