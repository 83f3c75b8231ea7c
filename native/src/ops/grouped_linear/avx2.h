// Without VNNI: weights and activations widened to int16, vpmaddwd and an addition. (vpmaddubsw would be twice as
// wide, but its int16 sums saturate.) Each sum has two halves, of channels k, k + 1 and k + 2, k + 3, joined at the end.
// A vector holds four output channels; three rows by four vectors. Exact.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sqb {
namespace {

struct Avx2Tile {
  static constexpr bool kFused = false;
  static constexpr int rows(int) { return 3; }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    for (int v = 0; v < V; ++v) part<R>(a, a_stride, b + 64 * v, 64 * V, steps, start, full, out, 16 * v, 16 * V);
  }

  template <int R>
  static void part(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_step, int steps, const int32_t* start,
                   bool full, int32_t* out, int column, int width) {
    __m256i c[R][4];
#pragma GCC unroll 3
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) c[r][v] = _mm256_setzero_si256();
    for (int k = 0; k < steps; ++k) {
      __m256i x[R];
#pragma GCC unroll 3
      for (int r = 0; r < R; ++r) {
        int32_t four;
        std::memcpy(&four, a + r * a_stride, 4);
        x[r] = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
      }
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const __m256i w = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 16 * v)));
#pragma GCC unroll 3
        for (int r = 0; r < R; ++r) c[r][v] = _mm256_add_epi32(c[r][v], _mm256_madd_epi16(w, x[r]));
      }
      a += 4;
      b += b_step;
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < 4; v += 2) {
        // hadd works within halves of 128 bits: channels 0 1 | 4 5 | 2 3 | 6 7 in pairs of 64 bits.
        const __m256i pairs = _mm256_hadd_epi32(c[r][v], c[r][v + 1]);
        __m256i sum = _mm256_permute4x64_epi64(pairs, 0xd8);
        const int at = column + 4 * v;
        sum = _mm256_add_epi32(sum, full ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + r * width + at))
                                         : _mm256_set1_epi32(start[r]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * width + at), sum);
      }
  }
};

}  // namespace
}  // namespace sqb
