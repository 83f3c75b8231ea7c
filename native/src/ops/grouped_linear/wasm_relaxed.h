// i32x4.relaxed_dot_i8x16_i7x16_add: four int32 sums of four products of bytes, in one instruction where the processor has
// one. The specification leaves open what a second operand outside 0..127 means: unsigned (x86 with VNNI, vpdpbusd), signed
// (ARM, sdot), or sums that saturate (other x86, vpmaddubsw). The first two are exact: weights are stored with 128 added
// for the one, as they are for the other. isa/wasm_relaxed.cc asks which holds before any of this is used.
// Six rows by eight output channels. Exact.
#pragma once

#include <wasm_simd128.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

struct WasmRelaxedTile {
  static constexpr bool kFused = false;
  static constexpr int rows(int) { return 6; }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    for (int column = 0; column < 16 * V; column += 8)
      part<R>(a, a_stride, b + 4 * column, 64 * V, steps, start, full, out, column, 16 * V);
  }

  template <int R>
  static void part(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_step, int steps, const int32_t* start,
                   bool full, int32_t* out, int column, int width) {
    v128_t c[R][2];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v)
        c[r][v] = full ? wasm_v128_load(start + r * width + column + 4 * v) : wasm_i32x4_splat(start[r]);
    for (int k = 0; k < steps; ++k) {
      const v128_t w0 = wasm_v128_load(b), w1 = wasm_v128_load(b + 16);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const v128_t x = wasm_v128_load32_splat(a + r * a_stride);
        c[r][0] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, w0, c[r][0]);
        c[r][1] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, w1, c[r][1]);
      }
      a += 4;
      b += b_step;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) wasm_v128_store(out + r * width + column + 4 * v, c[r][v]);
  }
};

}  // namespace
}  // namespace sqb
