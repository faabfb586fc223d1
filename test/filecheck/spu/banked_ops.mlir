// RUN: spu-opt %s | spu-opt | filecheck %s

// The attributes of the dialect, by themselves.
"test.op"() {
  weights = #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<768x768xi8>>,
  balanced = #spu.banked<bank = 64, slots = 4, share = 2>,
  two_banks = #spu.banked<bank = 64, slots = 2, share = 1>,
  lossless = #spu.banked<bank = 32, slots = 0, share = 1>,
  activation = #spu.activation silu
} : () -> ()
// CHECK: weights = #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<768x768xi8>>
// CHECK-SAME: balanced = #spu.banked<bank = 64, slots = 4, share = 2>
// CHECK-SAME: two_banks = #spu.banked<bank = 64, slots = 2, share = 1>
// CHECK-SAME: lossless = #spu.banked<bank = 32, slots = 0, share = 1>
// CHECK-SAME: activation = #spu<activation silu>
