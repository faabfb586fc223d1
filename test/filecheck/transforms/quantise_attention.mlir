// RUN: spu-opt %s -p quantise-attention | filecheck %s
// RUN: not spu-opt %s -p "quantise-attention{mode=int4}" 2>&1 | filecheck %s --check-prefix MODE
// MODE: quantise-attention has no mode 'int4'; it is one of auto, int8
// RUN: spu-opt %s -p "quantise-attention,bufferise,plan-memory,tile,canonicalize" | filecheck %s --check-prefix TILED

// Blocks of 64 keys are counted at run time.
// CHECK-LABEL: @main
// CHECK:         %[[BLOCKS:.*]] = arith.ceildivui %seq, %{{.*}} : index
// CHECK:         %[[K:.*]] = tensor.empty(%batch, %[[BLOCKS]]) : tensor<?x2x?x8x64x4xui8>
// CHECK:         %[[KS:.*]] = tensor.empty(%batch, %[[BLOCKS]]) : tensor<?x2x?x64xf32>
// CHECK:         spu.pack_keys %k into %[[K]], %[[KS]] {layer = "self"}
// CHECK:         spu.pack_values %v into {{.*}} -> tensor<?x2x?x16x32x4xi8>, tensor<?x2x2x?x64xf32>
// CHECK:         spu.packed_attention %q, {{.*}} mask(%mask : tensor<?x1x1x?xf32>) into {{.*}} {layer = "self", heads = 4 : i64, scale = 2.500000e-01 : f32}
// CHECK-NOT:     spu.attention

// TILED: scf.parallel
// TILED: spu.pack_keys {{.*}} : memref<1x?x32xf32, {{.*}}>, memref<1x1x?x8x64x4xui8, {{.*}}>, memref<1x1x?x64xf32, {{.*}}>
// TILED: scf.parallel
// TILED: spu.pack_values
// TILED: scf.parallel
// TILED: spu.packed_attention {{.*}} {layer = "self", heads = 1 : i64

func.func @main(%q: tensor<?x?x128xf32> {onnx.name = "q", onnx.dim_params = "0:batch,1:seq"}, %k: tensor<?x?x64xf32> {onnx.name = "k", onnx.dim_params = "0:batch,1:seq"}, %v: tensor<?x?x64xf32> {onnx.name = "v", onnx.dim_params = "0:batch,1:seq"}, %mask: tensor<?x1x1x?xf32> {onnx.name = "mask", onnx.dim_params = "0:batch,3:seq"}) -> (tensor<?x?x128xf32> {onnx.name = "y"}) attributes {spu.extents = {batch = [1, 2], seq = [1, 100]}} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %batch = tensor.dim %q, %c0 : tensor<?x?x128xf32>
  %seq = tensor.dim %q, %c1 : tensor<?x?x128xf32>
  %init = tensor.empty(%batch, %seq) : tensor<?x?x128xf32>
  %y = spu.attention %q, %k, %v mask(%mask : tensor<?x1x1x?xf32>) into %init {heads = 4 : i64, kv_heads = 2 : i64, scale = 0.25 : f32, layer = "self"} : tensor<?x?x128xf32>, tensor<?x?x64xf32>, tensor<?x?x64xf32>, tensor<?x?x128xf32> -> tensor<?x?x128xf32>
  func.return %y : tensor<?x?x128xf32>
}
