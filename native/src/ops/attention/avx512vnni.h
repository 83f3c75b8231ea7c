// vpdpwssd on 512 bits: sixteen int32 sums of two products of int16. Exact.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sqb {
namespace {

struct Avx512VnniTile16 {
  static constexpr bool kFused = true;
  using Sums = __m512i;

  template <int R, int V>
  [[gnu::always_inline]] static inline void accumulate(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps,
                                                       Sums (&c)[R][V]) {
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
      for (int v = 0; v < V; ++v) asm volatile("" : "+v"(c[r][v]) : : "memory");
  }
  static inline __m512 to_float(Sums x) { return _mm512_cvtepi32_ps(x); }

  template <int R, int V>
  static void sums16(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* out) {
    Sums c[R][V];
    accumulate<R, V>(a, a_stride, b, steps, c);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) _mm512_storeu_si512(out + (r * V + v) * 16, c[r][v]);
  }

  // Sixteen rows of sixteen pairs, `stride` int16 apart -> sixteen rows of the other way round.
  static inline void transpose_pairs(const int16_t* rows, ptrdiff_t stride, int16_t* out, ptrdiff_t out_stride) {
    __m512i x[16], y[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) x[i] = _mm512_loadu_si512(rows + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
      y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
      y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    // x[4 i + j] holds columns j, j + 4, j + 8, j + 12 of rows 4 i to 4 i + 3.
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
      x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
      x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
      x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
      x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i a = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), b = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88);
      const __m512i c = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd), d = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);
      _mm512_storeu_si512(out + j * out_stride, _mm512_shuffle_i32x4(a, b, 0x88));
      _mm512_storeu_si512(out + (8 + j) * out_stride, _mm512_shuffle_i32x4(a, b, 0xdd));
      _mm512_storeu_si512(out + (4 + j) * out_stride, _mm512_shuffle_i32x4(c, d, 0x88));
      _mm512_storeu_si512(out + (12 + j) * out_stride, _mm512_shuffle_i32x4(c, d, 0xdd));
    }
  }
};

}  // namespace
}  // namespace sqb
