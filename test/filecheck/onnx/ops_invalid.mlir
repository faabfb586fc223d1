// RUN: spu-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Add"(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: onnx.Add: expected 2 operands (A, B), got 1

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Clip"(%x, %x, %x, %x) : (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
// CHECK: onnx.Clip: expected 1 to 3 operands (input, min, max), got 4

// -----
%none = "onnx.NoValue"() : () -> none
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Add"(%x, %none) {onnx_node_name = "sum"} : (tensor<4xf32>, none) -> tensor<4xf32>
// CHECK: onnx.Add 'sum': operand B is required, it cannot be onnx.NoValue

// -----
%x, %y = "test.op"() : () -> (tensor<4xf32>, tensor<4xi64>)
%0 = "onnx.Add"(%x, %y) : (tensor<4xf32>, tensor<4xi64>) -> tensor<4xf32>
// CHECK: onnx.Add: operand B must be tensor(float) as the other values of type T, got tensor(int64)

// -----
%x = "test.op"() : () -> tensor<4xi1>
%0 = "onnx.Relu"(%x) : (tensor<4xi1>) -> tensor<4xi1>
// CHECK: onnx.Relu: operand X must be one of tensor(bfloat16), tensor(double), tensor(float), {{.*}}, got tensor<4xi1>

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Relu"(%x) : (tensor<4xf32>) -> tensor<4xf64>
// CHECK: onnx.Relu: result Y must be tensor(float) as the other values of type T, got tensor(double)

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Softmax"(%x) {axes = 1 : i64} : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: onnx.Softmax: unknown attribute axes, the operator has: axis

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Softmax"(%x) {axis = 1.0 : f32} : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: onnx.Softmax: attribute axis must be an i64 integer, got 1.000000e+00 : f32

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Transpose"(%x) {perm = 0 : i64} : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: onnx.Transpose: attribute perm must be a list of i64 integers, array<i64: ...>, got 0 : i64

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Concat"(%x, %x) : (tensor<4xf32>, tensor<4xf32>) -> tensor<8xf32>
// CHECK: onnx.Concat: attribute axis is required

// -----
%0 = "onnx.Constant"() {value = "text"} : () -> tensor<1xf32>
// CHECK: onnx.Constant: attribute value must be a tensor, #spu.weights<...> or dense<...>, got "text"

// -----
%0 = "onnx.Constant"() {value = dense<1> : tensor<2xi64>} : () -> tensor<2xi32>
// CHECK: onnx.Constant: the result must have the type of the value, tensor<2xi64>, got tensor<2xi32>

// -----
%c = "test.op"() : () -> tensor<i1>
%0 = "onnx.If"(%c) ({
  "onnx.Yield"(%c) : (tensor<i1>) -> ()
}) : (tensor<i1>) -> tensor<i1>
// CHECK: onnx.If: expected 2 regions (then_branch, else_branch), got 1

// -----
%x = "test.op"() : () -> tensor<4xf32>
%0 = "onnx.Rleu"(%x) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: Operation onnx.Rleu is not registered
