// WebAssembly without relaxed instructions: weights and activations widened to int16, i32x4.dot_i16x8 and an addition.
// Activations are widened once for all output channels of a panel; weights as they are read. Each sum has two halves, of
// channels k, k + 1 and k + 2, k + 3, joined at the end. Three rows by eight output channels, twelve vectors of sums,
// leave four of x86's sixteen registers for the rest. Exact.
#pragma once

#include <wasm_simd128.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

struct WasmTile {
  static constexpr bool kFused = false;
  static constexpr int kSteps = 256;  // of four channels, widened at a time: 6 KB, which stay in L1
  static constexpr int rows(int) { return 3; }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    alignas(16) int16_t x[R * kSteps * 4];
    for (int first = 0; first < steps; first += kSteps) {
      const int now = steps - first < kSteps ? steps - first : kSteps;
      // Rows of `a` are padded to sixteen channels, so whole groups of eight may be read.
      for (int r = 0; r < R; ++r)
        for (int k = 0; k < 4 * now; k += 8)
          wasm_v128_store(x + r * kSteps * 4 + k, wasm_i16x8_load8x8(a + r * a_stride + 4 * first + k));
      for (int column = 0; column < 16 * V; column += 8)
        part<R>(x, b + static_cast<ptrdiff_t>(first) * 64 * V + 4 * column, 64 * V, now, first == 0 ? start : out,
                full || first > 0, out, column, 16 * V);
    }
  }

  template <int R>
  static void part(const int16_t* x, const uint8_t* b, ptrdiff_t b_step, int steps, const int32_t* start, bool full,
                   int32_t* out, int column, int width) {
    v128_t c[R][4];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) c[r][v] = wasm_i32x4_const_splat(0);
    for (int k = 0; k < steps; ++k) {
      v128_t four[R];
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) four[r] = wasm_v128_load64_splat(x + r * kSteps * 4);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const v128_t w = wasm_i16x8_load8x8(b + 8 * v);
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) c[r][v] = wasm_i32x4_add(c[r][v], wasm_i32x4_dot_i16x8(w, four[r]));
      }
      x += 4;
      b += b_step;
    }
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < 4; v += 2) {
        const v128_t sum = wasm_i32x4_add(wasm_i32x4_shuffle(c[r][v], c[r][v + 1], 0, 2, 4, 6),
                                          wasm_i32x4_shuffle(c[r][v], c[r][v + 1], 1, 3, 5, 7));
        const int at = r * width + column + 2 * v;
        wasm_v128_store(out + at, wasm_i32x4_add(sum, full ? wasm_v128_load(start + at) : wasm_i32x4_splat(start[r])));
      }
  }
};

}  // namespace
}  // namespace sqb
