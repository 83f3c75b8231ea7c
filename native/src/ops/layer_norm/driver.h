// The formula of ops/layer_norm.h on sixteen floats: three passes over rows that stay in L1, four rows at a time, since
// one row's sums wait for one another.
#pragma once

#include "ops/layer_norm.h"
#include "simd/f32x16.h"

namespace sqb {
namespace {

template <int R>
inline void layer_norm_rows_of(const LayerNormCall& call, int row) {
  const int n = call.channels, whole = n / 16 * 16, tail = n - whole;
  const float* x = call.x + row * call.x_stride;
  const float* residual = call.residual ? call.residual + row * call.residual_stride : nullptr;
  float* y = call.y + row * call.y_stride;
  F32x16 total[R], squares[R], mean[R], factor[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) total[r] = squares[r] = set1(0.0f);
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      F32x16 s = load(x + r * call.x_stride + i);
      if (residual) s = s + load(residual + r * call.residual_stride + i);
      total[r] = total[r] + s;
      store(y + r * call.y_stride + i, s);
    }
  if (tail)
    for (int r = 0; r < R; ++r) {
      F32x16 s = load_first(x + r * call.x_stride + whole, tail);
      if (residual) s = s + load_first(residual + r * call.residual_stride + whole, tail);
      total[r] = total[r] + s;
      store_first(y + r * call.y_stride + whole, s, tail);
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) mean[r] = set1(sum(total[r]) / static_cast<float>(n));
  for (int i = 0; i < whole; i += 16)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const F32x16 d = load(y + r * call.y_stride + i) - mean[r];
      squares[r] = fma(d, d, squares[r]);
    }
  if (tail)
    for (int r = 0; r < R; ++r) {
      const F32x16 d = fill_beyond(load_first(y + r * call.y_stride + whole, tail) - mean[r], tail, 0.0f);
      squares[r] = fma(d, d, squares[r]);
    }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
    factor[r] = set1(1.0f / std::sqrt(sum(squares[r]) / static_cast<float>(n) + call.eps));
  for (int i = 0; i < whole; i += 16) {
    const F32x16 weight = load(call.weight + i), bias = load(call.bias + i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      float* at = y + r * call.y_stride + i;
      store(at, fma((load(at) - mean[r]) * factor[r], weight, bias));
    }
  }
  if (tail) {
    const F32x16 weight = load_first(call.weight + whole, tail), bias = load_first(call.bias + whole, tail);
    for (int r = 0; r < R; ++r) {
      float* at = y + r * call.y_stride + whole;
      store_first(at, fma((load_first(at, tail) - mean[r]) * factor[r], weight, bias), tail);
    }
  }
}

inline void layer_norm_rows(const LayerNormCall& call) {
  int row = 0;
  for (; row + 4 <= call.rows; row += 4) layer_norm_rows_of<4>(call, row);
  for (; row < call.rows; ++row) layer_norm_rows_of<1>(call, row);
}

}  // namespace
}  // namespace sqb
