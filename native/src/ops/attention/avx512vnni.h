// vpdpwssd on 512 bits: sixteen int32 sums of two products of int16. Exact.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sqb {
namespace {

struct Avx512VnniTile16 {
  template <int R, int V>
  static void sums16(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* out) {
    __m512i c[R][V];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) c[r][v] = _mm512_setzero_si512();
    for (int k = 0; k < steps; ++k) {
      __m512i w[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) w[v] = _mm512_loadu_si512(b + 32 * v);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        int32_t two;
        std::memcpy(&two, a + r * a_stride, 4);
        const __m512i x = _mm512_set1_epi32(two);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) c[r][v] = _mm512_dpwssd_epi32(c[r][v], w[v], x);
      }
      a += 2;
      b += 32 * V;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) _mm512_storeu_si512(out + (r * V + v) * 16, c[r][v]);
  }
};

}  // namespace
}  // namespace sqb
