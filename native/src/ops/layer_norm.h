// Residual and LayerNorm of one row, fp32:
//     s = x + residual (residual may be null);  mean = sum(s) / C;  var = sum((s - mean)^2) / C
//     y = fma((s - mean) * (1 / sqrt(var + eps)), weight, bias)
// Sums run over sixteen partial sums; a row's tail counts as zeros. y may be x.
// Error: a few units in the last place of the largest |s|.
#pragma once

#include <cstddef>

namespace sqb {

struct LayerNormCall {
  const float* x;
  ptrdiff_t x_stride;
  const float* residual;
  ptrdiff_t residual_stride;
  const float* weight;
  const float* bias;
  float eps;
  int rows;
  int channels;
  float* y;
  ptrdiff_t y_stride;
};
using LayerNormFn = void(const LayerNormCall& call);

}  // namespace sqb
