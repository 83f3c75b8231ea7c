// WebAssembly without relaxed instructions: i32x4.dot_i16x8 on int16, four int32 sums of two products, and an addition; see
// simd/wasm_dot.h. Activations come widened from memory; weights are widened by the first tile, which leaves them for the
// others; see widening.h. Exact.
#pragma once

#include <type_traits>

#include "simd/wasm_dot.h"

namespace sqb {
namespace {

struct WasmTile {
  static constexpr int kRows = 12;

  // Int8 to int16. count: a multiple of 4; `x` may be read up to the next multiple of 16, and `out` is written as far.
  static void widen(const int8_t* x, int count, int16_t* out) {
    for (int i = 0; i < count; i += 8) wasm_v128_store(out + i, wasm_i16x8_load8x8(x + i));
  }

  // b: packed weights, b_step bytes from four channels to the next, to be left in `wide` as
  // [steps][channels 0, 1 | 2, 3][16][2] int16; unless `packed`, they are there.
  template <int R, bool packed, bool keep>
  static void sums(const int16_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_step, uint8_t* wide, int steps,
                   const int32_t* start, bool full, int32_t* out) {
    auto* weights = reinterpret_cast<int16_t*>(wide);
    if constexpr (packed)
      for (int k = 0; k < steps; ++k)
        for (int c = 0; c < 16; c += 4) {
          const v128_t x = wasm_i16x8_load8x8(b + k * b_step + 4 * c), y = wasm_i16x8_load8x8(b + k * b_step + 4 * c + 8);
          wasm_v128_store(weights + 64 * k + 2 * c, wasm_i32x4_shuffle(x, y, 0, 2, 4, 6));
          wasm_v128_store(weights + 64 * k + 32 + 2 * c, wasm_i32x4_shuffle(x, y, 1, 3, 5, 7));
        }
    const auto rows = [&](auto count, int r) {
      part<count>(a + r * a_stride, a_stride, weights, 2 * steps, start + (full ? 16 * r : r), full, out + 16 * r);
    };
    for (int r = 0; r + kWasmRows <= R; r += kWasmRows) rows(std::integral_constant<int, kWasmRows>(), r);
    if constexpr (R % kWasmRows != 0) rows(std::integral_constant<int, R % kWasmRows>(), R - R % kWasmRows);
  }

  template <int R>
  static void part(const int16_t* a, ptrdiff_t a_stride, const int16_t* weights, int pairs, const int32_t* start, bool full,
                   int32_t* out) {
    v128_t c[R][4];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) c[r][v] = full ? wasm_v128_load(start + 16 * r + 4 * v) : wasm_i32x4_splat(start[r]);
    add_products<R>(a, a_stride, weights, 32, pairs, c);
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) wasm_v128_store(out + 16 * r + 4 * v, c[r][v]);
  }
};

}  // namespace
}  // namespace sqb
