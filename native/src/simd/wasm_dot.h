// The product that WebAssembly's kernels without relaxed instructions are made of: int16 pairs by i32x4.dot_i16x8.
#pragma once

#include <wasm_simd128.h>

#include <cstddef>
#include <cstdint>

namespace sqb {
namespace {

// Two rows by sixteen columns: eight vectors of sums and the operands of the next products fit into the fifteen registers
// that V8 has on x86. With three rows it keeps some in memory, and takes 1.3 times as long.
constexpr int kWasmRows = 2;

// c[r] += `pairs` pairs at a + r * a_stride times those of sixteen columns, which lie b_step int16 apart.
template <int R>
inline void add_products(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, ptrdiff_t b_step, int pairs, v128_t (&c)[R][4]) {
  static_assert(R <= kWasmRows, "more sums than registers");
  for (int k = 0; k < pairs; ++k) {
    v128_t x[R];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) x[r] = wasm_v128_load32_splat(a + r * a_stride);
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const v128_t w = wasm_v128_load(b + 8 * v);
#pragma GCC unroll 2
      for (int r = 0; r < R; ++r) c[r][v] = wasm_i32x4_add(c[r][v], wasm_i32x4_dot_i16x8(w, x[r]));
    }
    a += 2;
    b += b_step;
  }
}

}  // namespace
}  // namespace sqb
