// vpdpbusd on 256 bits: eight int32 sums of four products, unsigned weights (w + 128) by signed activations.
// Sixteen registers: three rows by four vectors of eight sums, three activations, one weight. A panel's 16-wide vectors
// are two of eight, so a tile takes half of a panel of 64 at a time. Exact.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sqb {
namespace {

struct AvxVnniTile {
  static constexpr bool kFused = false;
  static constexpr int rows(int vectors) { return vectors == 1 ? 6 : 3; }

  template <int R, int V>
  static void sums(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, int steps, const int32_t* start, bool full,
                   int32_t* out) {
    constexpr int at_once = V >= 2 ? 2 : 1;
    int v = 0;
    for (; v + at_once <= V; v += at_once) part<R, 2 * at_once>(a, a_stride, b + 64 * v, 64 * V, steps, start, full, out, 16 * v, 16 * V);
    if (v < V) part<R, 2>(a, a_stride, b + 64 * v, 64 * V, steps, start, full, out, 16 * v, 16 * V);
  }

  // H vectors of eight sums, from output channel `column` of `width` on.
  template <int R, int H>
  static void part(const int8_t* a, ptrdiff_t a_stride, const uint8_t* b, ptrdiff_t b_step, int steps, const int32_t* start,
                   bool full, int32_t* out, int column, int width) {
    __m256i c[R][H];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h)
        c[r][h] = full ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(start + r * width + column + 8 * h))
                       : _mm256_set1_epi32(start[r]);
    for (int k = 0; k < steps; ++k) {
      __m256i x[R];
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        int32_t four;
        std::memcpy(&four, a + r * a_stride, 4);
        x[r] = _mm256_set1_epi32(four);
      }
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h) {
        const __m256i w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * h));
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) c[r][h] = _mm256_dpbusd_avx_epi32(c[r][h], w, x[r]);
      }
      a += 4;
      b += b_step;
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int h = 0; h < H; ++h)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * width + column + 8 * h), c[r][h]);
  }
};

}  // namespace
}  // namespace sqb
