// The formula of ops/layer_norm.h on sixteen floats: three passes over a row that stays in L1.
#pragma once

#include "ops/layer_norm.h"
#include "simd/f32x16.h"

namespace sqb {
namespace {

inline void layer_norm_rows(const LayerNormCall& call) {
  const int n = call.channels, whole = n / 16 * 16, tail = n - whole;
  for (int r = 0; r < call.rows; ++r) {
    const float* x = call.x + r * call.x_stride;
    const float* residual = call.residual ? call.residual + r * call.residual_stride : nullptr;
    float* y = call.y + r * call.y_stride;
    F32x16 total = set1(0.0f);
    for (int i = 0; i < whole; i += 16) {
      F32x16 s = load(x + i);
      if (residual) s = s + load(residual + i);
      total = total + s;
      store(y + i, s);
    }
    if (tail) {
      F32x16 s = load_first(x + whole, tail);
      if (residual) s = s + load_first(residual + whole, tail);
      total = total + s;
      store_first(y + whole, s, tail);
    }
    const F32x16 mean = set1(sum(total) / static_cast<float>(n));
    F32x16 squares = set1(0.0f);
    for (int i = 0; i < whole; i += 16) {
      const F32x16 d = load(y + i) - mean;
      squares = fma(d, d, squares);
    }
    if (tail) {
      const F32x16 d = fill_beyond(load_first(y + whole, tail) - mean, tail, 0.0f);
      squares = fma(d, d, squares);
    }
    const F32x16 factor = set1(1.0f / std::sqrt(sum(squares) / static_cast<float>(n) + call.eps));
    for (int i = 0; i < whole; i += 16)
      store(y + i, fma((load(y + i) - mean) * factor, load(call.weight + i), load(call.bias + i)));
    if (tail)
      store_first(y + whole,
                  fma((load_first(y + whole, tail) - mean) * factor, load_first(call.weight + whole, tail),
                      load_first(call.bias + whole, tail)),
                  tail);
  }
}

}  // namespace
}  // namespace sqb
