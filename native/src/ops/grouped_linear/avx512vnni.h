// vpdpbusd on 512 bits: sixteen int32 sums of four products, unsigned weights (w + 128) by signed activations.
// Six rows by four vectors keep 24 sums, 4 weights and 1 activation in the 32 registers; two instructions a cycle need
// 8 to 10 sums in flight. Exact.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sqb {
namespace {

struct Avx512VnniTile {
  static constexpr int rows(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }

  // Sums end in registers: what follows them is fused into the tile (see driver.h).
  static constexpr bool kFused = true;
  using Sums = __m512i;

  template <int R, int V>
  [[gnu::always_inline]] static inline void accumulate(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps,
                                                       Sums (&c)[R][V]) {
#pragma GCC unroll 2
    for (int k = 0; k < steps; ++k) {
      __m512i w[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) w[v] = _mm512_loadu_si512(b + 64 * v);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        int32_t four;
        std::memcpy(&four, a + r * a_stride, 4);
        const __m512i x = _mm512_set1_epi32(four);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) c[r][v] = _mm512_dpbusd_epi32(c[r][v], w[v], x);
      }
      a += 4;
      b += 64 * V;
    }
  }
  static inline Sums splat(int32_t x) { return _mm512_set1_epi32(x); }
  static inline Sums load_sums(const int32_t* p) { return _mm512_loadu_si512(p); }
  static inline __m512 to_float(Sums x) { return _mm512_cvtepi32_ps(x); }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    Sums c[R][V];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) c[r][v] = full ? load_sums(start + (r * V + v) * 16) : splat(start[r]);
    accumulate<R, V>(a, a_stride, b, steps, c);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) _mm512_storeu_si512(out + (r * V + v) * 16, c[r][v]);
  }
};

}  // namespace
}  // namespace sqb
