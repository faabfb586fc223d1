// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

"test.op"() {weights = #spu.weights<"sha256:0123", tensor<8xi8>>} : () -> ()
// CHECK: digest must be "sha256:" and 64 hexadecimal digits, got "sha256:0123"

// -----
"test.op"() {weights = #spu.weights<"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", tensor<?x8xi8>>} : () -> ()
// CHECK: weights need a static shape, got tensor<?x8xi8>

// -----
"test.op"() {encoding = #spu.banked<bank = 16, slots = 4, share = 1>} : () -> ()
// CHECK: bank must be 64 (i8) or 32 (bf16) elements, which are 64 bytes, got 16

// -----
"test.op"() {encoding = #spu.banked<bank = 64, slots = 5, share = 1>} : () -> ()
// CHECK: slots must be 0 (ragged) or a power of two up to 32, got 5

// -----
"test.op"() {encoding = #spu.banked<bank = 32, slots = 32, share = 1>} : () -> ()
// CHECK: slots must be 0 (ragged) or a power of two up to 16, got 32

// -----
"test.op"() {encoding = #spu.banked<bank = 64, slots = 4, share = 3>} : () -> ()
// CHECK: share must be 1, 2 or 4 lane groups, got 3

// -----
"test.op"() {encoding = #spu.banked<slots = 4, bank = 64, share = 1>} : () -> ()
// CHECK: Expected 'bank'
