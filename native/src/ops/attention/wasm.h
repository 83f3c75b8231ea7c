// Scores and contexts by i32x4.dot_i16x8, sixteen columns at a time; see simd/wasm_dot.h. Exact.
#pragma once

#include <type_traits>

#include "simd/wasm_dot.h"

namespace sqb {
namespace {

struct WasmTile16 {
  static constexpr bool kFused = false;

  // Sixteen rows of sixteen pairs, `stride` int16 apart -> sixteen rows of the other way round.
  static inline void transpose_pairs(const int16_t* rows, ptrdiff_t stride, int16_t* out, ptrdiff_t out_stride) {
    for (int i = 0; i < 16; i += 4)
      for (int j = 0; j < 16; j += 4) {
        v128_t x[4], y[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) x[r] = wasm_v128_load(rows + (i + r) * stride + 2 * j);
#pragma GCC unroll 2
        for (int r = 0; r < 4; r += 2) {
          y[r] = wasm_i32x4_shuffle(x[r], x[r + 1], 0, 4, 1, 5);
          y[r + 1] = wasm_i32x4_shuffle(x[r], x[r + 1], 2, 6, 3, 7);
        }
#pragma GCC unroll 2
        for (int r = 0; r < 2; ++r) {
          wasm_v128_store(out + (j + 2 * r) * out_stride + 2 * i, wasm_i64x2_shuffle(y[r], y[r + 2], 0, 2));
          wasm_v128_store(out + (j + 2 * r + 1) * out_stride + 2 * i, wasm_i64x2_shuffle(y[r], y[r + 2], 1, 3));
        }
      }
  }

  template <int R, int V>
  static void sums16(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* out) {
    for (int v = 0; v < V; ++v) {
      const auto rows = [&](auto count, int r) {
        part<count>(a + r * a_stride, a_stride, b + 32 * v, 32 * V, steps, out + 16 * (r * V + v), 16 * V);
      };
      for (int r = 0; r + kWasmRows <= R; r += kWasmRows) rows(std::integral_constant<int, kWasmRows>(), r);
      if constexpr (R % kWasmRows != 0) rows(std::integral_constant<int, R % kWasmRows>(), R - R % kWasmRows);
    }
  }

  template <int R>
  static void part(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, ptrdiff_t b_step, int steps, int32_t* out, int width) {
    v128_t c[R][4];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) c[r][v] = wasm_i32x4_const_splat(0);
    add_products<R>(a, a_stride, b, b_step, steps, c);
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) wasm_v128_store(out + r * width + 4 * v, c[r][v]);
  }
};

}  // namespace
}  // namespace sqb
