// vpmaddwd on 256 bits and an addition: eight int32 sums of two products of int16. Exact.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sqb {
namespace {

struct Avx2Tile16 {
  static constexpr bool kFused = false;

  static inline void transpose_pairs(const int16_t* rows, ptrdiff_t stride, int16_t* out, ptrdiff_t out_stride) {
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j) std::memcpy(out + j * out_stride + 2 * i, rows + i * stride + 2 * j, 4);
  }

  template <int R, int V>
  static void sums16(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, int steps, int32_t* out) {
    // Rows in halves and vectors one by one, so that sums stay in the sixteen registers.
    for (int v = 0; v < V; ++v) {
      if constexpr (R > 3) {
        part<3>(a, a_stride, b + 32 * v, 32 * V, steps, out + 16 * v, 16 * V);
        part<R - 3>(a + 3 * a_stride, a_stride, b + 32 * v, 32 * V, steps, out + 3 * 16 * V + 16 * v, 16 * V);
      } else {
        part<R>(a, a_stride, b + 32 * v, 32 * V, steps, out + 16 * v, 16 * V);
      }
    }
  }

  template <int R>
  static void part(const int16_t* a, ptrdiff_t a_stride, const int16_t* b, ptrdiff_t b_step, int steps, int32_t* out, int width) {
    __m256i c[R][2];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) c[r][0] = c[r][1] = _mm256_setzero_si256();
    for (int k = 0; k < steps; ++k) {
      const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
      const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 16));
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        int32_t two;
        std::memcpy(&two, a + r * a_stride, 4);
        const __m256i x = _mm256_set1_epi32(two);
        c[r][0] = _mm256_add_epi32(c[r][0], _mm256_madd_epi16(w0, x));
        c[r][1] = _mm256_add_epi32(c[r][1], _mm256_madd_epi16(w1, x));
      }
      a += 2;
      b += b_step;
    }
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * width), c[r][0]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * width + 8), c[r][1]);
    }
  }
};

}  // namespace
}  // namespace sqb
