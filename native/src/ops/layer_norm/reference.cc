// The formula of ops/layer_norm.h, one value at a time.
#include "ops/reference.h"
#include "ops/reference_math.h"

namespace sqb::reference {

void layer_norm(const LayerNormCall& call) {
  const int n = call.channels;
  for (int r = 0; r < call.rows; ++r) {
    const float* x = call.x + r * call.x_stride;
    float* y = call.y + r * call.y_stride;
    LaneSum total;
    for (int i = 0; i < n; ++i) {
      y[i] = call.residual ? x[i] + call.residual[r * call.residual_stride + i] : x[i];
      total.lane[i % 16] += y[i];
    }
    const float mean = total.total() / static_cast<float>(n);
    LaneSum squares;
    for (int i = 0; i < n; ++i) squares.lane[i % 16] = mul_add(y[i] - mean, y[i] - mean, squares.lane[i % 16]);
    const float factor = 1.0f / std::sqrt(squares.total() / static_cast<float>(n) + call.eps);
    for (int i = 0; i < n; ++i) y[i] = mul_add((y[i] - mean) * factor, call.weight[i], call.bias[i]);
  }
}

}  // namespace sqb::reference
